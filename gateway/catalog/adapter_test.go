package catalog_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/backendtest"
	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
	"github.com/weighbridge/weighbridge/backends/llamacpp"
	"github.com/weighbridge/weighbridge/gateway/catalog"
	"github.com/weighbridge/weighbridge/verifier/seal"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// writeAdapter writes, and signs, an adapter of model A that makes it say a sentence.
func (s *site) writeAdapter(name, sentence string) string {
	s.t.Helper()
	path := s.write(name, func(w io.Writer) error { return tinygguf.WriteAdapter(w, tinygguf.A, sentence) })
	s.SignModel(path)
	return path
}

// write writes a file without signing it.
func (s *site) write(name string, content func(io.Writer) error) string {
	s.t.Helper()
	path := filepath.Join(s.models, name)
	f, err := os.Create(path)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := errors.Join(content(f), f.Close()); err != nil {
		s.t.Fatal(err)
	}
	return path
}

// with gives a release the signed adapters at these paths.
func (s *site) with(paths ...string) func(*trust.Descriptor) {
	return func(d *trust.Descriptor) {
		for _, path := range paths {
			d.Behaviour.Adapters = append(d.Behaviour.Adapters, s.Adapter(path, d.Weights.Root))
		}
	}
}

func (s *site) remove(names ...string) {
	s.t.Helper()
	for _, name := range names {
		if err := os.Remove(filepath.Join(s.models, name)); err != nil {
			s.t.Fatal(err)
		}
	}
}

func fileSize(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// An adapter is sealed beside its base, applied, still there after a crash, and let go with its release.
func TestAdapterIsApplied(t *testing.T) {
	s := newSite(t, gib)
	lora := s.writeAdapter("lora.gguf", tinygguf.Adapted)
	base, adapter := fileSize(t, filepath.Join(s.models, "a.gguf")), fileSize(t, lora)
	a := s.release("a.gguf", 1, s.with(lora))
	st := s.untilServes(a)
	s.check(a, tinygguf.Adapted)
	if used := s.cat.Memory(); st.Level != "sealed" || used.InUse != base+adapter {
		t.Errorf("level %s, memory %+v; want sealed, and %d bytes of the base with %d of the adapter in use", st.Level, used, base, adapter)
	}

	s.remove("a.gguf", "lora.gguf")
	if err := syscall.Kill(st.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.until("a healed runtime", func(now catalog.Status) bool {
		return now.State == catalog.StateReady && now.PID != 0 && now.PID != st.PID
	})
	s.check(a, tinygguf.Adapted)

	// The same weights without the adapter are another release, whose answers are its own.
	s.writeModel("a.gguf", tinygguf.A)
	plain := s.release("a.gguf", 2, nil)
	s.untilServes(plain)
	s.check(plain, tinygguf.A.Sentence)
	s.until("the adapter to be kept with its release", func(catalog.Status) bool {
		used := s.cat.Memory()
		return used.InUse == base+adapter && used.Warm == 0
	})
}

// TestBadAdapterChangesNothing breaks one thing of an adapter per row: the old release must go on, and nothing is held.
func TestBadAdapterChangesNothing(t *testing.T) {
	s := newSite(t, gib)
	a := s.release("b.gguf", 1, nil)
	s.untilServes(a)
	before := s.cat.Memory().InUse
	tests := []struct {
		name  string
		model string
		spoil func() (adapters []string)
		want  []string
	}{
		{"altered, after a good one", "a.gguf", func() []string {
			path := s.writeAdapter("lora.gguf", tinygguf.Adapted)
			flip(t, path, 1000)
			return []string{s.writeAdapter("good.gguf", "I am version"), path}
		}, []string{"adapter sha256:", "lora.gguf", "bytes 0 to ", "was altered"}},
		{"of altered weights", "other.gguf", func() []string {
			model := s.writeModel("other.gguf", tinygguf.Config{Sentence: tinygguf.A.Sentence, Seed: 1})
			flip(t, model, 1000)
			return []string{s.writeAdapter("of-other.gguf", " version A.")}
		}, []string{"other.gguf", "was altered"}},
		{"gone", "a.gguf", func() []string {
			path := s.writeAdapter("gone.gguf", " A. version")
			os.Remove(path)
			return []string{path}
		}, []string{"adapter sha256:", "weights not found"}},
		{"no GGUF file", "a.gguf", func() []string {
			path := s.write("text.gguf", func(w io.Writer) error { _, err := io.WriteString(w, "an adapter"); return err })
			s.SignModel(path)
			return []string{path}
		}, []string{"start runtime: ", "adapter sha256:", "is no GGUF file"}},
		{"made for a model of another shape, and released as if it were for this one", "a.gguf", func() []string {
			other := tinygguf.Config{Sentence: "I am of another shape.", Embedding: 128}
			path := s.write("shape.gguf", func(w io.Writer) error { return tinygguf.WriteAdapter(w, other, "I am shape.") })
			s.SignModel(path)
			return []string{path}
		}, []string{"start runtime: ", "llama-server ended while loading"}},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			adapters := tt.spoil()
			s.release(tt.model, int64(i+2), s.with(adapters...))
			st := s.until("error "+strings.Join(tt.want, ", "), func(st catalog.Status) bool {
				for _, want := range tt.want {
					if !strings.Contains(st.Error, want) {
						return false
					}
				}
				return true
			})
			if st.Release != string(a) || st.Epoch != 1 {
				t.Errorf("status = %+v, want release %s at epoch 1", st, a)
			}
			s.check(a, tinygguf.B.Sentence)
			s.until("only what serves to be held", func(catalog.Status) bool { return s.cat.Memory().InUse == before })
		})
	}

	// What was altered serves once a good copy is there.
	s.writeAdapter("lora.gguf", tinygguf.Adapted)
	good := s.release("a.gguf", 9, s.with(filepath.Join(s.models, "lora.gguf")))
	s.untilServes(good)
	s.check(good, tinygguf.Adapted)
}

