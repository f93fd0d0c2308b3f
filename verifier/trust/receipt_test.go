package trust_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

// receipt is one of a release, every digest of another text.
func receipt(release statement.ID) trust.Receipt {
	return trust.Receipt{
		ID: "00112233445566778899aabbccddeeff", Caller: "spiffe://bank.example/apps/demo", Channel: "chat", Release: release, Weights: string(idOf([]byte("w"))),
		Level: "sealed", Sandbox: "full", Publication: idOf([]byte("p")), Policy: idOf([]byte("policy")), Time: now, Nonce: idOf([]byte("nonce")), Request: idOf([]byte("request")),
		Response: idOf([]byte("response")), Statements: idOf([]byte("[]")), Log: trust.LogPlace{Origin: "weighbridge/gateway", Index: 7},
	}
}

// TestReceiptBy: a receipt counts by the role, the key and the state of who signed it.
func TestReceiptBy(t *testing.T) {
	gateway := func(s *scene) {
		s.doc.Identities["gw"] = trust.Identity{Keys: []string{s.PublicPEM("gw")}}
		s.doc.Roles[trust.GatewayRole] = trust.Role{Members: []string{"gw"}}
	}
	in := func(state trust.State) func(*scene) {
		return func(s *scene) {
			gateway(s)
			s.doc.Identities["gw"] = trust.Identity{Keys: []string{s.PublicPEM("gw")}, State: state}
		}
	}
	tests := []struct {
		name   string
		policy func(*scene)
		signer string
		change func(*scene, *statement.Signed) *statement.Signed
		want   string // why not
	}{
		{"a gateway", gateway, "gw", nil, ""},
		{"no identity of the policy", gateway, "stranger", nil, "to no identity"},
		{"an identity in other roles", gateway, trusttest.Alice, nil, "alice is no gateway"},
		{"no such role", func(s *scene) { gateway(s); delete(s.doc.Roles, trust.GatewayRole) }, "gw", nil, "gw is no gateway"},
		{"retired since", in(trust.State{Retired: now.Add(time.Hour)}), "gw", nil, "gw is retired since"},
		{"compromised since", in(trust.State{Compromised: now.Add(time.Hour)}), "gw", nil, "gw is compromised since"},
		{"altered", gateway, "gw", func(s *scene, signed *statement.Signed) *statement.Signed {
			return forge(s.t, signed, []byte(strings.Replace(string(signed.Payload()), "sealed", "verity", 1)))
		}, "altered or forged"},
		{"under a certificate", func(s *scene) {
			gateway(s)
			s.ca = s.NewCA("house")
			s.doc.Identities["gw"] = trust.Identity{Keys: []string{s.PublicPEM("other")}, Certificate: "CN=gw", Roots: []string{trust.CertificatePEM(s.ca.Root.Raw)}}
		}, "gw", func(s *scene, signed *statement.Signed) *statement.Signed {
			return s.SignUnder("gw", signed.Payload(), s.ca.Issue("gw", nil))
		}, "under a certificate"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene(t, tt.policy)
			payload, err := trust.NewReceipt(idOf(nil), receipt(idOf(nil)))
			if err != nil {
				t.Fatal(err)
			}
			signed := s.Sign(tt.signer, payload)
			if tt.change != nil {
				signed = tt.change(s, signed)
			}
			who, key, err := s.policy.ReceiptBy(signed)
			checkRefused(t, err, trust.ErrNotGateway, tt.want)
			if err == nil && (who != tt.signer || signed.VerifyKey(key) != nil) {
				t.Errorf("ReceiptBy = %s, %v, want %s and its key", who, key, tt.signer)
			}
			// Before there is a receipt the answer is the same.
			if tt.change == nil {
				who, err := s.policy.Gateway(s.KeyID(tt.signer))
				if (err == nil) != (tt.want == "") || err != nil && !errors.Is(err, trust.ErrNotGateway) || err == nil && who != tt.signer {
					t.Errorf("Gateway = %q, %v, want the answer of ReceiptBy: %q", who, err, tt.want)
				}
			}
		})
	}
}

