package trust_test

import (
	"crypto/ecdsa"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/verifier/keyless"
	"github.com/weighbridge/weighbridge/verifier/keyless/keylesstest"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

func newKeyless(trustedRoot []byte) (trust.Keyless, error) { return keyless.New(trustedRoot) }

func accountOf(name string) statement.Account {
	return statement.Account{Issuer: "https://accounts.example", Subject: name + "@bank.example"}
}

// holders makes identities sign with accounts of the scene's Sigstore instance, in place of keys.
func holders(names ...string) func(*scene) {
	return func(s *scene) {
		s.Keyless = newKeyless
		s.issuer = keylesstest.New(s.t)
		id := s.trustRoot(s.issuer)
		for _, name := range names {
			a := accountOf(name)
			s.doc.Identities[name] = trust.Identity{Sigstore: trust.Sigstore{Issuer: a.Issuer, Subject: a.Subject, TrustedRoot: id}}
		}
	}
}

// trustRoot puts an instance's trusted root into the policy.
func (s *scene) trustRoot(of *keylesstest.Instance) statement.ID {
	s.t.Helper()
	id, root, err := trust.TrustedRootID(of.TrustedRoot())
	if err != nil {
		s.t.Fatal(err)
	}
	s.doc.TrustedRoots = map[statement.ID]jsontext.Value{id: root}
	return id
}

// withAccount adds what the holder of an account signed a month ago, when the certificate was valid.
func (s *scene) withAccount(name string, change func(*keylesstest.Signing), payload []byte, err error) statement.ID {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
	signing := keylesstest.Signing{Account: accountOf(name), At: now.Add(-30 * day)}
	if change != nil {
		change(&signing)
	}
	return s.add(s.issuer.Signed(payload, signing))
}

// accountRow has a release that alice approved and carol approves with an account.
func accountRow(name, rule string, change func(*keylesstest.Signing), after func(*scene)) row {
	r := row{name: name, policy: holders("carol"), rule: rule, serves: rule == "", missing: "approver 1/2 by bob,carol"}
	if r.serves {
		r.missing = ""
	}
	r.build = func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice")
		payload, err := trust.NewApproval(release, trust.Approval{})
		s.withAccount("carol", change, payload, err)
		if after != nil {
			after(s)
		}
		s.publish(release, 1)
	}
	return r
}

// holderRow is an accountRow in which carol is in a state.
func holderRow(name, rule string, state trust.State, at time.Time) row {
	r := accountRow(name, rule, func(s *keylesstest.Signing) { s.At = at }, nil)
	if rule != "" {
		r.missing = "approver 1/2 by bob"
	}
	r.policy = and(holders("carol"), func(s *scene) {
		carol := s.doc.Identities["carol"]
		carol.State = state
		s.doc.Identities["carol"] = carol
	})
	return r
}

func lacking(parts ...keylesstest.Part) func(*keylesstest.Signing) {
	return func(s *keylesstest.Signing) { s.Without = parts }
}