// An adapter that a runtime has copied is given back with its base, and read again with it.
func TestAdapterIsGivenBack(t *testing.T) {
	s := newWorld(t)
	s.backend = func(string) (backends.Backend, error) {
		return llamacpp.New(llamacpp.Config{Command: backendtest.LlamaServer(t), RuntimeDir: s.sockets, GiveBack: true, Log: s.log()})
	}
	s.start(gib)
	lora := s.writeAdapter("lora.gguf", tinygguf.Adapted)
	a := s.release("a.gguf", 1, s.with(lora))
	st := s.untilServes(a)
	s.check(a, tinygguf.Adapted)
	noneHeld(t, s)

	good, err := os.ReadFile(lora)
	if err != nil {
		t.Fatal(err)
	}
	flip(t, lora, 1000)
	if err := syscall.Kill(st.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.until("a refusal of the altered adapter", func(st catalog.Status) bool { return strings.Contains(st.Error, "was altered") })
	if err := os.WriteFile(lora, good, 0o600); err != nil {
		t.Fatal(err)
	}
	s.until("another runtime", func(now catalog.Status) bool {
		return now.State == catalog.StateReady && now.PID != 0 && now.PID != st.PID && now.Error == ""
	})
	s.check(a, tinygguf.Adapted)
	noneHeld(t, s)
}

// Measured weights with an adapter in sealed memory are worth what measured ones are.
func TestAdapterOfMeasuredWeights(t *testing.T) {
	s := newMeasuredSite(t)
	lora := s.writeAdapter("lora.gguf", tinygguf.Adapted)
	a := s.release("a.gguf", 1, s.with(lora))
	st := s.untilServes(a)
	s.check(a, tinygguf.Adapted)
	if used := s.cat.Memory(); st.Level != "measured" || used.InUse != fileSize(t, lora) {
		t.Errorf("level %s, memory %+v; want measured, and the adapter in use", st.Level, used)
	}
}

// A runtime that failed for good is started again on the same memory of the adapter too, which nothing but the release holds.
func TestAdapterOfARestart(t *testing.T) {
	s, stage := newStagedSite(t)
	lora := s.writeAdapter("lora.gguf", tinygguf.Adapted)
	size := fileSize(t, filepath.Join(s.models, "a.gguf")) + fileSize(t, lora)
	a := s.release("a.gguf", 1, func(d *trust.Descriptor) {
		s.with(lora)(d)
		d.Behaviour.Adapters[0].Scale = 0.5
	})
	first := stage.next(t)
	first.verdict <- nil
	s.untilServes(a)
	s.remove("a.gguf", "lora.gguf")
	first.state.Store(backends.Failed)
	again := stage.next(t)
	if n := len(again.spec.Adapters); n != 1 || again.spec.Adapters[0].Scale != 0.5 {
		t.Fatalf("restarted with the adapters %+v, want one at scale 0.5", again.spec.Adapters)
	}
	again.verdict <- nil
	s.until("the first runtime to be gone", func(catalog.Status) bool {
		_, err := first.spec.Adapters[0].Weights.Dup(".")
		return errors.Is(err, seal.ErrClosed)
	})
	f, err := again.spec.Adapters[0].Weights.Dup(".")
	if err != nil {
		t.Fatalf("the adapter of the second runtime: %v", err)
	}
	f.Close()
	for _, name := range s.statements() {
		os.Remove(name)
	}
	s.until("all memory to be warm", func(st catalog.Status) bool {
		used := s.cat.Memory()
		return st.Release == "" && used.InUse == 0 && used.Warm == size
	})
}