// TestStampedReceipt: as with every statement, what a trusted time puts before the end of its signer counts.
func TestStampedReceipt(t *testing.T) {
	for _, state := range []trust.State{{Retired: now}, {Compromised: now}} {
		for _, at := range []time.Duration{-time.Hour, time.Hour} {
			s := newScene(t, func(s *scene) {
				certified()(s)
				s.doc.Identities["gw"] = trust.Identity{Keys: []string{s.PublicPEM("gw")}, State: state}
				s.doc.Roles[trust.GatewayRole] = trust.Role{Members: []string{"gw"}}
			})
			payload, err := trust.NewReceipt(idOf(nil), receipt(idOf(nil)))
			s.signed("gw", payload, err)
			s.stamp(now.Add(at))
			if _, _, err := s.policy.ReceiptBy(s.set[0]); (err == nil) != (at < 0) {
				t.Errorf("%v, stamped at %v: ReceiptBy = %v", state, at, err)
			}
		}
	}
}

// TestRecorded: what the log holds of a receipt depends on all of it but its place there.
func TestRecorded(t *testing.T) {
	r := receipt(idOf(nil))
	want, err := r.Recorded()
	if err != nil {
		t.Fatal(err)
	}
	r.Log.Index++
	if got, _ := r.Recorded(); got != want {
		t.Errorf("Recorded = %s at another index, want %s", got, want)
	}
	r.Level = "verity"
	if got, _ := r.Recorded(); got == want {
		t.Errorf("Recorded = %s for another level, too", got)
	}
}

// checkGrounds wants what a channel serves to be decided again by its grounds alone, and by nothing less.
func checkGrounds(t *testing.T, s *scene) {
	t.Helper()
	l := trust.NewLedger(s.policy)
	l.Follow(s.set)
	for name, c := range l.Decide(s.now, s.floor).Channels {
		g := l.Grounds(name, c, s.now)
		if (g == nil) != (c.Serve == "") {
			t.Errorf("Grounds = %v of a channel that serves %q", g, c.Serve)
		}
		if g == nil || c.Fallback {
			continue
		}
		again := trust.Decide(s.policy, g.Statements, s.now, s.floor).Channels[name]
		if again.Serve != c.Serve || again.Publication != g.Publication || g.Policy != s.policy.Digest() || !slices.Equal(again.Counted, c.Counted) {
			t.Errorf("by its grounds %s serves %q by %s, want %s by %s; counted %v, want %v", name, again.Serve, again.Publication, c.Serve, g.Publication, again.Counted, c.Counted)
		}
		for i, one := range g.Statements {
			for _, other := range g.Statements[i+1:] {
				if string(one.Bundle()) == string(other.Bundle()) {
					t.Errorf("%s is among the grounds twice", one.ID())
				}
			}
		}
	}
}

