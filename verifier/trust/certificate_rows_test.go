package trust_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

// certified makes identities sign under certificates of the house's root, in place of keys.
func certified(names ...string) func(*scene) {
	return func(s *scene) {
		s.ca, s.tsa = s.NewCA("house"), s.NewTimeAuthority("clock")
		s.doc.TimestampAuthorities = []string{trust.CertificatePEM(s.tsa.Root.Raw)}
		for _, name := range names {
			s.doc.Identities[name] = trust.Identity{Certificate: "CN=" + name, Roots: []string{trust.CertificatePEM(s.ca.Root.Raw)}}
		}
	}
}

// valid sets when a certificate is valid, as seen from now.
func valid(from, to time.Duration) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = now.Add(from), now.Add(to) }
}

// stamp puts a time on the statement that was added last.
func (s *scene) stamp(at time.Time) {
	s.t.Helper()
	last := len(s.set) - 1
	s.set[last] = s.tsa.Stamped(s.set[last], at)
}

// certificateRow has a release that alice approved and carol approves under a certificate.
func certificateRow(name, rule string, change func(*x509.Certificate), after func(*scene)) row {
	r := row{name: name, policy: certified("carol"), rule: rule, serves: rule == "", missing: "approver 1/2 by bob,carol"}
	if r.serves {
		r.missing = ""
	}
	r.build = func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice")
		payload, err := trust.NewApproval(release, trust.Approval{})
		s.underCertificate("carol", change, payload, err)
		if after != nil {
			after(s)
		}
		s.publish(release, 1)
	}
	return r
}

func named(names ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.Subject = pkix.Name{}
		for _, name := range names {
			c.Subject.ExtraNames = append(c.Subject.ExtraNames, pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: name})
		}
	}
}

