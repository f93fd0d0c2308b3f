package trust

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// An IdentityChange is what a policy says of an identity that the one before it did not, or no more.
type IdentityChange struct {
	Identity string
	What     string // "is new: …", "is gone: …" or "gained …, lost …"
}

// IdentityChanges returns what is different between the identities of two policies, sorted by their names. A nil from is the
// policy before the first: it has none.
func IdentityChanges(from, to *Policy) []IdentityChange {
	before, after := from.facts(), to.facts()
	names := maps.Clone(before)
	maps.Copy(names, after)
	var all []IdentityChange
	for _, name := range slices.Sorted(maps.Keys(names)) {
		was, known := before[name]
		is, remains := after[name]
		gained, lost := without(is, was), without(was, is)
		switch {
		case !known:
			all = append(all, IdentityChange{name, "is new: " + strings.Join(is, ", ")})
		case !remains:
			all = append(all, IdentityChange{name, "is gone: " + strings.Join(was, ", ")})
		case len(gained) > 0 && len(lost) > 0:
			all = append(all, IdentityChange{name, "gained " + strings.Join(gained, ", ") + "; lost " + strings.Join(lost, ", ")})
		case len(gained) > 0:
			all = append(all, IdentityChange{name, "gained " + strings.Join(gained, ", ")})
		case len(lost) > 0:
			all = append(all, IdentityChange{name, "lost " + strings.Join(lost, ", ")})
		}
	}
	return all
}

// facts returns what a policy says of each identity: its roles first, for they are what it may do.
func (p *Policy) facts() map[string][]string {
	all := map[string][]string{}
	if p == nil {
		return all
	}
	for name, i := range p.doc.Identities {
		facts := []string{}
		for _, role := range slices.Sorted(maps.Keys(p.doc.Roles)) {
			if slices.Contains(p.doc.Roles[role].Members, name) {
				facts = append(facts, "role "+role)
			}
		}
		if !i.State.Active() {
			facts = append(facts, i.State.String())
		}
		if i.Certificate != "" {
			facts = append(facts, "certificate "+i.Certificate)
		}
		if i.SPIFFE != "" {
			facts = append(facts, i.SPIFFE)
		}
		if i.Sigstore != (Sigstore{}) {
			facts = append(facts, fmt.Sprintf("account %s of %s by trusted root %s", i.Sigstore.Subject, i.Sigstore.Issuer, i.Sigstore.TrustedRoot))
		}
		for _, k := range slices.SortedFunc(maps.Values(p.keys), func(a, b *key) int { return cmp.Compare(a.id, b.id) }) {
			if k.identity == name {
				facts = append(facts, "key "+string(k.id))
			}
		}
		if len(i.Roots) > 0 {
			facts = append(facts, fmt.Sprintf("roots %x", sha256.Sum256([]byte(strings.Join(i.Roots, "\n")))))
		}
		all[name] = facts
	}
	return all
}

// without returns what of all is not among others.
func without(all, others []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(fact string) bool { return slices.Contains(others, fact) })
}
