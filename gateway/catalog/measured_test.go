package catalog_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
	"github.com/weighbridge/weighbridge/gateway/catalog"
	"github.com/weighbridge/weighbridge/verifier/seal"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// small is less memory than any model of these tests takes.
const small = 1 << 20

// newMeasuredSite is a site whose policy accepts measured weights, and whose memory is too small for sealed ones.
func newMeasuredSite(t *testing.T) *site {
	t.Helper()
	s := newWorld(t)
	s.policy = s.SignPolicy(func(p *trust.Document) { setLevel(p, "measured") })
	s.start(small)
	return s
}

func setLevel(p *trust.Document, level string) {
	rules := p.Channels["chat"]
	rules.MinimumLevel = level
	p.Channels["chat"] = rules
}

// A file that was changed after it was measured is not served by a restart: it is measured again, and refused or served
// by what it holds then.
func TestMeasuredIsMeasuredAgain(t *testing.T) {
	s := newMeasuredSite(t)
	a := s.release("a.gguf", 1, nil)
	st := s.untilServes(a)
	if st.Level != "measured" {
		t.Fatalf("level = %q, want measured", st.Level)
	}
	s.check(a, "I am version A.")
	if used := s.cat.Memory(); used.InUse != 0 {
		t.Errorf("measured weights take %d bytes of the memory for sealed ones", used.InUse)
	}

	s.overwrite("a.gguf", tinygguf.B)
	if err := syscall.Kill(st.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.until("a refusal of the altered file", func(st catalog.Status) bool { return strings.Contains(st.Error, "was altered") })
	s.overwrite("a.gguf", tinygguf.A)
	s.until("another runtime", func(now catalog.Status) bool {
		return now.State == catalog.StateReady && now.PID != 0 && now.PID != st.PID && now.Error == ""
	})
	s.check(a, "I am version A.")
}

// overwrite writes another model into a file without signing it, as an attacker would.
func (s *site) overwrite(name string, c tinygguf.Config) {
	s.t.Helper()
	f, err := os.OpenFile(filepath.Join(s.models, name), os.O_WRONLY, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := errors.Join(tinygguf.Write(f, c), f.Close()); err != nil {
		s.t.Fatal(err)
	}
}

// gated is a backend whose start waits.
type gated struct {
	backends.Backend
	starts, open chan struct{}
}

func (g gated) Start(ctx context.Context, w *seal.Weights, spec backends.Spec) error {
	g.starts <- struct{}{}
	<-g.open
	return g.Backend.Start(ctx, w, spec)
}

// A policy that asks for more than what is being brought up gives keeps it from serving at all.
func TestLevelIsRaisedMeanwhile(t *testing.T) {
	s := newWorld(t)
	s.policy = s.SignPolicy(func(p *trust.Document) { setLevel(p, "measured") })
	gate := gated{starts: make(chan struct{}), open: make(chan struct{})}
	plain := s.backend
	s.backend = func(kind string) (backends.Backend, error) {
		b, err := plain(kind)
		return gated{b, gate.starts, gate.open}, err
	}
	s.start(small)
	s.release("a.gguf", 1, nil)
	<-gate.starts
	s.policy = s.SignPolicy(func(p *trust.Document) { setLevel(p, "sealed") })
	if err := s.cat.Update(t.Context(), s.inputs()); err != nil {
		t.Fatal(err)
	}
	close(gate.open)
	s.within(5*time.Second, "a refusal", func(st catalog.Status) bool {
		if st.Release != "" {
			t.Errorf("level %s serves where the policy wants sealed", st.Level)
		}
		return st.State == catalog.StateFailed && strings.Contains(st.Error, "do not fit in memory")
	})
}

// A policy that asks for more than what serves gives stops it.
func TestLevelIsRaised(t *testing.T) {
	s := newMeasuredSite(t)
	s.untilServes(s.release("a.gguf", 1, nil))
	s.policy = s.SignPolicy(func(p *trust.Document) { setLevel(p, "sealed") })
	if err := s.cat.Update(t.Context(), s.inputs()); err != nil {
		t.Fatal(err)
	}
	st := s.until("nothing", func(st catalog.Status) bool { return st.Release == "" && st.State == catalog.StateFailed })
	if !strings.Contains(st.Error, "do not fit in memory") {
		t.Errorf("error = %q, want it to say why sealed weights are not served", st.Error)
	}
	if _, err := s.cat.Acquire(t.Context(), "chat"); !errors.Is(err, catalog.ErrNotServing) {
		t.Errorf("Acquire = %v, want %v", err, catalog.ErrNotServing)
	}
}
