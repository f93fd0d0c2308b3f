package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/weighbridge/weighbridge/benchmarks/site"
	"github.com/weighbridge/weighbridge/gateway/identity"
	pb "github.com/weighbridge/weighbridge/proto/weighbridge/inference/v1"
)

// An rpcCaller asks over gRPC, as a site.Caller does over HTTP. All its requests share a connection.
type rpcCaller struct {
	id   *identity.Source
	conn *grpc.ClientConn
}

func newRPC(ctx context.Context, g *site.Gateway) (*rpcCaller, error) {
	address, err := g.Address(ctx, "grpc")
	if err != nil {
		return nil, err
	}
	id, err := g.Identity(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(id.ClientTLS(tlsconfig.AuthorizeMemberOf(id.TrustDomain())))))
	if err != nil {
		return nil, errors.Join(err, id.Close())
	}
	return &rpcCaller{id, conn}, nil
}

// Close lets its connection and its identity go.
func (c *rpcCaller) Close() {
	c.conn.Close()
	c.id.Close()
}

// Ask returns once the answer is there. Its answers are always streams.
func (c *rpcCaller) Ask(ctx context.Context, q site.Question) (site.Answer, error) {
	limit := int32(q.MaxTokens)
	stream, err := pb.NewInferenceClient(c.conn).Chat(ctx, &pb.ChatRequest{
		Model: site.Channel, Messages: []*pb.Message{{Role: "user", Content: q.Text}}, MaxTokens: &limit,
	})
	if err != nil {
		return site.Answer{}, err
	}
	var text strings.Builder
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return site.Answer{Status: http.StatusOK, Text: text.String()}, nil
		}
		if err != nil {
			return site.Answer{}, err
		}
		text.WriteString(part.GetText())
	}
}
