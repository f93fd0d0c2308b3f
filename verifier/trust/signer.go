package trust

import (
	"cmp"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/timestamp"
)

// A subject is an identity that signs under certificates: whoever holds one with this name from these roots. The name is
// that of the certificate's subject, or a SPIFFE ID.
type subject struct {
	identity string
	roots    []*x509.Certificate
}

// A signature is one that was verified, and when it counts.
type signature struct {
	identity string
	key      statement.KeyID
	spans    []statement.Validity // of the certificate; none: a bare key, which does not expire
	svid     bool                 // the certificate is an SVID
	bundle   *statement.Signed    // one of those that it is in
	at       time.Time            // by a trusted authority or log; zero: nobody says
}

// before reports whether a trusted time says that the signature is older than t.
func (s signature) before(t time.Time) bool { return older(s.at, t) }

// older reports whether a trusted time, zero if nobody says one, is before t.
func older(at, t time.Time) bool { return !at.IsZero() && at.Before(t) }

// standsAt reports whether the signature was made while its certificate was valid: at its trusted time, or else now.
func (s signature) standsAt(now time.Time) bool {
	if !s.at.IsZero() {
		now = s.at
	}
	return len(s.spans) == 0 || slices.ContainsFunc(s.spans, func(v statement.Validity) bool { return v.Contains(now) })
}

func compareSignatures(a, b signature) int {
	return cmp.Or(cmp.Compare(a.key, b.key), a.at.Compare(b.at), cmp.Compare(fmt.Sprint(a.spans), fmt.Sprint(b.spans)))
}

// signer verifies the bundle's signature by what the policy knows. It returns the rule that is broken and why, if any is;
// who is whom that is about, if anyone.
func (p *Policy) signer(s *statement.Signed) (sig signature, rule, who, why string) {
	switch {
	case s.Material() == statement.MaterialKey:
		sig, rule, why = p.keySigner(s)
	case statement.PurposeOf(s.Certificates()[0]) == statement.Keyless:
		sig, rule, why = p.accountSigner(s)
	default:
		sig, rule, why = p.chainSigner(s)
	}
	if rule != "" {
		return sig, rule, "", why
	}
	state := p.doc.Identities[sig.identity].State
	if sig.at.IsZero() {
		sig.at = p.trustedTime(s) // also of a key that is good today: a floor remembers it for when it is not
	}
	if sig.svid && kindOf[s.PredicateType()] == kindWeights {
		return sig, RuleRole, sig.identity, fmt.Sprintf("%s signed weights under an SVID: weights are for keys and code signing certificates", sig.identity)
	}
	// An SVID lives for an hour or so: without a time nobody could say whether it was still its workload's.
	if sig.svid && !sig.standsAt(sig.at) { // which it never does at no time
		return sig, RuleExpired, sig.identity, fmt.Sprintf("no trusted time says that the SVID of %s was valid when this was signed", sig.identity)
	}
	if since := state.Compromised; !since.IsZero() && !sig.before(since) {
		return sig, RuleLifecycle, sig.identity, fmt.Sprintf("%s is %s, and no trusted time says that this is older", sig.identity, state)
	}
	return sig, "", "", ""
}

func (p *Policy) keySigner(s *statement.Signed) (sig signature, rule, why string) {
	if hint := s.Hint(); hint != "" {
		k := p.hints[hint]
		if k == nil {
			return sig, RuleUnknownIdentity, "signed by a key that the policy gives to no identity"
		}
		if err := s.VerifyKey(k.public); err != nil {
			return sig, RuleSignature, fmt.Sprintf("names a key of %s, but its signature is not by that key: the statement was altered or forged", k.identity)
		}
		return signature{identity: k.identity, key: k.id}, "", ""
	}
	for _, id := range slices.Sorted(maps.Keys(p.keys)) {
		if k := p.keys[id]; s.VerifyKey(k.public) == nil {
			return signature{identity: k.identity, key: k.id}, "", ""
		}
	}
	return sig, RuleUnknownIdentity, "no key that the policy gives to an identity made its signature"
}

