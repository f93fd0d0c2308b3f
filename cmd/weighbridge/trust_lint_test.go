package main

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

var lintedAt = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// goodPolicy is a small policy without a mistake, in the manner of the sample of the documentation.
func goodPolicy(w *trusttest.World) trust.Document {
	d := w.Document()
	for role, name := range map[string]string{"evaluator": "evalbot", "operator": trusttest.Carol, "revoker": trusttest.Bob} {
		d.Identities[name] = trust.Identity{Keys: []string{w.PublicPEM(name)}}
		d.Roles[role] = trust.Role{Members: []string{name}}
	}
	c := d.Channels["chat"]
	c.Require.Evaluation = &trust.Rule{Role: "evaluator", MaxAge: "90d"}
	c.Rollback, c.Withdraw = &trust.Rule{Role: "operator"}, &trust.Rule{Role: "revoker"}
	d.Channels["chat"] = c
	return d
}

func join(d *trust.Document, role string, names ...string) {
	r := d.Roles[role]
	r.Members = append(slices.Clone(r.Members), names...)
	d.Roles[role] = r
}

func setState(d *trust.Document, name string, s trust.State) {
	identity := d.Identities[name]
	identity.State = s
	d.Identities[name] = identity
}

// TestLint has one good policy, and then one thing per row that is legal and likely a mistake.
func TestLint(t *testing.T) {
	w := trusttest.New(t)
	chat := func(edit func(*trust.ChannelRules)) func(*trust.Document) {
		return func(d *trust.Document) {
			c := d.Channels["chat"]
			edit(&c)
			d.Channels["chat"] = c
		}
	}
	tests := []struct {
		name string
		edit func(*trust.Document)
		want string // findings, a line each
	}{
		{"good", func(*trust.Document) {}, ""},
		{"good at minimumLevel verity", chat(func(c *trust.ChannelRules) { c.MinimumLevel = "verity" }), ""},
		{"good with weights by a role of their own", func(d *trust.Document) {
			d.Roles["trainer"] = trust.Role{Members: []string{trusttest.Trainer}}
			chat(func(c *trust.ChannelRules) { c.Require.Weights = &trust.Rule{Role: "trainer"} })(d)
		}, ""},
		{"good with an approver who evaluates too", func(d *trust.Document) { join(d, "evaluator", trusttest.Alice) }, ""},
		{"good with a retired approver", func(d *trust.Document) {
			setState(d, trusttest.Carol, trust.State{Retired: lintedAt})
			d.Roles["operator"] = trust.Role{Members: []string{trusttest.Bob}}
		}, ""},
		{"good with a gateway", func(d *trust.Document) {
			d.Identities["gw"] = trust.Identity{Keys: []string{w.PublicPEM("gw")}}
			d.Roles[trust.GatewayRole] = trust.Role{Members: []string{"gw"}}
		}, ""},
		{"a gateway that approves, too", func(d *trust.Document) { d.Roles[trust.GatewayRole] = trust.Role{Members: []string{trusttest.Carol}} },
			"roles.gateway.members: carol is in approver, operator as well; give each gateway an identity of its own, for its key is on a host that callers reach"},
		{"a gateway that has retired", func(d *trust.Document) {
			d.Identities["gw"] = trust.Identity{Keys: []string{w.PublicPEM("gw")}, State: trust.State{Retired: lintedAt}}
			d.Roles[trust.GatewayRole] = trust.Role{Members: []string{"gw"}}
		}, "roles.gateway.members: gw is retired since 2026-06-01T12:00:00Z, so its receipts do not count; callers who keep them need the policy before"},

		{"the policy is past", func(d *trust.Document) { d.Expires = lintedAt }, "expires: the policy expired on 2026-06-01T12:00:00Z; sign the next version"},
		{"the policy ends soon", func(d *trust.Document) { d.Expires = lintedAt.Add(expiresSoon) },
			"expires: the policy ends in 30 days, on 2026-07-01T12:00:00Z; sign the next version before"},
		{"the policy ends a little later", func(d *trust.Document) { d.Expires = lintedAt.Add(expiresSoon + time.Second) }, ""},
		{"no root", func(d *trust.Document) { delete(d.Roles, "root") },
			"roles.root: there is no role root, so no one can sign the next policy but the keys that sites pin"},
		{"one root member is enough", func(d *trust.Document) { d.Roles["root"] = trust.Role{Members: []string{trusttest.Alice}} },
			"roles.root.threshold: any one root member can replace the whole policy; ask for two"},
		{"one root member is enough, and it says so", func(d *trust.Document) {
			d.Roles["root"] = trust.Role{Members: []string{trusttest.Alice, trusttest.Bob}, Threshold: 1}
		}, "roles.root.threshold: any one root member can replace the whole policy; ask for two"},
		{"a root member retired", func(d *trust.Document) {
			join(d, "root", "vault")
			d.Identities["vault"] = trust.Identity{Keys: []string{w.PublicPEM("vault")}, State: trust.State{Retired: lintedAt}}
		}, "roles.root.members: vault is retired since 2026-06-01T12:00:00Z, so can't sign the next policy; leave it out"},
		{"too few root members are left", func(d *trust.Document) {
			d.Identities["vault"] = trust.Identity{Keys: []string{w.PublicPEM("vault")}, State: trust.State{Compromised: lintedAt}}
			d.Roles["root"] = trust.Role{Members: []string{trusttest.Alice, "vault"}, Threshold: 2}
		}, "roles.root: needs 2, and has 1 active members, so no one can sign the next policy\n" +
			"roles.root.members: vault is compromised since 2026-06-01T12:00:00Z, so can't sign the next policy; leave it out"},
		{"in no role", func(d *trust.Document) { d.Identities["idle"] = trust.Identity{Keys: []string{w.PublicPEM("idle")}} },
			"identities.idle: is in no role; give it one, or leave it out"},

		{"mode warn", chat(func(c *trust.ChannelRules) { c.Mode = "warn" }),
			"channels.chat.mode: warn serves releases without the evaluations and approvals that the channel asks for; set enforce once they are there"},
		{"level measured", chat(func(c *trust.ChannelRules) { c.MinimumLevel = "measured" }),
			"channels.chat.minimumLevel: at measured the bytes are checked while they load and no more; ask for sealed if the weights fit in memory"},
		{"level attached", chat(func(c *trust.ChannelRules) { c.MinimumLevel = "attached" }),
			"channels.chat.minimumLevel: at attached a runtime's own word for its weights is enough; ask for sealed, or at least measured"},
		{"evaluations count for ever", chat(func(c *trust.ChannelRules) { c.Require.Evaluation.MaxAge = "" }),
			"channels.chat.require.evaluation.maxAge: is not set, so an evaluation counts for ever; set one, such as 90d"},
		{"nobody may withdraw", chat(func(c *trust.ChannelRules) { c.Withdraw = nil }),
			"channels.chat.withdraw: nobody may withdraw a release, so only a new policy stops a bad one; name a role"},
		{"too few approvers are left", func(d *trust.Document) {
			join(d, "approver", "dan")
			d.Identities["dan"] = trust.Identity{Keys: []string{w.PublicPEM("dan")}, State: trust.State{Retired: lintedAt}}
			chat(func(c *trust.ChannelRules) { c.Require.Approval.Count = 4 })(d)
		}, "channels.chat.require.approval: needs 4 of role approver, which has 3 active members; add members, or nothing can be signed"},
		{"nobody is left who may roll back", func(d *trust.Document) {
			d.Identities["night"] = trust.Identity{Keys: []string{w.PublicPEM("night")}, State: trust.State{Retired: lintedAt}}
			d.Roles["operator"] = trust.Role{Members: []string{"night"}}
		}, "channels.chat.rollback: needs 1 of role operator, which has 0 active members; add members, or nothing can be signed"},

		{"in two separated roles", func(d *trust.Document) { join(d, "publisher", trusttest.Alice) },
			"channels.chat.separate: alice is both approver and publisher, and counts as one of them only; take it out of one"},
		{"makes and evaluates", func(d *trust.Document) { join(d, "evaluator", trusttest.Trainer) },
			"channels.chat.separate: trainer may release and evaluate for one release; give these to different identities, or separate their roles"},
		{"signs weights of others' releases and evaluates", func(d *trust.Document) {
			d.Identities["gpu"] = trust.Identity{Keys: []string{w.PublicPEM("gpu")}}
			d.Roles["trainer"] = trust.Role{Members: []string{"gpu"}}
			chat(func(c *trust.ChannelRules) { c.Require.Weights = &trust.Rule{Role: "trainer"} })(d)
			join(d, "evaluator", "gpu")
		}, "channels.chat.separate: gpu may sign weights and evaluate for one release; give these to different identities, or separate their roles"},
		{"evaluates and publishes", func(d *trust.Document) { join(d, "publisher", "evalbot") },
			"channels.chat.separate: evalbot may evaluate and publish for one release; give these to different identities, or separate their roles"},
		{"approves and publishes, and the roles are not separated", func(d *trust.Document) {
			join(d, "publisher", trusttest.Alice)
			chat(func(c *trust.ChannelRules) { c.Separate = nil })(d)
		}, "channels.chat.separate: alice may approve and publish for one release; give these to different identities, or separate their roles"},
		{"one role both approves and publishes", func(d *trust.Document) {
			d.Roles["approver"] = trust.Role{Members: []string{trusttest.Alice, trusttest.Carol}}
			setState(d, trusttest.Carol, trust.State{})
			d.Roles["publisher"] = trust.Role{Members: []string{trusttest.Shipper}}
			chat(func(c *trust.ChannelRules) { c.Publish = trust.Rule{Role: "approver", Count: 2} })(d)
		}, "channels.chat.separate: alice may approve and publish for one release; give these to different identities, or separate their roles\n" +
			"channels.chat.separate: carol may approve and publish for one release; give these to different identities, or separate their roles"},

		{"one does all", func(d *trust.Document) {
			for _, role := range []string{"producer", "evaluator", "approver", "publisher"} {
				join(d, role, "boss")
			}
			d.Identities["boss"] = trust.Identity{Keys: []string{w.PublicPEM("boss")}}
			chat(func(c *trust.ChannelRules) { c.Require.Approval.Count, c.Separate = 1, nil })(d)
		}, aloneFinding("boss")},
		{"one does all, on weights of another", func(d *trust.Document) {
			for _, role := range []string{"producer", "evaluator", "approver", "publisher"} {
				join(d, role, "boss")
			}
			d.Identities["boss"] = trust.Identity{Keys: []string{w.PublicPEM("boss")}}
			d.Roles["trainer"] = trust.Role{Members: []string{trusttest.Trainer}}
			chat(func(c *trust.ChannelRules) {
				c.Require.Approval.Count, c.Separate, c.Require.Weights = 1, nil, &trust.Rule{Role: "trainer"}
			})(d)
		}, aloneFinding("boss")},
		{"one does all that mode warn asks for", func(d *trust.Document) {
			join(d, "publisher", trusttest.Trainer)
			chat(func(c *trust.ChannelRules) { c.Mode, c.Separate = "warn", nil })(d)
		}, "channels.chat.mode: warn serves releases without the evaluations and approvals that the channel asks for; set enforce once they are there\n" +
			aloneFinding(trusttest.Trainer)},
		{"one is in all roles, and two approvals are needed", func(d *trust.Document) {
			for _, role := range []string{"producer", "evaluator", "approver", "publisher"} {
				join(d, role, "boss")
			}
			d.Identities["boss"] = trust.Identity{Keys: []string{w.PublicPEM("boss")}}
			chat(func(c *trust.ChannelRules) { c.Separate = nil })(d)
		}, "channels.chat.separate: boss may release, evaluate, approve and publish for one release; give these to different identities, or separate their roles"},
		{"one is in all roles, and they are separated", func(d *trust.Document) {
			for _, role := range []string{"producer", "approver", "publisher"} {
				join(d, role, "boss")
			}
			d.Identities["boss"] = trust.Identity{Keys: []string{w.PublicPEM("boss")}}
			chat(func(c *trust.ChannelRules) { c.Require.Approval.Count, c.Require.Evaluation = 1, nil })(d)
		}, "channels.chat.separate: boss is both producer and approver, and counts as one of them only; take it out of one\n" +
			"channels.chat.separate: boss is both producer and publisher, and counts as one of them only; take it out of one\n" +
			"channels.chat.separate: boss is both approver and publisher, and counts as one of them only; take it out of one"},
		{"one would do all and is not active", func(d *trust.Document) {
			for _, role := range []string{"producer", "evaluator", "approver", "publisher"} {
				join(d, role, "boss")
			}
			d.Identities["boss"] = trust.Identity{Keys: []string{w.PublicPEM("boss")}, State: trust.State{Compromised: lintedAt}}
			chat(func(c *trust.ChannelRules) { c.Separate = nil })(d)
		}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := goodPolicy(w)
			tt.edit(&d)
			if err := d.Check(); err != nil {
				t.Fatal(err)
			}
			l := linter{Document: d, now: lintedAt}
			l.policy()
			if got := strings.Join(l.found, "\n"); got != tt.want {
				t.Errorf("findings:\n%s\nwant:\n%s", got, tt.want)
			}
		})
	}
}

