package trust_test

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// adapter is a signed adapter of the scene's weights; files of one name are made and signed once.
func (s *scene) adapter(signer, name string) trust.Adapter {
	s.t.Helper()
	path := filepath.Join(s.Dir, name)
	if _, err := os.Stat(path); err != nil {
		if err := os.WriteFile(path, []byte("adapter "+name), 0o644); err != nil {
			s.t.Fatal(err)
		}
		s.SignModelAs(signer, path)
	}
	return s.Adapter(path, s.descriptor().Weights.Root)
}

// directory is a signed adapter of two files.
func (s *scene) directory() trust.Adapter {
	s.t.Helper()
	path := filepath.Join(s.Dir, "two")
	if err := os.MkdirAll(path, 0o755); err != nil {
		s.t.Fatal(err)
	}
	for _, name := range []string{"a.gguf", "b.gguf"} {
		if err := os.WriteFile(filepath.Join(path, name), []byte(name), 0o644); err != nil {
			s.t.Fatal(err)
		}
	}
	s.SignModel(path)
	return s.Adapter(path, s.descriptor().Weights.Root)
}

// TestNewReleaseAdapters has two adapters and then one mistake per row, with the key it must be reported under.
func TestNewReleaseAdapters(t *testing.T) {
	s := newScene(t, nil)
	one, two := s.adapter("trainer", "one.gguf"), s.adapter("trainer", "two.gguf")
	root := s.descriptor().Weights.Root
	scaled := func(scale float64) func([]trust.Adapter) []trust.Adapter {
		return func(a []trust.Adapter) []trust.Adapter {
			a[1].Scale = scale
			return a
		}
	}
	many := func(n int) func([]trust.Adapter) []trust.Adapter {
		return func([]trust.Adapter) (all []trust.Adapter) {
			for i := range n {
				all = append(all, s.adapter("trainer", "many"+string(rune('a'+i))))
			}
			return all
		}
	}
	tests := []struct {
		name string
		edit func([]trust.Adapter) []trust.Adapter
		path string
	}{
		{"two", scaled(0.5), ""},
		{"at the least scale", scaled(0.001), ""},
		{"at the greatest scale", scaled(100), ""},
		{"not scaled at all", scaled(0), "behaviour.adapters[1].scale"},
		{"taken away", scaled(-1), "behaviour.adapters[1].scale"},
		{"scaled too much", scaled(100.1), "behaviour.adapters[1].scale"},
		{"scaled endlessly", scaled(math.Inf(1)), "behaviour.adapters[1].scale"},
		{"scaled by no number", scaled(math.NaN()), "behaviour.adapters[1].scale"},
		{"made for other weights", func(a []trust.Adapter) []trust.Adapter { a[1].Base = a[0].Root; return a }, "behaviour.adapters[1].base"},
		{"made for no weights", func(a []trust.Adapter) []trust.Adapter { a[1].Base = ""; return a }, "behaviour.adapters[1].base"},
		{"no root", func(a []trust.Adapter) []trust.Adapter { a[0].Root = ""; return a }, "behaviour.adapters[0].root"},
		{"one twice", func(a []trust.Adapter) []trust.Adapter { a[1] = a[0]; return a }, "behaviour.adapters[1].root"},
		{"the weights themselves", func(a []trust.Adapter) []trust.Adapter { a[0] = s.Adapter(s.model, root); return a }, "behaviour.adapters[0].root"},
		{"as many as there may be", many(16), ""},
		{"more", many(17), "behaviour.adapters"},
		{"of two files", func(a []trust.Adapter) []trust.Adapter { a[1] = s.directory(); return a }, "behaviour.adapters[1]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := s.descriptor()
			d.Behaviour.Adapters = tt.edit([]trust.Adapter{one, two})
			payload, err := trust.NewRelease(d)
			checkPath(t, err, tt.path)
			if tt.path != "" {
				return
			}
			r, err := trust.ParseRelease(s.Sign("trainer", payload))
			if err != nil {
				t.Fatal(err)
			}
			for i, a := range r.Adapters() {
				want := d.Behaviour.Adapters[i]
				_, subject := a.Statement.Subject()
				if a.Root != want.Root || a.Manifest.Root() != want.Root || "sha256:"+subject != want.Root || a.Scale != want.Scale {
					t.Errorf("adapter %d is %+v, want %s at %v", i, a, want.Root, want.Scale)
				}
			}
			if n := len(r.Adapters()); n != len(d.Behaviour.Adapters) || len(r.Unenforceable()) != 0 {
				t.Errorf("%d adapters and %q that can't be enforced, want %d and none", n, r.Unenforceable(), len(d.Behaviour.Adapters))
			}
		})
	}
	d := s.descriptor()
	d.Behaviour.Adapters = []trust.Adapter{one}
	d.Behaviour.Adapters[0].Statement = two.Statement
	if _, err := trust.NewRelease(d); err == nil || !strings.Contains(err.Error(), "behaviour.adapters[0].root") {
		t.Errorf("NewRelease with the statement of another adapter = %v, want an error about its root", err)
	}
}

