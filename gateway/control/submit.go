package control

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	controlv1 "github.com/weighbridge/weighbridge/proto/weighbridge/control/v1"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// Submit implements the Control service. All bundles are read before any is taken in.
func (s *server) Submit(ctx context.Context, req *controlv1.SubmitRequest) (*controlv1.SubmitResponse, error) {
	switch n := len(req.GetBundles()); {
	case n == 0:
		return nil, status.Error(codes.InvalidArgument, "no statement was submitted")
	case n > maxSubmitted:
		return nil, status.Errorf(codes.InvalidArgument, "%d statements were submitted, more than %d at once", n, maxSubmitted)
	}
	res := &controlv1.SubmitResponse{Channels: map[string]*controlv1.Change{}}
	var bundles []*statement.Signed
	for i, data := range req.GetBundles() {
		one, err := statement.Parse(data)
		if err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "statement %d: %v", i+1, err)
		}
		bundles = append(bundles, one)
		res.Statements = append(res.Statements, string(one.ID()))
	}
	before, after, err := s.mailbox.Submit(ctx, bundles, req.GetDryRun())
	if err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	for _, decision := range []trust.Decision{before, after} {
		for name := range decision.Channels {
			res.Channels[name] = change(before.Channels[name], after.Channels[name])
		}
	}
	return res, nil
}

func change(before, after trust.Channel) *controlv1.Change {
	c := &controlv1.Change{Before: string(before.Serve), After: string(after.Serve)}
	switch {
	case after.Frozen != "":
		c.Why = "what serves is frozen: it may go on where it serves"
	case len(after.Pending) > 0:
		c.Why = fmt.Sprintf("epoch %d is pending: %s", after.Pending[0].Epoch, after.Pending[0].Missing[0])
	case after.Serve == "" && len(after.Missing) > 0:
		c.Why = after.Missing[0].String()
	case after.Fallback:
		c.Why = "an older release, in place of one that was withdrawn or lost its quorum"
	}
	return c
}
