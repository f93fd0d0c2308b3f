package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weighbridge/weighbridge/configs"
	"github.com/weighbridge/weighbridge/gateway/audit"
	"github.com/weighbridge/weighbridge/gateway/catalog"
	controlv1 "github.com/weighbridge/weighbridge/proto/weighbridge/control/v1"
	"github.com/weighbridge/weighbridge/verifier/keyless/keylesstest"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

var (
	carolAccount = statement.Account{Issuer: "https://accounts.example", Subject: "carol@bank.example"}
	longAgo      = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC) // so that every certificate has expired
)

// payloadOf returns what a signature file is over.
func payloadOf(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := statement.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return signed.Payload()
}

// TestModelVerifyAccount verifies a model that was signed with an account, and then with one thing wrong per row.
func TestModelVerifyAccount(t *testing.T) {
	w := trusttest.New(t)
	instance := keylesstest.New(t)
	file := func(name string) string { return filepath.Join(w.Dir, name) }
	model := file("model.gguf")
	writeTestFile(t, model, "weights")
	payload := payloadOf(t, w.SignModel(model))
	signed := keylesstest.Signing{Account: carolAccount, At: longAgo}
	timeless := signed
	timeless.Without = []keylesstest.Part{keylesstest.Promise, keylesstest.Timestamp}
	for name, data := range map[string][]byte{
		"good.sig": instance.Sign(payload, signed), "timeless.sig": instance.Sign(payload, timeless),
		"root.json": instance.TrustedRoot(), "other.json": keylesstest.New(t).TrustedRoot(), "junk": []byte("{}"),
		"config.json": instance.TrustConfig(nil), "otherconfig.json": keylesstest.New(t).TrustConfig(nil),
	} {
		writeTestFile(t, file(name), string(data))
	}
	verify := func(signature string, args ...string) []string {
		return append([]string{"model", "verify", model, "--signature", signature}, args...)
	}
	by := func(who, issuer, root string) []string {
		return []string{"--identity", who, "--identity-provider", issuer, "--trusted-root", file(root)}
	}
	carol := by(carolAccount.Subject, carolAccount.Issuer, "root.json")
	tests := []struct {
		name   string
		args   []string
		status int
		stderr string
	}{
		{"signed", verify(file("good.sig"), carol...), exitDone, ""},
		{"signed by a key", verify(model+".sig", carol...), exitRefused, "does not hold one certificate"},
		{"another identity", verify(file("good.sig"), by("mallory@bank.example", carolAccount.Issuer, "root.json")...), exitRefused, `issued to "carol@bank.example"`},
		{"a pattern", verify(file("good.sig"), by(".*@bank.example", carolAccount.Issuer, "root.json")...), exitRefused, `issued to "carol@bank.example"`},
		{"another issuer", verify(file("good.sig"), by(carolAccount.Subject, "https://accounts.other", "root.json")...), exitRefused, `want "carol@bank.example" of "https://accounts.other"`},
		{"another instance", verify(file("good.sig"), by(carolAccount.Subject, carolAccount.Issuer, "other.json")...), exitRefused, "log"},
		{"no time", verify(file("timeless.sig"), carol...), exitRefused, "timestamps"},
		{"a trusted root that is none", verify(file("good.sig"), by(carolAccount.Subject, carolAccount.Issuer, "junk")...), exitFailed, "read trusted root"},
		{"a trusted root that is not there", verify(file("good.sig"), by(carolAccount.Subject, carolAccount.Issuer, "nowhere")...), exitFailed, "no such file"},
		{"no identity", verify(file("good.sig"), carol[2:]...), exitFailed, "go together"},
		{"no issuer", verify(file("good.sig"), append(carol[:2:2], carol[4:]...)...), exitFailed, "go together"},
		{"no trusted root", verify(file("good.sig"), carol[:4]...), exitFailed, "go together"},
		{"a key besides", verify(file("good.sig"), append(carol[:6:6], "--public-key", file("k.pub"))...), exitFailed, "want one of"},
		{"a time besides", verify(file("good.sig"), append(carol[:6:6], "--verification-time", "timestamp")...), exitFailed, "--verification-time"},
		{"a trust configuration", verify(file("good.sig"), append(carol[:4:4], "--trust-config", file("config.json"))...), exitDone, ""},
		{"a trust configuration of another instance", verify(file("good.sig"), append(carol[:4:4], "--trust-config", file("otherconfig.json"))...), exitRefused, "log"},
		{"a trust configuration besides", verify(file("good.sig"), append(carol[:6:6], "--trust-config", file("config.json"))...), exitFailed, "go together"},
		{"a trust configuration alone", verify(file("good.sig"), "--trust-config", file("config.json")), exitFailed, "go together"},
		{"a trust configuration that is a trusted root", verify(file("good.sig"), append(carol[:4:4], "--trust-config", file("root.json"))...), exitFailed, "read trust config"},
		{"a trust configuration that is not there", verify(file("good.sig"), append(carol[:4:4], "--trust-config", file("nowhere"))...), exitFailed, "--trust-config: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			status, _, stderr := runModel(t, tt.args...)
			if status != tt.status || !strings.Contains(stderr, tt.stderr) {
				t.Errorf("status %d, want %d with %q:\n%s", status, tt.status, tt.stderr, stderr)
			}
		})
	}
	_, stdout, _ := runModel(t, append(verify(file("good.sig"), carol...), "--json")...)
	var report struct {
		Signer map[string]string `json:"signer"`
	}
	if err := json.Unmarshal([]byte(stdout), &report); err != nil {
		t.Fatal(err)
	}
	if s := report.Signer; len(s) != 3 || s["kind"] != "sigstore" || s["identity"] != carolAccount.Subject || s["issuer"] != carolAccount.Issuer {
		t.Errorf("signer %v", s)
	}
	writeTestFile(t, model, "Weights")
	if status, _, stderr := runModel(t, verify(file("good.sig"), carol...)...); status != exitRefused || !strings.Contains(stderr, "model.gguf") {
		t.Errorf("altered: status %d: %s", status, stderr)
	}
}

