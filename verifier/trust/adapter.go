package trust

import (
	"fmt"
	"regexp"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/verifier/oms"
	"github.com/weighbridge/weighbridge/verifier/statement"
)

// An Adapter changes what the weights compute, as a LoRA does. Like the weights it is named by root and carries its own
// OMS signature, which the channel's rule for weights judges; and it is bound to the weights that it was made for.
type Adapter struct {
	Root      string         `json:"root"`      // "sha256:<hex>"
	Base      string         `json:"base"`      // root of the weights that it may be applied to
	Scale     float64        `json:"scale"`     // how strongly it is applied
	Statement jsontext.Value `json:"statement"` // the OMS bundle
}

// A SignedAdapter is an adapter of a checked release.
type SignedAdapter struct {
	Root      string
	Scale     float64
	Statement *statement.Signed // not yet verified
	Manifest  *oms.Manifest
}

// Adapters returns the release's adapters, in its order.
func (r *Release) Adapters() []SignedAdapter { return slices.Clone(r.adapters) }

// parse reads the embedded statements of the weights and of the adapters.
func (r *Release) parse() (err error) {
	if r.weights, r.manifest, err = parseWeights("weights", r.Weights.Root, r.Weights.Statement); err != nil {
		return err
	}
	for i, a := range r.Behaviour.Adapters {
		s, m, err := parseWeights(adapterPath(i), a.Root, a.Statement)
		if err != nil {
			return err
		}
		r.adapters = append(r.adapters, SignedAdapter{a.Root, a.Scale, s, m})
	}
	return nil
}

func adapterPath(i int) string { return fmt.Sprintf("behaviour.adapters[%d]", i) }

// checkAdapters checks all of the adapters but their statements.
func (d *Descriptor) checkAdapters(bad *problems) {
	adapters := d.Behaviour.Adapters
	if len(adapters) > maxAdapters {
		bad.add("behaviour.adapters", "has %d adapters, more than %d", len(adapters), maxAdapters)
		return
	}
	seen := map[string]bool{d.Weights.Root: true}
	for i, a := range adapters {
		path := adapterPath(i)
		if _, err := statement.ParseID(a.Root); err != nil {
			bad.add(path+".root", "%v", err)
		} else if seen[a.Root] {
			bad.add(path+".root", "is that of the weights, or of an adapter before it")
		}
		seen[a.Root] = true
		if a.Base != d.Weights.Root {
			bad.add(path+".base", "is %.80q, but the weights are %.80s: this adapter was made for others", a.Base, d.Weights.Root)
		}
		// Written so that NaN, which YAML can spell, is refused too.
		if !(a.Scale >= minScale && a.Scale <= maxScale) {
			bad.add(path+".scale", "must be from %v to %v", minScale, maxScale)
		}
	}
}

// CheckAdapter reports why a runtime of a kind can't apply an adapter that is made of these files.
func CheckAdapter(kind string, files []string) error {
	if (kind == "llamacpp" || kind == "ollama") && len(files) != 1 {
		return fmt.Errorf("is %d files; %s takes an adapter that is exactly one GGUF file", len(files), kind)
	}
	return nil
}

// unenforceable returns what this version can't enforce of the release, once its statements were read.
func (r *Release) unenforceable() problems {
	bad := r.Descriptor.unenforceable()
	for i, a := range r.adapters {
		if err := CheckAdapter(r.Runtime.Kind, fileNames(a.Manifest)); err != nil {
			bad.add(adapterPath(i), "%v", err)
		}
	}
	return bad
}

func fileNames(m *oms.Manifest) []string {
	var names []string
	for _, f := range m.Files() {
		names = append(names, f.Name)
	}
	return names
}

// toolForm is what the APIs of model servers take as the name of a function.
var toolForm = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

func checkTools(bad *problems, names []string) {
	const path = "behaviour.tools"
	if len(names) > maxTools {
		bad.add(path, "names %d tools, more than %d", len(names), maxTools)
		return
	}
	for i, name := range names {
		if !toolForm.MatchString(name) || len(name) > maxName {
			bad.add(path, "%.80q is not the name of a tool: letters, digits, _ and -, at most %d", name, maxName)
		}
		if i > 0 && names[i-1] >= name {
			bad.add(path, "is not sorted, or names %.80q twice", name)
		}
	}
}
