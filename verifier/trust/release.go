package trust

import (
	"bytes"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/verifier/oms"
	"github.com/weighbridge/weighbridge/verifier/statement"
)

// A Descriptor is the predicate of a release: everything that changes how the model behaves.
type Descriptor struct {
	Model      string     `json:"model"`
	Version    string     `json:"version"`
	Weights    Weights    `json:"weights"`
	Runtime    Runtime    `json:"runtime"`
	Behaviour  Behaviour  `json:"behaviour"`
	Warmup     Warmup     `json:"warmup,omitzero"`
	Provenance Provenance `json:"provenance,omitzero"`
}

// Weights name the weights by root and carry their whole OMS signature, so that every file of them is part of the
// release and no file beside it has to be trusted for that.
type Weights struct {
	Root      string         `json:"root"`      // "sha256:<hex>"
	Statement jsontext.Value `json:"statement"` // the OMS bundle
}

// Runtime says what runs the weights.
type Runtime struct {
	Kind  string            `json:"kind"`
	Args  map[string]string `json:"args"`            // each kind of runtime has its own list of allowed ones
	Build string            `json:"build,omitempty"` // "sha256:<hex>" of the binary; empty: any
}

// Behaviour is what the gateway enforces around the weights.
type Behaviour struct {
	SystemPrompt string    `json:"systemPrompt,omitempty"`
	ChatTemplate string    `json:"chatTemplate,omitempty"` // the template's text; empty: the one in the weights
	Sampling     Sampling  `json:"sampling"`
	Output       Output    `json:"output"`
	Tools        []string  `json:"tools"` // functions that a caller may offer to the model, sorted
	Adapters     []Adapter `json:"adapters"`
}

// Sampling are the samplers a caller may set. A nil one is left to the runtime's default, and callers may set
// it within the range of the API they call.
type Sampling struct {
	Temperature *Range `json:"temperature,omitempty"`
	TopP        *Range `json:"topP,omitempty"`
}

// A Range is a sampler's value where the caller asks for none, and the highest that a caller may ask for.
type Range struct {
	Default float64 `json:"default"`
	Max     float64 `json:"max"`
}

// Output limits an answer.
type Output struct {
	MaxTokens int `json:"maxTokens,omitzero"` // 0: the release sets no limit of its own
}

// Warmup is a prompt that is asked before a release serves, and what its answer must contain.
type Warmup struct {
	Prompt   string `json:"prompt"`
	Contains string `json:"contains,omitempty"`
}

// Provenance refers to where the weights came from. Nothing is checked about it; it is what the producer says.
type Provenance struct {
	Base string `json:"base,omitempty"`
	Data string `json:"data,omitempty"`
	Run  string `json:"run,omitempty"`
}

// A Release is a checked release. It is immutable: its maps, slices and pointers must not be changed.
type Release struct {
	ID statement.ID
	Descriptor

	weights  *statement.Signed
	manifest *oms.Manifest
	adapters []SignedAdapter
}

// NewRelease checks the descriptor and returns the payload to sign. The statement's subject is the weights' root. It
// refuses what this version can't enforce. All problems are reported at once; see [Problems].
func NewRelease(d Descriptor) ([]byte, error) {
	if d.Runtime.Args == nil {
		d.Runtime.Args = map[string]string{}
	}
	bad := append(d.check(), d.unenforceable()...)
	if err := bad.err(); err != nil {
		return nil, err
	}
	r := &Release{Descriptor: d}
	if err := r.parse(); err != nil {
		return nil, err
	}
	if err := r.unenforceable().err(); err != nil {
		return nil, err
	}
	return statement.New(ReleaseType, d.Model, strings.TrimPrefix(d.Weights.Root, "sha256:"), d)
}

// ParseRelease reads the release in a statement, whoever signed it. What it returns may still be more than this version
// can enforce: see [Release.Unenforceable].
func ParseRelease(s *statement.Signed) (*Release, error) {
	r := &Release{ID: s.ID()}
	if err := decode(s, ReleaseType, &r.Descriptor); err != nil {
		return nil, fmt.Errorf("release: %w", err)
	}
	if err := r.check().err(); err != nil {
		return nil, fmt.Errorf("release: %w: %w", ErrMalformed, err)
	}
	if _, subject := s.Subject(); "sha256:"+subject != r.Weights.Root {
		return nil, fmt.Errorf("release: %w: its subject is not the weights' root", ErrMalformed)
	}
	if err := r.parse(); err != nil {
		return nil, fmt.Errorf("release: %w: %w", ErrMalformed, err)
	}
	return r, nil
}

// Manifest returns the list of the weights' files, from the statement that the release embeds.
func (r *Release) Manifest() *oms.Manifest { return r.manifest }

// WeightsStatement returns the weights' own statement, not yet verified.
func (r *Release) WeightsStatement() *statement.Signed { return r.weights }

