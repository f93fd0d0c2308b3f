package trust

import (
	"cmp"
	"crypto"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/verifier/statement"
)

// A Document is a policy as it is written: the predicate of its statement, which is POLICY.yaml with every key
// inlined. [NewPolicy] checks and completes it; a reader gets it from [Policy.Document] and must not change it.
type Document struct {
	Version    int64               `json:"version"`            // strictly increasing
	Previous   statement.ID        `json:"previous,omitempty"` // digest of the policy of the version before; none in the first
	Expires    time.Time           `json:"expires"`
	Identities map[string]Identity `json:"identities"`
	// RootKeys are public keys (PEM) that sign policies and belong to no identity. They grant nothing: a site that
	// pins only a key's id finds the key itself here.
	RootKeys []string `json:"rootKeys,omitempty"`
	// TimestampAuthorities are PEM certificates of the RFC 3161 authorities whose word on when something was signed
	// counts: roots, and others that help to build their chains.
	TimestampAuthorities []string `json:"timestampAuthorities,omitempty"`
	// TrustedRoots describe Sigstore instances, each under its name; see [TrustedRootID].
	TrustedRoots map[statement.ID]jsontext.Value `json:"trustedRoots,omitempty"`
	Roles        map[string]Role                 `json:"roles"`
	Channels     map[string]ChannelRules         `json:"channels"`
}

// An Identity is one person or machine. All of its keys and certificates are one identity.
type Identity struct {
	Keys []string `json:"keys,omitempty"` // PEM public keys
	// Certificate is the subject, as [statement.SubjectOf] writes it, of the X.509 certificates that the identity signs
	// under, or SPIFFE is the ID of its X.509-SVIDs. Roots are the PEM certificates they come from: roots, and others
	// that help to build the chain.
	Certificate string   `json:"certificate,omitempty"`
	SPIFFE      string   `json:"spiffe,omitempty"`
	Roots       []string `json:"roots,omitempty"`
	// Sigstore is the account that the identity signs with, without keys of its own.
	Sigstore Sigstore `json:"sigstore,omitzero"`
	State    State    `json:"state,omitzero"`
}

// A Sigstore is an account, and the trusted root of the instance that issues certificates to it.
type Sigstore struct {
	Issuer      string       `json:"issuer"`
	Subject     string       `json:"subject"`
	TrustedRoot statement.ID `json:"trustedRoot"`
}

func (s Sigstore) account() statement.Account {
	return statement.Account{Issuer: s.Issuer, Subject: s.Subject}
}

// name is what stands in the certificates that the identity signs under.
func (i Identity) name() string { return cmp.Or(i.Certificate, i.SPIFFE) }

// A State says since when an identity is no longer active; the zero value is active.
type State struct {
	Retired     time.Time `json:"retired,omitzero"`
	Compromised time.Time `json:"compromised,omitzero"`
}

// Active reports whether the identity's statements count.
func (s State) Active() bool { return s.Retired.IsZero() && s.Compromised.IsZero() }

func (s State) String() string {
	switch {
	case !s.Compromised.IsZero():
		return "compromised since " + s.Compromised.Format(time.RFC3339)
	case !s.Retired.IsZero():
		return "retired since " + s.Retired.Format(time.RFC3339)
	}
	return "active"
}

// A Role is a set of identities. Threshold is how many of them must act together wherever a rule names the role; a
// rule's own count may ask for more.
type Role struct {
	Members   []string `json:"members"`
	Threshold int      `json:"threshold,omitzero"`
}

// A Rule asks for statements by Count distinct members of Role.
type Rule struct {
	Role   string `json:"role"`
	Count  int    `json:"count,omitzero"`
	MaxAge string `json:"maxAge,omitempty"` // of an evaluation: "90d", "36h"

	// Tests are names of tests that an evaluation must list as passed.
	Tests []string `json:"tests,omitempty"`
}

// Require lists what a release needs before a channel may serve it.
type Require struct {
	Release    Rule  `json:"release"`
	Weights    *Rule `json:"weights,omitempty"` // nil: the release's rule
	Evaluation *Rule `json:"evaluation,omitempty"`
	Approval   *Rule `json:"approval,omitempty"`
}

