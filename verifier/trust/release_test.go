package trust_test

import (
	"maps"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// TestNewRelease has a release and then one mistake per row, with the key it must be reported under.
func TestNewRelease(t *testing.T) {
	s := newScene(t, nil)
	temperature := func(r trust.Range) func(*trust.Descriptor) {
		return func(d *trust.Descriptor) { d.Behaviour.Sampling.Temperature = &r }
	}
	topP := func(r trust.Range) func(*trust.Descriptor) {
		return func(d *trust.Descriptor) { d.Behaviour.Sampling.TopP = &r }
	}
	arg := func(name, value string) func(*trust.Descriptor) {
		return func(d *trust.Descriptor) { d.Runtime.Args = map[string]string{name: value} }
	}
	embeds := func(edit func(*trust.Descriptor)) func(*trust.Descriptor) {
		return func(d *trust.Descriptor) {
			d.Runtime.Args, d.Behaviour.SystemPrompt, d.Behaviour.ChatTemplate = map[string]string{"embeddings": "true", "pooling": "mean"}, "", ""
			edit(d)
		}
	}
	tests := []struct {
		name string
		edit func(*trust.Descriptor)
		path string
	}{
		{"default", func(*trust.Descriptor) {}, ""},
		{"no model", func(d *trust.Descriptor) { d.Model = "" }, "model"},
		{"model with a space", func(d *trust.Descriptor) { d.Model = "a b" }, "model"},
		{"no version", func(d *trust.Descriptor) { d.Version = "" }, "version"},
		{"long version", func(d *trust.Descriptor) { d.Version = strings.Repeat("1", 1025) }, "version"},
		{"version with an escape sequence", func(d *trust.Descriptor) { d.Version = "1\x1b[2K2" }, "version"},
		{"version that reads backwards", func(d *trust.Descriptor) { d.Version = "1\u202e2" }, "version"},
		{"version in words", func(d *trust.Descriptor) { d.Version = "1.4 – März" }, ""},
		{"no root", func(d *trust.Descriptor) { d.Weights.Root = "" }, "weights.root"},
		{"root in capitals", func(d *trust.Descriptor) { d.Weights.Root = strings.ToUpper(d.Weights.Root) }, "weights.root"},
		{"no runtime", func(d *trust.Descriptor) { d.Runtime.Kind = "" }, "runtime.kind"},
		{"a runtime that is not in this version", func(d *trust.Descriptor) { d.Runtime.Kind = "vllm" }, "runtime.kind"},
		{"an argument", arg("ctx-size", "2048"), ""},
		{"an argument with dashes", arg("--ctx-size", "2048"), "runtime.args"},
		{"an argument without value", arg("ctx-size", ""), "runtime.args.ctx-size"},
		{"an argument with a NUL", arg("ctx-size", "1\x00"), "runtime.args.ctx-size"},
		{"a build", func(d *trust.Descriptor) { d.Runtime.Build = "sha256:" + strings.Repeat("0", 64) }, ""},
		{"a build by name", func(d *trust.Descriptor) { d.Runtime.Build = "b1234" }, "runtime.build"},
		{"a long system prompt", func(d *trust.Descriptor) { d.Behaviour.SystemPrompt = strings.Repeat("a", 256<<10+1) }, "behaviour.systemPrompt"},
		{"a long template", func(d *trust.Descriptor) { d.Behaviour.ChatTemplate = strings.Repeat("a", 1<<20+1) }, "behaviour.chatTemplate"},
		{"no sampling", func(d *trust.Descriptor) { d.Behaviour.Sampling = trust.Sampling{} }, ""},
		{"temperature at its limits", temperature(trust.Range{Default: 2, Max: 2}), ""},
		{"temperature above 2", temperature(trust.Range{Default: 0, Max: 2.1}), "behaviour.sampling.temperature.max"},
		{"temperature below 0", temperature(trust.Range{Default: -0.1, Max: 1}), "behaviour.sampling.temperature.default"},
		{"temperature above its maximum", temperature(trust.Range{Default: 1.1, Max: 1}), "behaviour.sampling.temperature.default"},
		{"temperature that is no number", temperature(trust.Range{Default: 0, Max: math.NaN()}), "behaviour.sampling.temperature.max"},
		{"top-p above 1", topP(trust.Range{Default: 0.5, Max: 1.1}), "behaviour.sampling.topP.max"},
		{"fewer than no tokens", func(d *trust.Descriptor) { d.Behaviour.Output.MaxTokens = -1 }, "behaviour.output.maxTokens"},
		{"a warm-up", func(d *trust.Descriptor) { d.Warmup = trust.Warmup{Prompt: "Say hello.", Contains: "hello"} }, ""},
		{"an answer to no prompt", func(d *trust.Descriptor) { d.Warmup.Contains = "hello" }, "warmup.prompt"},
		{"embeddings", embeds(func(d *trust.Descriptor) { d.Warmup.Prompt = "hello" }), ""},
		{"a warm-up answer of vectors", embeds(func(d *trust.Descriptor) { d.Warmup = trust.Warmup{Prompt: "hello", Contains: "hello"} }), "warmup.contains"},
		{"a system prompt before vectors", embeds(func(d *trust.Descriptor) { d.Behaviour.SystemPrompt = "Be brief." }), "behaviour.systemPrompt"},
		{"a chat template of vectors", embeds(func(d *trust.Descriptor) { d.Behaviour.ChatTemplate = "{{ messages }}" }), "behaviour.chatTemplate"},
		{"provenance", func(d *trust.Descriptor) { d.Provenance = trust.Provenance{Base: "b", Data: "d", Run: "r"} }, ""},
		{"provenance of two lines", func(d *trust.Descriptor) { d.Provenance.Base = "a\nb" }, "provenance.base"},
		{"prompt of two lines", func(d *trust.Descriptor) { d.Warmup.Prompt = "a\nb" }, ""},
		{"long provenance", func(d *trust.Descriptor) { d.Provenance.Run = strings.Repeat("r", 1025) }, "provenance.run"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := s.descriptor()
			tt.edit(&d)
			payload, err := trust.NewRelease(d)
			checkPath(t, err, tt.path)
			if tt.path != "" {
				return
			}
			r, err := trust.ParseRelease(s.Sign("trainer", payload))
			if err != nil {
				t.Fatal(err)
			}
			if r.Model != d.Model || !maps.Equal(r.Runtime.Args, d.Runtime.Args) || r.Manifest().Root() != d.Weights.Root || len(r.Unenforceable()) != 0 {
				t.Errorf("parsed %+v, want %+v", r.Descriptor, d)
			}
		})
	}
}

