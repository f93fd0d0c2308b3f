package gateway

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/gateway/access"
	"github.com/weighbridge/weighbridge/gateway/fair"
	"github.com/weighbridge/weighbridge/gateway/identity"
)

// errRevoked means that the rules have changed while a request was being answered, and none allows it any more.
var errRevoked = errors.New("the right was taken back")

// A visit is what a request holds on its way: a right, a slot, room within its caller's limits, and then a runtime's turn.
// Whatever a request asks a runtime for, it goes this way: [Gateway.enter], [visit.acquire], [visit.send], [visit.leave].
type visit struct {
	g        *Gateway
	o        *observation
	act      access.Act
	expected access.Tokens
	cancel   context.CancelCauseFunc
	pass     *access.Pass // nil: not let in yet
	endTurn  func()       // may be called more than once; nil: there is no turn yet
	undo     []func()     // of what was taken, in that order
	slow     *slowness    // of its caller; nil: nothing was sent yet
}

// visits are the requests in flight.
type visits struct {
	mu  sync.Mutex
	all map[*visit]struct{}
}

// enter lets a request in, or says why not. The context that it returns ends when the right does, or what shows the caller. The
// visit must be left.
func (g *Gateway) enter(ctx context.Context, o *observation, act access.Act, expected access.Tokens) (context.Context, *visit, error) {
	v := &visit{g: g, o: o, act: act, expected: expected, undo: make([]func(), 0, 8)}
	ctx, v.cancel = context.WithCancelCause(ctx)
	ended := time.AfterFunc(g.known(o.r.call), func() { v.cancel(identity.ErrExpired) })
	v.undo = append(v.undo, func() { ended.Stop(); v.cancel(nil) })
	// It is among the visits before the rules are asked: of rules that change meanwhile one of the two sees the new.
	g.visits.add(v)
	v.undo = append(v.undo, func() { g.visits.remove(v) })
	if err := v.enter(); err != nil {
		v.leave(err)
		return ctx, nil, err
	}
	return ctx, v, nil
}

func (v *visit) enter() error {
	if v.g.known(v.o.r.call) <= 0 {
		return identity.ErrExpired // while its body came
	}
	grants, err := v.g.access().Grants(v.act)
	if err != nil {
		return err
	}
	leave, err := v.g.slots.Enter(v.act.Caller.String())
	if err != nil {
		return &crowdedError{err: err}
	}
	v.undo = append(v.undo, leave)
	if v.pass, err = v.g.meter.Enter(v.act.Caller, grants, v.expected); err != nil {
		return err
	}
	rule := v.pass.Rule()
	v.o.rule = &rule
	return nil
}

// leave gives back all that a request holds that ended so, and charges what it used.
func (v *visit) leave(err error) {
	if v.pass != nil {
		v.pass.End(v.o.spent(v.expected, err))
	}
	for len(v.undo) > 0 {
		last := len(v.undo) - 1
		v.undo[last]()
		v.undo = v.undo[:last]
	}
}

// acquire returns what serves the channel, once it is the caller's turn there. Before it waits it asks suits whether the
// request does, and again of what comes to serve while it waits.
func (v *visit) acquire(ctx context.Context, suits func(ServingInfo) error) (Serving, error) {
	for {
		serving, err := v.g.catalog.Acquire(ctx, v.act.Channel)
		if err != nil {
			return nil, err
		}
		info := serving.Info()
		v.o.serving(info)
		if err := suits(info); err != nil {
			serving.Done()
			return nil, err
		}
		switch err := v.turn(ctx, serving); {
		case err == nil:
			// Whoever swaps the release waits for this: not before the last part was sent.
			v.undo = append(v.undo, serving.Done, v.endTurn)
			return serving, nil
		case errors.Is(err, fair.ErrClosed):
			serving.Done()
		default:
			serving.Done()
			return nil, err
		}
	}
}

// turn waits for the caller's turn.
func (v *visit) turn(ctx context.Context, serving Serving) (err error) {
	begun := time.Now()
	done := v.g.meters.waits(v.act.Channel)
	v.endTurn, err = serving.Enter(ctx, v.act.Caller.String())
	done()
	v.o.wait += time.Since(begun)
	crowded := new(fair.RefusedError)
	switch {
	case err == nil:
		v.o.asked = true
		return nil
	case errors.As(err, &crowded):
		return &crowdedError{err: err, channel: v.act.Channel}
	case ctx.Err() != nil:
		return ended(ctx, err)
	}
	return err
}

// send hands a part of an answer on. A caller who is slow to take it does not hold the others up: its turn ends, since by
// then the runtime has long gone on.
func (v *visit) send(c backends.Chunk, to answer) error {
	if v.slow == nil {
		v.slow = watchSlow(v.endTurn)
		v.undo = append(v.undo, v.slow.stop)
	}
	v.slow.since.Store(time.Now().UnixNano())
	defer v.slow.since.Store(0)
	return to.send(c)
}

// revoked is err, or if the right ended while the request ran, that.
func revoked(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, errRevoked) {
		return cause
	}
	return err
}

// Recheck ends every request in flight that the rules in force allow no more. It is called when they have changed. What a
// rule says of the time was asked when the request came, and is not asked again.
func (g *Gateway) Recheck() {
	rules := g.access()
	g.visits.mu.Lock()
	defer g.visits.mu.Unlock()
	for v := range g.visits.all {
		if err := rules.Check(v.act); err != nil {
			v.cancel(fmt.Errorf("%w: %w", errRevoked, err))
		}
	}
}

func (s *visits) add(v *visit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[*visit]struct{}{}
	}
	s.all[v] = struct{}{}
}

func (s *visits) remove(v *visit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, v)
}
