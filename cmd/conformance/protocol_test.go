package main_test

import (
	"crypto/elliptic"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestProgram: the program is found where the package says, and its status is handed on; a crash is never a success.
func TestProgram(t *testing.T) {
	script := func(dir, body string) string {
		path := filepath.Join(dir, "weighbridge")
		put(t, path, "#!/bin/sh\n"+body+"\n")
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	moved, path, empty := t.TempDir(), t.TempDir(), t.TempDir()
	data, err := os.ReadFile(adapter)
	if err != nil {
		t.Fatal(err)
	}
	alone := filepath.Join(moved, "conformance")
	if err := os.WriteFile(alone, data, 0o755); err != nil {
		t.Fatal(err)
	}
	script(path, "exit 1")
	system := os.Getenv("PATH")
	tests := []struct {
		name, program, path string
		want                int
	}{
		{"nowhere", "", empty, failed},
		{"on the path", "", path, refused},
		{"named", script(t.TempDir(), "exit 0"), path, done},
		{"another status", script(t.TempDir(), "exit 7"), path, 7},
		{"killed", script(t.TempDir(), "kill -9 $$"), system, failed},
		{"not there", filepath.Join(empty, "weighbridge"), path, failed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), alone, "verify-model", "--method", "key", "--model-path", "m", "--bundle", "b", "--public-key", "k")
			cmd.Env = []string{"PATH=" + tt.path, "WEIGHBRIDGE=" + tt.program}
			if out, err := cmd.CombinedOutput(); cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != tt.want {
				t.Errorf("status %v (%v), want %d: %s", cmd.ProcessState, err, tt.want, out)
			}
		})
	}
}

// TestProtocol: command lines that the protocol does not have, or has no key for, never end with 0.
func TestProtocol(t *testing.T) {
	g := newChain(t, valid, valid, valid, nil)
	model := models["simple"].write(t)
	out := filepath.Join(t.TempDir(), "out.sig")
	sign := []string{"sign-model", "--model-path", model, "--output-bundle", out}
	verify := []string{"verify-model", "--model-path", model, "--bundle", out}
	with := func(args []string, more ...string) []string { return append(slices.Clone(args), more...) }
	tests := []struct {
		name string
		args []string
		says string
	}{
		{"nothing", nil, "usage"},
		{"unknown command", []string{"benchmark-model"}, "unknown command"},
		{"no method", sign, "--method"},
		{"unknown method", with(sign, "--method", "pkcs11"), "--method"},
		{"sign sigstore without token", with(sign, "--method", "sigstore"), "no identity token"},
		{"sign sigstore at two instances", with(sign, "--method", "sigstore", "--use-staging", "--trust-config", out), "two instances"},
		{"sign sigstore by no trust config", with(sign, "--method", "sigstore", "--identity-token", "token", "--trust-config", out), "--trust-config"},
		{"verify sigstore without issuer", with(verify, "--method", "sigstore", "--identity", "a@example.com"), "--identity-provider"},
		{"verify sigstore without identity", with(verify, "--method", "sigstore", "--identity-provider", "https://example.com"), "--identity"},
		{"verify sigstore at two instances", with(verify, "--method", "sigstore", "--identity", "a", "--identity-provider", "b", "--use-staging", "--trust-config", out), "two instances"},
		{"verify sigstore by no trust config", with(verify, "--method", "sigstore", "--identity", "a", "--identity-provider", "b", "--trust-config", out), "--trust-config"},
		{"sign without key", with(sign, "--method", "key"), "--private-key"},
		{"sign without certificate", with(sign, "--method", "certificate", "--private-key", g.private), "--signing-cert"},
		{"verify certificate with a key alone", with(verify, "--method", "certificate", "--public-key", g.public), "--cert-chain"},
		{"verify key with roots alone", with(verify, "--method", "key", "--cert-chain", g.roots[0]), "--public-key"},
		{"verify without key", with(verify, "--method", "key"), "--public-key"},
		{"verify without roots", with(verify, "--method", "certificate"), "--cert-chain"},
		{"unknown flag", with(verify, "--method", "key", "--public-key", g.public, "--insecure"), "insecure"},
		{"argument", with(verify, "--method", "key", "--public-key", g.public, "more"), "more"},
		{"model named like a flag", []string{"sign-model", "--method", "key", "--model-path", "-h", "--output-bundle", out, "--private-key", g.private}, "open model"},
		{"no bundle", with(verify, "--method", "key", "--public-key", g.public), "out.sig"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			status, _, stderr := call(t, tt.args...)
			if status != failed || !strings.Contains(stderr, tt.says) {
				t.Errorf("%q: status %d, want %d; says %q, want %q in it", tt.args, status, failed, stderr, tt.says)
			}
		})
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("a bundle was written")
	}
}

// TestMethodDecides: with --method key the certificates that are named beside the key are not signed under.
func TestMethodDecides(t *testing.T) {
	g := newChain(t, valid, valid, valid, nil)
	r := request{"key", models["simple"].write(t), []string{"ignore-me"}}
	bundle := filepath.Join(t.TempDir(), "bundle.sig")
	if status, _, stderr := call(t, r.args("sign-model", "--output-bundle", bundle, g.sign("certificate")...)...); status != done {
		t.Fatalf("sign-model: status %d: %s", status, stderr)
	}
	checkBundle(t, bundle, "key", r.model)
	if status, stderr := r.verify(t, bundle, g.verify("key")...); status != done {
		t.Errorf("verify-model: status %d: %s", status, stderr)
	}
}

// TestCapabilities checks the answer that the suite's benchmarks read, and that the flags it names do what they say.
func TestCapabilities(t *testing.T) {
	status, stdout, stderr := call(t, "capabilities")
	var said struct {
		Flags      []string `json:"flags"`
		Algorithms []string `json:"hash_algorithms"`
		Benchmark  *bool    `json:"benchmark_model"`
		Version    string   `json:"client_version"`
	}
	unmarshal(t, []byte(stdout), &said)
	if status != done || said.Benchmark == nil || *said.Benchmark || said.Version == "" {
		t.Fatalf("capabilities: status %d: %s%s", status, stdout, stderr)
	}
	g := keyGroup(t, elliptic.P256())
	for _, algorithm := range said.Algorithms {
		r := request{"key", models["multi-file"].write(t), nil}
		bundle := filepath.Join(t.TempDir(), "bundle.sig")
		args := r.args("sign-model", "--output-bundle", bundle, append(g.sign("key"), "--hash-algorithm", algorithm, "--shard-size", "100")...)
		if status, _, stderr := call(t, args...); status != done {
			t.Errorf("sign-model --hash-algorithm %s: status %d: %s", algorithm, status, stderr)
		}
		_, s := readBundle(t, bundle)
		equal(t, "hash_type", s.Predicate.Serialization["hash_type"], any(algorithm))
		equal(t, "shard_size", s.Predicate.Serialization["shard_size"], any(100.0))
		if status, stderr := r.verify(t, bundle, g.verify("key")...); status != done {
			t.Errorf("verify-model %s: status %d: %s", algorithm, status, stderr)
		}
		put(t, filepath.Join(r.model, "weights.bin"), strings.Repeat("\xAB", 1023)+"x")
		if status, _ := r.verify(t, bundle, g.verify("key")...); status != refused {
			t.Errorf("verify-model %s of an altered model: status %d, want %d", algorithm, status, refused)
		}
	}
}
