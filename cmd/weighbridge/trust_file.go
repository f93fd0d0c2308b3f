package main

import (
	"crypto"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// policyFile is POLICY.yaml.
type policyFile struct {
	APIVersion string  `yaml:"apiVersion"` // weighbridge/v1
	Kind       string  `yaml:"kind"`       // TrustPolicy
	Version    whole   `yaml:"version"`    // strictly increasing
	Previous   string  `yaml:"previous"`   // the policy before: its digest, or its signed file
	Expires    instant `yaml:"expires"`

	// TimestampAuthorities are PEM files of certificates: whose word counts on when something was signed (RFC 3161).
	TimestampAuthorities []string `yaml:"timestampAuthorities"`

	Identities map[string]identityFile `yaml:"identities"`
	Roles      map[string]roleFile     `yaml:"roles"`
	Channels   map[string]channelFile  `yaml:"channels"`
}

type identityFile struct {
	Keys  []string  `yaml:"keys"`  // PEM files, or key ids of keys in *.pub files beside the policy
	State yaml.Node `yaml:"state"` // active, {retired: TIME} or {compromised: TIME}

	// Certificate is the subject of the certificates that the identity signs under ("CN=Dora,O=Bank", as openssl x509
	// -subject -nameopt RFC2253 writes it), or a PEM file of one, with its chain. Roots are PEM files of the certificates
	// they come from; default: those in the chain.
	Certificate string   `yaml:"certificate"`
	SPIFFE      string   `yaml:"spiffe"` // the ID of its SVIDs; roots are those of its trust domain
	Roots       []string `yaml:"roots"`

	// Sigstore is the account that the identity signs with, and TrustedRoot the trusted_root.json of the instance that
	// issues its certificates.
	Sigstore    *sigstoreFile `yaml:"sigstore"`
	TrustedRoot string        `yaml:"trustedRoot"`
}

type roleFile struct {
	Members   []string `yaml:"members"`
	Threshold *whole   `yaml:"threshold"`
}

type ruleFile struct {
	Role   string `yaml:"role"`
	Count  *whole `yaml:"count"` // default 1
	MaxAge string `yaml:"maxAge"`

	Tests []string `yaml:"tests"` // that an evaluation must list as passed
}

type channelFile struct {
	Mode    string `yaml:"mode"` // enforce (default) or warn
	Require struct {
		Release    *ruleFile `yaml:"release"`
		Weights    *ruleFile `yaml:"weights"` // default: the release's rule
		Evaluation *ruleFile `yaml:"evaluation"`
		Approval   *ruleFile `yaml:"approval"`
	} `yaml:"require"`
	Publish      *ruleFile `yaml:"publish"`
	Rollback     *ruleFile `yaml:"rollback"`
	Withdraw     *ruleFile `yaml:"withdraw"`
	Separate     []string  `yaml:"separate"`
	OnWithdrawal string    `yaml:"onWithdrawal"` // stop (default) or previous
	OnLostQuorum string    `yaml:"onLostQuorum"` // stop (default), previous or freeze
	MinimumLevel string    `yaml:"minimumLevel"` // sealed (default), verity, measured or attached

	MinimumSandbox string `yaml:"minimumSandbox"` // full or partial (default: any)
}

// loadPolicyFile reads POLICY.yaml and inlines its keys. Keys that are given only by id are looked for among known
// ones and in the *.pub files beside the policy. Known keys that belong to no identity are root keys.
func loadPolicyFile(path, what string, known []crypto.PublicKey) (trust.Document, error) {
	var p policyFile
	f, err := readYAML(path, "TrustPolicy", &p)
	if err != nil {
		return trust.Document{}, err
	}
	doc := trust.Document{
		Version:    int64(p.Version),
		Expires:    p.Expires.UTC(),
		Identities: map[string]trust.Identity{},
		Roles:      map[string]trust.Role{},
		Channels:   map[string]trust.ChannelRules{},
	}
	doc.Previous = f.previous(p.Previous)
	doc.TimestampAuthorities = f.certificates("timestampAuthorities", p.TimestampAuthorities)
	beside := keysBeside(path, known)
	for name, identity := range p.Identities {
		one := f.identity("identities."+name, identity, beside)
		one.Sigstore = f.account("identities."+name, identity, &doc)
		doc.Identities[name] = one
	}
	for name, role := range p.Roles {
		doc.Roles[name] = trust.Role{Members: role.Members, Threshold: f.count("roles."+name+".threshold", role.Threshold)}
	}
	for name, channel := range p.Channels {
		doc.Channels[name] = f.channel("channels."+name, channel)
	}
	doc.RootKeys = rootKeys(doc, known)
	_, err = trust.NewPolicy(doc)
	f.addAll(err)
	if err := f.err(what); err != nil {
		return trust.Document{}, err
	}
	return doc, err
}

// identity reads one identity; whatever is wrong with it is among the file's problems.
func (f *yamlFile) identity(path string, in identityFile, beside map[statement.KeyID]crypto.PublicKey) trust.Identity {
	out := trust.Identity{State: f.state(path+".state", in.State)}
	out.SPIFFE = in.SPIFFE
	out.Certificate, out.Roots = f.certificate(path, in)
	for i, entry := range in.Keys {
		at := fmt.Sprintf("%s.keys[%d]", path, i)
		text, err := f.key(entry, beside)
		if err != nil {
			f.add(at, "%v", err)
			// The real problem is told; a missing key would only be reported once more.
			text = ""
		}
		if text != "" {
			out.Keys = append(out.Keys, text)
		}
	}
	return out
}

// certificate returns the name and the roots of an identity that signs under certificates.
func (f *yamlFile) certificate(path string, in identityFile) (name string, roots []string) {
	roots = f.certificates(path+".roots", in.Roots)
	if in.Certificate == "" || strings.Contains(in.Certificate, "=") {
		return in.Certificate, roots
	}
	chain, err := readCertificates([]string{f.resolve(in.Certificate)})
	if err != nil {
		f.add(path+".certificate", "is neither a subject such as CN=Dora,O=Bank nor a PEM file: %v", err)
		return "", nil
	}
	if name, err = statement.SubjectOf(chain[0]); err != nil {
		f.add(path+".certificate", "%v", err)
	}
	if in.Roots == nil {
		for _, c := range chain {
			if c != chain[0] || statement.SelfSigned(c) {
				roots = append(roots, trust.CertificatePEM(c.Raw))
			}
		}
	}
	return name, roots
}

// certificates reads PEM files of certificates.
func (f *yamlFile) certificates(path string, files []string) (texts []string) {
	for i, file := range files {
		all, err := readCertificates([]string{f.resolve(file)})
		if err != nil {
			f.add(fmt.Sprintf("%s[%d]", path, i), "%v", err)
		}
		for _, c := range all {
			texts = append(texts, trust.CertificatePEM(c.Raw))
		}
	}
	return texts
}

// key returns the PEM of a key file or of a known key.
func (f *yamlFile) key(entry string, beside map[statement.KeyID]crypto.PublicKey) (string, error) {
	if strings.HasPrefix(entry, "sha256:") {
		id, err := statement.ParseKeyID(entry)
		if err != nil {
			return "", err
		}
		pub, found := beside[id]
		if !found {
			return "", fmt.Errorf("no *.pub file beside the policy, and no --key, has the key id %s", id)
		}
		return trust.PublicPEM(pub)
	}
	data, err := store.ReadFile(f.resolve(entry), statement.MaxKeyFile)
	if err != nil {
		return "", err
	}
	pub, err := statement.ParsePublicKey(data)
	if err != nil {
		return "", fmt.Errorf("%s: %w", entry, err)
	}
	return trust.PublicPEM(pub)
}

func (f *yamlFile) state(path string, node yaml.Node) trust.State {
	if node.IsZero() || node.Kind == yaml.ScalarNode && node.Value == "active" {
		return trust.State{}
	}
	var state trust.State
	if node.Kind == yaml.MappingNode && len(node.Content) == 2 {
		var at time.Time
		if err := node.Content[1].Decode(&at); err == nil && !at.IsZero() {
			switch node.Content[0].Value {
			case "retired":
				state.Retired = at.UTC()
				return state
			case "compromised":
				state.Compromised = at.UTC()
				return state
			}
		}
	}
	f.add(path, "is none of active, {retired: TIME} and {compromised: TIME}")
	return state
}

func (f *yamlFile) channel(path string, in channelFile) trust.ChannelRules {
	rule := func(key string, r *ruleFile) *trust.Rule {
		if r == nil {
			return nil
		}
		return &trust.Rule{Role: r.Role, Count: f.count(path+"."+key+".count", r.Count), MaxAge: r.MaxAge, Tests: slices.Sorted(slices.Values(r.Tests))}
	}
	required := func(key string, r *ruleFile) trust.Rule {
		if r == nil {
			return trust.Rule{}
		}
		return *rule(key, r)
	}
	return trust.ChannelRules{
		Mode: in.Mode,
		Require: trust.Require{
			Release:    required("require.release", in.Require.Release),
			Weights:    rule("require.weights", in.Require.Weights),
			Evaluation: rule("require.evaluation", in.Require.Evaluation),
			Approval:   rule("require.approval", in.Require.Approval),
		},
		Publish:      required("publish", in.Publish),
		Rollback:     rule("rollback", in.Rollback),
		Withdraw:     rule("withdraw", in.Withdraw),
		Separate:     in.Separate,
		OnWithdrawal: in.OnWithdrawal,
		OnLostQuorum: in.OnLostQuorum,
		MinimumLevel: in.MinimumLevel,

		MinimumSandbox: in.MinimumSandbox,
	}
}

// previous returns the digest of the policy before.
func (f *yamlFile) previous(text string) statement.ID {
	if text == "" {
		return ""
	}
	if id, err := statement.ParseID(text); err == nil {
		return id
	}
	bundles, err := readPolicyBundles(f.resolve(text))
	if err != nil {
		f.add("previous", "is neither the digest of a policy, sha256:…, nor a signed one: %v", err)
		return ""
	}
	return bundles[0].ID()
}

// count reads a number of people: absent is the default, and none is a mistake.
func (f *yamlFile) count(path string, n *whole) int {
	if n == nil {
		return 0
	}
	if *n < 1 {
		if line, _ := f.find(path); !f.mistyped[line] {
			f.add(path, "is %d, want 1 or more", *n)
		}
		return 0
	}
	return int(*n)
}

// keysBeside collects known keys and those in the *.pub files beside the policy by their ids.
func keysBeside(path string, known []crypto.PublicKey) map[statement.KeyID]crypto.PublicKey {
	all := slices.Clone(known)
	files, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*.pub")) // the pattern is well-formed
	for _, file := range files {
		if pub, err := readPublicHalf(file, ""); err == nil {
			all = append(all, pub)
		}
	}
	byID := map[statement.KeyID]crypto.PublicKey{}
	for _, pub := range all {
		if id, err := statement.KeyIDOf(pub); err == nil {
			byID[id] = pub
		}
	}
	return byID
}

// rootKeys returns the known keys that belong to no identity, so that a site which pins their ids finds them.
func rootKeys(doc trust.Document, known []crypto.PublicKey) []string {
	var root []string
	for _, pub := range known {
		text, err := trust.PublicPEM(pub)
		if err != nil || slices.Contains(root, text) {
			continue
		}
		owned := false
		for _, identity := range doc.Identities {
			owned = owned || slices.Contains(identity.Keys, text)
		}
		if !owned {
			root = append(root, text)
		}
	}
	return root
}
