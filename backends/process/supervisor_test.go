package process_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/process"
)

var (
	errDied   = errors.New("it died")
	errLaunch = errors.New("it can't be launched")
	errReady  = errors.New("it can't load")
)

// An instance is a runtime without a process.
type instance struct {
	loading time.Duration
	bad     error // what Ready returns after loading
	once    sync.Once
	done    chan struct{}
	stopped bool
}

func (i *instance) Ready(ctx context.Context) error {
	select {
	case <-time.After(i.loading):
		return i.bad
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
func (i *instance) Done() <-chan struct{} { return i.done }
func (i *instance) Err() error            { <-i.done; return errDied }
func (i *instance) die()                  { i.once.Do(func() { close(i.done) }) }
func (i *instance) Stop(context.Context)  { i.stopped = true; i.die() }

// A plan says how launches go, one after another; after its end they go well.
type plan struct {
	launches []func() (*instance, error)
	made     []*instance
	released int
	at       []time.Time
}

func (p *plan) launch() (*instance, error) {
	p.at = append(p.at, time.Now())
	i := &instance{loading: time.Second, done: make(chan struct{})}
	if n := len(p.at) - 1; n < len(p.launches) {
		var err error
		if i, err = p.launches[n](); err != nil {
			return nil, err
		}
	}
	p.made = append(p.made, i)
	return i, nil
}

func (p *plan) supervisor() *process.Supervisor[*instance] {
	return process.NewSupervisor(process.SupervisorConfig[*instance]{
		Launch: p.launch, Release: func() { p.released++ }, StartTimeout: 10 * time.Second, Log: slog.New(slog.DiscardHandler),
		Restart: process.RestartPolicy{Max: 3, Window: time.Minute, Base: time.Second},
	})
}

// checkStopped checks what must hold once a supervisor has stopped or failed: no instance is left.
func (p *plan) checkStopped(t *testing.T, s *process.Supervisor[*instance], want backends.State) {
	t.Helper()
	if st := s.Status(); st.State != want {
		t.Errorf("state is %s, want %s", st.State, want)
	}
	for n, i := range p.made {
		if !i.stopped {
			t.Errorf("instance %d was not stopped", n)
		}
	}
	if started := len(p.at) > 0; started != (p.released == 1) {
		t.Errorf("released %d times after %d launches", p.released, len(p.at))
	}
	if _, ok := s.Peek(); ok {
		t.Error("an instance is still offered")
	}
}

// What no restart helps is not tried again.
func TestSupervisorKnowsWhatIsPermanent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plan{launches: []func() (*instance, error){
			func() (*instance, error) { return &instance{done: make(chan struct{})}, nil },
			func() (*instance, error) { return nil, errors.Join(process.ErrPermanent, errLaunch) },
		}}
		s := p.supervisor()
		if err := s.Start(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		p.made[0].die()
		time.Sleep(time.Hour)
		p.checkStopped(t, s, backends.Failed)
		if _, err := s.Acquire(t.Context()); !errors.Is(err, errLaunch) || len(p.at) != 2 {
			t.Errorf("Acquire() = %v after %d launches, want %v after 2", err, len(p.at), errLaunch)
		}
	})
}

// TestDo: what an instance did not see the next one is asked, and one that lives unreached is not waited for.
func TestDo(t *testing.T) {
	unreached := func(*instance) error { return process.ErrNotReached }
	tests := []struct {
		name string
		ask  func(first bool, i *instance) error
		want error
		asks int
	}{
		{"it answers", func(bool, *instance) error { return nil }, nil, 1},
		{"it refuses", func(bool, *instance) error { return errLaunch }, errLaunch, 1},
		{"it dies before it sees it", func(first bool, i *instance) error {
			if first {
				i.die()
				return unreached(i)
			}
			return nil
		}, nil, 2},
		{"it lives and can't be reached", func(_ bool, i *instance) error { return unreached(i) }, backends.ErrInterrupted, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &plan{}
				s := p.supervisor()
				if err := s.Start(t.Context(), nil); err != nil {
					t.Fatal(err)
				}
				asks := 0
				err := s.Do(t.Context(), func(i *instance) error {
					asks++
					return tt.ask(asks == 1, i)
				})
				if !errors.Is(err, tt.want) || asks != tt.asks {
					t.Errorf("Do() = %v after asking %d times, want %v after %d", err, asks, tt.want, tt.asks)
				}
				ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, errReady)
				defer cancel()
				if err := s.Do(ctx, unreached); !errors.Is(err, errReady) {
					t.Errorf("Do() = %v once its context has ended, want %v", err, errReady)
				}
				s.Stop(t.Context())
				if err := s.Do(t.Context(), unreached); !errors.Is(err, backends.ErrNotRunning) {
					t.Errorf("Do() = %v after Stop, want %v", err, backends.ErrNotRunning)
				}
			})
		})
	}
}

func TestSupervisorHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plan{}
		s := p.supervisor()
		if err := s.Start(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		for n := range 3 {
			i, err := s.Acquire(t.Context())
			if err != nil || i != p.made[n] {
				t.Fatalf("Acquire() = %v, %v; want instance %d", i, err, n)
			}
			i.die()
		}
		// Acquire never offers one that is dead, and waits for the next.
		last, err := s.Acquire(t.Context())
		if err != nil || last != p.made[3] {
			t.Fatalf("Acquire() = %v, %v; want the fourth instance", last, err)
		}
		if st := s.Status(); st.Restarts != 3 || st.Error != errDied.Error() || st.State != backends.Ready {
			t.Errorf("status is %+v, want 3 restarts and why", st)
		}
		for n, want := range []time.Duration{0, 1, 2} { // and a second of loading each
			if got := p.at[n+1].Sub(p.at[n]) - time.Second; got != want*time.Second {
				t.Errorf("restart %d came after %v, want %v", n+1, got, want*time.Second)
			}
		}
		// A fourth within the window is one too many.
		last.die()
		if _, err := s.Acquire(t.Context()); !errors.Is(err, backends.ErrFailed) || !errors.Is(err, errDied) {
			t.Errorf("Acquire() = %v, want ErrFailed with the reason", err)
		}
		synctest.Wait()
		p.checkStopped(t, s, backends.Failed)
		s.Stop(t.Context())
		p.checkStopped(t, s, backends.Failed)
	})
}

func TestSupervisorForgetsOldRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plan{}
		s := p.supervisor()
		if err := s.Start(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			i, err := s.Acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			i.die()
		}
		s.Stop(t.Context())
		p.checkStopped(t, s, backends.Stopped)
	})
}

func TestSupervisorCountsFailedRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		good := func() (*instance, error) { return &instance{done: make(chan struct{})}, nil }
		p := &plan{launches: []func() (*instance, error){
			good,
			func() (*instance, error) { return nil, errLaunch },
			func() (*instance, error) { return &instance{bad: errReady, done: make(chan struct{})}, nil },
			func() (*instance, error) { return &instance{loading: time.Hour, done: make(chan struct{})}, nil },
		}}
		s := p.supervisor()
		if err := s.Start(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		p.made[0].die()
		if _, err := s.Acquire(t.Context()); !errors.Is(err, backends.ErrFailed) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Acquire() = %v, want ErrFailed after the start timeout", err)
		}
		p.checkStopped(t, s, backends.Failed)
	})
}

func TestSupervisorStart(t *testing.T) {
	slow := func() (*instance, error) { return &instance{loading: time.Hour, done: make(chan struct{})}, nil }
	tests := []struct {
		name   string
		launch func() (*instance, error)
		during func(s *process.Supervisor[*instance], cancel func())
		want   []error
		state  backends.State
	}{
		{"can't be launched", func() (*instance, error) { return nil, errLaunch }, nil, []error{backends.ErrFailed, errLaunch}, backends.Failed},
		{"can't load", func() (*instance, error) { return &instance{bad: errReady, done: make(chan struct{})}, nil }, nil, []error{backends.ErrFailed, errReady}, backends.Failed},
		{"given up", slow, func(_ *process.Supervisor[*instance], cancel func()) { cancel() }, []error{backends.ErrFailed, context.Canceled}, backends.Failed},
		{"stopped", slow, func(s *process.Supervisor[*instance], _ func()) { s.Stop(context.Background()) }, []error{backends.ErrNotRunning}, backends.Stopped},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &plan{launches: []func() (*instance, error){tt.launch}}
				s := p.supervisor()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if tt.during != nil {
					go func() { time.Sleep(time.Second); tt.during(s, cancel) }()
				}
				err := s.Start(ctx, nil)
				for _, want := range tt.want {
					if !errors.Is(err, want) {
						t.Errorf("Start() = %v, want %v", err, want)
					}
				}
				synctest.Wait()
				p.checkStopped(t, s, tt.state)
				if err := s.Start(t.Context(), nil); !errors.Is(err, backends.ErrStarted) {
					t.Errorf("second Start() = %v, want ErrStarted", err)
				}
			})
		})
	}
}

func TestSupervisorStop(t *testing.T) {
	t.Run("before start", func(t *testing.T) {
		p := &plan{}
		s := p.supervisor()
		s.Stop(t.Context())
		s.Stop(t.Context())
		p.checkStopped(t, s, backends.Stopped)
		if err := s.Start(t.Context(), nil); !errors.Is(err, backends.ErrStarted) {
			t.Errorf("Start() after Stop = %v, want ErrStarted", err)
		}
	})
	t.Run("while restarting", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := &plan{}
			s := p.supervisor()
			if err := s.Start(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			p.made[0].die()
			synctest.Wait()
			if st := s.Status().State; st != backends.Restarting {
				t.Fatalf("state is %s, want restarting", st)
			}
			waiter := make(chan error)
			go func() { _, err := s.Acquire(context.Background()); waiter <- err }()
			synctest.Wait()
			s.Stop(t.Context())
			if err := <-waiter; !errors.Is(err, backends.ErrNotRunning) {
				t.Errorf("Acquire() = %v, want ErrNotRunning", err)
			}
			p.checkStopped(t, s, backends.Stopped)
		})
	})
	t.Run("while ready, from many", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			p := &plan{}
			s := p.supervisor()
			if err := s.Start(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			var all sync.WaitGroup
			for range 5 {
				all.Go(func() { s.Stop(t.Context()) })
			}
			all.Wait()
			p.checkStopped(t, s, backends.Stopped)
		})
	})
}