// TestParseReleaseAdapters: what may not be signed is not read either.
func TestParseReleaseAdapters(t *testing.T) {
	s := newScene(t, nil)
	d := s.descriptor()
	d.Behaviour.Adapters = []trust.Adapter{s.adapter("trainer", "one.gguf")}
	a := d.Behaviour.Adapters[0]
	predicate := predicateOf(t, d)
	other := s.adapter("trainer", "two.gguf")
	tests := []struct{ name, old, new, want string }{
		{"as signed", "", "", ""},
		{"an unknown field", `"scale":1`, `"name":"x","scale":1`, "name"},
		{"a field in another case", `"scale":1`, `"Scale":1`, "Scale"},
		{"no scale", `"scale":1,`, ``, "the one form"},
		{"a null", `"scale":1`, `"scale":null`, "the one form"},
		{"a scale in words", `"scale":1`, `"scale":"1"`, "wrong kind"},
		{"another root", `"root":"` + a.Root, `"root":"` + other.Root, "adapters[0].root"},
		{"another base", `"base":"` + a.Base, `"base":"` + other.Root, "adapters[0].base"},
		{"a scale of 0", `"scale":1`, `"scale":0`, "adapters[0].scale"},
		{"a statement about nothing", `"statement":` + canonicalOf(t, a.Statement), `"statement":{}`, "adapters[0].statement"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if !strings.Contains(predicate, tt.old) {
				t.Fatalf("the release holds no %s", tt.old)
			}
			s.raw("trainer", trust.ReleaseType, s.root(), strings.Replace(predicate, tt.old, tt.new, 1))
			_, err := trust.ParseRelease(s.set[len(s.set)-1])
			checkRefused(t, err, trust.ErrMalformed, tt.want)
		})
	}
}

// toolsOfOllama is a descriptor with what this version can't enforce: tools, by a kind that does not pass them on.
func (s *scene) toolsOfOllama() string {
	return strings.NewReplacer(`"tools":[]`, `"tools":["search"]`, `"kind":"llamacpp"`, `"kind":"ollama"`).Replace(s.descriptorJSON())
}

// TestTools: their names are checked, and by which runtimes they can be offered.
func TestTools(t *testing.T) {
	s := newScene(t, nil)
	predicate := s.descriptorJSON()
	for tools, want := range map[string]string{
		`["get-weather","search_1"]`:               "",
		`["search","get-weather"]`:                 "not sorted",
		`["search","search"]`:                      "twice",
		`[""]`:                                     "not the name of a tool",
		`["get weather"]`:                          "not the name of a tool",
		`["` + strings.Repeat("x", 65) + `"]`:      "not the name of a tool",
		`["x"` + strings.Repeat(`,"x"`, 128) + `]`: "more than 128",
	} {
		s.raw("trainer", trust.ReleaseType, s.root(), strings.Replace(predicate, `"tools":[]`, `"tools":`+tools, 1))
		r, err := trust.ParseRelease(s.set[len(s.set)-1])
		checkRefused(t, err, trust.ErrMalformed, want)
		if err == nil && len(r.Unenforceable()) > 0 {
			t.Errorf("tools %s: unenforceable is %q, want nothing", tools, r.Unenforceable())
		}
	}
	for kind, edit := range map[string]func(*trust.Descriptor){
		"": func(*trust.Descriptor) {},
		"ollama": func(d *trust.Descriptor) {
			d.Runtime, d.Behaviour.ChatTemplate = trust.Runtime{Kind: "ollama"}, "{{ .Messages }}"
		},
		"embeddings": func(d *trust.Descriptor) {
			d.Runtime.Args, d.Behaviour.ChatTemplate, d.Behaviour.SystemPrompt = map[string]string{"embeddings": "true"}, "", ""
		},
	} {
		d := s.descriptor()
		d.Behaviour.Tools = []string{"search"}
		edit(&d)
		if _, err := trust.NewRelease(d); kind == "" && err != nil {
			t.Errorf("NewRelease() with tools = %v", err)
		} else if kind != "" {
			checkPath(t, err, "behaviour.tools")
		}
	}
}