// TestAccountIdentities: a policy file names an account, and what its holder signed counts.
func TestAccountIdentities(t *testing.T) {
	const carol = "sigstore: {issuer: https://accounts.example, subject: carol@bank.example}"
	for _, tt := range []struct{ name, carol, want string }{
		{"account", carol + ", trustedRoot: root.json", ""},
		{"account without trusted root", carol, "carol.sigstore: needs trustedRoot: FILE"},
		{"trusted root without account", "keys: [keys/dave.pub], trustedRoot: root.json", "carol.trustedRoot: stands without sigstore"},
		{"trusted root that is none", carol + ", trustedRoot: policy.yaml", "carol.trustedRoot: "},
		{"trusted root by which nothing verifies", carol + ", trustedRoot: empty.json", "certificate authority"},
		{"account without subject", "sigstore: {issuer: https://accounts.example}, trustedRoot: root.json", "carol.sigstore.subject: is required"},
		{"unknown key", "sigstore: {issuer: https://accounts.example, subject: carol@bank.example, subjectRegExp: .*}, trustedRoot: root.json", `unknown key "subjectRegExp"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := trusttest.New(t)
			instance := keylesstest.New(t)
			file := func(name string) string { return filepath.Join(w.Dir, name) }
			w.Write("house.crt", w.NewCA("house").Root)
			w.Write("clock.crt", w.NewTimeAuthority("clock").Root)
			writeTestFile(t, file("root.json"), string(instance.TrustedRoot()))
			writeTestFile(t, file("empty.json"), `{"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`)
			for _, name := range []string{"trainer", "alice", "shipper", "dave"} {
				w.Key(name)
			}
			policy := strings.Replace(certificatePolicy, "CAROL", tt.carol, 1)
			writeTestFile(t, file("policy.yaml"), strings.Replace(policy, `certificate: "CN=shipper", roots: [house.crt]`, "keys: [keys/shipper.pub]", 1))
			status, _, stderr := runModel(t, "trust", "sign", file("policy.yaml"), "--key", w.KeyFile("alice"), "--out", w.PolicyFile)
			if tt.want != "" {
				if status != exitRefused || !strings.Contains(stderr, tt.want) || strings.Contains(stderr, "problems") {
					t.Errorf("trust sign: status %d, want %d with %q alone: %s", status, exitRefused, tt.want, stderr)
				}
				return
			}
			if status != exitDone {
				t.Fatalf("trust sign: status %d: %s", status, stderr)
			}
			if _, stdout, _ := runModel(t, "trust", "show", w.PolicyFile); !strings.Contains(stdout, "Sigstore account carol@bank.example of https://accounts.example") {
				t.Errorf("trust show: %s", stdout)
			}
			model := file("model.gguf")
			writeTestFile(t, model, "weights")
			release := w.Release(model, nil)
			w.Approve(release, "alice", trust.Approval{})
			w.Publish(release, "chat", 1)
			decide := []string{"decide", "--policy", w.PolicyFile, "--root", filepath.Join(w.Keys, "alice.pub"), "--statements", w.Statements}
			if status, _, stderr := runModel(t, decide...); status != exitRefused {
				t.Fatalf("decide without carol: status %d: %s", status, stderr)
			}
			payload, err := trust.NewApproval(release, trust.Approval{})
			if err != nil {
				t.Fatal(err)
			}
			w.Add(instance.Signed(payload, keylesstest.Signing{Account: carolAccount, At: longAgo}))
			if status, stdout, stderr := runModel(t, decide...); status != exitDone || !strings.Contains(stdout, string(release)) {
				t.Errorf("decide: status %d, %s, want release %s: %s", status, stdout, release, stderr)
			}
			checkGatewayDecides(t, w, release)
		})
	}
}