// ChannelRules are the rules of one channel.
type ChannelRules struct {
	Mode         string   `json:"mode"` // enforce or warn
	Require      Require  `json:"require"`
	Publish      Rule     `json:"publish"`
	Rollback     *Rule    `json:"rollback,omitempty"`
	Withdraw     *Rule    `json:"withdraw,omitempty"`
	Separate     []string `json:"separate,omitempty"` // roles
	OnWithdrawal string   `json:"onWithdrawal"`       // stop or previous
	OnLostQuorum string   `json:"onLostQuorum"`       // stop, previous or freeze
	MinimumLevel string   `json:"minimumLevel"`       // sealed, verity, measured or attached

	MinimumSandbox string `json:"minimumSandbox,omitempty"` // of the runtime: full or partial; absent: none
}

// What a channel may say, and the default first.
var (
	modes         = []string{"enforce", "warn"}
	onWithdrawals = []string{"stop", "previous"}
	onLostQuorums = []string{"stop", "previous", "freeze"}
	levels        = []string{"sealed", "verity", "measured", "attached"} // strongest first
	sandboxes     = []string{"full", "partial", "none"}                  // strongest first
)

// A Policy is a checked policy. It is immutable and may be used concurrently.
//
// Only [Anchor.Accept] says that the site's root keys stand behind it; one from [ParsePolicy] is well-formed, no more.
type Policy struct {
	doc         Document
	digest      statement.ID
	keys        map[statement.KeyID]*key
	hints       map[string]*key     // every spelling of a bundle's hint to the key it names
	subjects    map[string]*subject // by the name in their certificates
	accounts    map[statement.Account]*account
	roots       []crypto.PublicKey
	authorities []*x509.Certificate // for the time
}

// key is one public key and the identity whose it is.
type key struct {
	id       statement.KeyID
	public   crypto.PublicKey
	identity string
}

// NewPolicy completes the document's defaults, checks it and returns the payload to sign. The statement's subject is
// the policy itself: the SHA-256 of its canonical predicate. All problems are reported at once; see [Problems].
func NewPolicy(d Document) ([]byte, error) {
	d = d.complete()
	if err := d.Check(); err != nil {
		return nil, err
	}
	sum, err := digestOf(d)
	if err != nil {
		return nil, err
	}
	return statement.New(PolicyType, "policy", sum, d)
}

// ParsePolicy reads the policy in a statement, whoever signed it, with the verifiers of its Sigstore instances. One whose
// trusted roots these can't use is refused. Without keyless it says what it says, and judges accounts' statements as nobody's.
func ParsePolicy(s *statement.Signed, keyless KeylessFrom) (*Policy, error) {
	p, err := parsePolicy(s)
	if err != nil {
		return nil, err
	}
	if err := p.attach(keyless); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	return p, nil
}

func parsePolicy(s *statement.Signed) (*Policy, error) {
	var d Document
	if err := decode(s, PolicyType, &d); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	if err := d.Check(); err != nil {
		return nil, fmt.Errorf("policy: %w: %w", ErrMalformed, err)
	}
	want, err := digestOf(d)
	if err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	if _, got := s.Subject(); got != want {
		return nil, fmt.Errorf("policy: %w: its subject is not the SHA-256 of its predicate", ErrMalformed)
	}
	p := &Policy{doc: d, digest: s.ID(), keys: map[statement.KeyID]*key{}, hints: map[string]*key{}, subjects: map[string]*subject{}, accounts: map[statement.Account]*account{}}
	for name, identity := range d.Identities {
		for _, text := range identity.Keys {
			if err := p.addKey(name, text); err != nil {
				return nil, fmt.Errorf("policy: %w", err)
			}
		}
		if identity.Sigstore != (Sigstore{}) {
			p.accounts[identity.Sigstore.account()] = &account{identity: name, root: identity.Sigstore.TrustedRoot}
		}
		if identity.name() == "" {
			continue
		}
		roots, err := parseCertificates(identity.Roots)
		if err != nil {
			return nil, fmt.Errorf("policy: %w", err)
		}
		p.subjects[identity.name()] = &subject{name, roots}
	}
	if p.authorities, err = parseCertificates(d.TimestampAuthorities); err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	for _, text := range d.RootKeys {
		pub, err := statement.ParsePublicKey([]byte(text))
		if err != nil {
			return nil, fmt.Errorf("policy: %w", err)
		}
		p.roots = append(p.roots, pub)
	}
	return p, nil
}

