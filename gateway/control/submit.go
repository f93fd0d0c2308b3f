package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	controlv1 "github.com/weighbridge/weighbridge/proto/weighbridge/control/v1"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// ErrMixed means that a policy was submitted beside other statements: submit it alone, with all of its bundles.
var ErrMixed = errors.New("a policy is submitted alone: its bundles, and nothing else")

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
	switch {
	case errors.Is(err, ErrMixed):
		return nil, status.Error(codes.InvalidArgument, err.Error())
	case errors.Is(err, trust.ErrRefused), errors.Is(err, trust.ErrMalformed):
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	case err != nil: // it could not be done, which is no answer
		return nil, status.Error(codes.Internal, err.Error())
	}
	for _, decision := range []trust.Decision{before, after} {
		for name := range decision.Channels {
			res.Channels[name] = change(before.Channels[name], after.Channels[name])
		}
	}
	res.Notes = notes(bundles, after)
	return res, nil
}

// notes says of each statement that counts for nothing on any channel why it does not.
func notes(bundles []*statement.Signed, after trust.Decision) (lines []string) {
	for _, b := range bundles {
		if b.PredicateType() == trust.PolicyType {
			continue
		}
		counts, why := false, map[string]bool{}
		for name, c := range after.Channels {
			for _, r := range c.Reasons {
				switch {
				case r.Statement != b.ID():
				case r.Counted:
					counts = true
				case r.Rule != trust.RuleScope:
					why[fmt.Sprintf("%s: %s: %s", name, r.Rule, r.Why)] = true
				}
			}
		}
		if !counts && len(why) > 0 {
			lines = append(lines, fmt.Sprintf("statement %s counts for nothing now: %s", b.ID(), strings.Join(slices.Sorted(maps.Keys(why)), "; ")))
		}
	}
	return lines
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