func (p *Policy) chainSigner(s *statement.Signed) (sig signature, rule, why string) {
	leaf := s.Certificates()[0]
	purpose := statement.PurposeOf(leaf)
	name, err := nameOf(leaf, purpose)
	known := p.subjects[name]
	if err != nil || known == nil {
		return sig, RuleUnknownIdentity, fmt.Sprintf("signed under a certificate of %.200q, which the policy gives to no identity", name)
	}
	id, err := statement.KeyIDOf(leaf.PublicKey)
	if err != nil {
		return sig, RuleUnknownIdentity, err.Error()
	}
	// One key speaks for one identity, or one person could be two of the identities that a rule asks for.
	if owner := p.IdentityOf(id); owner != "" && owner != known.identity {
		return sig, RuleUnknownIdentity, fmt.Sprintf("signed under a certificate of %s for a key that belongs to %s", known.identity, owner)
	}
	spans, err := s.VerifyChainEver(purpose, known.roots)
	switch {
	case errors.Is(err, statement.ErrChain):
		return sig, RuleUnknownIdentity, fmt.Sprintf("signed under a certificate that has the name of %s and not its roots: %v", known.identity, err)
	case err != nil:
		return sig, RuleSignature, fmt.Sprintf("names a certificate of %s, but its signature is not by that key: the statement was altered or forged", known.identity)
	}
	return signature{identity: known.identity, key: id, spans: spans, svid: purpose == statement.SVID}, "", ""
}

// nameOf returns the name by which a policy knows who holds a certificate. A SPIFFE ID and a subject can't be taken for
// each other: a subject begins with the type of an attribute and "=".
func nameOf(leaf *x509.Certificate, purpose statement.Purpose) (string, error) {
	if purpose != statement.SVID {
		return statement.SubjectOf(leaf)
	}
	id, err := statement.SPIFFEIDOf(leaf)
	return id.String(), err
}

// trustedTime is when the signature was made by the word of an authority of the policy, zero if none says.
func (p *Policy) trustedTime(s *statement.Signed) time.Time {
	if len(s.Timestamps()) == 0 || len(p.authorities) == 0 {
		return time.Time{}
	}
	at, err := timestamp.Verify(s.Timestamps(), s.Signature(), p.authorities)
	if err != nil {
		return time.Time{} // as if it had none
	}
	return at.UTC()
}

// retired says why a statement of an identity that has retired does not count, "" if it does: what was made before by a
// trusted time, or accepted before the policy that retired it, still does.
func (c *channelCase) retired(a *act, who string) string {
	state := c.policy.doc.Identities[who].State
	older := func(s signature) bool { return s.before(state.Retired) }
	if state.Retired.IsZero() || c.accepted(a, who) || slices.ContainsFunc(a.signatures[who], older) {
		return ""
	}
	return fmt.Sprintf("%s is %s, and this was neither accepted before nor has it a trusted time before", who, state)
}

// lapsed says why a statement does not count although its signer does, and by which rule; "" if it does. No signature of it
// was made under a certificate that was valid, by a trusted time or, without one, by the time now; or it is shared. What was
// accepted while it was valid still counts.
func (c *channelCase) lapsed(a *act, who string) (rule, why string) {
	if why := c.shared(a, who); why != "" {
		return RuleUnknownIdentity, why
	}
	stands := func(s signature) bool { return c.alone(s) && s.standsAt(c.now) }
	if slices.ContainsFunc(a.signatures[who], stands) || c.accepted(a, who) {
		return "", ""
	}
	return RuleExpired, fmt.Sprintf("the certificate of %s is not valid now, and no trusted time says that it was when this was signed", who)
}

// shared says why a statement counts for nobody, at no time: each key that signed it speaks for another identity as well, so
// that one person could be two of those that a rule asks for. "" if one speaks for its signer alone.
func (c *channelCase) shared(a *act, who string) string {
	if slices.ContainsFunc(a.signatures[who], c.alone) {
		return ""
	}
	return fmt.Sprintf("signed by a key that %s shares with another identity: one key speaks for one identity", who)
}

// alone reports whether the key of a signature speaks for one identity.
func (c *channelCase) alone(s signature) bool { return len(c.holders[s.key]) <= 1 }

// accepted reports whether what was served before rested on this.
func (c *channelCase) accepted(a *act, who string) bool {
	return slices.Contains(c.floor.Channels[c.name].Counted, Act{a.id, who})
}

// parseCertificate reads a certificate in its one PEM form.
func parseCertificate(text string) (*x509.Certificate, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil || CertificatePEM(block.Bytes) != text {
		return nil, errors.New("is not the plain PEM form of a certificate")
	}
	return x509.ParseCertificate(block.Bytes)
}

func parseCertificates(texts []string) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for _, text := range texts {
		c, err := parseCertificate(text)
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

// CertificatePEM returns the one PEM spelling of a certificate, given in DER, that a policy holds.
func CertificatePEM(der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
