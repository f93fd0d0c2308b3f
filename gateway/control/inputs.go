package control

import (
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "github.com/weighbridge/weighbridge/proto/weighbridge/control/v1"
	"github.com/weighbridge/weighbridge/verifier/store"
)

// Inputs implements the Control service. Whoever may see the status may have them: the status is what they decide, and
// to know why it is so takes no less.
func (s *server) Inputs(_ *controlv1.InputsRequest, stream grpc.ServerStreamingServer[controlv1.InputsResponse]) error {
	in, err := s.catalog.Snapshot()
	if err != nil {
		return status.Error(codes.Unavailable, err.Error())
	}
	floor, err := store.FormatFloor(in.Floor)
	if err != nil {
		return status.Error(codes.Internal, fmt.Sprintf("write floor: %v", err))
	}
	basis := &controlv1.Basis{Policy: in.Policy, Floor: floor, Time: timestamppb.New(in.Time)}
	if err := stream.Send(&controlv1.InputsResponse{Part: &controlv1.InputsResponse_Basis{Basis: basis}}); err != nil {
		return err
	}
	for _, one := range in.Statements {
		if err := stream.Send(&controlv1.InputsResponse{Part: &controlv1.InputsResponse_Statement{Statement: one.Bundle()}}); err != nil {
			return err
		}
	}
	return nil
}