// checkGatewayDecides wants what the command decides from the anchor of a gateway.
func checkGatewayDecides(t *testing.T, w *trusttest.World, release statement.ID) {
	t.Helper()
	anchor, err := anchorOf(configs.Trust{Root: configs.Root{Keys: []string{string(w.KeyID("alice"))}, Threshold: 1}})
	if err != nil {
		t.Fatal(err)
	}
	bundles, err := readPolicyBundles(w.PolicyFile)
	if err != nil {
		t.Fatal(err)
	}
	policy, err := anchor.Accept(bundles, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	set, _, err := store.ReadStatements([]string{w.Statements})
	if err != nil {
		t.Fatal(err)
	}
	if got := trust.Decide(policy, set, longAgo, trust.Floor{}).Channels["chat"].Serve; got != release {
		t.Errorf("a gateway serves %q, want %s", got, release)
	}
}

// TestAccountsAreJudged: whatever reads a policy to judge by it judges what accounts signed, too. The shipper is one, so that
// nothing serves where that is nobody's.
func TestAccountsAreJudged(t *testing.T) {
	w := trusttest.New(t)
	w.Keyless = newKeyless
	instance := keylesstest.New(t)
	id, root, err := trust.TrustedRootID(instance.TrustedRoot())
	if err != nil {
		t.Fatal(err)
	}
	shipper := func(d *trust.Document) {
		d.TrustedRoots = map[statement.ID]jsontext.Value{id: root}
		d.Identities[trusttest.Shipper] = trust.Identity{Sigstore: trust.Sigstore{Issuer: carolAccount.Issuer, Subject: carolAccount.Subject, TrustedRoot: id}}
	}
	policy := w.SignPolicy(shipper)
	lines, err := os.ReadFile(w.PolicyFile)
	if err != nil {
		t.Fatal(err)
	}
	site := testSite{t, w.Dir, ""}
	site.config = site.write(w, "gateway.yaml")
	model := filepath.Join(w.Dir, "models", "model.gguf")
	if err := os.Mkdir(filepath.Dir(model), 0o755); err != nil {
		t.Fatal(err)
	}
	writeTestFile(t, model, "weights")
	release := w.Release(model, nil)
	w.Approve(release, trusttest.Alice, trust.Approval{})
	w.Approve(release, trusttest.Bob, trust.Approval{})
	for _, channel := range []string{"chat", "other"} { // the policy has no such other yet
		payload, err := trust.NewPublication(release, trust.Publication{Channel: channel, Epoch: 1})
		if err != nil {
			t.Fatal(err)
		}
		w.Add(instance.Signed(payload, keylesstest.Signing{Account: carolAccount, At: longAgo}))
	}
	state := newState(t, filepath.Join(w.Dir, "state"), policy, lines)

	t.Run("the next epoch", func(t *testing.T) {
		out := filepath.Join(t.TempDir(), "p.json")
		status, _, stderr := runModel(t, "release", "publish", string(release), "--channel", "chat", "--epoch", "next", "--policy", w.PolicyFile,
			"--statements", w.Statements, "--out", out, "--key", w.KeyFile(trusttest.Alice))
		if status != exitDone {
			t.Fatalf("status %d: %s", status, stderr)
		}
		if _, p, err := trust.ParsePublication(readStatement(t, out)); err != nil || p.Epoch != 2 {
			t.Errorf("publishes at epoch %d, %v, want 2", p.Epoch, err)
		}
	})
	t.Run("trust lint", func(t *testing.T) {
		p, err := loadPolicy(w.PolicyFile, "trust lint")
		if err != nil {
			t.Fatal(err)
		}
		u, err := readUsage(streams{err: t.Output()}, p, time.Now(), w.Statements, "")
		if err != nil || u.channels["chat"].Serve != release || !u.uses[trusttest.Shipper].Roles["publisher"] {
			t.Errorf("serves %q, uses %v, %v, want %s, published by the shipper", u.channels["chat"].Serve, u.uses, err, release)
		}
	})
	t.Run("the gateway's word", func(t *testing.T) {
		floor, err := store.FormatFloor(state.Floor())
		if err != nil {
			t.Fatal(err)
		}
		set, _, err := store.ReadStatements([]string{w.Statements})
		if err != nil {
			t.Fatal(err)
		}
		f := &teller{basis: &controlv1.Basis{Policy: lines, Floor: floor, Time: timestamppb.Now()}}
		for _, one := range set {
			f.statements = append(f.statements, one.Bundle())
		}
		if got := tell(t, "decide", "--server", f.serve(t)); got.exit != exitDone || !strings.Contains(got.stdout, string(release)) {
			t.Errorf("decide = %+v, want %s", got, release)
		}
	})
	t.Run("the next policy, while the audit log can't be written", func(t *testing.T) {
		full := errors.New("no space left on device")
		err := nextPolicy(t, w, state, trailThat{full}, func(d *trust.Document) {
			shipper(d)
			d.Channels["other"] = d.Channels["chat"]
		})
		if !errors.Is(err, full) {
			t.Errorf("one by which more is served = %v, want %v", err, full)
		}
		err = nextPolicy(t, w, state, trailThat{full}, func(d *trust.Document) {
			shipper(d)
			d.Roles["approver"] = trust.Role{Members: []string{trusttest.Alice, trusttest.Bob}}
		})
		if err != nil {
			t.Errorf("one that only takes away = %v", err)
		}
	})
	t.Run("a site whose policy file is gone", func(t *testing.T) {
		if err := os.Remove(w.PolicyFile); err != nil {
			t.Fatal(err)
		}
		if got := site.serves(); got != release {
			t.Errorf("serves %q, want %s", got, release)
		}
	})
}

// trailThat fails, or not.
type trailThat struct{ err error }

func (a trailThat) Append(context.Context, audit.Record) (int64, error) { return 0, a.err }
func (trailThat) Note(audit.Record)                                     {}
func (trailThat) Records(func(audit.Record) error) error                { return nil }

// nextPolicy has the gateway of a state take over the next version of the default policy, as edit changes it.
func nextPolicy(t *testing.T, w *trusttest.World, state *store.State, trail catalog.Trail, edit func(*trust.Document)) error {
	t.Helper()
	doc := w.Document()
	edit(&doc)
	doc.Version, doc.Previous = 2, state.Floor().PolicyDigest
	payload, err := trust.NewPolicy(doc)
	if err != nil {
		t.Fatal(err)
	}
	writeTestFile(t, w.PolicyFile, string(w.Sign(trusttest.Alice, payload).Bundle())+string(w.Sign(trusttest.Bob, payload).Bundle()))
	root := configs.Root{Keys: []string{string(w.KeyID(trusttest.Alice)), string(w.KeyID(trusttest.Bob))}, Threshold: 2}
	_, err = acceptPolicy(t.Context(), slog.New(slog.DiscardHandler), configs.Trust{Root: root, Policy: w.PolicyFile, Statements: []string{w.Statements}}, state, trail)
	return err
}

// newState makes the state of a gateway that has accepted a policy.
func newState(t *testing.T, dir string, policy *trust.Policy, lines []byte) *store.State {
	t.Helper()
	if err := store.CreateState(dir); err != nil {
		t.Fatal(err)
	}
	state, err := store.OpenState(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { state.Close() })
	if err := state.KeepPolicy(policy.Version(), lines); err != nil {
		t.Fatal(err)
	}
	if err := state.Raise(func(f trust.Floor) trust.Floor { return f.AcceptPolicy(policy, time.Now()) }); err != nil {
		t.Fatal(err)
	}
	return state
}

// TestTrustedRootOfThePast: a policy whose trusted root can't be used any more is replaced by the next, and judged by nobody.
func TestTrustedRootOfThePast(t *testing.T) {
	w := trusttest.New(t)
	unusable := func(d *trust.Document) {
		id, root, err := trust.TrustedRootID([]byte(`{"mediaType": "of another version"}`))
		if err != nil {
			t.Fatal(err)
		}
		d.TrustedRoots = map[statement.ID]jsontext.Value{id: root}
		d.Identities[trusttest.Carol] = trust.Identity{Sigstore: trust.Sigstore{Issuer: carolAccount.Issuer, Subject: carolAccount.Subject, TrustedRoot: id}}
	}
	first := w.SignPolicy(unusable)
	lines, err := os.ReadFile(w.PolicyFile)
	if err != nil {
		t.Fatal(err)
	}
	state := newState(t, filepath.Join(w.Dir, "state"), first, lines)
	if p, err := acceptedPolicy(newKeyless, state.Policy); err == nil || !strings.Contains(err.Error(), "trustedRoots.sha256:") {
		t.Errorf("to judge by it: %v, %v, want an error of its trusted root", p, err)
	}
	if err := nextPolicy(t, w, state, trailThat{}, func(*trust.Document) {}); err != nil {
		t.Errorf("the next policy = %v", err)
	}
}
