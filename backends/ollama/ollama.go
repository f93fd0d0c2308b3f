// Package ollama runs GGUF models with a supervised Ollama, and has them run by one that others started.
//
// The one rule: what a [Server]'s Ollama finds in its store are links to sealed memory that it inherited, in a directory
// that nobody else sees, and it is reached by nobody but this package. Ollama itself checks no digest when it loads, takes
// requests from whoever connects, and pulls, makes and removes models for them; none of it is relied on.
//
// All that is relied on where an [Attached] is used. What answers there is what it was given by Ollama's own word alone,
// so that its level says so, and channels refuse it unless their policy asks for no more.
//
// Ollama does not run the chat template that a GGUF file holds: it picks the one of its own that looks most like it. So
// a release brings a template in Ollama's language, and is refused without.
package ollama

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/process"
	"github.com/weighbridge/weighbridge/verifier/seal"
)

// Kind is the runtime kind of releases that are served by this package.
const Kind = "ollama"

// Config describes a [Server].
type Config struct {
	Command    string       // ollama: a path, or a name in PATH; without libraries of its own beside it
	RuntimeDir string       // an existing directory; each launch makes a private one in it
	Log        *slog.Logger // gets what becomes of the runtime, and at Debug what it writes
	Self       string       // the executable whose main calls process.Hook; empty: this one

	Programs *seal.Programs // keeps ollama for the next one; nil: it is read anew

	// Patience is how long Ollama may take to be done with a request that has ended, before it is started anew; 0:
	// forgetTimeout. It can lose its only slot when a caller leaves in a bad moment.
	Patience time.Duration
}

// A Server is a [backends.Backend] that runs Ollama. It answers one request after the other: Ollama keeps the last
// prompt of each slot, so that one with the same beginning is answered sooner, and can be made to forget it only where
// there is a single one. It keeps the sealed weights, whatever it computes on: Ollama opens its model at each request.
type Server struct {
	cfg   Config
	sup   *process.Supervisor[*launch]
	build atomic.Pointer[string] // the digest of the binary, once it was read

	// What launches are made of. It belongs to the supervisor's goroutine.
	parts parts
}

var _ backends.Backend = (*Server)(nil)

// New returns a Server that is not started.
func New(c Config) (*Server, error) {
	var errs []error
	if c.Command == "" {
		errs = append(errs, errors.New("command is required: the path of ollama"))
	}
	if c.RuntimeDir == "" {
		errs = append(errs, errors.New("runtime directory is required"))
	}
	if c.Log == nil {
		errs = append(errs, errors.New("log is required"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("ollama backend: %w", err)
	}
	s := &Server{cfg: c}
	s.sup = process.NewSupervisor(process.SupervisorConfig[*launch]{
		Launch:       func() (*launch, error) { return s.parts.launch(s.cfg) },
		Release:      func() { s.parts.close() },
		StartTimeout: restartTimeout,
		Log:          c.Log,
	})
	return s, nil
}

// Start implements [backends.Backend].
func (s *Server) Start(ctx context.Context, w *seal.Weights, spec backends.Spec) error {
	err := s.sup.Start(ctx, func(ctx context.Context) (err error) {
		s.parts, err = prepareLaunch(ctx, s.cfg.Programs, s.cfg.Command, w, spec)
		if err == nil {
			build := s.parts.build // a copy: it is looked at by others, and after parts were closed
			s.build.Store(&build)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("start ollama: %w", err)
	}
	return nil
}

// Status implements [backends.Backend].
func (s *Server) Status() backends.Status {
	st := s.sup.Status()
	st.Level = seal.Sealed
	if build := s.build.Load(); build != nil {
		st.Build = *build
	}
	if l, ok := s.sup.Peek(); ok {
		st.PID, st.Sandbox = l.proc.PID(), l.proc.Sandbox()
	}
	return st
}

// Stop implements [backends.Backend].
func (s *Server) Stop(ctx context.Context) error {
	s.sup.Stop(ctx)
	return nil
}

// Chat implements [backends.Backend].
func (s *Server) Chat(ctx context.Context, req backends.ChatRequest, emit func(backends.Chunk) error) error {
	return s.sup.Do(ctx, func(l *launch) error { return l.chat(ctx, req, emit) })
}

// Count implements [backends.Backend]: Ollama does not tell.
func (s *Server) Count(ctx context.Context, _ backends.ChatRequest) (int, error) {
	return 0, s.sup.Do(ctx, func(*launch) error { return errUncounted })
}

var errUncounted = fmt.Errorf("%w: this model's runtime counts no tokens before it answers", backends.ErrUnsupported)

// Embed implements [backends.Backend].
func (s *Server) Embed(ctx context.Context, req backends.EmbedRequest) (e backends.Embeddings, err error) {
	err = s.sup.Do(ctx, func(l *launch) (err error) {
		e, err = l.embed(ctx, req)
		return err
	})
	return e, err
}
