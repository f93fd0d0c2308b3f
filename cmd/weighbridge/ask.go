package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/grpc"

	"github.com/weighbridge/weighbridge/gateway/control"
	controlv1 "github.com/weighbridge/weighbridge/proto/weighbridge/control/v1"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// inputsTimeout is for all inputs of a gateway on this machine, which reads the statements of years for it.
const inputsTimeout = 2 * time.Minute

// ask takes the inputs from a gateway; what they decide is worked out here. So the gateway is believed in what it alone
// can know, its floor and its time, and in that it withholds nothing; and without --root in what the policy is.
func (o *decideFlags) ask(ctx context.Context, s streams, what string, statements bool) (in inputs, err error) {
	if err := o.onlyServer(); err != nil {
		return in, fmt.Errorf("%s: %w", what, err)
	}
	at, err := parseTime(o.at)
	if err != nil {
		return in, fmt.Errorf("%s: --at: %w", what, err)
	}
	anchor, err := o.anchor()
	if err != nil {
		return in, fmt.Errorf("%s: %w", what, err)
	}
	conn, err := dialControl(o.server)
	if err != nil {
		return in, withHint(fmt.Errorf("%s: %w", what, err), controlHint)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, inputsTimeout)
	defer cancel()
	stream, err := controlv1.NewControlClient(conn).Inputs(ctx, &controlv1.InputsRequest{}, grpc.MaxCallRecvMsgSize(control.MaxAnswer))
	var first *controlv1.InputsResponse
	if err == nil {
		first, err = stream.Recv()
	}
	if err != nil {
		return in, withHint(fmt.Errorf("%s: %w", what, controlError(o.server, err)), controlHint)
	}
	if in, err = o.basis(anchor, what, first.GetBasis()); err != nil {
		return in, err
	}
	if len(o.roots) == 0 {
		fmt.Fprintf(s.err, "weighbridge: %s: without --root the policy is the gateway's word: version %d, %s\n", what, in.policy.Version(), in.policy.Digest())
	}
	if o.at != atNow && o.at != "" {
		in.now = at
	}
	if statements {
		if in.set, err = receive(stream, maxAsked, maxAskedBytes); err != nil {
			return in, fmt.Errorf("%s: %w", what, controlError(o.server, err))
		}
	}
	return in, nil
}

// onlyServer names every flag that a gateway's own inputs leave no room for.
func (o *decideFlags) onlyServer() error {
	var extra []string
	for _, f := range []struct {
		name  string
		given bool
	}{
		{"--policy", o.policy != ""},
		{"--statements", len(o.statements) > 0},
		{"--floor", o.floor != ""},
	} {
		if f.given {
			extra = append(extra, f.name)
		}
	}
	switch {
	case len(extra) > 0:
		err := fmt.Errorf("%s beside --server: the gateway's own are taken", strings.Join(extra, ", "))
		return withHint(err, "leave one or the other out")
	case o.threshold != 0 && len(o.roots) == 0:
		return errors.New("--root-threshold without --root")
	}
	return nil
}

// basis reads all but the statements.
func (o *decideFlags) basis(anchor trust.Anchor, what string, b *controlv1.Basis) (in inputs, err error) {
	if err := b.GetTime().CheckValid(); err != nil {
		return in, fmt.Errorf("%s: server %s: read its time: %w", what, o.server, err)
	}
	in.now = b.GetTime().AsTime()
	if in.floor, err = store.ParseFloor(b.GetFloor()); err != nil {
		return in, fmt.Errorf("%s: server %s: read its floor: %w", what, o.server, err)
	}
	bundles, err := policyBundles(o.server, b.GetPolicy())
	if err != nil {
		return in, err
	}
	if len(o.roots) == 0 {
		in.policy, err = trust.ParsePolicy(bundles[0], newKeyless)
	} else {
		// Not against the floor: it comes from the gateway, and whoever made it up could name any policy as accepted.
		in.policy, err = anchor.Accept(bundles, nil, nil)
	}
	if err != nil {
		return in, refused(o.server, err)
	}
	if in.policy.Digest() != in.floor.PolicyDigest {
		return in, refused(o.server, fmt.Errorf("the gateway sent policy %s, but its floor accepted %s", in.policy.Digest(), in.floor.PolicyDigest))
	}
	return in, nil
}

// receive takes the statements in. One that can't be read ends it, for what it says could be a withdrawal.
func receive(stream grpc.ServerStreamingClient[controlv1.InputsResponse], most int, mostBytes int64) (set []*statement.Signed, err error) {
	var size int64
	for {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return set, nil
		} else if err != nil {
			return nil, err
		}
		data := part.GetStatement()
		if size += int64(len(data)); len(set) == most || size > mostBytes {
			return nil, fmt.Errorf("it sends more than %d statements, or more than %d bytes of them", most, mostBytes)
		}
		one, err := statement.Parse(data)
		if err != nil {
			return nil, fmt.Errorf("statement %d: %w", len(set)+1, err)
		}
		set = append(set, one)
	}
}
