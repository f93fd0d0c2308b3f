package trust

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/verifier/statement"
)

// Keyless verifies what was signed with accounts of one Sigstore instance. It does so by the trusted root alone: without
// network and clock, so that it answers the same for ever. It is immutable and may be used concurrently.
type Keyless interface {
	// Verify returns when the holder of the account signed the statement, by the word of the instance. The error is
	// [statement.ErrSignature] if the signature itself is wrong.
	Verify(s *statement.Signed, by statement.Account) (time.Time, error)
}

// KeylessFrom makes the verifier of a Sigstore instance from its trusted root. It is handed in, since it stands on more than
// the decision may. Where it is nil, what accounts signed counts for nothing.
type KeylessFrom func(trustedRoot []byte) (Keyless, error)

// An account is an identity that signs without keys of its own.
type account struct {
	identity string
	root     statement.ID
	keyless  Keyless // nil: nobody can say
}

// attach gives the policy the verifiers of its Sigstore instances.
func (p *Policy) attach(keyless KeylessFrom) error {
	if keyless == nil {
		return nil
	}
	verifiers := map[statement.ID]Keyless{}
	for _, id := range slices.Sorted(maps.Keys(p.doc.TrustedRoots)) {
		v, err := keyless(p.doc.TrustedRoots[id])
		if err != nil {
			return fmt.Errorf("trustedRoots.%s: %w", id, err)
		}
		verifiers[id] = v
	}
	for _, a := range p.accounts {
		a.keyless = verifiers[a.root]
	}
	return nil
}

func (p *Policy) accountSigner(s *statement.Signed) (sig signature, rule, why string) {
	leaf := s.Certificates()[0]
	name, err := statement.AccountOf(leaf)
	if err != nil {
		return sig, RuleUnknownIdentity, fmt.Sprintf("signed under a Sigstore certificate of nobody in particular: %v", err)
	}
	known := p.accounts[name]
	if known == nil {
		return sig, RuleUnknownIdentity, fmt.Sprintf("signed with the account %s, which the policy gives to no identity", name)
	}
	if known.keyless == nil {
		return sig, RuleUnknownIdentity, fmt.Sprintf("signed with the account of %s, and this program was given no way to verify Sigstore's certificates", known.identity)
	}
	id, err := statement.KeyIDOf(leaf.PublicKey)
	if err != nil {
		return sig, RuleUnknownIdentity, err.Error()
	}
	if owner := p.IdentityOf(id); owner != "" && owner != known.identity {
		return sig, RuleUnknownIdentity, fmt.Sprintf("signed with the account of %s by a key that belongs to %s", known.identity, owner)
	}
	at, err := known.keyless.Verify(s, name)
	switch {
	case errors.Is(err, statement.ErrSignature):
		return sig, RuleSignature, fmt.Sprintf("names the account of %s, but its signature is not by that key: the statement was altered or forged", known.identity)
	case err != nil:
		return sig, RuleUnknownIdentity, fmt.Sprintf("names the account of %s, and its Sigstore does not stand behind it: %v", known.identity, err)
	}
	return signature{identity: known.identity, key: id, spans: []statement.Validity{{NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter}}, at: at}, "", ""
}

// TrustedRootID returns the name of a Sigstore trusted root in a policy, and its canonical JSON, of which the name is the
// SHA-256.
func TrustedRootID(trustedRoot []byte) (statement.ID, jsontext.Value, error) {
	if len(trustedRoot) > MaxTrustedRoot {
		return "", nil, fmt.Errorf("trusted root: %d bytes are more than %d", len(trustedRoot), MaxTrustedRoot)
	}
	text := jsontext.Value(slices.Clone(trustedRoot))
	if err := text.Canonicalize(); err != nil {
		return "", nil, fmt.Errorf("trusted root: %w", err)
	}
	if text.Kind() != jsontext.KindBeginObject {
		return "", nil, errors.New("trusted root: it is not an object")
	}
	sum := sha256.Sum256(text)
	return statement.ID("sha256:" + hex.EncodeToString(sum[:])), text, nil
}

// checkAccount checks the Sigstore side of an identity, and that no other has the account.
func (d Document) checkAccount(bad *problems, name string, users map[statement.Account]string) {
	s, path := d.Identities[name].Sigstore, "identities."+name+".sigstore"
	if s == (Sigstore{}) {
		return
	}
	checkLine(bad, path+".issuer", s.Issuer, true)
	checkLine(bad, path+".subject", s.Subject, true)
	if _, known := d.TrustedRoots[s.TrustedRoot]; !known {
		bad.add(path+".trustedRoot", "%.80q is none of the trustedRoots of this policy", s.TrustedRoot)
	}
	if d.Identities[name].name() != "" {
		bad.add(path, "stands beside certificate or spiffe: an identity has one of them")
	}
	if other := users[s.account()]; other != "" {
		bad.add(path, "is the account of %s already", other)
	}
	users[s.account()] = name
}

func (d Document) checkTrustedRoots(bad *problems) {
	if len(d.TrustedRoots) > maxTrustedRoots {
		bad.add("trustedRoots", "has %d, more than %d", len(d.TrustedRoots), maxTrustedRoots)
		return
	}
	used := map[statement.ID]bool{}
	for _, identity := range d.Identities {
		used[identity.Sigstore.TrustedRoot] = true
	}
	for _, name := range slices.Sorted(maps.Keys(d.TrustedRoots)) {
		path := "trustedRoots." + string(name)
		switch id, _, err := TrustedRootID(d.TrustedRoots[name]); {
		case err != nil:
			bad.add(path, "%v", err)
		case id != name:
			bad.add(path, "is not the SHA-256 of what it names, %s", id)
		case !used[name]:
			bad.add(path, "is the trusted root of no identity")
		}
	}
}
