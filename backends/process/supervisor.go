package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/weighbridge/weighbridge/backends"
)

// ErrPermanent is in the error of a launch that would fail the same way each time: it is not repeated.
var ErrPermanent = errors.New("no restart helps")

// ErrNotReached is in the error of a request that an instance could not see, so that sending it to another repeats nothing.
var ErrNotReached = errors.New("runtime was not reached")

// An Instance is one launch of a runtime, such as a [Process] with its socket.
type Instance interface {
	// Ready returns nil once the instance can serve. If the instance ends first it says why, if ctx does, its cause.
	Ready(ctx context.Context) error

	// Done is closed when the instance has ended by itself or was stopped; Err says why, once it has.
	Done() <-chan struct{}
	Err() error

	// Stop ends the instance, gently until ctx ends, and lets go all it holds. It is called once, also when the
	// instance has ended by itself.
	Stop(ctx context.Context)
}

// SupervisorConfig describes a [Supervisor]. Launch, StartTimeout and Log are required.
type SupervisorConfig[T Instance] struct {
	Launch       func() (T, error) // starts an instance; called again for each restart
	Release      func()            // called once, after the last instance was stopped; may be nil
	StartTimeout time.Duration     // of a restart; the first start has the limit of Start's context
	Restart      RestartPolicy     // zero: DefaultRestart
	Log          *slog.Logger
}

// A Supervisor keeps one instance running and implements the states of a [backends.Backend]. One goroutine owns the
// instance and moves the states on; all others see a snapshot, and are woken when it changes.
type Supervisor[T Instance] struct {
	cfg  SupervisorConfig[T]
	done chan struct{} // closed when the goroutine has ended, or never will be started

	mu         sync.Mutex
	view       view[T]
	changed    chan struct{}      // closed, and replaced, at each change of view
	term, kill context.CancelFunc // ask the goroutine to end, and to waste no more time on it; nil before Start
}

// A view is what others see of the state.
type view[T Instance] struct {
	state    backends.State
	since    time.Time
	restarts int
	err      error
	instance T // in state Ready
}

// NewSupervisor returns a Supervisor that is not started.
func NewSupervisor[T Instance](c SupervisorConfig[T]) *Supervisor[T] {
	if c.Restart == (RestartPolicy{}) {
		c.Restart = DefaultRestart
	}
	s := &Supervisor[T]{cfg: c, done: make(chan struct{}), changed: make(chan struct{})}
	s.view = view[T]{state: backends.None, since: time.Now()}
	return s
}

// Start launches the first instance and returns when it is ready. Before that it calls prepare, if it is not nil, which
// makes what all launches need and Release lets go; if it fails the supervisor has failed.
func (s *Supervisor[T]) Start(ctx context.Context, prepare func(context.Context) error) error {
	s.mu.Lock()
	if s.view.state != backends.None {
		s.mu.Unlock()
		return backends.ErrStarted
	}
	s.publish(func(v *view[T]) { v.state = backends.Loading })
	term, termCancel := context.WithCancel(context.Background()) //nolint:gosec // Stop calls it
	kill, killCancel := context.WithCancel(context.Background()) //nolint:gosec // Stop calls it
	s.term, s.kill = termCancel, killCancel
	s.mu.Unlock()

	first, cancel := context.WithCancelCause(term)
	defer cancel(nil)
	defer context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })()
	go s.run(first, term, kill, prepare)
	_, err := s.Acquire(context.Background()) // not ctx: run ends it when ctx ends, and then nothing is left behind
	return err
}

// Acquire returns the instance that serves now. While one is being started, or has died unnoticed, it waits.
func (s *Supervisor[T]) Acquire(ctx context.Context) (T, error) {
	for {
		s.mu.Lock()
		v, changed := s.view, s.changed
		s.mu.Unlock()
		var none T
		switch v.state {
		case backends.Ready:
			select {
			case <-v.instance.Done(): // run is about to say so
			default:
				return v.instance, nil
			}
		case backends.None, backends.Stopped:
			return none, backends.ErrNotRunning
		case backends.Failed:
			return none, fmt.Errorf("%w: %w", backends.ErrFailed, v.err)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return none, fmt.Errorf("wait for runtime: %w", context.Cause(ctx))
		}
	}
}

// Do passes a request to the instance that serves now. One that died before it could see the request is followed by
// another, which answers it.
func (s *Supervisor[T]) Do(ctx context.Context, ask func(T) error) error {
	for {
		inst, err := s.Acquire(ctx)
		if err != nil {
			return err
		}
		err = ask(inst)
		if !errors.Is(err, ErrNotReached) {
			return err
		}
		alive := time.NewTimer(deathTimeout)
		select {
		case <-inst.Done():
			alive.Stop()
		case <-alive.C:
			return fmt.Errorf("%w: it runs, but can't be reached: %w", backends.ErrInterrupted, err)
		case <-ctx.Done():
			alive.Stop()
			return context.Cause(ctx)
		}
	}
}

// Peek returns the instance that serves now, if any.
func (s *Supervisor[T]) Peek() (instance T, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.view.instance, s.view.state == backends.Ready
}

