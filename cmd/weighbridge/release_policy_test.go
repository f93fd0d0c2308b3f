package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

// TestForgedPublications: with --policy a publication by somebody who may not publish leads neither the next epoch nor the
// release before astray; without it the signer is told that nothing was verified.
func TestForgedPublications(t *testing.T) {
	w := trusttest.New(t)
	model := filepath.Join(w.Dir, "model.gguf")
	writeTestFile(t, model, "weights")
	w.SignPolicy(nil)
	first := w.Release(model, nil)
	second := w.Release(model, func(d *trust.Descriptor) { d.Version = "2" })
	w.Publish(first, "chat", 1)
	w.Publish(second, "chat", 2)
	for name, id := range map[string]statement.ID{"mallory": first, trusttest.Alice: first} { // a stranger, and who may not
		w.PublishAs(name, id, trust.Publication{Channel: "chat", Epoch: 500})
	}
	sign := func(args ...string) (release statement.ID, p trust.Publication, stderr string) {
		t.Helper()
		out := filepath.Join(t.TempDir(), "p.json")
		status, _, stderr := runModel(t, append(args, "--channel", "chat", "--epoch", "next", "--statements", w.Statements, "--out", out, "--key", w.KeyFile("shipper"))...)
		if status != exitDone {
			t.Fatalf("%v: status %d: %s", args, status, stderr)
		}
		release, p, err := trust.ParsePublication(readStatement(t, out))
		if err != nil {
			t.Fatal(err)
		}
		return release, p, stderr
	}
	if _, p, _ := sign("release", "publish", string(second), "--policy", w.PolicyFile); p.Epoch != 3 {
		t.Errorf("publishes at epoch %d, want 3", p.Epoch)
	}
	if to, p, stderr := sign("release", "rollback", "--to", "previous", "--reason", "slow", "--policy", w.PolicyFile); to != first || p.Epoch != 3 || strings.Contains(stderr, "not looked at") {
		t.Errorf("rolls back to %s at epoch %d, want %s at 3: %s", to, p.Epoch, first, stderr)
	}
	if to, _, stderr := sign("release", "rollback", "--to", "previous", "--reason", "slow"); to == first || !strings.Contains(stderr, "signatures were not looked at") {
		t.Errorf("without a policy: rolls back to %s, want to be led astray and told so: %s", to, stderr)
	}
}

// TestPublicationsOfThePast: a gateway may have accepted what somebody published before they retired or were compromised, so
// the next epoch is above it, and a rollback goes to the release before.
func TestPublicationsOfThePast(t *testing.T) {
	since := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	for name, state := range map[string]trust.State{"active": {}, "retired": {Retired: since}, "compromised": {Compromised: since}} {
		t.Run(name, func(t *testing.T) {
			w := trusttest.New(t)
			model := filepath.Join(w.Dir, "model.gguf")
			writeTestFile(t, model, "weights")
			w.SignPolicy(func(d *trust.Document) {
				d.Identities[trusttest.Shipper] = trust.Identity{Keys: []string{w.PublicPEM(trusttest.Shipper)}, State: state}
				d.Identities["night"] = trust.Identity{Keys: []string{w.PublicPEM("night")}}
				d.Roles["publisher"] = trust.Role{Members: []string{trusttest.Shipper, "night"}}
			})
			first := w.Release(model, nil)
			w.Publish(first, "chat", 1)
			w.Publish(w.Release(model, func(d *trust.Descriptor) { d.Version = "2" }), "chat", 2)
			out := filepath.Join(w.Dir, "rollback.json")
			status, _, stderr := runModel(t, "release", "rollback", "--to", "previous", "--reason", "slow", "--policy", w.PolicyFile,
				"--channel", "chat", "--epoch", "next", "--statements", w.Statements, "--out", out, "--key", w.KeyFile("night"))
			if status != exitDone {
				t.Fatalf("status %d: %s", status, stderr)
			}
			if to, p, err := trust.ParsePublication(readStatement(t, out)); err != nil || to != first || p.Epoch != 3 {
				t.Errorf("rolls back to %s at epoch %d, %v, want %s at 3", to, p.Epoch, err, first)
			}
		})
	}
}

func readStatement(t *testing.T, path string) *statement.Signed {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s, err := statement.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
