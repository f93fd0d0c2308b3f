package trust_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// TestNewPolicy has the default policy and then one mistake per row, with the key it must be reported under.
func TestNewPolicy(t *testing.T) {
	s := newScene(t, nil)
	chat := func(edit func(*trust.ChannelRules)) func(*trust.Document) {
		return func(d *trust.Document) {
			c := d.Channels["chat"]
			edit(&c)
			d.Channels["chat"] = c
		}
	}
	role := func(name string, r trust.Role) func(*trust.Document) {
		return func(d *trust.Document) { d.Roles[name] = r }
	}
	identity := func(name string, i trust.Identity) func(*trust.Document) {
		return func(d *trust.Document) { d.Identities[name] = i }
	}
	alice := s.PublicPEM("alice")
	ca := s.NewCA("house")
	root, leaf := trust.CertificatePEM(ca.Root.Raw), trust.CertificatePEM(ca.Issue("dave", nil).Raw)
	under := func(name string, roots ...string) trust.Identity {
		return trust.Identity{Certificate: name, Roots: roots}
	}
	instance, text, err := trust.TrustedRootID([]byte(`{"any": "object"}`))
	if err != nil {
		t.Fatal(err)
	}
	account := func(name string, change func(*trust.Identity)) func(*trust.Document) {
		return func(d *trust.Document) {
			i := trust.Identity{Sigstore: trust.Sigstore{Issuer: "https://accounts.example", Subject: name, TrustedRoot: instance}}
			if change != nil {
				change(&i)
			}
			d.Identities[name], d.TrustedRoots = i, map[statement.ID]jsontext.Value{instance: text}
		}
	}
	long := `{"":"` + strings.Repeat("x", 1<<20) + `"}`
	rooted := func(text string) func(*trust.Document) {
		return func(d *trust.Document) {
			id := idOf([]byte(text))
			account("dave", func(i *trust.Identity) { i.Sigstore.TrustedRoot = id })(d)
			d.TrustedRoots = map[statement.ID]jsontext.Value{id: jsontext.Value(text)}
		}
	}
	tests := []struct {
		name string
		edit func(*trust.Document)
		path string // "" accepts
	}{
		{"default", func(*trust.Document) {}, ""},
		{"version 0", func(d *trust.Document) { d.Version = 0 }, "version"},
		{"version that JSON can't carry", func(d *trust.Document) { d.Version = 1 << 53 }, "version"},
		{"second version", func(d *trust.Document) { d.Version, d.Previous = 2, statement.ID("sha256:"+strings.Repeat("0", 64)) }, ""},
		{"predecessor of the first version", func(d *trust.Document) { d.Previous = statement.ID("sha256:" + strings.Repeat("0", 64)) }, "previous"},
		{"predecessor that is no digest", func(d *trust.Document) { d.Version, d.Previous = 2, "policy.jsonl" }, "previous"},
		{"tests of an approval", chat(func(c *trust.ChannelRules) { c.Require.Approval.Tests = []string{"safety"} }), "channels.chat.require.approval.tests"},
		{"tests that are not sorted", chat(func(c *trust.ChannelRules) {
			c.Require.Evaluation = &trust.Rule{Role: "approver", Tests: []string{"safety", "bias"}}
		}), "channels.chat.require.evaluation.tests"},
		{"no expiry", func(d *trust.Document) { d.Expires = time.Time{} }, "expires"},
		{"expiry in the year 10000", func(d *trust.Document) { d.Expires = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }, "expires"},
		{"no identities", func(d *trust.Document) { clear(d.Identities) }, "identities"},
		{"no channels", func(d *trust.Document) { clear(d.Channels) }, "channels"},
		{"identity without keys", identity("dave", trust.Identity{}), "identities.dave.keys"},
		{"identity with a bad name", identity("dave\n", trust.Identity{Keys: []string{s.PublicPEM("dave")}}), "identities.dave\n"},
		{"identity with a long name", identity(strings.Repeat("d", 65), trust.Identity{Keys: []string{s.PublicPEM("dave")}}), "identities." + strings.Repeat("d", 65)},
		{"two states", identity("dave", trust.Identity{Keys: []string{s.PublicPEM("dave")}, State: trust.State{Retired: now, Compromised: now}}), "identities.dave.state"},
		{"no key", identity("dave", trust.Identity{Keys: []string{"dave"}}), "identities.dave.keys[0]"},
		{"key with text around it", identity("dave", trust.Identity{Keys: []string{s.PublicPEM("dave") + "\n"}}), "identities.dave.keys[0]"},
		{"key listed twice", identity("dave", trust.Identity{Keys: []string{s.PublicPEM("dave"), s.PublicPEM("dave")}}), "identities.dave.keys[1]"},
		{"key of two identities", identity("dave", trust.Identity{Keys: []string{alice}}), "identities.dave.keys[0]"},
		{"certificate", identity("dave", under("CN=dave", root)), ""},
		{"certificate without roots", identity("dave", under("CN=dave")), "identities.dave.roots"},
		{"roots without certificate", identity("dave", trust.Identity{Keys: []string{s.PublicPEM("dave")}, Roots: []string{root}}), "identities.dave.certificate"},
		{"certificate with a name that can't be shown", identity("dave", under("CN=dave\x1b", root)), "identities.dave.certificate"},
		{"root that is none", identity("dave", under("CN=dave", "house")), "identities.dave.roots[0]"},
		{"root with text around it", identity("dave", under("CN=dave", root+"\n")), "identities.dave.roots[0]"},
		{"root listed twice", identity("dave", under("CN=dave", root, root)), "identities.dave.roots[1]"},
		{"no root among the roots", identity("dave", under("CN=dave", leaf)), "identities.dave.roots"},
		{"one name of two identities", func(d *trust.Document) {
			d.Identities["dave"], d.Identities["erin"] = under("CN=dave", root), under("CN=dave", root)
		}, "identities.erin"},
		{"SPIFFE ID", identity("dave", trust.Identity{SPIFFE: "spiffe://bank.example/dave", Roots: []string{root}}), ""},
		{"SPIFFE ID without roots", identity("dave", trust.Identity{SPIFFE: "spiffe://bank.example/dave"}), "identities.dave.roots"},
		{"SPIFFE ID of a trust domain", identity("dave", trust.Identity{SPIFFE: "spiffe://bank.example", Roots: []string{root}}), "identities.dave.spiffe"},
		{"SPIFFE ID that is none", identity("dave", trust.Identity{SPIFFE: "bank.example/dave", Roots: []string{root}}), "identities.dave.spiffe"},
		{"SPIFFE ID and certificate", identity("dave", trust.Identity{Certificate: "CN=dave", SPIFFE: "spiffe://bank.example/dave", Roots: []string{root}}), "identities.dave.spiffe"},
		{"account", account("dave", nil), ""},
		{"account and key", account("dave", func(i *trust.Identity) { i.Keys = []string{s.PublicPEM("dave")} }), ""},
		{"account and certificate", account("dave", func(i *trust.Identity) { i.Certificate, i.Roots = "CN=dave", []string{root} }), "identities.dave.sigstore"},
		{"account and SPIFFE ID", account("dave", func(i *trust.Identity) { i.SPIFFE, i.Roots = "spiffe://bank.example/dave", []string{root} }), "identities.dave.sigstore"},
		{"account without issuer", account("dave", func(i *trust.Identity) { i.Sigstore.Issuer = "" }), "identities.dave.sigstore.issuer"},
		{"account without subject", account("dave", func(i *trust.Identity) { i.Sigstore.Subject = "" }), "identities.dave.sigstore.subject"},
		{"account with a subject that can't be shown", account("dave", func(i *trust.Identity) { i.Sigstore.Subject = "dave\x1b" }), "identities.dave.sigstore.subject"},
		{"account without trusted root", account("dave", func(i *trust.Identity) { i.Sigstore.TrustedRoot = "" }), "identities.dave.sigstore.trustedRoot"},
		{"account of two identities", func(d *trust.Document) {
			account("dave", nil)(d)
			d.Identities["erin"] = d.Identities["dave"]
		}, "identities.erin.sigstore"},
		{"account of two identities at two instances", func(d *trust.Document) {
			account("dave", nil)(d)
			id, text, err := trust.TrustedRootID([]byte(`{"another":"instance"}`))
			if err != nil {
				t.Fatal(err)
			}
			erin := d.Identities["dave"]
			erin.Sigstore.TrustedRoot = id
			d.Identities["erin"], d.TrustedRoots[id] = erin, text
		}, "identities.erin.sigstore"},
		{"trusted root of nobody", func(d *trust.Document) {
			account("dave", nil)(d)
			delete(d.Identities, "dave")
		}, "trustedRoots." + string(instance)},
		{"trusted root under another name", func(d *trust.Document) {
			account("dave", nil)(d)
			d.TrustedRoots[instance] = jsontext.Value(`{"another":"instance"}`)
		}, "trustedRoots." + string(instance)},
		{"trusted root that is no object", rooted(`"instance"`), "trustedRoots." + string(idOf([]byte(`"instance"`)))},
		{"trusted root that is too long", rooted(long), "trustedRoots." + string(idOf([]byte(long)))},
		{"root member without a key", func(d *trust.Document) {
			d.Identities["dave"] = under("CN=dave", root)
			d.Roles["root"] = trust.Role{Members: []string{"alice", "dave"}}
		}, "roles.root.members[1]"},
		{"gateway under a certificate only", func(d *trust.Document) {
			d.Identities["dave"] = under("CN=dave", root)
			d.Roles[trust.GatewayRole] = trust.Role{Members: []string{"dave"}}
		}, "roles.gateway.members[0]"},
		{"gateway with a key", func(d *trust.Document) {
			d.Identities["dave"] = trust.Identity{Keys: []string{s.PublicPEM("dave")}}
			d.Roles[trust.GatewayRole] = trust.Role{Members: []string{"dave"}}
		}, ""},
		{"time authority", func(d *trust.Document) { d.TimestampAuthorities = []string{root} }, ""},
		{"time authority that is none", func(d *trust.Document) { d.TimestampAuthorities = []string{"house"} }, "timestampAuthorities[0]"},
		{"identity's key among the root keys", func(d *trust.Document) { d.RootKeys = []string{alice} }, "rootKeys[0]"},
		{"role without members", role("operator", trust.Role{}), "roles.operator.members"},
		{"role with a bad name", role("an operator", trust.Role{Members: []string{"alice"}}), "roles.an operator"},
		{"role of a stranger", role("operator", trust.Role{Members: []string{"alice", "mallory"}}), "roles.operator.members[1]"},
		{"member listed twice", role("operator", trust.Role{Members: []string{"alice", "alice"}}), "roles.operator.members[1]"},
		{"threshold above the members", role("operator", trust.Role{Members: []string{"alice"}, Threshold: 2}), "roles.operator.threshold"},
		{"threshold below none", role("operator", trust.Role{Members: []string{"alice"}, Threshold: -1}), "roles.operator.threshold"},
		{"threshold that a double member would reach", role("operator", trust.Role{Members: []string{"alice", "alice"}, Threshold: 2}), "roles.operator.threshold"},
		{"no release rule", chat(func(c *trust.ChannelRules) { c.Require.Release = trust.Rule{} }), "channels.chat.require.release"},
		{"no publish rule", chat(func(c *trust.ChannelRules) { c.Publish = trust.Rule{} }), "channels.chat.publish"},
		{"unknown role", chat(func(c *trust.ChannelRules) { c.Require.Approval = &trust.Rule{Role: "reviewer"} }), "channels.chat.require.approval.role"},
		{"unknown role for weights", chat(func(c *trust.ChannelRules) { c.Require.Weights = &trust.Rule{Role: "lab"} }), "channels.chat.require.weights.role"},
		{"unknown role for evaluations", chat(func(c *trust.ChannelRules) { c.Require.Evaluation = &trust.Rule{Role: "lab"} }), "channels.chat.require.evaluation.role"},
		{"unknown role for rollbacks", chat(func(c *trust.ChannelRules) { c.Rollback = &trust.Rule{Role: "lab"} }), "channels.chat.rollback.role"},
		{"unknown role for withdrawals", chat(func(c *trust.ChannelRules) { c.Withdraw = &trust.Rule{Role: "lab"} }), "channels.chat.withdraw.role"},
		{"count above the members", chat(func(c *trust.ChannelRules) { c.Publish.Count = 2 }), "channels.chat.publish.count"},
		{"count below none", chat(func(c *trust.ChannelRules) { c.Publish.Count = -1 }), "channels.chat.publish.count"},
		{"age of a publication", chat(func(c *trust.ChannelRules) { c.Publish.MaxAge = "90d" }), "channels.chat.publish.maxAge"},
		{"age of an evaluation", chat(func(c *trust.ChannelRules) { c.Require.Evaluation = &trust.Rule{Role: "approver", MaxAge: "90d"} }), ""},
		{"age that is none", chat(func(c *trust.ChannelRules) { c.Require.Evaluation = &trust.Rule{Role: "approver", MaxAge: "90"} }), "channels.chat.require.evaluation.maxAge"},
		{"separate from an unknown role", chat(func(c *trust.ChannelRules) { c.Separate = []string{"producer", "reviewer"} }), "channels.chat.separate[1]"},
		{"separate from itself", chat(func(c *trust.ChannelRules) { c.Separate = []string{"producer", "producer"} }), "channels.chat.separate[1]"},
		{"separate alone", chat(func(c *trust.ChannelRules) { c.Separate = []string{"producer"} }), "channels.chat.separate"},
		{"defaults", chat(func(c *trust.ChannelRules) { c.Mode, c.OnWithdrawal, c.OnLostQuorum, c.MinimumLevel = "", "", "", "" }), ""},
		{"mode", chat(func(c *trust.ChannelRules) { c.Mode = "off" }), "channels.chat.mode"},
		{"onWithdrawal", chat(func(c *trust.ChannelRules) { c.OnWithdrawal = "freeze" }), "channels.chat.onWithdrawal"},
		{"onLostQuorum", chat(func(c *trust.ChannelRules) { c.OnLostQuorum = "pause" }), "channels.chat.onLostQuorum"},
		{"unknown sandbox", chat(func(c *trust.ChannelRules) { c.MinimumSandbox = "some" }), "channels.chat.minimumSandbox"},
		{"no sandbox, asked for", chat(func(c *trust.ChannelRules) { c.MinimumSandbox = "none" }), "channels.chat.minimumSandbox"},
		{"unknown level", chat(func(c *trust.ChannelRules) { c.MinimumLevel = "trusted" }), "channels.chat.minimumLevel"},
		{"channel with a bad name", func(d *trust.Document) { d.Channels["chat/../x"] = d.Channels["chat"] }, "channels.chat/../x"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := s.Document()
			tt.edit(&d)
			payload, err := trust.NewPolicy(d)
			checkPath(t, err, tt.path)
			if tt.path != "" {
				return
			}
			p, err := trust.ParsePolicy(s.Sign("alice", payload), nil)
			if err != nil {
				t.Fatal(err)
			}
			again, err := trust.NewPolicy(p.Document())
			if err != nil || string(again) != string(payload) {
				t.Errorf("the parsed policy makes another payload: %v", err)
			}
		})
	}
}

