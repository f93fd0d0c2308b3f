package trust

import (
	"cmp"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/weighbridge/weighbridge/verifier/statement"
)

var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:@+-]*$`)

func checkName(name string) error {
	if len(name) > maxName || !nameForm.MatchString(name) {
		return fmt.Errorf("%.80q is not a name: 1 to %d letters, digits and . _ : @ + - that start with a letter or digit", name, maxName)
	}
	return nil
}

// Check returns every reason why the policy can't work, nil if it can. Paths are those of POLICY.yaml.
func (d Document) Check() error {
	var bad problems
	if d.Version < 1 || d.Version > maxNumber {
		bad.add("version", "must be 1 or more")
	}
	if d.Previous != "" {
		if _, err := statement.ParseID(string(d.Previous)); err != nil {
			bad.add("previous", "%v", err)
		}
	}
	if d.Version == 1 && d.Previous != "" {
		bad.add("previous", "names a policy before version 1")
	}
	if d.Expires.IsZero() {
		bad.add("expires", "is required")
	}
	checkTime(&bad, "expires", d.Expires)
	if len(d.Identities) > maxIdentities || len(d.Roles) > maxRoles || len(d.Channels) > maxChannels {
		bad.add("identities", "too large: at most %d identities, %d roles and %d channels", maxIdentities, maxRoles, maxChannels)
		return bad.err()
	}
	if len(d.Identities) == 0 {
		bad.add("identities", "names no identity")
	}
	if len(d.Channels) == 0 {
		bad.add("channels", "names no channel")
	}
	d.checkIdentities(&bad)
	d.checkRoles(&bad)
	for _, name := range slices.Sorted(maps.Keys(d.Channels)) {
		path := "channels." + name
		if err := checkName(name); err != nil {
			bad.add(path, "%v", err)
		}
		d.checkChannel(&bad, path, d.Channels[name])
	}
	return bad.err()
}

// checkIdentities also makes sure that no key belongs to two identities: who signed would not be decided, and one
// person could count as two.
func (d Document) checkIdentities(bad *problems) {
	owner, holder, users := map[statement.KeyID]string{}, map[string]string{}, map[statement.Account]string{}
	for _, name := range slices.Sorted(maps.Keys(d.Identities)) {
		identity, path := d.Identities[name], "identities."+name
		if err := checkName(name); err != nil {
			bad.add(path, "%v", err)
		}
		if len(identity.Keys) > maxKeys || len(identity.Keys) == 0 && identity.name() == "" && identity.Sigstore == (Sigstore{}) {
			bad.add(path+".keys", "has %d keys, want 1 to %d, or a certificate, a SPIFFE ID or a Sigstore account", len(identity.Keys), maxKeys)
			continue
		}
		identity.checkCertificate(bad, path)
		d.checkAccount(bad, name, users)
		if other := holder[identity.name()]; other != "" {
			bad.add(path, "%q is the name of %s already", identity.name(), other)
		} else if identity.name() != "" {
			holder[identity.name()] = name
		}
		if !identity.State.Retired.IsZero() && !identity.State.Compromised.IsZero() {
			bad.add(path+".state", "is retired and compromised at once")
		}
		checkTime(bad, path+".state.retired", identity.State.Retired)
		checkTime(bad, path+".state.compromised", identity.State.Compromised)
		for i, text := range identity.Keys {
			checkKey(bad, fmt.Sprintf("%s.keys[%d]", path, i), name, text, owner)
		}
	}
	for i, text := range d.RootKeys {
		checkKey(bad, fmt.Sprintf("rootKeys[%d]", i), "", text, owner)
	}
	if !slices.IsSorted(d.RootKeys) {
		bad.add("rootKeys", "is not sorted")
	}
	checkCertificates(bad, "timestampAuthorities", d.TimestampAuthorities)
	d.checkTrustedRoots(bad)
}

// checkCertificate checks the X.509 side of an identity.
func (i Identity) checkCertificate(bad *problems, path string) {
	checkLine(bad, path+".certificate", i.Certificate, false)
	if i.SPIFFE != "" {
		if id, err := spiffeid.FromString(i.SPIFFE); err != nil {
			bad.add(path+".spiffe", "%q: %v", i.SPIFFE, err)
		} else if id.Path() == "" {
			bad.add(path+".spiffe", "%q is a trust domain, not the ID of a workload", i.SPIFFE)
		}
	}
	switch {
	case i.Certificate != "" && i.SPIFFE != "":
		bad.add(path+".spiffe", "stands beside certificate: an identity has one of them")
	case i.name() == "" && len(i.Roots) > 0:
		bad.add(path+".certificate", "is required beside roots: without a name every certificate from these roots would be this identity's")
	case i.name() != "" && len(i.Roots) == 0:
		bad.add(path+".roots", "is required beside certificate and spiffe: without roots anyone could issue one of that name")
	default:
		checkCertificates(bad, path+".roots", i.Roots)
	}
}

// checkCertificates checks a list of trusted certificates. What is no root only helps to build a chain, so there must be
// one that is.
func checkCertificates(bad *problems, path string, texts []string) {
	if len(texts) > maxRoots {
		bad.add(path, "has %d certificates, more than %d", len(texts), maxRoots)
		return
	}
	roots := 0
	for i, text := range texts {
		at := fmt.Sprintf("%s[%d]", path, i)
		c, err := parseCertificate(text)
		switch {
		case err != nil:
			bad.add(at, "%v", err)
			roots++ // perhaps it was to be one: this is told once
		case slices.Index(texts, text) != i:
			bad.add(at, "is listed twice")
		case statement.SelfSigned(c):
			roots++
		}
	}
	if len(texts) > 0 && roots == 0 {
		bad.add(path, "holds no root, which is signed by its own key: the others only help to build a chain")
	}
}

func checkKey(bad *problems, path, identity, text string, owner map[statement.KeyID]string) {
	pub, err := statement.ParsePublicKey([]byte(text))
	if err != nil {
		bad.add(path, "%v", err)
		return
	}
	id, err := statement.KeyIDOf(pub)
	if err != nil {
		bad.add(path, "%v", err)
		return
	}
	// One spelling of each key, so that nothing rides along in PEM headers or around the block.
	if canonical, err := PublicPEM(pub); err != nil || canonical != text {
		bad.add(path, "is not the plain PEM form of its key")
	}
	switch other, taken := owner[id]; {
	case taken && other == identity:
		bad.add(path, "key %s is listed twice", id)
	case taken:
		bad.add(path, "key %s belongs to %s already; a key is one identity's", id, cmp.Or(other, "the root keys"))
	}
	owner[id] = identity
}

func (d Document) checkRoles(bad *problems) {
	for _, name := range slices.Sorted(maps.Keys(d.Roles)) {
		role, path := d.Roles[name], "roles."+name
		if err := checkName(name); err != nil {
			bad.add(path, "%v", err)
		}
		if len(role.Members) == 0 {
			bad.add(path+".members", "has no member, so no one could ever act in it")
			continue
		}
		seen := map[string]bool{}
		for i, member := range role.Members {
			switch _, known := d.Identities[member]; {
			case !known:
				bad.add(fmt.Sprintf("%s.members[%d]", path, i), "%q is no identity of this policy", member)
			case seen[member]:
				bad.add(fmt.Sprintf("%s.members[%d]", path, i), "%q is listed twice", member)
			}
			seen[member] = true
		}
		switch name {
		case rootRole: // whether a policy was signed by enough of them must not change with the time
			d.checkKeys(bad, path, role, "policies")
		case GatewayRole: // the key that signs a receipt signs the log that it is in
			d.checkKeys(bad, path, role, "receipts")
		}
		if role.Threshold < 0 || role.Threshold > len(seen) {
			bad.add(path+".threshold", "is %d of %d members", role.Threshold, len(seen))
		}
	}
}

// checkKeys wants a key of each member of a role that signs by keys alone.
func (d Document) checkKeys(bad *problems, path string, role Role, what string) {
	for i, member := range role.Members {
		if identity, known := d.Identities[member]; known && len(identity.Keys) == 0 {
			bad.add(fmt.Sprintf("%s.members[%d]", path, i), "%q has no key, and %s are signed by keys, not under certificates", member, what)
		}
	}
}

func (d Document) checkChannel(bad *problems, path string, c ChannelRules) {
	for _, r := range []struct {
		path string
		rule *Rule
	}{
		{"require.release", &c.Require.Release}, {"require.weights", c.Require.Weights}, {"require.approval", c.Require.Approval},
		{"publish", &c.Publish}, {"rollback", c.Rollback}, {"withdraw", c.Withdraw},
	} {
		d.checkRule(bad, path+"."+r.path, r.rule)
		if r.rule != nil && r.rule.MaxAge != "" {
			bad.add(path+"."+r.path+".maxAge", "is for evaluations only")
		}
		if r.rule != nil && len(r.rule.Tests) > 0 {
			bad.add(path+"."+r.path+".tests", "is for evaluations only")
		}
	}
	if e := c.Require.Evaluation; e != nil {
		d.checkRule(bad, path+".require.evaluation", e)
		if e.MaxAge != "" {
			if _, err := ParseAge(e.MaxAge); err != nil {
				bad.add(path+".require.evaluation.maxAge", "%v", err)
			}
		}
		checkTests(bad, path+".require.evaluation.tests", e.Tests)
	}
	for i, role := range c.Separate {
		at := fmt.Sprintf("%s.separate[%d]", path, i)
		if _, known := d.Roles[role]; !known {
			bad.add(at, "%q is no role of this policy", role)
		} else if slices.Index(c.Separate, role) != i {
			bad.add(at, "%q is listed twice", role)
		}
	}
	if len(c.Separate) == 1 {
		bad.add(path+".separate", "names one role, so it separates nothing")
	}
	checkWord(bad, path+".mode", c.Mode, modes)
	checkWord(bad, path+".onWithdrawal", c.OnWithdrawal, onWithdrawals)
	checkWord(bad, path+".onLostQuorum", c.OnLostQuorum, onLostQuorums)
	checkWord(bad, path+".minimumLevel", c.MinimumLevel, levels)
	if c.MinimumSandbox != "" {
		checkWord(bad, path+".minimumSandbox", c.MinimumSandbox, sandboxes[:2])
	}
}

func (d Document) checkRule(bad *problems, path string, r *Rule) {
	if r == nil {
		return
	}
	if r.Role == "" {
		bad.add(path, "is required: {role: NAME}")
		return
	}
	role, known := d.Roles[r.Role]
	if !known {
		bad.add(path+".role", "%q is no role of this policy", r.Role)
		return
	}
	if r.Count < 0 || r.Count > len(role.Members) {
		bad.add(path+".count", "is %d, but role %s has %d members", r.Count, r.Role, len(role.Members))
	}
}

func checkWord(bad *problems, path, word string, allowed []string) {
	if !slices.Contains(allowed, word) {
		bad.add(path, "%q is not one of %s", word, strings.Join(allowed, ", "))
	}
}

// PublicPEM returns the one PEM spelling of a public key that a policy holds.
func PublicPEM(pub crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", fmt.Errorf("public key: %w", err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), nil
}

// digestOf returns the hex SHA-256 of the canonical JSON of v.
func digestOf(v any) (string, error) {
	data, err := canonical(v)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}
