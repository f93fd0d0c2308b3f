package main

import (
	"bytes"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/verifier/oms/omstest"
)

// runModel runs one command line in this process.
func runModel(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	status = run(args, streams{strings.NewReader(""), &out, &errs})
	return status, out.String(), errs.String()
}

// TestModelVerifyVectors runs the command on every shared vector, as a user would.
func TestModelVerifyVectors(t *testing.T) {
	dir, cases := omstest.Open(t, "../../verifier/oms/testdata")
	if len(cases) != 61 {
		t.Errorf("%d cases, want 61", len(cases))
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			args := []string{"model", "verify", "--json", filepath.Join(dir, c.Model), "--signature", filepath.Join(dir, c.Bundle)}
			if key, ok := c.How["public_key"]; ok {
				args = append(args, "--public_key", filepath.Join(dir, key)) // underscores, as model_signing's users write
			}
			if roots, ok := c.How["roots"]; ok {
				args = append(args, "--certificate_chain", filepath.Join(dir, roots))
			}
			if flags, ok := c.How["flags"]; ok {
				args = append(args, flags)
			}
			want := exitRefused
			if c.Accept {
				want = exitDone
			}
			status, stdout, stderr := runModel(t, args...)
			if status != want {
				t.Errorf("status %d, want %d (%s)\n%s", status, want, c.Note, stderr)
			}
			checkVerifyJSON(t, stdout, c.Accept)
		})
	}
}

// checkVerifyJSON checks the promises of verify --json that scripts rely on.
func checkVerifyJSON(t *testing.T, stdout string, accept bool) {
	t.Helper()
	var got struct {
		Verified *bool
		Root     string
		Signer   map[string]string
		Files    int
		Bytes    *int64
		Seconds  *float64
		Reason   string
		Problems *[]map[string]any
	}
	dec := json.NewDecoder(strings.NewReader(stdout))
	if err := dec.Decode(&got); err != nil || dec.More() {
		t.Fatalf("standard output is not one JSON document: %v\n%s", err, stdout)
	}
	if got.Verified == nil || *got.Verified != accept {
		t.Fatalf("verified is not %v:\n%s", accept, stdout)
	}
	if accept {
		if !strings.HasPrefix(got.Root, "sha256:") || got.Files == 0 || got.Bytes == nil || got.Seconds == nil || got.Signer["kind"] == "" || got.Signer["identity"] == "" {
			t.Errorf("a verified model lacks its report:\n%s", stdout)
		}
		return
	}
	if got.Reason == "" || got.Problems == nil {
		t.Fatalf("a refused model lacks its reason and problems:\n%s", stdout)
	}
	for _, p := range *got.Problems {
		for _, key := range []string{"file", "shard", "start", "end", "expected", "actual"} {
			if _, ok := p[key]; !ok {
				t.Errorf("problem lacks %q: %v", key, p)
			}
		}
	}
}

// TestModelRoundTrip signs with every method and hash, and verifies.
func TestModelRoundTrip(t *testing.T) {
	keys := t.TempDir()
	writeKey(t, keys, "k", elliptic.P256())
	private, public := filepath.Join(keys, "k.key"), filepath.Join(keys, "k.pub")
	encrypted, encryptedPub := encryptedKey(t, keys, "secret")
	writeTestFile(t, filepath.Join(keys, "password"), "secret\n")
	ca := newTestCA(t, time.Now().Add(time.Hour))
	tests := []struct {
		name         string
		sign, verify []string
	}{
		{"default", []string{"--private-key", private}, []string{"--public-key", public}},
		{"files", []string{"--files", "--private_key", private}, []string{"--public_key", public}},
		{"shards", []string{"--shard-size", "10KB", "--private-key", private}, []string{"--public-key", public}},
		{"shards blake3", []string{"--shard_size", "16KiB", "--hash", "blake3", "--private-key", private}, []string{"--public-key", public}},
		{"shards blake2b", []string{"--shard-size", "70000", "--hash", "blake2b", "--private-key", private}, []string{"--public-key", public}},
		{"blake3", []string{"--hash", "blake3", "--private-key", private}, []string{"--public-key", public}},
		{"encrypted key", []string{"--private-key", encrypted, "--password", filepath.Join(keys, "password")}, []string{"--public-key", encryptedPub}},
		{"ignored path", []string{"--ignore-paths", "a", "--private-key", private}, []string{"--public-key", public}},
		{"certificate and chain", []string{"--private-key", ca.file("leaf.key"), "--signing-certificate", ca.file("leaf.crt"), "--certificate-chain", ca.file("mid.crt")},
			[]string{"--certificate-chain", ca.file("root.crt")}},
		{"certificate alone", []string{"--private-key", ca.file("leaf.key"), "--signing-certificate", ca.file("leaf.crt")},
			[]string{"--certificate-chain", ca.file("mid.crt"), "--certificate-chain", ca.file("root.crt")}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			model := newModel(t)
			sig := filepath.Join(model, "model.sig")
			if status, _, stderr := runModel(t, append([]string{"model", "sign", model, "--signature", sig}, tt.sign...)...); status != exitDone || stderr != "" {
				t.Fatalf("sign: status %d: %s", status, stderr)
			}
			verify := append([]string{"model", "verify", "--json", model, "--signature", sig}, tt.verify...)
			status, stdout, stderr := runModel(t, verify...)
			if status != exitDone {
				t.Errorf("verify: status %d: %s", status, stderr)
			}
			checkVerifyJSON(t, stdout, true)
			writeTestFile(t, filepath.Join(model, "weights.gguf"), strings.Repeat("w", 69_999)+"W")
			status, stdout, stderr = runModel(t, verify...)
			if status != exitRefused || !strings.Contains(stderr, "weighbridge: weights.gguf: was altered") {
				t.Errorf("verify of an altered model: status %d: %s", status, stderr)
			}
			checkVerifyJSON(t, stdout, false)
		})
	}
}