// TestGroundsAreNoMore: what does not count, or is about another release, is not among the grounds.
func TestGroundsAreNoMore(t *testing.T) {
	s := newScene(t, nil)
	release := s.complete()
	want := slices.Clone(s.set)
	weights := s.descriptor().Weights.Statement
	again, err := statement.Parse(weights)
	if err != nil {
		t.Fatal(err)
	}
	s.add(again) // which the release brings
	s.approve(release, "stranger")
	other := s.releaseBy("trainer", func(d *trust.Descriptor) { d.Version = "2" })
	s.approve(other, "alice", "bob", "carol")
	l := trust.NewLedger(s.policy)
	l.Follow(s.set)
	g := l.Grounds("chat", l.Decide(s.now, s.floor).Channels["chat"], s.now)
	var got []string
	for _, one := range g.Statements {
		got = append(got, string(one.Bundle()))
	}
	for _, one := range want {
		if !slices.Contains(got, string(one.Bundle())) {
			t.Errorf("the grounds lack %s", one.Predicate())
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d grounds, want the %d of the release", len(got), len(want))
	}
}

// TestGroundsOfFallback: what falls back rests on its own publication, not on the one that counts no more.
func TestGroundsOfFallback(t *testing.T) {
	s := newScene(t, func(s *scene) {
		s.chat(func(c *trust.ChannelRules) { c.OnWithdrawal, c.Withdraw = "previous", &trust.Rule{Role: "approver"} })
	})
	first := s.complete()
	by := s.set[len(s.set)-1].ID()
	second := s.releaseBy("trainer", func(d *trust.Descriptor) { d.Version = "2" })
	s.approve(second, "alice", "bob")
	last := s.publish(second, 2)
	s.floor.Channels = map[string]trust.ChannelFloor{"chat": {Epoch: 2, Publication: last, Served: []statement.ID{first, second}}}
	payload, err := trust.NewWithdrawal(second, trust.Withdrawal{Of: trust.OfRelease, Reason: "leaks"})
	s.signed("carol", payload, err)
	l := trust.NewLedger(s.policy)
	l.Follow(s.set)
	c := l.Decide(s.now, s.floor).Channels["chat"]
	g := l.Grounds("chat", c, s.now)
	if !c.Fallback || c.Serve != first || g == nil || g.Publication != by || !g.Fallback {
		t.Fatalf("serves %s (fallback %v) on the grounds %+v, want %s by %s", c.Serve, c.Fallback, g, first, by)
	}
	// Who sees the grounds alone sees a release that this publication serves.
	floor := trust.Floor{Channels: map[string]trust.ChannelFloor{"chat": {Epoch: 0}}}
	if alone := trust.Decide(s.policy, g.Statements, s.now, floor).Channels["chat"]; alone.Serve != first {
		t.Errorf("by its grounds alone chat serves %q: %s", alone.Serve, reasons(alone))
	}
}

func (m *vectorMaker) receipt(release []byte) {
	about := idOf(release)
	first := receipt(about)
	payload := m.valid("receipt", "receipt", "of a call")(trust.NewReceipt(about, first))
	fallback := first
	fallback.Fallback, fallback.Log.Index, fallback.Time = true, 0, now.Add(250*time.Millisecond)
	m.valid("receipt", "receipt-full", "every field, of an older release that served instead")(trust.NewReceipt(about, fallback))
	at := func(path string, id statement.ID) broken {
		return broken{path, "field", path, fmt.Sprintf("%q:%q", path, id), fmt.Sprintf("%q:%q", path, id.Hex()), "no digest"}
	}
	m.broken("receipt", payload, []broken{
		{"predicate-type", "predicate-type", "", `weighbridge:receipt:v1`, `weighbridge:receipt:v2`, "another predicate type"},
		{"not-canonical", "canonical", "", `"index":7`, `"index":7.0`, "a number in another form"},
		{"unknown-field", "unknown-field", "", `"caller"`, `"answer":"","caller"`, "an unknown field"},
		{"false", "spelling", "", `"id":`, `"fallback":false,"id":`, "a default spelled out"},
		{"no-log", "spelling", "", `"index":7,`, ``, "a required field is missing"},
		{"wrong-kind", "wrong-kind", "", `"index":7`, `"index":"7"`, "a text for a number"},
		{"id", "field", "id", `ccddeeff"`, `ccddeefF"`, "an id in upper case"},
		{"short-id", "field", "id", `ccddeeff"`, `ccddee"`, "an id that is too short"},
		{"caller", "field", "caller", `spiffe://bank.example/apps/demo`, `spiffe://bank.example`, "a trust domain for a workload"},
		{"channel", "field", "channel", `"chat"`, `"chat/x"`, "no name of a channel"},
		{"level", "field", "level", `"sealed"`, `"trusted"`, "an unknown level"},
		{"sandbox", "field", "sandbox", `"sandbox":"full"`, `"sandbox":"box"`, "an unknown sandbox"},
		{"no-sandbox", "spelling", "", `"sandbox":"full",`, ``, "a field that is always written is missing"},
		{"time", "field", "time", `2026-06-01T12:00:00Z`, `2026-06-01T14:00:00+02:00`, "a time that is not in UTC"},
		{"no-time", "field", "time", `2026-06-01T12:00:00Z`, `0001-01-01T00:00:00Z`, "no time"},
		{"index", "field", "log.index", `"index":7`, `"index":-1`, "no index is negative"},
		{"origin", "field", "log.origin", `"weighbridge/gateway"`, `""`, "no origin"},
		at("weights", statement.ID(first.Weights)), at("publication", first.Publication), at("policy", first.Policy), at("nonce", first.Nonce),
		at("request", first.Request), at("response", first.Response), at("statements", first.Statements),
	})
	m.put(vector{File: "receipt-subject.json", Kind: "receipt", Expect: "subject", Why: "the subject is not the release"},
		m.sign("1", swap(m.t, payload, `{"sha256":"`+payloadRoot(payload)+`"}`, `{"sha256":"`+strings.Repeat("0", 64)+`"}`)))
}
