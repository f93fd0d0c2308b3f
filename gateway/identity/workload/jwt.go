package workload

import (
	"context"
	"slices"

	pb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
)

// FetchJWTSVID implements the Workload API.
func (s *Server) FetchJWTSVID(ctx context.Context, req *pb.JWTSVIDRequest) (*pb.JWTSVIDResponse, error) {
	if err := asked(ctx); err != nil {
		return nil, err
	}
	if len(req.GetAudience()) == 0 || slices.Contains(req.GetAudience(), "") {
		return nil, status.Error(codes.InvalidArgument, "audience must be specified")
	}
	now, _ := s.current()
	if now == nil || now.token == nil {
		return nil, errNoIdentity
	}
	res := &pb.JWTSVIDResponse{}
	for _, svid := range now.svids.GetSvids() {
		if want := req.GetSpiffeId(); want != "" && want != svid.GetSpiffeId() {
			continue
		}
		id, err := spiffeid.FromString(svid.GetSpiffeId())
		if err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
		token, err := now.token(id, req.GetAudience())
		if err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
		res.Svids = append(res.Svids, &pb.JWTSVID{SpiffeId: svid.GetSpiffeId(), Svid: token, Hint: svid.GetHint()})
	}
	if len(res.GetSvids()) == 0 {
		return nil, errNoIdentity
	}
	return res, nil
}

// ValidateJWTSVID implements the Workload API.
func (s *Server) ValidateJWTSVID(ctx context.Context, req *pb.ValidateJWTSVIDRequest) (*pb.ValidateJWTSVIDResponse, error) {
	if err := asked(ctx); err != nil {
		return nil, err
	}
	if req.GetAudience() == "" || req.GetSvid() == "" {
		return nil, status.Error(codes.InvalidArgument, "audience and svid must be specified")
	}
	now, _ := s.current()
	if now == nil {
		return nil, errNoIdentity
	}
	svid, err := jwtsvid.ParseAndValidate(req.GetSvid(), now.authorities, []string{req.GetAudience()})
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	claims, err := structpb.NewStruct(svid.Claims)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	return &pb.ValidateJWTSVIDResponse{SpiffeId: svid.ID.String(), Claims: claims}, nil
}
