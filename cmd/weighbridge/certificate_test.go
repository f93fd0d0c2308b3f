package main

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

const certificatePolicy = `apiVersion: weighbridge/v1
kind: TrustPolicy
version: 1
expires: 2100-01-01T00:00:00Z
timestampAuthorities: [clock.crt]
identities:
  trainer: {keys: [keys/trainer.pub]}
  alice: {keys: [keys/alice.pub]}
  carol: {CAROL}
  shipper: {certificate: "CN=shipper", roots: [house.crt]}
roles:
  root: {members: [alice]}
  producer: {members: [trainer]}
  approver: {members: [alice, carol]}
  publisher: {members: [shipper]}
channels:
  chat:
    require: {release: {role: producer}, approval: {role: approver, count: 2}}
    publish: {role: publisher}
`

// TestCertificateIdentities signs as identities that a policy knows by certificates, given in each way that POLICY.yaml
// has for them, and decides.
func TestCertificateIdentities(t *testing.T) {
	for _, carol := range []string{"certificate: carol-and-house.crt", "certificate: carol.crt, roots: [house.crt]", `certificate: "CN=carol", roots: [house.crt]`} {
		t.Run(carol, func(t *testing.T) {
			w := trusttest.New(t)
			ca := w.NewCA("house")
			leaf := ca.Issue("carol", nil)
			file := func(name string) string { return filepath.Join(w.Dir, name) }
			w.Write("house.crt", ca.Root)
			w.Write("clock.crt", w.NewTimeAuthority("clock").Root)
			w.Write("carol.crt", leaf)
			w.Write("carol-and-house.crt", leaf, ca.Root)
			shipper := w.Write("shipper.crt", ca.Issue("shipper", nil))
			for _, name := range []string{"trainer", "alice"} {
				w.Key(name)
			}
			writeTestFile(t, file("policy.yaml"), strings.Replace(certificatePolicy, "CAROL", carol, 1))
			model := file("model.gguf")
			writeTestFile(t, model, "weights")

			do := func(want int, args ...string) (stdout, stderr string) {
				t.Helper()
				status, stdout, stderr := runModel(t, args...)
				if status != want {
					t.Fatalf("%v: status %d, want %d: %s%s", args, status, want, stdout, stderr)
				}
				return strings.TrimSpace(stdout), stderr
			}
			do(exitDone, "trust", "sign", file("policy.yaml"), "--key", w.KeyFile("alice"), "--out", w.PolicyFile)
			release := w.Release(model, nil)
			w.Approve(release, "alice", trust.Approval{})
			approve := []string{"release", "approve", string(release), "--statements", w.Statements, "--key", w.KeyFile("carol"), "--certificate", file("carol.crt")}
			id, _ := do(exitDone, approve...)
			if again, _ := do(exitDone, approve...); again != id { // the same statement, in the same file
				t.Errorf("signed again: %s, want %s", again, id)
			}
			do(exitDone, "release", "publish", string(release), "--channel", "chat", "--epoch", "1", "--statements", w.Statements,
				"--key", w.KeyFile("shipper"), "--certificate", shipper, "--certificate-chain", file("house.crt"))
			decide := []string{"decide", "--policy", w.PolicyFile, "--root", filepath.Join(w.Keys, "alice.pub"), "--statements", w.Statements}
			if out, _ := do(exitDone, decide...); !strings.Contains(out, string(release)) {
				t.Errorf("decide: %s, want release %s", out, release)
			}
			_, stderr := do(exitRefused, append(decide, "--at", "2101-01-01T00:00:00Z")...)
			if !strings.Contains(stderr, "expired") {
				t.Errorf("decide after all ended: %s", stderr)
			}
			if out, _ := do(exitDone, "trust", "show", w.PolicyFile); !strings.Contains(out, "certificates of CN=carol from 1 trusted certificates") {
				t.Errorf("trust show: %s", out)
			}
		})
	}
}

// TestCertificateRefused: what is no certificate of the key is not signed with, and nothing is written.
func TestCertificateRefused(t *testing.T) {
	w := trusttest.New(t)
	ca := w.NewCA("house")
	model := filepath.Join(w.Dir, "model.gguf")
	writeTestFile(t, model, "weights")
	w.SignPolicy(nil)
	release := string(w.Release(model, nil))
	out := filepath.Join(w.Dir, "approval.json")
	noEKU := ca.Issue("carol", func(c *x509.Certificate) { c.ExtKeyUsage = nil })
	w.Key("carol")
	key := w.Write("carol.key.crt")
	writeTestFile(t, key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY"})))
	for file, want := range map[string]string{
		w.Write("alice.crt", ca.Issue("alice", nil)): "not the private key's",
		w.Write("carol.crt", noEKU):                  "codeSigning",
		key:                                          "no certificate in it",
		filepath.Join(w.Dir, "none.crt"):             "no such file",
	} {
		status, _, stderr := runModel(t, "release", "approve", release, "--key", w.KeyFile("carol"), "--certificate", file, "--out", out)
		if status != exitFailed || !strings.Contains(stderr, want) {
			t.Errorf("%s: status %d, want %d with %q: %s", filepath.Base(file), status, exitFailed, want, stderr)
		}
		if _, err := os.Stat(out); err == nil {
			t.Fatalf("%s: a statement was written", filepath.Base(file))
		}
	}
}