func (p *Policy) addKey(identity, text string) error {
	pub, err := statement.ParsePublicKey([]byte(text))
	if err != nil {
		return err
	}
	id, err := statement.KeyIDOf(pub)
	if err != nil {
		return err
	}
	k := &key{id, pub, identity}
	p.keys[id] = k
	spellings, err := statement.Hints(pub)
	if err != nil {
		return err
	}
	for _, hint := range spellings {
		p.hints[hint] = k
	}
	return nil
}

// Digest names the policy: the id of its statement.
func (p *Policy) Digest() statement.ID { return p.digest }

// Version returns the policy's version.
func (p *Policy) Version() int64 { return p.doc.Version }

// Expires returns when the policy ends; from then on every channel refuses.
func (p *Policy) Expires() time.Time { return p.doc.Expires }

// Channels returns the names of all channels, sorted.
func (p *Policy) Channels() []string { return slices.Sorted(maps.Keys(p.doc.Channels)) }

// Document returns the policy as it was written. It must not be changed.
func (p *Policy) Document() Document { return p.doc }

// IdentityOf returns the identity that a key belongs to, "" if the policy gives it to none.
func (p *Policy) IdentityOf(id statement.KeyID) string {
	if k := p.keys[id]; k != nil {
		return k.identity
	}
	return ""
}

// Previous returns the digest of the policy that this one replaces, "" if it names none.
func (p *Policy) Previous() statement.ID { return p.doc.Previous }

// active reports whether the policy knows the identity and its statements count.
func (p *Policy) active(identity string) bool {
	found, ok := p.doc.Identities[identity]
	return ok && found.State.Active()
}

// need is how many distinct identities a rule asks for: never none.
func (p *Policy) need(r Rule) int { return max(1, r.Count, p.doc.Roles[r.Role].Threshold) }

func (p *Policy) holds(identity, role string) bool {
	return slices.Contains(p.doc.Roles[role].Members, identity)
}

// weightsRule is the rule for who signs the weights.
func (c ChannelRules) weightsRule() Rule {
	if c.Require.Weights != nil {
		return *c.Require.Weights
	}
	return c.Require.Release
}

// complete fills in the defaults, so that a signed policy says everything it means.
func (d Document) complete() Document {
	d.Expires = d.Expires.UTC()
	d.RootKeys = slices.Sorted(slices.Values(d.RootKeys))
	identities := make(map[string]Identity, len(d.Identities))
	for name, identity := range d.Identities {
		identity.State = State{identity.State.Retired.UTC(), identity.State.Compromised.UTC()}
		identities[name] = identity
	}
	d.Identities = identities
	channels := make(map[string]ChannelRules, len(d.Channels))
	for name, c := range d.Channels {
		c.Mode = cmp.Or(c.Mode, modes[0])
		c.OnWithdrawal = cmp.Or(c.OnWithdrawal, onWithdrawals[0])
		c.OnLostQuorum = cmp.Or(c.OnLostQuorum, onLostQuorums[0])
		c.MinimumLevel = cmp.Or(c.MinimumLevel, levels[0])
		channels[name] = c
	}
	d.Channels = channels
	return d
}

// ParseAge reads the age of an evaluation or the term of an approval: days ("90d") or a Go duration ("36h").
func ParseAge(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.Atoi(days)
		if err != nil || n < 1 || n > 36500 || strconv.Itoa(n) != days {
			return 0, fmt.Errorf("%q is not a number of days from 1d to 36500d", s)
		}
		return time.Duration(n) * 24 * time.Hour, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%q is not a duration such as 90d or 36h", s)
	}
	return d, nil
}