// TestDiffAdapters: an adapter is shown by what it is, and file by file, never as the bundle that it came in.
func TestDiffAdapters(t *testing.T) {
	s := newScene(t, nil)
	parse := func(adapters ...trust.Adapter) *trust.Release {
		s.releaseBy("trainer", func(d *trust.Descriptor) { d.Behaviour.Adapters = adapters })
		r, err := trust.ParseRelease(s.set[len(s.set)-1])
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	one, two := s.adapter("trainer", "one.gguf"), s.adapter("trainer", "two.gguf")
	half := one
	half.Scale = 0.5
	tests := []struct {
		name     string
		from, to *trust.Release
		want     []string
	}{
		{"the same", parse(one), parse(one), nil},
		{"another scale", parse(one), parse(half), []string{"behaviour.adapters[0].scale: 1 0.5"}},
		{"another adapter", parse(two, one), parse(two, s.adapter("trainer", "three.gguf")), []string{"behaviour.adapters[1].files..: ", "behaviour.adapters[1].root: "}},
		{"one more", parse(), parse(one), []string{"behaviour.adapters[0].base:  ", "behaviour.adapters[0].files..:  ", "behaviour.adapters[0].root:  ", "behaviour.adapters[0].scale:  1"}},
	}
	for _, tt := range tests {
		changes, err := trust.Diff(tt.from, tt.to)
		if err != nil || len(changes) != len(tt.want) {
			t.Errorf("%s: Diff = %v, %v; want %d changes", tt.name, changes, err, len(tt.want))
			continue
		}
		for i, c := range changes {
			if got := c.Path + ": " + c.From + " " + c.To; !strings.HasPrefix(got, tt.want[i]) {
				t.Errorf("%s: change %d is %q, want %q", tt.name, i, got, tt.want[i])
			}
		}
	}
}

// adapterRows: an adapter's signature is judged as that of the weights, and its withdrawal takes the release.
var adapterRows = []row{
	{name: "an adapter", build: func(s *scene) { s.adapted(s.adapter("trainer", "lora.gguf")) }, serves: true},
	{name: "two adapters", build: func(s *scene) {
		s.adapted(s.adapter("trainer", "lora.gguf"), s.adapter("trainer", "other.gguf"))
	}, serves: true},
	{name: "an adapter by a stranger", build: func(s *scene) { s.adapted(s.adapter("mallory", "lora.gguf")) },
		rule: trust.RuleUnknownIdentity, missing: "producer 0/1 by trainer"},
	{name: "the second adapter by a stranger", build: func(s *scene) {
		s.adapted(s.adapter("trainer", "lora.gguf"), s.adapter("mallory", "other.gguf"))
	}, rule: trust.RuleUnknownIdentity, missing: "producer 0/1 by trainer"},
	{name: "an adapter by an approver", build: func(s *scene) { s.adapted(s.adapter("carol", "lora.gguf")) },
		rule: trust.RuleRole, missing: "producer 0/1 by trainer"},
	{name: "an adapter by one who may sign releases only", policy: lab, build: func(s *scene) {
		s.SignModelAs("lab", s.model)
		s.adapted(s.adapter("trainer", "lora.gguf"))
	}, rule: trust.RuleRole, missing: "lab 0/1 by lab"},
	{name: "an adapter by who signs weights", policy: lab, build: func(s *scene) {
		s.SignModelAs("lab", s.model)
		s.adapted(s.adapter("lab", "lora.gguf"))
	}, serves: true},
	{name: "who signed an adapter approves", policy: and(lab, func(s *scene) { s.join("lab", "carol") }, rules(func(c *trust.ChannelRules) {
		c.Separate = append(c.Separate, "lab")
	})), build: func(s *scene) {
		s.SignModelAs("lab", s.model)
		release := s.releaseBy("trainer", func(d *trust.Descriptor) { d.Behaviour.Adapters = []trust.Adapter{s.adapter("carol", "lora.gguf")} })
		s.approve(release, "alice", "carol")
		s.publish(release, 1)
	}, rule: trust.RuleSeparation, missing: "approver 1/2 by bob"},
	{name: "mode warn relaxes no adapter", policy: rules(func(c *trust.ChannelRules) { c.Mode = "warn" }), build: func(s *scene) {
		s.adapted(s.adapter("mallory", "lora.gguf"))
	}, rule: trust.RuleUnknownIdentity, missing: "producer 0/1 by trainer"},
	{name: "an adapter of other weights", build: func(s *scene) {
		d := s.descriptor()
		d.Behaviour.Adapters = []trust.Adapter{s.adapter("trainer", "lora.gguf")}
		base := `"base":"` + d.Weights.Root
		release := s.raw("trainer", trust.ReleaseType, s.root(), strings.Replace(predicateOf(s.t, d), base, `"base":"sha256:`+strings.Repeat("0", 64), 1))
		s.approve(release, "alice", "bob")
		s.publish(release, 1)
	}, rule: trust.RuleUnknownField, missing: "producer 0/1 by "},
	{name: "an adapter of two files", build: func(s *scene) {
		d := s.descriptor()
		d.Behaviour.Adapters = []trust.Adapter{s.directory()}
		release := s.raw("trainer", trust.ReleaseType, s.root(), predicateOf(s.t, d))
		s.approve(release, "alice", "bob")
		s.publish(release, 1)
	}, rule: trust.RuleUnknownField, missing: "producer 0/1 by "},
	{name: "an adapter withdrawn", build: func(s *scene) {
		lora := s.adapter("trainer", "lora.gguf")
		s.adapted(s.adapter("trainer", "other.gguf"), lora)
		s.floor.Withdrawn = []trust.Withdrawn{{Weights: lora.Root}}
	}, rule: trust.RuleWithdrawn, missing: "publisher 0/1 by shipper"},
	{name: "an adapter withdrawn by statement", policy: and(duties, rules(func(c *trust.ChannelRules) { c.Require.Evaluation = nil })), build: func(s *scene) {
		lora := s.adapter("trainer", "lora.gguf")
		s.adapted(lora)
		s.withdrawal(statement.ID(lora.Root), "warden", trust.OfWeights)
	}, rule: trust.RuleWithdrawn, missing: "publisher 0/1 by shipper"},
	{name: "an adapter withdrawn on another channel", build: func(s *scene) {
		lora := s.adapter("trainer", "lora.gguf")
		s.adapted(lora)
		s.floor.Withdrawn = []trust.Withdrawn{{Channel: "other", Weights: lora.Root}}
	}, serves: true},
}

// lab makes weights, and adapters, the work of a role of their own.
func lab(s *scene) {
	s.doc.Identities["lab"] = trust.Identity{Keys: []string{s.PublicPEM("lab")}}
	s.doc.Roles["lab"] = trust.Role{Members: []string{"lab"}}
	s.chat(func(c *trust.ChannelRules) { c.Require.Weights = &trust.Rule{Role: "lab"} })
}

// adapted adds everything that a release with adapters needs.
func (s *scene) adapted(adapters ...trust.Adapter) statement.ID {
	s.t.Helper()
	release := s.releaseBy("trainer", func(d *trust.Descriptor) { d.Behaviour.Adapters = adapters })
	s.approve(release, "alice", "bob")
	s.publish(release, 1)
	return release
}

// predicateOf is a descriptor in canonical JSON, whatever is wrong with it.
func predicateOf(t *testing.T, d trust.Descriptor) string {
	t.Helper()
	return canonicalOf(t, []byte(marshal(t, d)))
}

// TestDecideAdapterSigners: what serves rests on who signed an adapter, too.
func TestDecideAdapterSigners(t *testing.T) {
	s := newScene(t, func(s *scene) {
		lab(s)
		s.join("lab", "carol")
	})
	s.SignModelAs("lab", s.model)
	lora := s.adapter("carol", "lora.gguf")
	s.adapted(lora)
	got := s.decide()
	if want := []string{"carol", "lab"}; !slices.Equal(got.Signers.Weights, want) {
		t.Errorf("weights signed by %q, want %q", got.Signers.Weights, want)
	}
	signed, err := statement.Parse(lora.Statement)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(got.Counted, trust.TimedAct{Act: trust.Act{Statement: signed.ID(), Identity: "carol"}}) {
		t.Errorf("counted %v, want carol's signature of the adapter among them", got.Counted)
	}
	for _, r := range got.Reasons {
		if r.Statement == signed.ID() && !r.Counted {
			t.Errorf("the adapter's signature is refused as well: %s", r.Why)
		}
	}
}