// certificateRows: identities that sign under certificates.
var certificateRows = []row{
	certificateRow("approval under the identity's certificate", "", nil, nil),
	certificateRow("certificate of another name", trust.RuleUnknownIdentity, named("mallory"), nil),
	certificateRow("certificate of the name and one more", trust.RuleUnknownIdentity, named("mallory", "carol"), nil),
	certificateRow("certificate of no name", trust.RuleUnknownIdentity, named(), nil),
	certificateRow("certificate that has expired", trust.RuleExpired, valid(-2*time.Hour, -time.Hour), nil),
	certificateRow("certificate that is not valid yet", trust.RuleExpired, valid(time.Hour, 2*time.Hour), nil),
	certificateRow("altered", trust.RuleSignature, nil, func(s *scene) {
		last := len(s.set) - 1
		payload := s.set[last].Payload()
		s.set[last] = forge(s.t, s.set[last], []byte(strings.Replace(string(payload), `"predicate":{}`, `"predicate":{"ticket":"OPS-1"}`, 1)))
	}),
	{name: "certificate of another root with that name", policy: certified("carol"), build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice")
		s.ca = s.NewCA("house of others")
		payload, err := trust.NewApproval(release, trust.Approval{})
		s.underCertificate("carol", nil, payload, err)
		s.publish(release, 1)
	}, rule: trust.RuleUnknownIdentity, missing: "approver 1/2 by bob,carol"},
	{name: "certificate for the key of another identity", policy: certified("carol"), build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "bob")
		payload, err := trust.NewApproval(release, trust.Approval{})
		s.underCertificate("bob", named("carol"), payload, err)
		s.publish(release, 1)
	}, rule: trust.RuleUnknownIdentity, missing: "approver 1/2 by alice,carol"},
	{name: "one key under the certificates of two identities", policy: func(s *scene) {
		certified("carol", "erin")(s)
		s.join("approver", "erin")
	}, build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		for _, name := range []string{"carol", "erin"} {
			payload, err := trust.NewApproval(release, trust.Approval{Ticket: name})
			s.underCertificate("carol", named(name), payload, err)
		}
		s.publish(release, 1)
	}, rule: trust.RuleUnknownIdentity, missing: "approver 0/2 by alice,bob,carol,erin"},
	{name: "such a key, and a key of one's own under a certificate that has expired", policy: func(s *scene) {
		certified("carol", "erin")(s)
		s.join("approver", "erin")
	}, build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice")
		payload, err := trust.NewApproval(release, trust.Approval{})
		for _, name := range []string{"carol", "erin"} {
			s.underCertificate("carol", named(name), payload, err)
		}
		s.underCertificate("carol's laptop", func(c *x509.Certificate) { named("carol")(c); expired(c) }, payload, err)
		s.publish(release, 1)
	}, rule: trust.RuleExpired, missing: "approver 1/2 by bob,carol,erin"},
	{name: "a key and a certificate of one identity", policy: func(s *scene) {
		certified("carol")(s)
		both := s.doc.Identities["carol"]
		both.Keys = []string{s.PublicPEM("carol's laptop")}
		s.doc.Identities["carol"] = both
	}, build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "carol's laptop")
		payload, err := trust.NewApproval(release, trust.Approval{Ticket: "OPS-1"})
		s.underCertificate("carol", nil, payload, err)
		s.publish(release, 1)
	}, rule: trust.RuleThreshold, missing: "approver 1/2 by alice,bob"},
	{name: "publication under a certificate", policy: certified("shipper"), build: func(s *scene) { s.published(nil) }, serves: true},
	{name: "publication under one that has expired", policy: certified("shipper"), build: func(s *scene) { s.published(valid(-2*time.Hour, -time.Hour)) },
		rule: trust.RuleExpired, missing: "publisher 0/1 by shipper"},
	{name: "weights and release under a certificate", policy: certified("trainer"), build: func(s *scene) { s.produced(nil, nil) }, serves: true},
	{name: "release under one that has expired", policy: certified("trainer"), build: func(s *scene) { s.produced(nil, expired) },
		rule: trust.RuleExpired, missing: "producer 0/1 by trainer"},
	{name: "weights under one that has expired", policy: certified("trainer"), build: func(s *scene) { s.produced(expired, nil) },
		rule: trust.RuleExpired, missing: "producer 0/1 by trainer"},
	{name: "withdrawal under one that has expired", policy: and(duties, certified("warden")), build: func(s *scene) {
		release := s.version("1", 1)
		payload, err := trust.NewWithdrawal(release, trust.Withdrawal{Of: trust.OfRelease, Reason: "it leaks"})
		s.underCertificate("warden", valid(-2*time.Hour, -time.Hour), payload, err)
	}, rule: trust.RuleWithdrawn, missing: "publisher 0/1 by shipper"},
	{name: "withdrawal by one key under the certificates of two identities", policy: wardens, build: func(s *scene) {
		s.withdrawnBy(s.version("1", 1), "warden", "warden", "erin")
	}, rule: trust.RuleUnknownIdentity, serves: true},
	{name: "withdrawal by each of these with a key of their own", policy: wardens, build: func(s *scene) {
		release := s.version("1", 1)
		s.withdrawnBy(release, "warden", "warden", "erin")
		s.withdrawnBy(release, "warden's laptop", "warden")
		s.withdrawnBy(release, "erin", "erin")
	}, rule: trust.RuleWithdrawn, missing: "publisher 0/1 by shipper"},
	{name: "failure under one that has expired", policy: and(duties, certified("tester")), build: func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice", "bob")
		s.publish(release, 1)
		for ago, result := range map[time.Duration]string{3 * time.Hour: trust.Passed, 2 * time.Hour: trust.Failed} {
			payload, err := trust.NewEvaluation(release, trust.Evaluation{Result: result, FinishedOn: now.Add(-ago)})
			change := valid(-day, day)
			if result == trust.Failed {
				change = valid(-day, -time.Hour)
			}
			s.underCertificate("tester", change, payload, err)
		}
	}, rule: trust.RuleTestFailed, missing: "evaluator 0/1 by tester"},
}