// checkPath wants a problem under the path, or no error where it is empty.
func checkPath(t *testing.T, err error, path string) {
	t.Helper()
	found := trust.Problems(err)
	if path == "" {
		if err != nil {
			t.Errorf("error %v, want none", err)
		}
	} else if !slices.ContainsFunc(found, func(p trust.Problem) bool { return p.Path == path }) {
		t.Errorf("error %v, want a problem with %s", err, path)
	}
}

// TestParsePolicy has a signed policy and then one change of its predicate per row, signed as it stands.
func TestParsePolicy(t *testing.T) {
	s := newScene(t, nil)
	payload := string(s.policyPayload(nil))
	swap := func(old, new string) string {
		if !strings.Contains(payload, old) {
			t.Fatalf("the policy holds no %s", old)
		}
		return strings.Replace(payload, old, new, 1)
	}
	tests := []struct {
		name    string
		payload string
		want    string
	}{
		{"as signed", payload, ""},
		{"another subject", s.withSubject(payload), "subject"},
		{"unknown member", swap(`"version":1`, `"version":1,"zone":"x"`), "zone"},
		{"unknown member within", swap(`"mode":"enforce"`, `"mode":"enforce","modes":1`), "modes"},
		{"null for a list", swap(`"separate":["producer","approver","publisher"]`, `"separate":null`), "the one form"},
		{"a default spelled out", swap(`"publish":{"role"`, `"publish":{"count":0,"role"`), "the one form"},
		{"no mode", swap(`"mode":"enforce",`, ``), "the one form"},
		{"not canonical", swap(`"version":1`, `"version": 1`), "canonical"},
		{"a time with an offset", swap(`2100-01-01T00:00:00Z`, `2100-01-01T00:00:00+00:00`), "the one form"},
		{"a mistake in it", swap(`"role":"publisher"`, `"role":"nobody"`), "no role of this policy"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := trust.ParsePolicy(s.Sign("alice", []byte(tt.payload)), nil)
			checkRefused(t, err, trust.ErrMalformed, tt.want)
		})
	}
}

// withSubject is the payload with another subject.
func (s *scene) withSubject(payload string) string {
	at := strings.Index(payload, `"digest":{"sha256":"`) + len(`"digest":{"sha256":"`)
	return payload[:at] + strings.Repeat("0", 64) + payload[at+64:]
}