// TestParseRelease has a release and then one change of its predicate per row, signed as it stands.
func TestParseRelease(t *testing.T) {
	s := newScene(t, nil)
	predicate := s.descriptorJSON()
	other := newScene(t, nil)
	otherWeights := strings.Replace(other.descriptorJSON(), other.root(), s.root(), 1) // the same root: the same weights, another signature
	tests := []struct {
		name, predicate, subject, want string
	}{
		{"as signed", predicate, s.root(), ""},
		{"weights signed by another", otherWeights, s.root(), ""},
		{"about other weights", predicate, strings.Repeat("0", 64), "subject"},
		{"another root", strings.Replace(predicate, s.root(), strings.Repeat("0", 64), 1), strings.Repeat("0", 64), "weights.root"},
		{"no weights statement", `{"model":"m"}`, s.root(), "the one form"},
		{"an approval in place of the weights", s.withWeights(predicate, s.approvalBundle()), s.root(), "weights.statement"},
		{"unknown field", strings.Replace(predicate, `"model":`, `"guardrails":[],"model":`, 1), s.root(), "guardrails"},
		{"another case", strings.Replace(predicate, `"model":`, `"Model":`, 1), s.root(), "Model"},
		{"null tools", strings.Replace(predicate, `"tools":[]`, `"tools":null`, 1), s.root(), "the one form"},
		{"no tools", strings.Replace(predicate, `,"tools":[]`, ``, 1), s.root(), "the one form"},
		{"fewer than no tokens", strings.Replace(predicate, `"maxTokens":1024`, `"maxTokens":-1`, 1), s.root(), "maxTokens"},
		{"no limit spelled out", strings.Replace(predicate, `"maxTokens":1024`, `"maxTokens":0`, 1), s.root(), "one form"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s.raw("trainer", trust.ReleaseType, tt.subject, tt.predicate)
			_, err := trust.ParseRelease(s.set[len(s.set)-1])
			checkRefused(t, err, trust.ErrMalformed, tt.want)
		})
	}
}