func aloneFinding(who string) string {
	return "channels.chat: " + who + " alone can change what is served; ask for a second identity, by another role or a higher count, and separate the roles"
}

// A used is a good policy in use: all that it has is used, and nothing ends soon. A row changes one thing.
type used struct {
	*trusttest.World
	doc      trust.Document
	unsigned bool
	approval map[string]trust.Approval // by who signs it
	publish  trust.Publication
	tested   time.Duration // ago
	floor    bool
}

// TestLintOfStatements has one policy in use without a mistake, and then one thing per row that its statements show.
func TestLintOfStatements(t *testing.T) {
	soon := lintedAt.Add(20 * 24 * time.Hour)
	tests := []struct {
		name string
		edit func(*used)
		want string
	}{
		{"good", func(*used) {}, ""},
		{"good, and not signed yet", func(u *used) { u.unsigned = true }, ""},
		{"never signed", func(u *used) {
			u.doc.Identities["dan"] = trust.Identity{Keys: []string{u.PublicPEM("dan")}}
			join(&u.doc, "approver", "dan")
		}, "identities.dan: has signed nothing that is there; leave it out of approver if it is not needed"},
		{"never signed, for emergencies", func(u *used) {
			u.doc.Identities["dan"] = trust.Identity{Keys: []string{u.PublicPEM("dan")}}
			for _, role := range []string{"operator", "revoker", "root"} {
				join(&u.doc, role, "dan")
			}
		}, ""},
		{"a role more than it uses", func(u *used) { join(&u.doc, "evaluator", trusttest.Alice) },
			"roles.evaluator.members: alice has signed nothing as evaluator; take it out if it is not needed"},
		{"signs policies only, and is an approver", func(u *used) {
			delete(u.approval, trusttest.Alice)
			u.approval["dan"] = trust.Approval{}
			u.doc.Identities["dan"] = trust.Identity{Keys: []string{u.PublicPEM("dan")}}
			join(&u.doc, "approver", "dan")
		}, "roles.approver.members: alice has signed nothing as approver; take it out if it is not needed"},
		{"signs perhaps policies only, and is an approver", func(u *used) {
			u.unsigned = true
			u.approval = map[string]trust.Approval{trusttest.Bob: {}, trusttest.Carol: {}}
		}, "roles.approver.members: alice has signed nothing as approver; take it out if it is not needed"},
		{"a key more than it uses", func(u *used) {
			carol := u.doc.Identities[trusttest.Carol]
			carol.Keys = append(carol.Keys, u.PublicPEM("laptop"))
			u.doc.Identities[trusttest.Carol] = carol
		}, "identities.carol.keys[1]: key KEY has signed nothing that is there; leave it out if it is not needed"},
		{"a key that may be for policies, which is not signed yet", func(u *used) {
			u.unsigned = true
			alice := u.doc.Identities[trusttest.Alice]
			alice.Keys = append(alice.Keys, u.PublicPEM("laptop"))
			u.doc.Identities[trusttest.Alice] = alice
		}, ""},
		{"a key that signs policies only", func(u *used) {
			alice := u.doc.Identities[trusttest.Alice]
			alice.Keys = append(alice.Keys, u.PublicPEM("laptop"))
			u.doc.Identities[trusttest.Alice] = alice
			u.approval["laptop"] = u.approval[trusttest.Alice]
			delete(u.approval, trusttest.Alice)
		}, ""},
		{"an approval ends soon", func(u *used) {
			u.doc.Channels["chat"].Require.Approval.Count = 3
			u.approval[trusttest.Bob] = trust.Approval{Expires: soon}
		}, "channels.chat.require.approval: the approval by bob ends in 20 days, on 2026-06-21T12:00:00Z, and too few are left then; approve again before"},
		{"an approval ends soon, and enough are left", func(u *used) { u.approval[trusttest.Bob] = trust.Approval{Expires: soon} }, ""},
		{"the publication ends soon", func(u *used) { u.publish.Expires = soon },
			"channels.chat.publish: the publication of epoch 1 ends in 20 days, on 2026-06-21T12:00:00Z; publish the release again before"},
		{"the publication ends later", func(u *used) { u.publish.Expires = lintedAt.Add(expiresSoon + time.Second) }, ""},
		{"the evaluation is too old soon", func(u *used) { u.tested = 70 * 24 * time.Hour },
			"channels.chat.require.evaluation: the evaluation by evalbot is too old in 20 days, on 2026-06-21T12:00:00Z; evaluate again before"},
		{"retired, and what serves was accepted by it", func(u *used) {
			u.floor = true
			u.doc.Roles["operator"] = trust.Role{Members: []string{trusttest.Bob}}
			setState(&u.doc, trusttest.Carol, trust.State{Retired: lintedAt})
		}, ""},
		{"retired, and nothing rests on it", func(u *used) {
			u.floor = true
			u.doc.Identities["dan"] = trust.Identity{Keys: []string{u.PublicPEM("dan")}, State: trust.State{Retired: lintedAt}}
			join(&u.doc, "approver", "dan")
		}, "identities.dan.state: is retired since 2026-06-01T12:00:00Z, and nothing that serves rests on it; leave it out of approver"},
		{"retired, and no floor says what rests on it", func(u *used) {
			u.doc.Identities["dan"] = trust.Identity{Keys: []string{u.PublicPEM("dan")}, State: trust.State{Retired: lintedAt}}
			join(&u.doc, "approver", "dan")
		}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := trusttest.New(t)
			u := &used{
				World: w, doc: goodPolicy(w), publish: trust.Publication{Channel: "chat", Epoch: 1}, tested: time.Hour,
				approval: map[string]trust.Approval{trusttest.Alice: {}, trusttest.Bob: {}, trusttest.Carol: {}},
			}
			tt.edit(u)
			want := strings.ReplaceAll(tt.want, "KEY", string(u.KeyID("laptop")))
			if got := u.lint(t); got != want {
				t.Errorf("findings:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

// lint signs everything and returns the findings.
func (u *used) lint(t *testing.T) string {
	t.Helper()
	u.SignPolicy(func(d *trust.Document) { *d = u.doc })
	p, err := loadPolicy(u.PolicyFile, "trust lint")
	if u.unsigned {
		p.Digest, p.Signers = "", nil // as of a POLICY.yaml
	}
	if err != nil {
		t.Fatal(err)
	}
	model := filepath.Join(u.Dir, "model.gguf")
	if err := os.WriteFile(model, []byte("weights"), 0o600); err != nil {
		t.Fatal(err)
	}
	release := u.Release(model, nil)
	payload, err := trust.NewEvaluation(release, trust.Evaluation{Result: trust.Passed, FinishedOn: lintedAt.Add(-u.tested)})
	if err != nil {
		t.Fatal(err)
	}
	u.Add(u.Sign("evalbot", payload))
	for who, approval := range u.approval {
		u.Approve(release, who, approval)
	}
	u.PublishAs(trusttest.Shipper, release, u.publish)
	floor := ""
	if u.floor {
		floor = u.acceptedBefore(t, release)
	}
	l := linter{Document: p.Document, now: lintedAt}
	l.policy()
	usage, err := readUsage(streams{out: io.Discard, err: io.Discard}, p, lintedAt, u.Statements, floor)
	if err != nil {
		t.Fatal(err)
	}
	if c := usage.channels["chat"]; c.Serve != release {
		t.Fatalf("serves %q, want %s: %+v", c.Serve, release, c.Missing)
	}
	l.usage(usage)
	return strings.Join(l.found, "\n")
}

// acceptedBefore makes the floor file of a gateway that serves the release, by the policy as it was while all were active.
func (u *used) acceptedBefore(t *testing.T, release statement.ID) string {
	t.Helper()
	dir := filepath.Join(u.Dir, "state")
	before, err := draft(goodPolicy(u.World))
	if err != nil {
		t.Fatal(err)
	}
	set, _, err := store.ReadStatements([]string{u.Statements})
	if err != nil {
		t.Fatal(err)
	}
	c := trust.Decide(before, set, lintedAt, trust.Floor{}).Channels["chat"]
	if c.Serve != release {
		t.Fatalf("serves %q, want %s", c.Serve, release)
	}
	if err := store.CreateState(dir); err != nil {
		t.Fatal(err)
	}
	state, err := store.OpenState(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	if err := state.Raise(func(f trust.Floor) trust.Floor { return f.Accept("chat", c, before, lintedAt) }); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "floor.json")
}