// TestModelStatus runs command lines that can't be carried out or are refused: each has its status and says why.
func TestModelStatus(t *testing.T) {
	dir := t.TempDir()
	writeKey(t, dir, "k", elliptic.P256())
	writeKey(t, dir, "other", elliptic.P256())
	if status, _, stderr := runModel(t, "key", "new", "ed", "--type", "ed25519", "--out", dir); status != exitDone {
		t.Fatal(stderr)
	}
	writeRSA(t, filepath.Join(dir, "rsa.pub"))
	encrypted, _ := encryptedKey(t, dir, "secret")
	ca := newTestCA(t, time.Now().Add(-time.Hour)) // the leaf expired an hour ago
	file := func(name string) string { return filepath.Join(dir, name) }
	model := newModel(t)
	sign := func(sig string, args ...string) (stderr string) {
		t.Helper()
		status, _, stderr := runModel(t, append([]string{"model", "sign", model, "--signature", sig}, args...)...)
		if status != exitDone {
			t.Fatal(stderr)
		}
		return stderr
	}
	sign(file("m.sig"), "--private-key", file("k.key"))
	if stderr := sign(file("cert.sig"), "--private-key", ca.file("leaf.key"), "--signing-certificate", ca.file("leaf.crt"), "--certificate-chain", ca.file("mid.crt")); strings.Count(stderr, "not now") != 1 {
		t.Errorf("signed with an expired leaf and a valid intermediate: %q, want a word about the one", stderr)
	}
	writeTestFile(t, file("junk"), "junk")
	writeTestFile(t, file("long.sig"), strings.Repeat(" ", 64<<20+1))
	before := time.Now().Add(-2 * time.Hour).UTC().Format(time.RFC3339)

	verify := []string{"model", "verify", model, "--signature"}
	signing := []string{"model", "sign", model, "--signature", file("new.sig")}
	tests := []struct {
		name   string
		base   []string
		args   []string
		status int
		stderr string
	}{
		{"verified", verify, []string{file("m.sig"), "--public-key", file("k.pub")}, exitDone, ""},
		{"verified at a time", verify, []string{file("cert.sig"), "--certificate-chain", ca.file("root.crt"), "--verification-time", before}, exitDone, ""},
		{"another key", verify, []string{file("m.sig"), "--public-key", file("other.pub")}, exitRefused, "signature does not verify"},
		{"Ed25519", verify, []string{file("m.sig"), "--public-key", file("ed.pub")}, exitRefused, "EC keys"},
		{"RSA", verify, []string{file("m.sig"), "--public-key", file("rsa.pub")}, exitRefused, "EC keys"},
		{"expired", verify, []string{file("cert.sig"), "--certificate-chain", ca.file("root.crt")}, exitRefused, "expired"},
		{"no timestamp", verify, []string{file("cert.sig"), "--certificate-chain", ca.file("root.crt"), "--verification-time", "timestamp", "--timestamp-authority", ca.file("root.crt")}, exitRefused, "no trusted timestamp"},
		{"signature is junk", verify, []string{file("junk"), "--public-key", file("k.pub")}, exitRefused, "malformed"},
		{"signature too long", verify, []string{file("long.sig"), "--public-key", file("k.pub")}, exitRefused, "malformed"},
		{"signature missing", verify, []string{file("nowhere"), "--public-key", file("k.pub")}, exitFailed, "no such file"},
		{"signature a directory", verify, []string{dir, "--public-key", file("k.pub")}, exitFailed, "is a directory"},
		{"model missing", []string{"model", "verify", file("nowhere"), "--signature"}, []string{file("m.sig"), "--public-key", file("k.pub")}, exitFailed, "no such file"},
		{"key missing", verify, []string{file("m.sig"), "--public-key", file("nowhere")}, exitFailed, "no such file"},
		{"key is junk", verify, []string{file("m.sig"), "--public-key", file("junk")}, exitFailed, "junk"},
		{"chain is junk", verify, []string{file("m.sig"), "--certificate-chain", file("junk")}, exitFailed, "no certificate in it"},
		{"nobody to trust", verify, []string{file("m.sig")}, exitFailed, "either --public-key or --certificate-chain, or --identity"},
		{"two to trust", verify, []string{file("m.sig"), "--public-key", file("k.pub"), "--certificate-chain", ca.file("root.crt")}, exitFailed, "either"},
		{"time of a key", verify, []string{file("m.sig"), "--public-key", file("k.pub"), "--verification-time", before}, exitFailed, "no validity"},
		{"time is junk", verify, []string{file("cert.sig"), "--certificate-chain", ca.file("root.crt"), "--verification-time", "yesterday"}, exitFailed, "yesterday"},
		{"timestamp by nobody", verify, []string{file("cert.sig"), "--certificate-chain", ca.file("root.crt"), "--verification-time", "timestamp"}, exitFailed, "--timestamp-authority"},
		{"authority without timestamp", verify, []string{file("cert.sig"), "--certificate-chain", ca.file("root.crt"), "--timestamp-authority", ca.file("root.crt")}, exitFailed, "--verification-time timestamp"},
		{"unknown flag", verify, []string{file("m.sig"), "--nope"}, exitFailed, "nope"},
		{"no signature named", []string{"model", "verify", model}, []string{"--public-key", file("k.pub")}, exitFailed, "signature"},

		{"sign with Ed25519", signing, []string{"--private-key", file("ed.key")}, exitFailed, "hint: make one"},
		{"sign with a public key", signing, []string{"--private-key", file("k.pub")}, exitFailed, "read private key"},
		{"sign without the password", signing, []string{"--private-key", encrypted}, exitFailed, "hint: give the file that holds its password"},
		{"sign with a wrong password", signing, []string{"--private-key", encrypted, "--password", file("junk")}, exitFailed, "password"},
		{"sign with another's certificate", signing, []string{"--private-key", file("k.key"), "--signing-certificate", ca.file("leaf.crt")}, exitFailed, "not the private key's"},
		{"sign with a chain alone", signing, []string{"--private-key", file("k.key"), "--certificate-chain", ca.file("root.crt")}, exitFailed, "--signing-certificate"},
		{"sign as a CA", signing, []string{"--private-key", ca.file("root.key"), "--signing-certificate", ca.file("root.crt")}, exitFailed, "digitalSignature"},
		{"sign with an unknown hash", signing, []string{"--private-key", file("k.key"), "--hash", "md5"}, exitFailed, "md5"},
		{"sign in shards of nothing", signing, []string{"--private-key", file("k.key"), "--shard-size", "0"}, exitFailed, "--shard-size"},
		{"sign in shards and files", signing, []string{"--private-key", file("k.key"), "--shard-size", "1MB", "--files"}, exitFailed, "shard-size"},
		{"sign into nowhere", []string{"model", "sign", model, "--signature", file("nowhere/x")}, []string{"--private-key", file("k.key")}, exitFailed, "write signature"},
		{"sign nothing", []string{"model", "sign", t.TempDir(), "--signature", file("new.sig")}, []string{"--private-key", file("k.key")}, exitFailed, "no resource"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			status, _, stderr := runModel(t, append(append([]string{}, tt.base...), tt.args...)...)
			if status != tt.status || !strings.Contains(stderr, tt.stderr) {
				t.Errorf("status %d, want %d with %q:\n%s", status, tt.status, tt.stderr, stderr)
			}
			if _, err := os.Stat(file("new.sig")); err == nil {
				t.Fatal("a signature was written")
			}
		})
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 || err != nil {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

// writeRSA writes a public key of a kind that signs no weights.
func writeRSA(t *testing.T, path string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	writeTestFile(t, path, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})))
}
