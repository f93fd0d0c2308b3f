package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/verifier/oms"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

// A testSite is the directory of a gateway that trusts a world's root keys, without anything in it.
type testSite struct {
	t      *testing.T
	dir    string
	config string
}

func newSite(t *testing.T, w *trusttest.World) testSite {
	t.Helper()
	s := testSite{t, t.TempDir(), ""}
	s.config = s.write(w, "gateway.yaml")
	for _, dir := range []string{"models", "statements"} {
		if err := os.Mkdir(filepath.Join(s.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// write makes the configuration of a gateway with channel chat.
func (s testSite) write(w *trusttest.World, name string) string {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	writeTestFile(s.t, path, fmt.Sprintf(`
listen: {http: 127.0.0.1:0}
identity: {development: {trustDomain: test.example, socket: ./spiffe.sock}}
trust: {root: {keys: ["%s", "%s"], threshold: 2}, policy: policy.jsonl, statements: [./statements], state: ./state}
weights: [./models]
runtimes: {llamacpp: {command: llama-server}}
channels: {chat: {}}
access: [{caller: "spiffe://test.example/apps/*", channels: [chat], methods: [chat]}]
`, w.KeyID(trusttest.Alice), w.KeyID(trusttest.Bob)))
	return path
}

// bring imports a bundle and returns what it tells.
func (s testSite) bring(want int, file string, args ...string) (told imported, stderr string) {
	s.t.Helper()
	status, stdout, stderr := runModel(s.t, append([]string{"bundle", "import", file, "--config", s.config, "--json"}, args...)...)
	if status != want {
		s.t.Fatalf("bundle import: status %d, want %d: %s%s", status, want, stdout, stderr)
	}
	if want == exitFailed {
		return told, stderr
	}
	if err := json.Unmarshal([]byte(stdout), &told); err != nil {
		s.t.Fatalf("bundle import: %v in %q", err, stdout)
	}
	return told, stderr
}

// serves is what the site would serve, by its own state and statements.
func (s testSite) serves() statement.ID {
	s.t.Helper()
	in, err := readSite(s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	if in.policy == nil {
		return ""
	}
	d := in.decide(in.policy, nil).Channels["chat"]
	if d.Serve == "" {
		return ""
	}
	if _, err := store.FindWeights(in.cfg.Weights, d.Release.Weights.Root); err != nil {
		s.t.Fatalf("%s would serve without its weights: %v", d.Serve, err)
	}
	return d.Serve
}

// exporter is a world whose own directory is a site: a release of a model of two files is published there.
type exporter struct {
	*trusttest.World
	testSite
	release statement.ID
}

func newExporter(t *testing.T) *exporter {
	t.Helper()
	w := trusttest.New(t)
	e := &exporter{World: w, testSite: testSite{t: t, dir: w.Dir}}
	e.config = e.write(w, "gateway.yaml")
	for name, content := range map[string]string{"models/chat/weights.gguf": strings.Repeat("weights", 4096), "models/chat/sub/tokenizer.json": "{}"} {
		path := filepath.Join(w.Dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		writeTestFile(t, path, content)
	}
	w.SignPolicy(withdrawable)
	e.release = e.publish("models/chat", 1)
	return e
}

func withdrawable(d *trust.Document) {
	c := d.Channels["chat"]
	c.Withdraw = &trust.Rule{Role: "approver"}
	d.Channels["chat"] = c
}

// publish makes a release of a model, approved and published.
func (e *exporter) publish(model string, epoch int64) statement.ID {
	e.t.Helper()
	id := e.Release(filepath.Join(e.Dir, model), func(d *trust.Descriptor) { d.Version = fmt.Sprint(epoch) })
	e.Approve(id, trusttest.Alice, trust.Approval{})
	e.Approve(id, trusttest.Bob, trust.Approval{})
	e.Publish(id, "chat", epoch)
	return id
}

func (e *exporter) export(name string) string {
	e.t.Helper()
	file := filepath.Join(e.t.TempDir(), name)
	if status, _, stderr := runModel(e.t, "bundle", "export", "--config", e.config, "--out", file, "--channel", "chat"); status != exitDone {
		e.t.Fatalf("bundle export: status %d: %s", status, stderr)
	}
	return file
}

// accept makes a site's gateway remember what it serves.
func (s testSite) accept() {
	s.t.Helper()
	in, err := readSite(s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	state, err := store.OpenState(in.cfg.Trust.State)
	if err != nil {
		s.t.Fatal(err)
	}
	defer state.Close()
	d := in.decide(in.policy, nil).Channels["chat"]
	if err := state.Raise(func(f trust.Floor) trust.Floor { return f.Accept("chat", d, in.policy, time.Now()) }); err != nil {
		s.t.Fatal(err)
	}
}

func TestBundle(t *testing.T) {
	e := newExporter(t)
	first := e.export("first.tar")
	site := newSite(t, e.World)

	if _, stderr := site.bring(exitFailed, first); !strings.Contains(stderr, "--init-state") {
		t.Errorf("a site without a state: %s", stderr)
	}
	told, _ := site.bring(exitDone, first, "--init-state")
	if told.Statements != 4 || told.Policy != 1 || told.Channels["chat"].After == nil || *told.Channels["chat"].After != e.release {
		t.Errorf("imported %+v, want release %s by 4 statements", told, e.release)
	}
	if got := site.serves(); got != e.release {
		t.Errorf("the site serves %q, want %s", got, e.release)
	}
	if told, _ := site.bring(exitDone, first); told.Statements != 0 {
		t.Errorf("imported again: %d new statements, want none", told.Statements)
	}

	// A model that is one file, and another epoch.
	writeTestFile(t, filepath.Join(e.Dir, "models", "next.gguf"), "next")
	next := e.publish("models/next.gguf", 2)
	second := e.export("second.tar")
	site.bring(exitDone, second)
	if got := site.serves(); got != next {
		t.Errorf("the site serves %q, want %s", got, next)
	}
	site.accept()
	if _, stderr := site.bring(exitRefused, first); !strings.Contains(stderr, "older than this site") || !strings.Contains(stderr, "epoch 1") {
		t.Errorf("an older bundle: %s", stderr)
	}

	// What is withdrawn at the one site stops at the other.
	e.Withdraw(trusttest.Carol, next)
	writeTestFile(t, filepath.Join(e.Dir, "models", "third.gguf"), "third")
	third := e.publish("models/third.gguf", 3)
	site.bring(exitDone, e.export("third.tar"))
	if got := site.serves(); got != third {
		t.Errorf("the site serves %q, want %s", got, third)
	}
	in, err := readSite(site.config)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range in.decide(in.policy, nil).Channels["chat"].Reasons {
		if r.Rule == trust.RuleWithdrawn && r.Counted {
			return
		}
	}
	t.Error("the withdrawal was not carried along")
}

// TestBundlePolicies: a site that is versions behind follows each of them, and nobody's policies get in.
func TestBundlePolicies(t *testing.T) {
	e := newExporter(t)
	site, behind := newSite(t, e.World), newSite(t, e.World)
	behind.bring(exitDone, e.export("first.tar"), "--init-state")
	state := filepath.Join(e.Dir, "state")
	if err := store.CreateState(state); err != nil {
		t.Fatal(err)
	}
	last := e.rotate(t, state, nil, 1)
	for version := int64(2); version <= 3; version++ {
		last = e.rotate(t, state, last, version)
	}
	later := e.export("later.tar")
	if told, _ := behind.bring(exitDone, later); told.Policy != 3 {
		t.Errorf("imported policy version %d, want 3", told.Policy)
	}
	if told, _ := site.bring(exitDone, later, "--init-state"); told.Policy != 3 || site.serves() != e.release {
		t.Errorf("a new site: policy version %d and release %q, want 3 and %s", told.Policy, site.serves(), e.release)
	}
	other := newExporter(t)
	if _, stderr := site.bring(exitRefused, other.export("other.tar")); !strings.Contains(stderr, "policy") {
		t.Errorf("a bundle of another root: %s", stderr)
	}
}

// rotate makes the exporter's gateway accept the next version of the policy.
func (e *exporter) rotate(t *testing.T, dir string, last *trust.Policy, version int64) *trust.Policy {
	t.Helper()
	state, err := store.OpenState(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	if last != nil {
		e.SignPolicy(func(d *trust.Document) {
			withdrawable(d)
			d.Version, d.Previous = version, last.Digest()
		})
	}
	data, err := os.ReadFile(e.PolicyFile)
	if err != nil {
		t.Fatal(err)
	}
	bundles, err := statement.ParseLines(data)
	if err != nil {
		t.Fatal(err)
	}
	p, err := trust.ParsePolicy(bundles[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := state.KeepPolicy(version, data); err != nil {
		t.Fatal(err)
	}
	if err := state.Raise(func(f trust.Floor) trust.Floor { return f.AcceptPolicy(p, time.Now()) }); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestBundleAltered changes bytes all over a bundle: it is refused, or what it leads to is the same.
func TestBundleAltered(t *testing.T) {
	e := newExporter(t)
	good, err := os.ReadFile(e.export("good.tar"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "altered.tar")
	for at := 0; at < len(good); at += len(good)/97 + 1 {
		altered := append([]byte{}, good...)
		altered[at] ^= 0x20
		writeTestFile(t, file, string(altered))
		site := newSite(t, e.World)
		status, stdout, stderr := runModel(t, "bundle", "import", file, "--config", site.config, "--init-state")
		got := site.serves()
		switch {
		case status == exitDone && got == e.release:
			// padding, or a header's field that says nothing
		case status == exitDone || got != "":
			t.Errorf("byte %d altered: status %d, then %q serves: %s%s", at, status, got, stdout, stderr)
		case status != exitRefused && status != exitFailed || stderr == "":
			t.Errorf("byte %d altered: status %d: %s", at, status, stderr)
		}
	}
	for size := 0; size < len(good); size += len(good)/31 + 1 {
		writeTestFile(t, file, string(good[:size]))
		site := newSite(t, e.World)
		if status, _, stderr := runModel(t, "bundle", "import", file, "--config", site.config, "--init-state"); status == exitDone || site.serves() != "" {
			t.Errorf("cut to %d bytes: status %d: %s", size, status, stderr)
		}
	}
}

// TestBundleRefused has a good bundle's site with one thing wrong per row: nothing becomes visible.
func TestBundleRefused(t *testing.T) {
	e := newExporter(t)
	good := e.export("good.tar")
	weights := filepath.Join(e.Dir, "models", "chat", "weights.gguf")
	for name, tt := range map[string]struct {
		file func(t *testing.T) string
		want string
	}{
		"no bundle":   {func(*testing.T) string { return weights }, "malformed bundle"},
		"nothing":     {func(*testing.T) string { return filepath.Join(e.Dir, "none.tar") }, "no such file"},
		"a directory": {func(*testing.T) string { return e.Dir }, "is a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			site := newSite(t, e.World)
			status, _, stderr := runModel(t, "bundle", "import", tt.file(t), "--config", site.config, "--init-state")
			if status == exitDone || !strings.Contains(stderr, tt.want) || site.serves() != "" {
				t.Errorf("status %d, want %q: %s", status, tt.want, stderr)
			}
		})
	}
	// The exporter's own weights are bad: no bundle is made, and an old one stays.
	writeTestFile(t, weights, strings.Repeat("Weights", 4096))
	before, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	status, _, stderr := runModel(t, "bundle", "export", "--config", e.config, "--out", good)
	after, err := os.ReadFile(good)
	if err != nil || status != exitRefused || !strings.Contains(stderr, "weights.gguf") || string(after) != string(before) {
		t.Errorf("export of bad weights: status %d, %v: %s", status, err, stderr)
	}
}

// TestBundleResumes: an import that was interrupted, or that met spoilt files of an earlier one, goes on.
func TestBundleResumes(t *testing.T) {
	e := newExporter(t)
	file := e.export("chat.tar")
	set, _, err := store.ReadStatements([]string{e.Statements})
	if err != nil {
		t.Fatal(err)
	}
	var manifest *oms.Manifest
	for _, s := range set {
		if r, err := trust.ParseRelease(s); err == nil {
			manifest = r.Manifest()
		}
	}
	short := strings.TrimPrefix(manifest.Root(), "sha256:")[:16]
	for name, left := range map[string]string{"whole": strings.Repeat("weights", 4096), "half": "wei", "spoilt": strings.Repeat("Weights", 4096)} {
		t.Run(name, func(t *testing.T) {
			site := newSite(t, e.World)
			model := filepath.Join(site.dir, "models", ".import-"+short, "model")
			if err := os.MkdirAll(model, 0o755); err != nil {
				t.Fatal(err)
			}
			writeTestFile(t, filepath.Join(model, "weights.gguf"), left)
			writeTestFile(t, filepath.Join(filepath.Dir(model), "part"), "old")
			status, _, stderr := runModel(t, "bundle", "import", file, "--config", site.config, "--init-state")
			if name == "whole" || name == "half" {
				if status != exitDone || site.serves() != e.release {
					t.Errorf("status %d: %s", status, stderr)
				}
				return
			}
			if status == exitDone || site.serves() != "" {
				t.Errorf("status %d: %s", status, stderr)
			}
			site.bring(exitDone, file, "--init-state") // begins anew
			if site.serves() != e.release {
				t.Error("nothing serves after the second try")
			}
		})
	}
}

// TestBundleBesideWhatIsHere: what lies at the site may keep an import away or not, and then nothing is half done.
func TestBundleBesideWhatIsHere(t *testing.T) {
	e := newExporter(t)
	file := e.export("chat.tar")
	forged := func(site testSite) {
		for _, name := range mustGlob(t, filepath.Join(e.Statements, "*")) {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			at := strings.Index(string(data), `"sig":"`) + len(`"sig":"`) + 20
			data[at] = 'A' + ('Z'-data[at]+1)%2
			writeTestFile(t, filepath.Join(site.dir, "statements", "forged-"+filepath.Base(name)), string(data))
		}
	}
	for name, tt := range map[string]struct {
		lies    func(testSite)
		healed  func(testSite) // nil: nothing has to be
		refusal string
	}{
		"forged statements": {forged, nil, ""},
		"a log's directory that is a file": {
			func(s testSite) {
				if err := os.Mkdir(filepath.Join(s.dir, "state"), 0o700); err != nil {
					t.Fatal(err)
				}
				writeTestFile(t, filepath.Join(s.dir, "state", "audit"), "")
			},
			func(s testSite) { os.Remove(filepath.Join(s.dir, "state", "audit")) }, "audit.dir",
		},
		"a policy's name that is a directory": {
			func(s testSite) { os.MkdirAll(filepath.Join(s.dir, "policy.jsonl", "x"), 0o755) },
			func(s testSite) { os.RemoveAll(filepath.Join(s.dir, "policy.jsonl")) }, "policy.jsonl",
		},
	} {
		t.Run(name, func(t *testing.T) {
			site := newSite(t, e.World)
			tt.lies(site)
			if tt.healed != nil {
				status, _, stderr := runModel(t, "bundle", "import", file, "--config", site.config, "--init-state")
				if visible := mustGlob(t, filepath.Join(site.dir, "statements", "*")); status == exitDone || !strings.Contains(stderr, tt.refusal) || len(visible) > 0 {
					t.Errorf("status %d, %q are visible: %s", status, visible, stderr)
				}
				tt.healed(site)
			}
			site.bring(exitDone, file, "--init-state")
			if site.serves() != e.release {
				t.Error("nothing serves after the import")
			}
		})
	}
}

func mustGlob(t *testing.T, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestBundleMeetsAnotherPolicy: a policy that was accepted here while the bundle was read is not overwritten by the bundle's.
func TestBundleMeetsAnotherPolicy(t *testing.T) {
	e := newExporter(t)
	state := filepath.Join(e.Dir, "state")
	if err := store.CreateState(state); err != nil {
		t.Fatal(err)
	}
	first := e.rotate(t, state, nil, 1)
	in, err := readSite(e.config)
	if err != nil {
		t.Fatal(err)
	}
	e.rotate(t, state, first, 2)
	if _, err := in.policyTaker([]update{{}}, true); err == nil || !strings.Contains(err.Error(), "another policy was accepted here meanwhile") {
		t.Errorf("policyTaker = %v, want it refused", err)
	}
}