func (s *scene) approvalBundle() string {
	payload, err := trust.NewApproval(statement.ID("sha256:"+s.root()), trust.Approval{})
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.TrimSpace(string(s.Sign("alice", payload).Bundle()))
}

// withWeights is the predicate with another bundle in it.
func (s *scene) withWeights(predicate, bundle string) string {
	i := strings.Index(predicate, `"statement":`) + len(`"statement":`)
	return predicate[:i] + bundle + `}}`
}

func TestActs(t *testing.T) {
	release := statement.ID("sha256:" + strings.Repeat("0", 64))
	approvals := []struct {
		name string
		a    trust.Approval
		path string
	}{
		{"all channels", trust.Approval{}, ""},
		{"two channels, unsorted", trust.Approval{Channels: []string{"embed", "chat"}, Ticket: "OPS-1", Expires: now}, ""},
		{"a bad channel", trust.Approval{Channels: []string{"no channel"}}, "channels"},
		{"a ticket of two lines", trust.Approval{Ticket: "OPS-1\nOPS-2"}, "ticket"},
		{"a long ticket", trust.Approval{Ticket: strings.Repeat("x", 1025)}, "ticket"},
	}
	for _, tt := range approvals {
		_, err := trust.NewApproval(release, tt.a)
		checkPath(t, err, tt.path)
	}
	publications := []struct {
		name string
		p    trust.Publication
		path string
	}{
		{"first", trust.Publication{Channel: "chat", Epoch: 1}, ""},
		{"a later one", trust.Publication{Channel: "chat", Epoch: 2, Previous: release, Expires: now}, ""},
		{"no channel", trust.Publication{Epoch: 1}, "channel"},
		{"epoch 0", trust.Publication{Channel: "chat"}, "epoch"},
		{"an epoch that JSON can't carry", trust.Publication{Channel: "chat", Epoch: 1 << 53}, "epoch"},
		{"a bad predecessor", trust.Publication{Channel: "chat", Epoch: 2, Previous: "the last"}, "previous"},
	}
	for _, tt := range publications {
		_, err := trust.NewPublication(release, tt.p)
		checkPath(t, err, tt.path)
	}
}

// TestParseActs: what may not be signed is not read either, whoever has signed it.
func TestParseActs(t *testing.T) {
	s := newScene(t, nil)
	for predicate, want := range map[string]string{
		`{}`:                              "",
		`{"channels":["chat","embed"]}`:   "",
		`{"channels":["embed","chat"]}`:   "not sorted",
		`{"channels":["chat","chat"]}`:    "twice",
		`{"channels":[]}`:                 "the one form",
		`{"channels":[""]}`:               "is not a name",
		`{"expires":"tomorrow"}`:          "expires",
		`{"ticket":null}`:                 "the one form",
		`{"channels":["chat"],"until":1}`: "until",
	} {
		s.raw("alice", trust.ApprovalType, strings.Repeat("0", 64), predicate)
		_, _, err := trust.ParseApproval(s.set[len(s.set)-1])
		checkRefused(t, err, trust.ErrMalformed, want)
	}
	for predicate, want := range map[string]string{
		`{"channel":"chat","epoch":1}`:                   "",
		`{"channel":"chat","epoch":0}`:                   "epoch",
		`{"channel":"chat","epoch":-1}`:                  "epoch",
		`{"channel":"chat","epoch":1.5}`:                 "epoch",
		`{"channel":"","epoch":1}`:                       "is not a name",
		`{"channel":"chat"}`:                             "the one form",
		`{"channel":"chat","epoch":1,"previous":"last"}`: "previous",
	} {
		s.raw("shipper", trust.PublicationType, strings.Repeat("0", 64), predicate)
		_, _, err := trust.ParsePublication(s.set[len(s.set)-1])
		checkRefused(t, err, trust.ErrMalformed, want)
	}
}

func TestParseAge(t *testing.T) {
	for text, want := range map[string]time.Duration{"1d": 24 * time.Hour, "90d": 90 * 24 * time.Hour, "36h": 36 * time.Hour, "1h30m": 90 * time.Minute} {
		if got, err := trust.ParseAge(text); got != want || err != nil {
			t.Errorf("ParseAge(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "90", "0d", "-1d", "+1d", "01d", "1.5d", "36501d", "0s", "-1h", "d"} {
		if got, err := trust.ParseAge(text); err == nil {
			t.Errorf("ParseAge(%q) = %v, want an error", text, got)
		}
	}
}
