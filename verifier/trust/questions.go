package trust

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/weighbridge/weighbridge/verifier/oms"
	"github.com/weighbridge/weighbridge/verifier/statement"
)

// A Power is one act that changes what a channel serves, and who may do it together with how many others.
type Power struct {
	Act        string   `json:"act"` // sign weights, release, evaluate, approve, publish, roll back, withdraw, replace the policy
	Role       string   `json:"role"`
	Need       int      `json:"need"`
	Identities []string `json:"identities"` // active members, sorted
}

// WhoCan returns who could change what a channel serves, in the order in which the acts follow each other. It returns
// nothing for a channel that the policy does not name.
func (p *Policy) WhoCan(channel string) []Power {
	rules, known := p.doc.Channels[channel]
	if !known {
		return nil
	}
	weights, root := rules.weightsRule(), Rule{Role: rootRole}
	if _, has := p.doc.Roles[rootRole]; !has {
		root.Role = ""
	}
	var all []Power
	for _, a := range []struct {
		act  string
		rule *Rule
	}{
		{"sign weights", &weights}, {"release", &rules.Require.Release}, {"evaluate", rules.Require.Evaluation},
		{"approve", rules.Require.Approval}, {"publish", &rules.Publish}, {"roll back", rules.Rollback},
		{"withdraw", rules.Withdraw}, {"replace the policy", &root},
	} {
		if a.rule != nil && a.rule.Role != "" {
			all = append(all, Power{a.act, a.rule.Role, p.need(*a.rule), append([]string{}, p.activeMembers(a.rule.Role)...)})
		}
	}
	return all
}

// Without returns the policy as it would be if nothing that an identity signed counted. It is for questions: no root has
// signed it. It returns nil if the policy does not know the identity.
func (p *Policy) Without(identity string) *Policy {
	one, known := p.doc.Identities[identity]
	if !known {
		return nil
	}
	one.State = State{Compromised: time.Unix(0, 0).UTC()}
	doc := p.doc
	doc.Identities = maps.Clone(doc.Identities)
	doc.Identities[identity] = one
	without := *p
	without.doc = doc
	return &without
}

// A Change is one difference between two releases. From and To are JSON, or "" where the release does not have it.
type Change struct {
	Path string `json:"path"` // as in release.yaml; weights and adapters are by file
	From string `json:"from"`
	To   string `json:"to"`
}

// Diff returns everything that differs between two releases, in the order of paths: all that changes how the model
// behaves, and what the producers say of it.
func Diff(from, to *Release) ([]Change, error) {
	a, err := from.flat()
	if err != nil {
		return nil, err
	}
	b, err := to.flat()
	if err != nil {
		return nil, err
	}
	paths := maps.Clone(a)
	maps.Copy(paths, b)
	changes := []Change{}
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		if a[path] != b[path] {
			changes = append(changes, Change{path, a[path], b[path]})
		}
	}
	return changes, nil
}

// flat returns each value of a release by its path.
func (r *Release) flat() (map[string]string, error) {
	text, err := canonical(r.Descriptor)
	if err != nil {
		return nil, err
	}
	var tree map[string]any
	if err := statement.Unmarshal(text, &tree); err != nil {
		return nil, fmt.Errorf("diff release %s: %w", r.ID, err)
	}
	tree["weights"] = map[string]any{"root": r.Weights.Root, "files": sumsOf(r.manifest)}
	behaviour := tree["behaviour"].(map[string]any) // as it was written above
	delete(behaviour, "adapters")
	for i, a := range r.adapters {
		behaviour[fmt.Sprintf("adapters[%d]", i)] = map[string]any{
			"root": a.Root, "base": r.Behaviour.Adapters[i].Base, "scale": a.Scale, "files": sumsOf(a.Manifest),
		}
	}
	all := map[string]string{}
	return all, flatten(all, "", tree)
}

// sumsOf returns the digests of each file.
func sumsOf(m *oms.Manifest) map[string]any {
	files := map[string]any{}
	for _, f := range m.Files() {
		var parts []string
		for _, p := range f.Parts {
			parts = append(parts, fmt.Sprintf("%x", p.Sum))
		}
		files[f.Name] = strings.Join(parts, " ")
	}
	return files
}

func flatten(into map[string]string, path string, v any) error {
	members, ok := v.(map[string]any)
	if !ok {
		text, err := canonical(v)
		into[path] = string(text)
		return err
	}
	for name, value := range members {
		at := name
		if path != "" {
			at = path + "." + name
		}
		if err := flatten(into, at, value); err != nil {
			return err
		}
	}
	return nil
}