// wardens are two who sign under certificates, both of them needed to withdraw.
func wardens(s *scene) {
	and(duties, certified("warden", "erin"))(s)
	s.doc.Roles["revoker"] = trust.Role{Members: []string{"warden", "erin"}, Threshold: 2}
}

// withdrawnBy is the withdrawal of a release with one key, under the certificates of the identities that are named.
func (s *scene) withdrawnBy(release statement.ID, key string, names ...string) {
	s.t.Helper()
	for _, name := range names {
		payload, err := trust.NewWithdrawal(release, trust.Withdrawal{Of: trust.OfRelease, Reason: "it leaks"})
		s.underCertificate(key, named(name), payload, err)
	}
}

// published is a complete release whose publication is under a certificate.
func (s *scene) published(change func(*x509.Certificate)) {
	s.t.Helper()
	release := s.releaseBy("trainer", nil)
	s.approve(release, "alice", "bob")
	payload, err := trust.NewPublication(release, trust.Publication{Channel: "chat", Epoch: 1})
	s.underCertificate("shipper", change, payload, err)
}

// produced is a complete release whose weights and descriptor are signed under certificates.
func (s *scene) produced(weights, release func(*x509.Certificate)) {
	s.t.Helper()
	s.SignModelAs("trainer", s.model, s.ca.Issue("trainer", weights))
	payload, err := trust.NewRelease(s.descriptor())
	id := s.underCertificate("trainer", release, payload, err)
	s.approve(id, "alice", "bob")
	s.publish(id, 1)
}

// inState gives carol, who signs by key, a state, and the policy a time authority.
func inState(state trust.State) func(*scene) {
	return func(s *scene) {
		certified()(s)
		carol := s.doc.Identities["carol"]
		carol.State = state
		s.doc.Identities["carol"] = carol
	}
}

// stampedRow has a release that alice approved, and carol, who is in a state, with a time on it.
func stampedRow(name, rule string, state trust.State, stamp func(*scene)) row {
	r := row{name: name, policy: inState(state), rule: rule, serves: rule == "", missing: "approver 1/2 by bob"}
	if r.serves {
		r.missing = ""
	}
	r.build = func(s *scene) {
		release := s.releaseBy("trainer", nil)
		s.approve(release, "alice", "carol")
		stamp(s)
		s.publish(release, 1)
	}
	return r
}

var (
	retired     = trust.State{Retired: now.Add(-time.Hour)}
	compromised = trust.State{Compromised: now.Add(-time.Hour)}
	before      = func(s *scene) { s.stamp(now.Add(-2 * time.Hour)) }
	after       = func(s *scene) { s.stamp(now.Add(-time.Minute)) }
	stranger    = func(s *scene) { s.tsa = s.NewTimeAuthority("stranger"); before(s) }
	expired     = valid(-3*time.Hour, -time.Hour)
)

// trustedTimeRows: what a trusted time makes of a lapsed certificate, and of identities that have retired or are
// compromised.
var trustedTimeRows = []row{
	certificateRow("expired since it was stamped", "", expired, before),
	certificateRow("stamped after it expired", trust.RuleExpired, expired, after),
	certificateRow("stamped before it was valid", trust.RuleExpired, valid(-time.Hour, time.Hour), before),
	certificateRow("stamped by a stranger", trust.RuleExpired, expired, stranger),
	certificateRow("stamp of another signature", trust.RuleExpired, expired, func(s *scene) {
		last := len(s.set) - 1
		other := s.tsa.Stamp([]byte("another"), now.Add(-2*time.Hour))
		s.set[last] = withTimestamp(s.t, s.set[last], other)
	}),
	stampedRow("retired since it was stamped", "", retired, before),
	stampedRow("stamped after retiring", trust.RuleLifecycle, retired, after),
	stampedRow("retired, stamped by a stranger", trust.RuleLifecycle, retired, stranger),
	stampedRow("compromised since it was stamped", "", compromised, before),
	stampedRow("stamped when compromised", trust.RuleLifecycle, compromised, after),
	stampedRow("stamped at the very time", trust.RuleLifecycle, compromised, func(s *scene) { s.stamp(now.Add(-time.Hour)) }),
	stampedRow("compromised, stamped by a stranger", trust.RuleLifecycle, compromised, stranger),
}

