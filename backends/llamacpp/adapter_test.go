package llamacpp_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/backendtest"
	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
	"github.com/weighbridge/weighbridge/verifier/seal"
)

// adapter is a sealed adapter of model A, with which it says a sentence.
func adapter(t *testing.T, sentence string, scale float64) backends.Adapter {
	t.Helper()
	return backends.Adapter{Weights: backendtest.Seal(t, backendtest.WriteAdapter(t, tinygguf.A, sentence)), Scale: scale}
}

// TestAdapters have their scale, and add up. That of "I am A." has to take more than half of a token's lead away.
func TestAdapters(t *testing.T) {
	tests := []struct {
		name   string
		scales []float64
		want   string
	}{
		{"too weak", []float64{0.25}, tinygguf.A.Sentence},
		{"two that are too weak alone", []float64{0.375, 0.375}, tinygguf.Adapted},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			spec := backends.Spec{Args: oneThread.Args}
			for _, scale := range tt.scales {
				spec.Adapters = append(spec.Adapters, adapter(t, tinygguf.Adapted, scale))
			}
			s := start(t, backendtest.WriteModel(t, tinygguf.A), t.TempDir(), spec)
			for _, a := range spec.Adapters { // the server has references of its own
				a.Weights.Close()
			}
			if got, _, err := backendtest.Ask(t.Context(), s, backendtest.Question("hello")); err != nil || got != tt.want {
				t.Errorf("answer is %q, %v; want %q", got, err, tt.want)
			}
		})
	}
}

// TestAdapterRefused: nothing starts, and nothing is left, where an adapter can't be what it should.
func TestAdapterRefused(t *testing.T) {
	files := func(content string, names ...string) *seal.Weights {
		dir := t.TempDir()
		for _, name := range names {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return backendtest.Seal(t, dir)
	}
	good := adapter(t, tinygguf.Adapted, 1)
	closed := adapter(t, tinygguf.Adapted, 1).Weights
	closed.Close()
	tests := []struct {
		name    string
		weights *seal.Weights
		want    string
	}{
		{"the zero value", new(seal.Weights), "not sealed"},
		{"closed", closed, seal.ErrClosed.Error()},
		{"two files", files("GGUF", "a.gguf", "b.gguf"), "exactly one GGUF file"},
		{"no GGUF file", files("an adapter of another kind", "lora.gguf"), "is no GGUF file"},
		{"cut short", files("GGU", "lora.gguf"), "is no GGUF file"},
		{"a model", backendtest.Seal(t, backendtest.WriteModel(t, tinygguf.A)), "ended while loading"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			runtimeDir := t.TempDir()
			s := newServer(t, backendtest.LlamaServer(t), runtimeDir)
			spec := backends.Spec{Args: oneThread.Args, Adapters: []backends.Adapter{good, {Weights: tt.weights, Scale: 1}}}
			err := s.Start(context.Background(), backendtest.Seal(t, backendtest.WriteModel(t, tinygguf.A)), spec)
			if !errors.Is(err, backends.ErrFailed) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Start() = %v, want ErrFailed with %q", err, tt.want)
			}
			checkNothingLeft(t, s, runtimeDir)
		})
	}
}
