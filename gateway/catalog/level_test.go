package catalog_test

import (
	"strings"
	"testing"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/gateway/catalog"
	"github.com/weighbridge/weighbridge/verifier/seal"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// TestRuntimeLevel: what a runtime gives bounds the level, however well the weights were guarded before, and a channel that
// asks for more hands it nothing.
func TestRuntimeLevel(t *testing.T) {
	none := backends.Sandbox{Level: backends.SandboxNone, Missing: []string{"it was not started here"}}
	tests := []struct {
		name           string
		least, sandbox string // of the channel
		level          seal.Level
		box            backends.Sandbox
		want           string // a level, or else a part of why nothing serves
	}{
		{"supervised", "sealed", "", seal.Sealed, backends.Sandbox{}, "sealed"},
		{"supervised, for less", "attached", "", seal.Sealed, backends.Sandbox{}, "sealed"},
		{"attached", "attached", "", seal.Attached, none, "attached"},
		{"attached, by default", "", "", seal.Attached, none, `is "attached", and the channel asks for sealed`},
		{"attached, for measured", "measured", "", seal.Attached, none, `is "attached", and the channel asks for measured`},
		{"attached, for a sandbox", "attached", "partial", seal.Attached, none, "sandbox is none, and the channel asks for partial: it was not started here"},
		{"of no level", "attached", "", "", none, `is "", and the channel asks for attached`},
		{"of an unknown level", "attached", "", "better", none, `is "better", and the channel asks for attached`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, stage := newWorld(t), newStage()
			s.policy = s.SignPolicy(func(p *trust.Document) {
				rules := p.Channels["chat"]
				rules.MinimumLevel, rules.MinimumSandbox = tt.least, tt.sandbox
				p.Channels["chat"] = rules
			})
			s.backend, stage.level, stage.foreign, stage.sandbox = stage.backend, tt.level, tt.box, tt.box
			s.start(gib)
			a := s.release("a.gguf", 1, nil)
			if tt.want == string(tt.level) {
				stage.next(t).verdict <- nil
				if st := s.untilServes(a); st.Level != tt.want {
					t.Errorf("level = %q, want %q", st.Level, tt.want)
				}
				serving, err := s.cat.Acquire(t.Context(), "chat")
				if err != nil {
					t.Fatal(err)
				}
				defer serving.Done()
				if string(serving.Level()) != tt.want {
					t.Errorf("level of what serves = %q, want %q", serving.Level(), tt.want)
				}
				return
			}
			st := s.until("a refusal", func(st catalog.Status) bool { return st.State == catalog.StateFailed })
			if !strings.Contains(st.Error, tt.want) {
				t.Errorf("error = %q, want %q", st.Error, tt.want)
			}
			if len(stage.starting) > 0 {
				t.Error("the runtime was started")
			}
			if used := s.cat.Memory(); used.InUse+used.Warm != 0 {
				t.Error("the weights were read")
			}
		})
	}
}
