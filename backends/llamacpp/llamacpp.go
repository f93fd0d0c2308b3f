// Package llamacpp runs GGUF models with a supervised llama-server.
//
// The one rule: llama-server sees sealed memory, one socket in a private directory, and the requests that this package
// encodes. Nothing a caller writes reaches it but the fields of [backends.ChatRequest].
package llamacpp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/process"
	"github.com/weighbridge/weighbridge/verifier/seal"
)

// Kind is the runtime kind of releases that are served by this package.
const Kind = "llamacpp"

// Config describes a [Server].
type Config struct {
	Command    string       // llama-server: a path, or a name in PATH; without libraries of its own beside it
	RuntimeDir string       // an existing directory; each launch makes a private one in it
	Log        *slog.Logger // gets what becomes of the runtime, and at Debug what it writes
	Self       string       // the executable whose main calls process.Hook; empty: this one

	// GiveBack makes llama-server copy the weights to where it computes, instead of mapping them, and gives the sealed
	// ones back then: for those that load into a GPU.
	GiveBack bool

	Programs *seal.Programs // keeps llama-server for the next one; nil: it is read anew

	User *process.User // who llama-server runs as; nil: this process's user
}

// A Server is a [backends.Backend] that runs llama-server.
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
		errs = append(errs, errors.New("command is required: the path of llama-server"))
	}
	if c.RuntimeDir == "" {
		errs = append(errs, errors.New("runtime directory is required"))
	}
	if c.Log == nil {
		errs = append(errs, errors.New("log is required"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("llama.cpp backend: %w", err)
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
		s.parts, err = prepare(ctx, s.cfg.Programs, s.cfg.Command, w, spec)
		if err == nil {
			build := s.parts.build // a copy: it is looked at by others, and after parts were closed
			s.build.Store(&build)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("start llama-server: %w", err)
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
		st.GaveBack = s.cfg.GiveBack
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

// Count implements [backends.Backend].
func (s *Server) Count(ctx context.Context, req backends.ChatRequest) (tokens int, err error) {
	err = s.sup.Do(ctx, func(l *launch) (err error) {
		tokens, err = l.count(ctx, req)
		return err
	})
	return tokens, err
}

// Embed implements [backends.Backend].
func (s *Server) Embed(ctx context.Context, req backends.EmbedRequest) (e backends.Embeddings, err error) {
	err = s.sup.Do(ctx, func(l *launch) (err error) {
		e, err = l.embed(ctx, req)
		return err
	})
	return e, err
}
