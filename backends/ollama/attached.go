package ollama

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/process"
	"github.com/weighbridge/weighbridge/verifier/seal"
)

// AttachedConfig describes an [Attached].
type AttachedConfig struct {
	Address Address      // of an Ollama that others started
	Owner   string       // [A-Za-z0-9]…: this gateway among all who use that Ollama, the same in each of its lives
	Log     *slog.Logger // gets what becomes of the model there
}

// An Attached is a [backends.Backend] that has an Ollama answer which others started: it is handed the verified weights,
// and its own word is all that there is for having them still. It is asked for that word before it serves, every few
// seconds and after each error; once it says otherwise the backend has failed.
//
// It is nobody's here to restart: while it can't be reached the backend is restarting, and looks for it again.
type Attached struct {
	cfg AttachedConfig
	sup *process.Supervisor[*attachment]

	// Of the supervisor's goroutine.
	guest *guest // nil before there was one
}

var _ backends.Backend = (*Attached)(nil)

// unconfined is what is open where a runtime was not started here.
var unconfined = backends.Sandbox{Level: backends.SandboxNone, Missing: []string{
	"it was not started here: nothing is known of its binary, nor of what else it reads and reaches",
	"its files are its own: it looks at no digest when it loads them",
	"whoever reaches it can replace, unload and remove the model, and shares its queue and its prompt cache: how soon an answer comes says what others ask",
}}

// NewAttached returns an Attached that is not started.
func NewAttached(c AttachedConfig) (*Attached, error) {
	var errs []error
	if c.Address == (Address{}) {
		errs = append(errs, errors.New("address is required"))
	}
	if !ownerPattern.MatchString(c.Owner) {
		errs = append(errs, fmt.Errorf("owner %q is not 8 to 32 letters and digits", c.Owner))
	}
	if c.Log == nil {
		errs = append(errs, errors.New("log is required"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("attached ollama backend: %w", err)
	}
	a := &Attached{cfg: c}
	a.sup = process.NewSupervisor(process.SupervisorConfig[*attachment]{
		Launch:       func() (*attachment, error) { return attach(a.guest), nil },
		Release:      func() { a.guest.leave() },
		StartTimeout: restartTimeout,
		Log:          c.Log,
	})
	return a, nil
}

// Start implements [backends.Backend].
func (a *Attached) Start(ctx context.Context, w *seal.Weights, spec backends.Spec) error {
	err := a.sup.Start(ctx, func(ctx context.Context) (err error) {
		a.guest, err = newGuest(ctx, a.cfg, w, spec)
		return err
	})
	if err != nil {
		return fmt.Errorf("attach to ollama at %s: %w", a.cfg.Address, err)
	}
	return nil
}

// Status implements [backends.Backend].
func (a *Attached) Status() backends.Status {
	st := a.sup.Status()
	st.Level, st.Sandbox = seal.Attached, unconfined
	return st
}

// Stop implements [backends.Backend]. The model is removed there.
func (a *Attached) Stop(ctx context.Context) error {
	a.sup.Stop(ctx)
	return nil
}

// Count implements [backends.Backend]: Ollama does not tell.
func (a *Attached) Count(ctx context.Context, _ backends.ChatRequest) (int, error) {
	return 0, a.sup.Do(ctx, func(*attachment) error { return errUncounted })
}

// Chat implements [backends.Backend]. A caller that leaves has Ollama's connection closed.
//
// BUG(ollama): up to 0.17.4 at least, Ollama keeps a slot for ever if a connection is closed at the very moment at which a
// token is about to be sent. Tiny models meet it now and then; nothing but starting Ollama again frees the slot.
func (a *Attached) Chat(ctx context.Context, req backends.ChatRequest, emit func(backends.Chunk) error) error {
	if err := supported(req); err != nil {
		return err
	}
	return a.sup.Do(ctx, func(at *attachment) error {
		return at.ask(ctx, func(ctx context.Context) error { return new(call).chat(ctx, at.guest.client, req, emit) })
	})
}

// Embed implements [backends.Backend].
func (a *Attached) Embed(ctx context.Context, req backends.EmbedRequest) (e backends.Embeddings, err error) {
	err = a.sup.Do(ctx, func(at *attachment) (err error) {
		e, err = at.guest.client.embed(req, func(do func(context.Context, *call) error) error {
			return at.ask(ctx, func(ctx context.Context) error { return do(ctx, new(call)) })
		})
		return err
	})
	return e, err
}

// An attachment is a [process.Instance]: Ollama for as long as it can be reached and says that it has the model.
type attachment struct {
	guest    *guest
	doubt    chan struct{} // has it asked at once
	done     chan struct{}
	once     sync.Once // closes done
	err      error     // once done is closed
	watching sync.WaitGroup
}

func attach(g *guest) *attachment {
	return &attachment{guest: g, doubt: make(chan struct{}, 1), done: make(chan struct{})}
}

// Ready implements [process.Instance]. The first time it brings the model there. Later it waits until Ollama can be
// reached again, and the model has to be what it was.
func (a *attachment) Ready(ctx context.Context) error {
	var err error
	if a.guest.manifest == "" {
		err = a.guest.arrive(ctx)
	} else {
		err = a.await(ctx)
	}
	if err != nil {
		return err
	}
	a.watching.Go(a.watch)
	return nil
}

// await looks for Ollama until it has what it had.
func (a *attachment) await(ctx context.Context) error {
	for wait := firstLook; ; wait = min(2*wait, lastLook) {
		err := a.guest.settle(ctx)
		if err == nil || errors.Is(err, process.ErrPermanent) {
			return err
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%w: it did not come back: %w", process.ErrPermanent, err)
		}
	}
}

// watch asks Ollama for its word until the attachment ends.
func (a *attachment) watch() {
	look := time.NewTicker(checkInterval)
	defer look.Stop()
	ctx, cancel := a.until(context.Background())
	defer cancel()
	for {
		select {
		case <-look.C:
		case <-a.doubt:
		case <-a.done:
			return
		}
		if err := a.guest.check(ctx); err != nil {
			a.end(err)
			return
		}
	}
}

// errEnded ends what an attachment does when it ends.
var errEnded = errors.New("ollama is not asked any more")

// until returns a context that also ends, by errEnded, when the attachment does. Its cancel waits for nothing but that.
func (a *attachment) until(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	var waiting sync.WaitGroup
	waiting.Go(func() {
		select {
		case <-a.done:
			cancel(errEnded)
		case <-ctx.Done():
		}
	})
	return ctx, func() {
		cancel(nil)
		waiting.Wait()
	}
}

// ask does what is asked for a caller. After an error Ollama is asked for its word: its model may be gone.
func (a *attachment) ask(ctx context.Context, do func(context.Context) error) error {
	inner, cancel := a.until(ctx)
	defer cancel()
	err := do(inner)
	if err == nil || ctx.Err() != nil {
		return err
	}
	select {
	case a.doubt <- struct{}{}:
	default: // it is about to be asked
	}
	if errors.Is(err, errEnded) {
		return fmt.Errorf("%w: %w", backends.ErrInterrupted, err)
	}
	return err
}

// end ends the attachment, once.
func (a *attachment) end(err error) {
	a.once.Do(func() {
		a.err = err
		close(a.done)
	})
}

// Done implements [process.Instance].
func (a *attachment) Done() <-chan struct{} { return a.done }

// Err implements [process.Instance].
func (a *attachment) Err() error { return a.err }

// Stop implements [process.Instance]: requests that run are interrupted. The model stays, for the next attachment.
func (a *attachment) Stop(context.Context) {
	a.end(errEnded)
	a.watching.Wait()
}
