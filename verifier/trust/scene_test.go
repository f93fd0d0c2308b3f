package trust_test

import (
	"crypto/x509"
	"errors"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/verifier/keyless/keylesstest"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// scene is one set of inputs to Decide, made by one row of a table.
type scene struct {
	*trusttest.World
	t      *testing.T
	model  string
	doc    trust.Document
	policy *trust.Policy
	set    []*statement.Signed
	now    time.Time
	floor  trust.Floor
	ca     *trusttest.CA            // of those who sign under certificates
	tsa    *trusttest.TimeAuthority // of the policy
	issuer *keylesstest.Instance    // of accounts
}

func newScene(t *testing.T, edit func(*scene)) *scene {
	t.Helper()
	s := &scene{World: trusttest.New(t), t: t, now: now}
	s.model = filepath.Join(s.Dir, "model.gguf")
	if err := os.WriteFile(s.model, []byte("weights"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.doc = s.Document()
	if edit != nil {
		edit(s)
	}
	s.policy = s.SignPolicy(func(d *trust.Document) { *d = s.doc })
	return s
}

func (s *scene) add(signed *statement.Signed) statement.ID {
	s.set = append(s.set, signed)
	return signed.ID()
}

// signed adds what a name signs; err is the payload's.
func (s *scene) signed(name string, payload []byte, err error) statement.ID {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
	return s.add(s.Sign(name, payload))
}

func (s *scene) releaseBy(name string, edit func(*trust.Descriptor)) statement.ID {
	s.t.Helper()
	d := s.descriptor()
	if edit != nil {
		edit(&d)
	}
	payload, err := trust.NewRelease(d)
	return s.signed(name, payload, err)
}

func (s *scene) approve(release statement.ID, names ...string) {
	s.t.Helper()
	for _, name := range names {
		payload, err := trust.NewApproval(release, trust.Approval{})
		s.signed(name, payload, err)
	}
}

func (s *scene) approval(release statement.ID, name string, a trust.Approval) statement.ID {
	s.t.Helper()
	payload, err := trust.NewApproval(release, a)
	return s.signed(name, payload, err)
}

func (s *scene) publish(release statement.ID, epoch int64) statement.ID {
	s.t.Helper()
	return s.publication(release, trusttest.Shipper, trust.Publication{Channel: "chat", Epoch: epoch})
}

func (s *scene) publication(release statement.ID, name string, p trust.Publication) statement.ID {
	s.t.Helper()
	payload, err := trust.NewPublication(release, p)
	return s.signed(name, payload, err)
}

// complete adds everything that a release needs, published at epoch 1.
func (s *scene) complete() statement.ID {
	s.t.Helper()
	release := s.releaseBy("trainer", nil)
	s.approve(release, "alice", "bob")
	s.publish(release, 1)
	return release
}

func (s *scene) decide() trust.Channel {
	s.t.Helper()
	d := trust.Decide(s.policy, s.set, s.now, s.floor)
	checkDecision(s.t, s, d)
	checkGrounds(s.t, s)
	return d.Channels["chat"]
}

// checkDecision verifies what holds for every decision: it does not depend on the order of the statements or on how
// often each came, every statement has a reason, and what serves is complete.
func checkDecision(t *testing.T, s *scene, d trust.Decision) {
	t.Helper()
	want := marshal(t, d)
	for range 3 {
		shuffled := slices.Concat(s.set, s.set)
		mathrand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if got := marshal(t, trust.Decide(s.policy, shuffled, s.now, s.floor)); got != want {
			t.Errorf("shuffled and doubled statements decide\n%s\nin order they decide\n%s", got, want)
		}
	}
	if strings.Contains(want, "null,") && !strings.Contains(want, `"serve":null,`) || strings.Contains(want, `:null]`) {
		t.Errorf("a null stands where none may: %s", want)
	}
	for name, c := range d.Channels {
		if (c.Serve == "") != (c.Release == nil) || (c.Serve == "") != (c.Epoch == 0) || (c.Serve == "") != (c.Publication == "") {
			t.Errorf("%s: serve %q, release %v, epoch %d, publication %q do not agree", name, c.Serve, c.Release, c.Epoch, c.Publication)
		}
		if c.Serve != "" && c.Release.ID != c.Serve {
			t.Errorf("%s: serves %s with the release %s", name, c.Serve, c.Release.ID)
		}
		if !s.now.Before(s.policy.Expires()) || s.floor.TimeHighWater.After(s.policy.Expires()) {
			continue // the only reason is the policy's
		}
		for _, one := range s.set {
			if !slices.ContainsFunc(c.Reasons, func(r trust.Reason) bool { return r.Statement == one.ID() }) {
				t.Errorf("%s: no reason for %s (%s)", name, one.ID(), one.PredicateType())
			}
		}
	}
}

func marshal(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v, json.Deterministic(true))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func describe(m trust.Missing) string {
	return m.Role + " " + string(rune('0'+m.Have)) + "/" + string(rune('0'+m.Need)) + " by " + strings.Join(m.CouldSupply, ",")
}

func reasons(c trust.Channel) string {
	var b strings.Builder
	for _, r := range c.Reasons {
		b.WriteString(r.Rule + " " + r.Identity + ": " + r.Why + "\n")
	}
	return b.String()
}

// chat edits the rules of the channel.
func (s *scene) chat(edit func(*trust.ChannelRules)) {
	c := s.doc.Channels["chat"]
	edit(&c)
	s.doc.Channels["chat"] = c
}

// join makes an identity a member of one more role.
func (s *scene) join(role, name string) {
	r := s.doc.Roles[role]
	r.Members = append(slices.Clone(r.Members), name)
	s.doc.Roles[role] = r
}

// at raises the channel's floor.
func (s *scene) at(epoch int64, publication statement.ID) {
	s.floor.Channels = map[string]trust.ChannelFloor{"chat": {Epoch: epoch, Publication: publication}}
}

// raw signs a predicate as it stands, whatever it says.
func (s *scene) raw(name, predicateType, subject, predicate string) statement.ID {
	s.t.Helper()
	payload, err := statement.New(predicateType, "release", subject, jsontext.Value(predicate))
	return s.signed(name, payload, err)
}

// descriptor is the default one; it signs the weights as the trainer unless someone has signed them.
func (s *scene) descriptor() trust.Descriptor {
	s.t.Helper()
	if _, err := os.Stat(s.model + ".sig"); err != nil {
		s.SignModel(s.model)
	}
	return s.Descriptor(s.model)
}

// descriptorJSON is the default descriptor in canonical JSON.
func (s *scene) descriptorJSON() string {
	s.t.Helper()
	return canonicalOf(s.t, []byte(marshal(s.t, s.descriptor())))
}

func canonicalOf(t *testing.T, text []byte) string {
	t.Helper()
	value := jsontext.Value(slices.Clone(text))
	if err := value.Canonicalize(); err != nil {
		t.Fatal(err)
	}
	return string(value)
}

// root is the hex root of the signed weights.
func (s *scene) root() string {
	s.t.Helper()
	return strings.TrimPrefix(s.descriptor().Weights.Root, "sha256:")
}

// forge returns the bundle of a statement with another payload under its signature.
func forge(t *testing.T, s *statement.Signed, payload []byte) *statement.Signed {
	t.Helper()
	var bundle map[string]any
	if err := json.Unmarshal(s.Bundle(), &bundle); err != nil {
		t.Fatal(err)
	}
	bundle["dsseEnvelope"].(map[string]any)["payload"] = payload
	forged, err := statement.Parse([]byte(marshal(t, bundle)))
	if err != nil {
		t.Fatal(err)
	}
	return forged
}

// rehint returns the bundle with another name of its key.
func rehint(t *testing.T, s *statement.Signed, hint string) *statement.Signed {
	t.Helper()
	var bundle map[string]any
	if err := json.Unmarshal(s.Bundle(), &bundle); err != nil {
		t.Fatal(err)
	}
	bundle["verificationMaterial"] = map[string]any{"publicKey": map[string]any{"hint": hint}}
	changed, err := statement.Parse([]byte(marshal(t, bundle)))
	if err != nil {
		t.Fatal(err)
	}
	return changed
}

// checkRefused wants an error of a kind with a text in it, or none where the text is empty.
func checkRefused(t *testing.T, err, kind error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("error %v, want none", err)
	case want != "" && !errors.Is(err, kind):
		t.Errorf("error %v, want one of %v", err, kind)
	case want != "" && !strings.Contains(err.Error(), want):
		t.Errorf("error %q, want it to say %q", err, want)
	}
}

// underCertificate adds what a name signs under a certificate that changes as told.
func (s *scene) underCertificate(name string, change func(*x509.Certificate), payload []byte, err error) statement.ID {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
	if s.ca == nil {
		s.ca = s.NewCA("house")
	}
	return s.add(s.SignUnder(name, payload, s.ca.Issue(name, change)))
}