// Status returns what the supervisor knows; the runtime's own fields are left empty.
func (s *Supervisor[T]) Status() backends.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := backends.Status{State: s.view.state, Since: s.view.since, Restarts: s.view.restarts}
	if s.view.err != nil {
		st.Error = s.view.err.Error()
	}
	return st
}

// Stop ends the instance and every attempt to start one, and returns when all is gone.
func (s *Supervisor[T]) Stop(ctx context.Context) {
	s.mu.Lock()
	if s.view.state == backends.None {
		s.publish(func(v *view[T]) { v.state = backends.Stopped })
		s.term, s.kill = func() {}, func() {}
		close(s.done)
	}
	term, kill := s.term, s.kill
	s.mu.Unlock()
	defer kill()
	term()
	select {
	case <-s.done:
	case <-ctx.Done():
		kill()
		<-s.done
	}
}

// run is the goroutine that owns the instance: until term ends, and without patience once kill does. first bounds the
// first launch, which is not repeated: nothing depends on it yet, and its caller learns why it failed.
func (s *Supervisor[T]) run(first, term, kill context.Context, prepare func(context.Context) error) {
	defer close(s.done)
	var inst T
	var err error
	if prepare != nil {
		err = prepare(first)
	}
	if err == nil {
		inst, err = s.launch(first, kill)
	}
	if err != nil {
		s.end(term, err)
		return
	}
	err = s.watch(term, kill, inst)
	for restarts := []time.Time(nil); ; {
		now := time.Now()
		delay, again := s.cfg.Restart.next(restarts, now)
		if !again || term.Err() != nil || errors.Is(err, ErrPermanent) {
			s.end(term, err)
			return
		}
		restarts = append(restarts, now)
		s.set(func(v *view[T]) { v.state, v.err, v.restarts = backends.Restarting, err, len(restarts) })
		s.cfg.Log.Warn("runtime died, restarting it", "err", err, "restarts", len(restarts), "delay", delay)
		if inst, err = s.relaunch(term, kill, delay); err == nil {
			err = s.watch(term, kill, inst)
		}
	}
}

// end enters the last state, when nothing is left that would need what Release lets go.
func (s *Supervisor[T]) end(term context.Context, err error) {
	if s.cfg.Release != nil {
		s.cfg.Release()
	}
	if term.Err() != nil {
		s.set(func(v *view[T]) { v.state = backends.Stopped })
		return
	}
	s.set(func(v *view[T]) { v.state, v.err = backends.Failed, err })
	s.cfg.Log.Error("runtime failed", "err", err)
}

// launch starts an instance and waits until it can serve.
func (s *Supervisor[T]) launch(ctx, kill context.Context) (T, error) {
	var none T
	if ctx.Err() != nil {
		return none, context.Cause(ctx)
	}
	inst, err := s.cfg.Launch()
	if err != nil {
		return none, err
	}
	if err := inst.Ready(ctx); err != nil {
		inst.Stop(kill)
		return none, err
	}
	return inst, nil
}

func (s *Supervisor[T]) relaunch(term, kill context.Context, delay time.Duration) (T, error) {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-term.Done():
	}
	ctx, cancel := context.WithTimeout(term, s.cfg.StartTimeout)
	defer cancel()
	return s.launch(ctx, kill)
}

// watch lets an instance serve until it ends, and returns why it did.
func (s *Supervisor[T]) watch(term, kill context.Context, inst T) error {
	defer inst.Stop(kill)
	s.set(func(v *view[T]) { v.state, v.instance = backends.Ready, inst })
	select {
	case <-inst.Done():
		return inst.Err()
	case <-term.Done():
		// Others must see this before the instance ends, so that no new request reaches one that does.
		s.set(func(v *view[T]) { v.state = backends.Stopped })
		return nil
	}
}

func (s *Supervisor[T]) set(change func(*view[T])) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.publish(change)
}

// publish needs mu.
func (s *Supervisor[T]) publish(change func(*view[T])) {
	old := s.view.state
	var none T
	s.view.instance = none
	change(&s.view)
	if s.view.state != old {
		s.view.since = time.Now()
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

// A RestartPolicy bounds restarts: at most Max of them within Window, the first at once and the n-th of them Base·2ⁿ⁻²
// after the death.
type RestartPolicy struct {
	Max    int
	Window time.Duration
	Base   time.Duration
}

// DefaultRestart heals what happens once in a while, and within seconds gives up on what happens each time.
var DefaultRestart = RestartPolicy{Max: 5, Window: 10 * time.Minute, Base: 100 * time.Millisecond}

// next says how long after now to restart, given the earlier restarts, or that there were too many.
func (p RestartPolicy) next(restarts []time.Time, now time.Time) (delay time.Duration, again bool) {
	recent := 0
	for _, t := range restarts {
		if now.Sub(t) < p.Window {
			recent++
		}
	}
	if recent >= p.Max {
		return 0, false
	}
	if recent == 0 {
		return 0, true
	}
	return p.Base << (recent - 1), true
}
