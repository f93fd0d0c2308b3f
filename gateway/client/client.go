// Package client asks a gateway with SPIFFE mTLS, for applications in Go: over gRPC by a [Client], or over HTTP by a
// [Transport], which other clients can be given.
//
// The one rule: nothing is sent before the server has shown the SPIFFE ID that is expected of it: a member of our own
// trust domain, or the very one that [Options] name. A [Transport] is told by an authorizer, which Options make, too.
package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/weighbridge/weighbridge/gateway/identity"
	pb "github.com/weighbridge/weighbridge/proto/weighbridge/inference/v1"
)

// Options say who we are, and whom we expect. The zero value takes the identity from the Workload API at
// SPIFFE_ENDPOINT_SOCKET.
type Options struct {
	Identity identity.Config  // where our identity comes from
	Source   *identity.Source // in place of that: an identity that is open, and stays so
	ServerID spiffeid.ID      // of the server; zero: any member of our trust domain
}

// Authorize returns what decides whether a server is the expected one.
func (o Options) Authorize(us *identity.Source) tlsconfig.Authorizer {
	if !o.ServerID.IsZero() {
		return tlsconfig.AuthorizeID(o.ServerID)
	}
	return tlsconfig.AuthorizeMemberOf(us.TrustDomain())
}

// A Client is a connection to a gateway. It renews its SVID as long as it is open; its methods may be called concurrently.
type Client struct {
	pb.InferenceClient
	conn *grpc.ClientConn
	us   *identity.Source // nil: it was lent to us
}

// Dial waits for an identity, and connects to a gateway at HOST:PORT with the first call.
func Dial(ctx context.Context, address string, o Options) (*Client, error) {
	us := o.Source
	c := &Client{}
	if us == nil {
		var err error
		if us, err = identity.Open(ctx, o.Identity); err != nil {
			return nil, err
		}
		c.us = us
	}
	var err error
	c.conn, err = grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(us.ClientTLS(o.Authorize(us), "h2"))))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("server %s: %w", address, err), c.Close())
	}
	c.InferenceClient = pb.NewInferenceClient(c.conn)
	return c, nil
}

// Conn is the connection, for clients of other services: health, or the Open Inference Protocol.
func (c *Client) Conn() grpc.ClientConnInterface { return c.conn }

// Close ends the connection and lets the identity go.
func (c *Client) Close() error {
	var errs []error
	if c.conn != nil {
		errs = append(errs, c.conn.Close())
	}
	if c.us != nil {
		errs = append(errs, c.us.Close())
	}
	return errors.Join(errs...)
}

// Texts are the pieces of an answer's text, of Chat or Generate. The last pair has an error if the answer did not come to
// its end: what came before is incomplete then. Who stops before the end must cancel the context of the call.
func Texts[T any, M interface {
	*T
	GetText() string
}](stream grpc.ServerStreamingClient[T]) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for {
			m, err := stream.Recv()
			switch {
			case errors.Is(err, io.EOF):
				return
			case err != nil:
				yield("", err)
				return
			case M(m).GetText() != "" && !yield(M(m).GetText(), nil):
				return
			}
		}
	}
}