// workload makes a certificate an SVID.
func workload(id string, from, to time.Duration) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		valid(from, to)(c)
		c.Subject, c.ExtKeyUsage, c.URIs = pkix.Name{}, nil, []*url.URL{{Scheme: "spiffe", Host: "bank.example", Path: id}}
	}
}

// svidRow is a certificateRow in which carol is a workload.
func svidRow(name, rule string, change func(*x509.Certificate), after func(*scene)) row {
	r := certificateRow(name, rule, change, after)
	r.policy = workloads("carol")
	return r
}

// workloads makes identities sign under SVIDs.
func workloads(names ...string) func(*scene) {
	return func(s *scene) {
		certified(names...)(s)
		for _, name := range names {
			identity := s.doc.Identities[name]
			identity.Certificate, identity.SPIFFE = "", "spiffe://bank.example/"+name
			s.doc.Identities[name] = identity
		}
	}
}

// svidRows: identities that sign under SVIDs, which count with a trusted time only.
var svidRows = []row{
	svidRow("SVID that was valid when it was stamped", "", workload("/carol", -3*time.Hour, -time.Hour), before),
	svidRow("SVID without a time", trust.RuleExpired, workload("/carol", -time.Hour, time.Hour), nil),
	svidRow("SVID stamped after it expired", trust.RuleExpired, workload("/carol", -3*time.Hour, -time.Hour), after),
	svidRow("SVID stamped by a stranger", trust.RuleExpired, workload("/carol", -3*time.Hour, -time.Hour), stranger),
	svidRow("SVID of another workload", trust.RuleUnknownIdentity, workload("/mallory", -3*time.Hour, -time.Hour), before),
	svidRow("certificate with the ID as its name", trust.RuleUnknownIdentity, func(c *x509.Certificate) {
		expired(c)
		c.Subject = pkix.Name{CommonName: "spiffe://bank.example/carol"}
	}, before),
	{name: "withdrawal under an SVID, stamped after it expired", policy: and(duties, workloads("warden")), build: func(s *scene) {
		release := s.version("1", 1)
		payload, err := trust.NewWithdrawal(release, trust.Withdrawal{Of: trust.OfRelease, Reason: "it leaks"})
		s.underCertificate("warden", workload("/warden", -3*time.Hour, -time.Hour), payload, err)
		after(s)
	}, rule: trust.RuleExpired, serves: true},
	{name: "weights under an SVID", policy: workloads("trainer"), build: func(s *scene) {
		svid := workload("/trainer", -3*time.Hour, -time.Hour)
		s.SignModelAs("trainer", s.model, s.ca.Issue("trainer", svid))
		payload, err := trust.NewRelease(s.descriptor())
		id := s.underCertificate("trainer", svid, payload, err)
		before(s)
		s.approve(id, "alice", "bob")
		s.publish(id, 1)
	}, rule: trust.RuleRole, missing: "producer 0/1 by trainer"},
}

// TestLapsedAfterwards: what was accepted under a certificate goes on when it has expired, and nothing new comes of it.
func TestLapsedAfterwards(t *testing.T) {
	s := newScene(t, certified("shipper"))
	s.published(valid(-time.Hour, time.Hour))
	s.accept()
	s.now = now.Add(2 * time.Hour)
	if c := s.decide(); c.Serve == "" {
		t.Errorf("what was accepted serves no more:\n%s", reasons(c))
	}
	fresh := *s
	fresh.floor = trust.Floor{}
	if c := fresh.decide(); c.Serve != "" {
		t.Error("where it was never accepted it serves")
	}
}

func withTimestamp(t *testing.T, s *statement.Signed, response []byte) *statement.Signed {
	t.Helper()
	made, err := statement.Parse(trusttest.WithTimestamp(s.Bundle(), response))
	if err != nil {
		t.Fatal(err)
	}
	return made
}
