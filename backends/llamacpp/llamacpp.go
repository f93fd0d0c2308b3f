// Package llamacpp runs GGUF models with a supervised llama-server.
//
// The one rule: llama-server sees sealed memory, one socket in a private directory, and the requests that this package
// encodes. Nothing a caller writes reaches it but the fields of [backends.ChatRequest].
package llamacpp

import (
	"context"
	"errors"
	"log/slog"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/verifier/seal"
)

// Config describes a Server.
type Config struct {
	Command    string       // llama-server: a path, or a name in PATH
	RuntimeDir string       // an existing directory that only this user can enter; each launch makes its own below it
	Log        *slog.Logger // required
	Self       string       // the executable whose main calls process.Hook; empty: this one
}

// A Server is a [backends.Backend] that runs llama-server.
type Server struct{ cfg Config }

var _ backends.Backend = (*Server)(nil)

// New returns a Server that is not started.
func New(c Config) (*Server, error) { return &Server{c}, nil }

// CheckArgs reports every argument of a release's runtime.args that may not be given to llama-server.
func CheckArgs(args map[string]string) error { return nil }

var errTODO = errors.New("not built yet")

// Start implements [backends.Backend].
func (s *Server) Start(ctx context.Context, w *seal.Weights, spec backends.Spec) error { return errTODO }

// Chat implements [backends.Backend].
func (s *Server) Chat(ctx context.Context, req backends.ChatRequest, emit func(backends.Chunk) error) error {
	return errTODO
}

// Status implements [backends.Backend].
func (s *Server) Status() backends.Status { return backends.Status{State: backends.None} }

// Stop implements [backends.Backend].
func (s *Server) Stop(ctx context.Context) error { return errTODO }
