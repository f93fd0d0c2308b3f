package backendtest

import (
	"bytes"
	"cmp"
	"errors"
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
	path := filepath.Join(t.TempDir(), "lora.gguf")
	check(t, os.WriteFile(path, adapterOf(t, c, sentence), 0o644))
	return path
}

func adapterOf(t testing.TB, c tinygguf.Config, sentence string) []byte {
	t.Helper()
	var buf bytes.Buffer
	check(t, tinygguf.WriteAdapter(&buf, c, sentence))
	return buf.Bytes()
}

// counter counts, and its adapters have it leave a number out, end sooner, and, together, both.
var counter = tinygguf.Config{Sentence: "one two three four", ChatTemplate: tinygguf.ChatTemplate}

const (
	leavesOut  = "one three four"
	endsSooner = "one two three"
	doesBoth   = "one three"
)

// adapters checks that adapters are applied, after a crash too, or that nothing starts: never that one is left out.
func (s Suite) adapters(t *testing.T) {
	type adapter struct {
		sentence string
		scale    float64
	}
	narrow := counter
	narrow.Embedding = 128
	tests := []struct {
		name     string
		base     tinygguf.Config // that the adapters were made for
		adapters []adapter
		want     string
		refused  string // by any kind, with this; empty: it starts
	}{
		{"an adapter", counter, []adapter{{leavesOut, 1}}, leavesOut, ""},
		{"two adapters", counter, []adapter{{leavesOut, 1}, {endsSooner, 1}}, doesBoth, ""},
		{"two adapters, the other way round", counter, []adapter{{endsSooner, 1}, {leavesOut, 1}}, doesBoth, ""},
		{"a weak adapter", counter, []adapter{{leavesOut, 0.25}}, counter.Sentence, ""},
		{"an adapter of other weights", narrow, []adapter{{leavesOut, 1}}, "", "adapter"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, base, spec := s.New(t, t.TempDir()), Seal(t, WriteModel(t, counter)), s.spec()
			var paths []string
			for _, a := range tt.adapters {
				paths = append(paths, WriteAdapter(t, tt.base, a.sentence))
				spec.Adapters = append(spec.Adapters, backends.Adapter{Weights: Seal(t, paths[len(paths)-1]), Scale: a.scale})
			}
			for _, path := range paths { // from here on the files count for nothing
				check(t, os.WriteFile(path, adapterOf(t, counter, " two three four"), 0o644))
			}
			err := b.Start(t.Context(), base, spec)
			check(t, base.Close())
			for _, a := range spec.Adapters {
				check(t, a.Weights.Close())
			}
			defer stop(t, b)
			if !s.starts(t, tt.name, err, tt.refused) {
				return
			}
			checkAnswer(t, b, Question("hello"), tt.want)
			for _, path := range paths {
				check(t, os.Remove(path))
			}
			s.crash(t, b)
			checkAnswer(t, b, Question("hello"), tt.want)
		})
	}
}

// starts reports whether a backend has started, and checks that it has unless the row is one that every kind, or this
// one, refuses, with what it says then.
func (s Suite) starts(t *testing.T, row string, err error, refused string) bool {
	t.Helper()
	want := cmp.Or(s.Refuses[row], refused)
	switch {
	case want == "":
		check(t, err)
	case !errors.Is(err, backends.ErrFailed) || !strings.Contains(err.Error(), want):
		t.Errorf("Start() = %v, want ErrFailed with %q", err, want)
	}
	return err == nil
}
