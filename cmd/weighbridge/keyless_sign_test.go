package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/weighbridge/weighbridge/verifier/keyless/keylesstest"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

// TestSignWithAccount signs a model and an approval with an account, then refuses with one thing wrong per row.
func TestSignWithAccount(t *testing.T) {
	w := trusttest.New(t)
	instance := keylesstest.New(t)
	file := func(name string) string { return filepath.Join(w.Dir, name) }
	config := instance.Serve(keylesstest.Signing{})
	for name, text := range map[string]string{
		"model.gguf": "weights", "token": keylesstest.Token(carolAccount) + "\n", "empty": "", "config.json": string(config),
		"whole.json": string(instance.TrustConfig(config)), "half.json": string(instance.TrustConfig(nil)),
		"root.json": string(instance.TrustedRoot()), "other.json": string(keylesstest.New(t).TrustedRoot()),
	} {
		writeTestFile(t, file(name), text)
	}
	w.Key("alice")
	account := []string{"--identity-token", file("token"), "--signing-config", file("config.json"), "--trusted-root", file("root.json")}
	with := func(args ...string) []string { return append(args, account...) }

	status, stdout, stderr := runModel(t, with("model", "sign", file("model.gguf"), "--signature", file("model.sig"), "--json")...)
	var report struct {
		Signer map[string]string `json:"signer"`
	}
	if err := json.Unmarshal([]byte(stdout), &report); status != exitDone || err != nil {
		t.Fatalf("model sign: status %d, %v: %s", status, err, stderr)
	}
	if s := report.Signer; s["kind"] != "sigstore" || s["identity"] != carolAccount.Subject || s["issuer"] != carolAccount.Issuer {
		t.Errorf("signer %v", s)
	}
	verify := []string{"model", "verify", file("model.gguf"), "--signature", file("model.sig"), "--trusted-root", file("root.json"),
		"--identity", carolAccount.Subject, "--identity-provider", carolAccount.Issuer}
	if status, _, stderr := runModel(t, verify...); status != exitDone {
		t.Errorf("model verify: status %d: %s", status, stderr)
	}

	whole := append(slices.Clone(account[:2]), "--trust-config", file("whole.json"))
	if status, _, stderr := runModel(t, append([]string{"model", "sign", file("model.gguf"), "--signature", file("model.sig")}, whole...)...); status != exitDone {
		t.Errorf("model sign by a trust configuration: status %d: %s", status, stderr)
	}
	if status, _, stderr := runModel(t, verify...); status != exitDone {
		t.Errorf("model verify: status %d: %s", status, stderr)
	}

	t.Setenv(tokenVariable, keylesstest.Token(carolAccount))
	approve := []string{"release", "approve", "sha256:" + strings.Repeat("ab", 32), "--statements", w.Statements, "--signing-config", file("config.json"), "--trusted-root", file("root.json")}
	for range 2 { // the second time it is there already
		if status, _, stderr := runModel(t, approve...); status != exitDone {
			t.Fatalf("release approve: status %d: %s", status, stderr)
		}
	}
	if files, err := os.ReadDir(w.Statements); err != nil || len(files) != 1 {
		t.Errorf("approved twice by one account: %d files, %v, want 1", len(files), err)
	}
	t.Setenv(tokenVariable, keylesstest.Token(statement.Account{Issuer: carolAccount.Issuer, Subject: "dave@bank.example"}))
	if status, _, stderr := runModel(t, approve...); status != exitDone {
		t.Errorf("release approve by another: status %d: %s", status, stderr)
	}
	if files, err := os.ReadDir(w.Statements); err != nil || len(files) != 2 {
		t.Errorf("approved by two accounts: %d files, %v, want 2", len(files), err)
	}

	t.Setenv(tokenVariable, "")
	sign := func(args ...string) []string {
		return append([]string{"model", "sign", file("model.gguf"), "--signature", file("new")}, args...)
	}
	release := func(args ...string) []string {
		return append([]string{"release", "approve", "sha256:" + strings.Repeat("ab", 32), "--out", file("new")}, args...)
	}
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"no token", sign(account[2:]...), "set SIGSTORE_ID_TOKEN"},
		{"empty token", sign(append([]string{"--identity-token", file("empty")}, account[2:]...)...), "set SIGSTORE_ID_TOKEN"},
		{"no instance", sign(account[:2]...), "--signing-config and --trusted-root are required"},
		{"no trusted root", sign(account[:4]...), "--trusted-root are required"},
		{"trust configuration besides", sign(append(account[:6:6], "--trust-config", file("whole.json"))...), "give it alone"},
		{"trust configuration without signing config", sign(append(account[:2:2], "--trust-config", file("half.json"))...), "signing config"},
		{"trust configuration that is none", release(append(account[:2:2], "--trust-config", file("root.json"))...), "read trust config"},
		{"another instance's trusted root", sign(append(account[:4:4], "--trusted-root", file("other.json"))...), "does not verify by the trusted root"},
		{"another instance's trusted root, release", release(append(account[:4:4], "--trusted-root", file("other.json"))...), "does not verify by the trusted root"},
		{"token that is not there", sign(append([]string{"--identity-token", file("nowhere")}, account[2:]...)...), "--identity-token: "},
		{"a key besides", sign(append(account[:6:6], "--private-key", w.KeyFile("alice"))...), "not for signing with a Sigstore account"},
		{"a key besides, release", release(append(account[:6:6], "--key", w.KeyFile("alice"))...), "not for signing with a Sigstore account"},
		{"nobody", sign(), "--private-key is required"},
		{"nobody, release", release(), "--key is required"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, _, stderr := runModel(t, tt.args...)
			if status != exitFailed || !strings.Contains(stderr, tt.want) {
				t.Errorf("status %d, want %d with %q: %s", status, exitFailed, tt.want, stderr)
			}
			if _, err := os.Stat(file("new")); err == nil {
				t.Error("something was written")
			}
		})
	}
}