// Unenforceable returns the fields that this version can't enforce. A release that has any is refused, never served
// without them.
func (r *Release) Unenforceable() []string {
	fields := []string{}
	for _, p := range r.unenforceable() {
		fields = append(fields, p.Path)
	}
	return fields
}

// parseWeights reads an embedded OMS statement and its manifest, whose root must be the one that the release names.
func parseWeights(path, root string, bundle jsontext.Value) (*statement.Signed, *oms.Manifest, error) {
	s, err := statement.Parse(bytes.Clone(bundle))
	if err != nil {
		return nil, nil, fmt.Errorf("%s.statement: %w", path, err)
	}
	m, err := oms.ParseManifest(s)
	if err != nil {
		return nil, nil, fmt.Errorf("%s.statement: %w", path, err)
	}
	if m.Root() != root {
		return nil, nil, fmt.Errorf("%s.root: is %s, but the statement is about %s", path, root, m.Root())
	}
	return s, m, nil
}

var (
	argForm  = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]*$`)
	kindForm = regexp.MustCompile(`^[a-z0-9]+$`)
)

// check returns what is wrong with the descriptor; paths are those of release.yaml.
func (d *Descriptor) check() problems {
	var bad problems
	if err := checkName(d.Model); err != nil {
		bad.add("model", "%v", err)
	}
	checkLine(&bad, "version", d.Version, true)
	if _, err := statement.ParseID(d.Weights.Root); err != nil {
		bad.add("weights.root", "%v", err)
	}
	d.Runtime.check(&bad)
	d.Behaviour.check(&bad)
	d.checkAdapters(&bad)
	checkText(&bad, "warmup.prompt", d.Warmup.Prompt, d.Warmup != Warmup{})
	checkText(&bad, "warmup.contains", d.Warmup.Contains, false)
	checkLine(&bad, "provenance.base", d.Provenance.Base, false)
	checkLine(&bad, "provenance.data", d.Provenance.Data, false)
	checkLine(&bad, "provenance.run", d.Provenance.Run, false)
	return bad
}

func (r *Runtime) check(bad *problems) {
	if !kindForm.MatchString(r.Kind) || len(r.Kind) > maxName {
		bad.add("runtime.kind", "%.80q is not the name of a runtime, such as llamacpp", r.Kind)
	}
	if len(r.Args) > maxArgs {
		bad.add("runtime.args", "has %d arguments, more than %d", len(r.Args), maxArgs)
		return
	}
	for _, name := range slices.Sorted(maps.Keys(r.Args)) {
		if !argForm.MatchString(name) || len(name) > maxName {
			bad.add("runtime.args", "%.80q is not the name of an argument (without dashes before it)", name)
		}
		checkText(bad, "runtime.args."+name, r.Args[name], true)
	}
	if r.Build != "" {
		if _, err := statement.ParseID(r.Build); err != nil {
			bad.add("runtime.build", "%v", err)
		}
	}
}

func (b *Behaviour) check(bad *problems) {
	if len(b.SystemPrompt) > maxSystemPrompt || strings.ContainsRune(b.SystemPrompt, 0) {
		bad.add("behaviour.systemPrompt", "is longer than %d bytes or holds a NUL", maxSystemPrompt)
	}
	if len(b.ChatTemplate) > maxTemplate || strings.ContainsRune(b.ChatTemplate, 0) {
		bad.add("behaviour.chatTemplate", "is longer than %d bytes or holds a NUL", maxTemplate)
	}
	b.Sampling.Temperature.check(bad, "behaviour.sampling.temperature", 2)
	b.Sampling.TopP.check(bad, "behaviour.sampling.topP", 1)
	if b.Output.MaxTokens < 0 || b.Output.MaxTokens > maxMaxTokens {
		bad.add("behaviour.output.maxTokens", "must be from 1 to %d, or absent", maxMaxTokens)
	}
	checkTools(bad, b.Tools)
}

func (r *Range) check(bad *problems, path string, highest float64) {
	if r == nil {
		return
	}
	// Written so that NaN, which YAML can spell, is refused too.
	if !(r.Max >= 0 && r.Max <= highest) {
		bad.add(path+".max", "must be from 0 to %v", highest)
	} else if !(r.Default >= 0 && r.Default <= r.Max) {
		bad.add(path+".default", "must be from 0 to max (%v)", r.Max)
	}
}

// checkLine is checkText for what is shown to people before they sign: an escape sequence in it could show them
// something else.
func checkLine(bad *problems, path, text string, required bool) {
	checkText(bad, path, text, required)
	if i := strings.IndexFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
		bad.add(path, "holds %.6q, which can't be printed", text[i:])
	}
}

func checkText(bad *problems, path, text string, required bool) {
	switch {
	case text == "" && required:
		bad.add(path, "is required")
	case len(text) > maxText:
		bad.add(path, "is longer than %d bytes", maxText)
	case strings.ContainsRune(text, 0):
		bad.add(path, "holds a NUL")
	}
}