// accountRows: identities that sign with Sigstore accounts.
var accountRows = []row{
	accountRow("approval with the identity's account", "", nil, nil),
	accountRow("account at a log of version 2", "", func(s *keylesstest.Signing) { s.Rekor = 2 }, nil),
	accountRow("account of another subject", trust.RuleUnknownIdentity, func(s *keylesstest.Signing) { s.Account = accountOf("mallory") }, nil),
	accountRow("account of another issuer", trust.RuleUnknownIdentity, func(s *keylesstest.Signing) { s.Account.Issuer = "https://accounts.other" }, nil),

	accountRow("account in no log", trust.RuleUnknownIdentity, lacking(keylesstest.Entry), nil),
	accountRow("account without a time", trust.RuleUnknownIdentity, lacking(keylesstest.Promise, keylesstest.Timestamp), nil),
	accountRow("account, altered", trust.RuleSignature, nil, func(s *scene) {
		last := len(s.set) - 1
		payload := string(s.set[last].Payload())
		s.set[last] = forge(s.t, s.set[last], []byte(strings.Replace(payload, `"predicate":{}`, `"predicate":{"ticket":"OPS-1"}`, 1)))
	}),
	accountRow("stamped before the certificate was valid", trust.RuleUnknownIdentity, func(s *keylesstest.Signing) {
		s.Without, s.Stamped = []keylesstest.Part{keylesstest.Promise}, s.At.Add(-time.Hour)
	}, nil),
	holderRow("account retired since", "", retired, now.Add(-2*time.Hour)),
	holderRow("account retired before", trust.RuleLifecycle, retired, now.Add(-time.Minute)),
	holderRow("account compromised since", "", compromised, now.Add(-2*time.Hour)),
	holderRow("account compromised before", trust.RuleLifecycle, compromised, now.Add(-time.Minute)),
	holderRow("account compromised at the very time", trust.RuleLifecycle, compromised, compromised.Compromised),
	{name: "account at another instance", policy: holders("carol"), build: func(s *scene) {
		s.issuer = keylesstest.New(s.t)
		accountRow("", "", nil, nil).build(s)
	}, rule: trust.RuleUnknownIdentity, missing: "approver 1/2 by bob,carol"},
	{name: "account without a time but by the policy's authority", policy: and(certified(), holders("carol")), build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice")
		payload, err := trust.NewApproval(release, trust.Approval{})
		s.withAccount("carol", lacking(keylesstest.Promise, keylesstest.Timestamp), payload, err)
		s.stamp(now.Add(-30 * day))
		s.publish(release, 1)
	}, rule: trust.RuleUnknownIdentity, missing: "approver 1/2 by bob,carol"},
	{name: "account whose key is another identity's", policy: holders("carol"), build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "bob")
		payload, err := trust.NewApproval(release, trust.Approval{})
		s.withAccount("carol", func(by *keylesstest.Signing) { by.Key = s.Key("bob").(*ecdsa.PrivateKey) }, payload, err)
		s.publish(release, 1)
	}, rule: trust.RuleUnknownIdentity, missing: "approver 1/2 by alice,carol"},
	{name: "a key and an account of one identity", policy: and(holders("carol"), func(s *scene) {
		both := s.doc.Identities["carol"]
		both.Keys = []string{s.PublicPEM("carol's laptop")}
		s.doc.Identities["carol"] = both
	}), build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "carol's laptop")
		payload, err := trust.NewApproval(release, trust.Approval{Ticket: "OPS-1"})
		s.withAccount("carol", nil, payload, err)
		s.publish(release, 1)
	}, rule: trust.RuleThreshold, missing: "approver 1/2 by alice,bob"},
	{name: "account, and nothing to verify it with", policy: and(holders("carol"), func(s *scene) { s.Keyless = nil }), build: func(s *scene) {
		accountRow("", "", nil, nil).build(s)
	}, rule: trust.RuleUnknownIdentity, missing: "approver 1/2 by bob,carol"},
	{name: "account that is a SPIFFE ID", policy: func(s *scene) {
		workloads("carol")(s)
		holders()(s)
		carol := s.doc.Identities["carol"]
		carol.Roots = nil
		for _, c := range s.issuer.Authorities() {
			carol.Roots = append(carol.Roots, trust.CertificatePEM(c.Raw))
		}
		s.doc.Identities["carol"], s.doc.TrustedRoots = carol, nil
	}, build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice")
		payload, err := trust.NewApproval(release, trust.Approval{})
		s.withAccount("carol", func(by *keylesstest.Signing) {
			by.Account.Subject, by.Without = "spiffe://bank.example/carol", []keylesstest.Part{keylesstest.Timestamp}
		}, payload, err)
		s.stamp(now.Add(-30 * day))
		s.publish(release, 1)
	}, rule: trust.RuleUnknownIdentity, missing: "approver 1/2 by bob,carol"},
	{name: "publication with an account", policy: holders("shipper"), build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice", "bob")
		payload, err := trust.NewPublication(release, trust.Publication{Channel: "chat", Epoch: 1})
		s.withAccount("shipper", nil, payload, err)
	}, serves: true},
	{name: "weights and release with an account", policy: holders("trainer"), build: func(s *scene) {
		s.weightsWithAccount("trainer")
		payload, err := trust.NewRelease(s.descriptor())
		release := s.withAccount("trainer", nil, payload, err)
		s.approve(release, "alice", "bob")
		s.publish(release, 1)
	}, serves: true},
	{name: "weights with another account", policy: holders("trainer"), build: func(s *scene) {
		s.weightsWithAccount("mallory")
		payload, err := trust.NewRelease(s.descriptor())
		release := s.withAccount("trainer", nil, payload, err)
		s.approve(release, "alice", "bob")
		s.publish(release, 1)
	}, rule: trust.RuleUnknownIdentity, missing: "producer 0/1 by trainer"},
}

// weightsWithAccount signs the model with an account.
func (s *scene) weightsWithAccount(name string) {
	s.t.Helper()
	data, err := os.ReadFile(s.SignModelAs("mallory", s.model))
	if err != nil {
		s.t.Fatal(err)
	}
	signed, err := statement.Parse(data)
	if err != nil {
		s.t.Fatal(err)
	}
	bundle := s.issuer.Sign(signed.Payload(), keylesstest.Signing{Account: accountOf(name), At: now.Add(-30 * day)})
	if err := os.WriteFile(s.model+".sig", bundle, 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// TestTrustedRootThatCannotBeRead: a policy that asks for what can't be enforced is refused whole.
func TestTrustedRootThatCannotBeRead(t *testing.T) {
	s := newScene(t, holders("carol"))
	payload := s.policyPayload(func(d *trust.Document) {
		id, root, err := trust.TrustedRootID([]byte(`{"mediaType": "of a later version"}`))
		if err != nil {
			t.Fatal(err)
		}
		*d = s.doc
		carol := d.Identities["carol"]
		carol.Sigstore.TrustedRoot = id
		d.Identities["carol"], d.TrustedRoots = carol, map[statement.ID]jsontext.Value{id: root}
	})
	bundles := []*statement.Signed{s.Sign("alice", payload), s.Sign("bob", payload)}
	if _, err := s.Anchor().Accept(bundles, nil, nil); !errors.Is(err, trust.ErrRefused) || !strings.Contains(err.Error(), "trustedRoots.sha256:") {
		t.Errorf("Accept = %v, want it refused for its trusted root", err)
	}
	none := s.Anchor()
	none.Keyless = nil
	if _, err := none.Accept(bundles, nil, nil); err != nil {
		t.Errorf("Accept where no account counts = %v", err)
	}
	if _, err := trust.ParsePolicy(bundles[0], newKeyless); err == nil || !strings.Contains(err.Error(), "trustedRoots.sha256:") {
		t.Errorf("ParsePolicy = %v, want it refused for its trusted root", err)
	}
	if _, err := trust.ParsePolicy(bundles[0], nil); err != nil {
		t.Errorf("ParsePolicy where no account counts = %v", err)
	}
	unread := s.Anchor()
	unread.Keyless = func([]byte) (trust.Keyless, error) {
		t.Error("a trusted root is read of a policy that too few have signed")
		return nil, nil
	}
	if _, err := unread.Accept(bundles[:1], nil, nil); !errors.Is(err, trust.ErrRefused) {
		t.Errorf("Accept by one of two = %v, want %v", err, trust.ErrRefused)
	}
}
