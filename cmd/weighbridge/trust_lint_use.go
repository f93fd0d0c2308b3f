package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// A usage is what statements show of a policy.
type usage struct {
	uses     map[string]trust.Use
	channels map[string]trust.Channel
	ends     map[string][]trust.End // by channel
	signed   bool                   // whether the policy is
	signers  map[statement.KeyID]bool
	resting  map[string]bool // identities that something served rests on, nil without a floor
}

// readUsage holds the policy against a directory of statements. The policy need not be signed: nothing is served by this.
func readUsage(s streams, p shownPolicy, now time.Time, dir, floorFile string) (usage, error) {
	policy, err := draft(p.Document)
	if err != nil {
		return usage{}, err
	}
	set, bad, err := store.ReadStatements([]string{dir})
	if err != nil {
		return usage{}, err
	}
	for _, problem := range bad {
		fmt.Fprintf(s.err, "weighbridge: %s: %v (skipped)\n", problem.File, problem.Err)
	}
	var floor trust.Floor
	if floorFile != "" {
		if floor, err = store.ReadFloor(floorFile); err != nil {
			return usage{}, err
		}
	}
	ledger := trust.NewLedger(policy)
	ledger.Follow(set)
	u := usage{
		uses: ledger.Uses(), channels: ledger.Decide(now, floor).Channels, ends: map[string][]trust.End{},
		signed: p.Digest != "", signers: map[statement.KeyID]bool{},
	}
	for name, c := range u.channels {
		u.ends[name] = ledger.Ends(name, c)
	}
	for _, signer := range p.Signers { // "identity id", or the id of a root key
		fields := strings.Fields(signer)
		u.signers[statement.KeyID(fields[len(fields)-1])] = true
	}
	if floorFile != "" {
		u.resting = map[string]bool{}
		for name, c := range u.channels {
			for _, act := range c.Counted {
				u.resting[act.Identity] = true
			}
			for _, act := range floor.Channels[name].Counted {
				u.resting[act.Identity] = true
			}
		}
	}
	return u, nil
}

// draft returns a policy that nobody has signed, as if it were, for questions: [trust.ParsePolicy] reads a statement,
// whoever signed it.
func draft(d trust.Document) (*trust.Policy, error) {
	payload, err := trust.NewPolicy(d)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	signer, err := statement.NewKeySigner(key)
	if err != nil {
		return nil, err
	}
	bundle, err := signer.Sign(payload)
	if err != nil {
		return nil, err
	}
	signed, err := statement.Parse(bundle)
	if err != nil {
		return nil, err
	}
	return trust.ParsePolicy(signed, newKeyless)
}

// usage looks at what the statements show.
func (l *linter) usage(u usage) {
	for _, name := range slices.Sorted(maps.Keys(l.Channels)) {
		l.endings(name, u)
	}
	daily := l.dailyRoles()
	for _, name := range slices.Sorted(maps.Keys(l.Identities)) {
		roles := l.rolesOf(name)
		if state := l.Identities[name].State; !state.Active() {
			if u.resting != nil && !u.resting[name] && len(roles) > 0 {
				l.say("identities.%s.state: is %s, and nothing that serves rests on it; leave it out of %s", name, state, strings.Join(roles, ", "))
			}
			continue
		}
		roles = slices.DeleteFunc(roles, func(role string) bool { return !daily[role] })
		if len(roles) > 0 {
			l.unused(name, roles, u)
		}
	}
}

// dailyRoles are those that are needed to bring up a release. The others are for emergencies.
func (l *linter) dailyRoles() map[string]bool {
	daily := map[string]bool{}
	for _, c := range l.Channels {
		for _, d := range duties(c) {
			daily[d.rule.Role] = true
		}
	}
	return daily
}

// unused reports what an identity has and did not use: all, or some of its roles and keys.
func (l *linter) unused(name string, roles []string, u usage) {
	keys := make([]statement.KeyID, 0, len(l.Identities[name].Keys))
	used := func(id statement.KeyID) bool { return u.uses[name].Keys[id] || u.signers[id] }
	for _, text := range l.Identities[name].Keys {
		pub, err := statement.ParsePublicKey([]byte(text))
		if err != nil {
			return // no policy that was checked has this
		}
		id, err := statement.KeyIDOf(pub)
		if err != nil {
			return
		}
		keys = append(keys, id)
	}
	// Who may sign policies has perhaps signed those before this one.
	signs := slices.ContainsFunc(keys, used) || !u.signed && slices.Contains(l.Roles[rootRole].Members, name)
	if _, acts := u.uses[name]; !acts && !signs {
		l.say("identities.%s: has signed nothing that is there; leave it out of %s if it is not needed", name, strings.Join(roles, ", "))
		return
	}
	for _, role := range roles {
		if !u.uses[name].Roles[role] {
			l.say("roles.%s.members: %s has signed nothing as %s; take it out if it is not needed", role, name, role)
		}
	}
	if !u.signed && slices.Contains(l.Roles[rootRole].Members, name) {
		return // its other keys may be those that it signs policies with
	}
	for i, id := range keys {
		if !used(id) {
			l.say("identities.%s.keys[%d]: key %s has signed nothing that is there; leave it out if it is not needed", name, i, id)
		}
	}
}

// endings reports what a channel's release rests on and that ends soon, beside the policy.
func (l *linter) endings(channel string, u usage) {
	path := "channels." + channel
	for _, end := range u.ends[channel] {
		if end.At.Sub(l.now) > expiresSoon {
			continue
		}
		switch when := l.in(end.At); end.Kind {
		case "publication":
			l.say("%s.publish: the publication of epoch %d ends %s; publish the release again before", path, u.channels[channel].Epoch, when)
		case "evaluation":
			l.say("%s.require.evaluation: the evaluation by %s is too old %s; evaluate again before", path, end.Identity, when)
		case "approval":
			l.say("%s.require.approval: the approval by %s ends %s, and too few are left then; approve again before", path, end.Identity, when)
		}
	}
}
