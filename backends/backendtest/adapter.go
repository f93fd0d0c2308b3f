package backendtest

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
)

// WriteAdapter writes an adapter of a model, with which that says a sentence, to a file of its own and returns the path.
func WriteAdapter(t testing.TB, c tinygguf.Config, sentence string) string {
	t.Helper()
	var buf bytes.Buffer
	check(t, tinygguf.WriteAdapter(&buf, c, sentence))
	path := filepath.Join(t.TempDir(), "lora.gguf")
	check(t, os.WriteFile(path, buf.Bytes(), 0o644))
	return path
}

// adapter checks that an adapter is applied, after a crash too, or that nothing starts: never that it is left out.
func (s Suite) adapter(t *testing.T) {
	path := WriteAdapter(t, tinygguf.A, tinygguf.Adapted)
	b, base, lora := s.New(t), Seal(t, WriteModel(t, tinygguf.A)), Seal(t, path)
	spec := s.spec()
	spec.Adapters = []backends.Adapter{{Weights: lora, Scale: 1}}
	err := b.Start(t.Context(), base, spec)
	check(t, base.Close())
	check(t, lora.Close())
	defer stop(t, b)
	if err != nil {
		if !strings.Contains(err.Error(), "adapter") {
			t.Errorf("Start() = %v, want an adapter to be applied, or refused as such", err)
		}
		return
	}
	check(t, os.Remove(path))
	checkAnswer(t, b, Question("hello"), tinygguf.Adapted)
	kill(t, b)
	checkAnswer(t, b, Question("hello"), tinygguf.Adapted)
}
