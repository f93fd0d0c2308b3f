package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
)

// modelSigning returns the reference tool, installed by the project's own script.
func modelSigning(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("needs the reference tool")
	}
	out, err := exec.CommandContext(t.Context(), "../../.ci/parts", "model-signing").Output()
	if err != nil {
		t.Fatalf(".ci/parts model-signing: %v", err)
	}
	return strings.TrimSpace(string(out))
}

// tool runs the reference tool and returns whether it agreed.
func tool(t *testing.T, args ...string) (agreed bool, output string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), modelSigning(t), args...).CombinedOutput()
	return err == nil, string(out)
}

// newModel makes a model with all that a name may hold and returns its directory.
func newModel(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "model")
	for name, content := range map[string]string{
		"weights.gguf": strings.Repeat("w", 70_000), "config.json": "{}", "a-b.txt": "1", "a/b.txt": "2", "a.txt": "3", "empty.bin": "",
		"模型/权重.bin": "4", "new\nline": "5", "back\\slash": "6", "colon:0:5": "7", ".gitignore": "*", ".git/HEAD": "x", "sub/.git/HEAD": "8",
	} {
		writeTestFile(t, filepath.Join(dir, name), content)
	}
	return dir
}

func writeTestFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// writeKey makes an EC key pair NAME.key and NAME.pub in dir.
func writeKey(t *testing.T, dir, name string, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	writeTestFile(t, filepath.Join(dir, name+".key"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
	writeTestFile(t, filepath.Join(dir, name+".pub"), string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})))
	return key
}

// A testCA is a root, an intermediate and a leaf on disk: root.crt, mid.crt, leaf.crt, leaf.key.
type testCA struct{ dir string }

func (c testCA) file(name string) string { return filepath.Join(c.dir, name) }

func newTestCA(t *testing.T, leafNotAfter time.Time) testCA {
	t.Helper()
	c := testCA{t.TempDir()}
	issue := func(name string, key *ecdsa.PrivateKey, parent *x509.Certificate, by *ecdsa.PrivateKey, change func(*x509.Certificate)) *x509.Certificate {
		cert := &x509.Certificate{
			SerialNumber: big.NewInt(int64(len(name))), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
			BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign,
		}
		change(cert)
		if parent == nil {
			parent = cert
		}
		der, err := x509.CreateCertificate(rand.Reader, cert, parent, key.Public(), by)
		if err != nil {
			t.Fatal(err)
		}
		made, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		writeTestFile(t, c.file(name+".crt"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
		return made
	}
	rootKey, midKey := writeKey(t, c.dir, "root", elliptic.P256()), writeKey(t, c.dir, "mid", elliptic.P384())
	root := issue("root", rootKey, nil, rootKey, func(*x509.Certificate) {})
	mid := issue("mid", midKey, root, rootKey, func(*x509.Certificate) {})
	issue("leaf", writeKey(t, c.dir, "leaf", elliptic.P256()), mid, midKey, func(l *x509.Certificate) {
		l.IsCA, l.KeyUsage = false, x509.KeyUsageDigitalSignature
		l.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
		l.EmailAddresses = []string{"trainer@bank.example"}
		l.NotAfter = leafNotAfter
	})
	return c
}

// TestModelSigningReadsOurs: what we sign with the default method, the reference tool verifies; and it refuses it once a
// byte has changed.
func TestModelSigningReadsOurs(t *testing.T) {
	ca := newTestCA(t, time.Now().Add(time.Hour))
	keys := t.TempDir()
	writeKey(t, keys, "p256", elliptic.P256())
	writeKey(t, keys, "p384", elliptic.P384())
	writeKey(t, keys, "p521", elliptic.P521())
	key := func(name string) []string { return []string{"--private-key", filepath.Join(keys, name+".key")} }
	pub := func(name string) []string { return []string{"key", "--public_key", filepath.Join(keys, name+".pub")} }
	tests := []struct {
		name   string
		single bool
		sign   []string
		verify []string
	}{
		{"P-256", false, key("p256"), pub("p256")},
		{"P-384", false, key("p384"), pub("p384")},
		{"P-521", false, key("p521"), pub("p521")},
		{"single file", true, key("p256"), pub("p256")},
		{"without ignoring git", false, append(key("p256"), "--no-ignore-git-paths"), append(pub("p256"), "--no-ignore-git-paths")},
		{"certificate", false,
			[]string{"--private-key", ca.file("leaf.key"), "--signing-certificate", ca.file("leaf.crt"), "--certificate-chain", ca.file("mid.crt")},
			[]string{"certificate", "--certificate_chain", ca.file("root.crt")}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			model := newModel(t)
			altered, sig := filepath.Join(model, "config.json"), filepath.Join(model, "model.sig") // a signature within is not signed
			if tt.single {
				model = filepath.Join(model, "weights.gguf")
				altered = model
			}
			args := append([]string{"model", "sign", model, "--signature", sig}, tt.sign...)
			if status, _, stderr := runModel(t, args...); status != exitDone {
				t.Fatalf("sign: status %d: %s", status, stderr)
			}
			verify := append(append([]string{"verify"}, tt.verify...), "--signature", sig, model)
			if ok, out := tool(t, verify...); !ok {
				t.Errorf("model_signing refuses our bundle:\n%s", out)
			}
			writeTestFile(t, altered, "altered")
			if ok, out := tool(t, verify...); ok {
				t.Errorf("model_signing verifies an altered model:\n%s", out)
			}
		})
	}
}

// TestWeReadModelSigning: what the reference tool signs we verify, with the same root as we compute.
func TestWeReadModelSigning(t *testing.T) {
	ca := newTestCA(t, time.Now().Add(time.Hour))
	keys := t.TempDir()
	writeKey(t, keys, "p384", elliptic.P384())
	p384 := filepath.Join(keys, "p384")
	tests := []struct {
		name         string
		sign, verify []string
	}{
		{"key", []string{"key", "--private_key", p384 + ".key"}, []string{"--public-key", p384 + ".pub"}},
		{"git included", []string{"key", "--no-ignore-git-paths", "--private_key", p384 + ".key"}, []string{"--no-ignore-git-paths", "--public-key", p384 + ".pub"}},
		{"links", []string{"key", "--allow_symlinks", "--private_key", p384 + ".key"}, []string{"--allow_symlinks", "--public-key", p384 + ".pub"}},
		{"certificate", []string{"certificate", "--private_key", ca.file("leaf.key"), "--signing_certificate", ca.file("leaf.crt"), "--certificate_chain", ca.file("mid.crt")},
			[]string{"--certificate-chain", ca.file("root.crt")}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			model := newModel(t)
			if tt.name == "links" {
				for link, target := range map[string]string{"l.gguf": "weights.gguf", "linkdir": "a", "out.bin": filepath.Join(ca.dir, "root.crt")} {
					if err := os.Symlink(target, filepath.Join(model, link)); err != nil {
						t.Fatal(err)
					}
				}
			}
			sig := filepath.Join(model, "model.sig")
			if ok, out := tool(t, append(append([]string{"sign"}, tt.sign...), "--signature", sig, model)...); !ok {
				t.Fatalf("model_signing sign: %s", out)
			}
			args := append([]string{"model", "verify", "--json", model, "--signature", sig}, tt.verify...)
			status, stdout, stderr := runModel(t, args...)
			if status != exitDone {
				t.Errorf("status %d: %s", status, stderr)
			}
			checkVerifyJSON(t, stdout, true)
			writeTestFile(t, filepath.Join(model, "config.json"), "altered")
			if status, _, _ := runModel(t, args...); status != exitRefused {
				t.Errorf("altered: status %d, want %d", status, exitRefused)
			}
		})
	}
}

// TestModelDigestAgrees: for a tree whose names both tools sort alike, the root is the one that model_signing signs.
func TestModelDigestAgrees(t *testing.T) {
	dir, keys := t.TempDir(), t.TempDir()
	writeKey(t, keys, "k", elliptic.P256())
	writeTestFile(t, filepath.Join(dir, "a.bin"), "a")
	writeTestFile(t, filepath.Join(dir, "b/c.bin"), "c")
	sig := filepath.Join(keys, "model.sig")
	if ok, out := tool(t, "sign", "key", "--private_key", filepath.Join(keys, "k.key"), "--signature", sig, dir); !ok {
		t.Fatal(out)
	}
	var bundle struct{ DsseEnvelope struct{ Payload []byte } }
	var signed struct {
		Subject []struct{ Digest map[string]string }
	}
	data, err := os.ReadFile(sig)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &bundle); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(bundle.DsseEnvelope.Payload, &signed); err != nil {
		t.Fatal(err)
	}
	want := "sha256:" + signed.Subject[0].Digest["sha256"] + "\n"
	if status, stdout, stderr := runModel(t, "model", "digest", dir); status != exitDone || stdout != want {
		t.Errorf("model digest: status %d, %s%s, want %s", status, stdout, stderr, want)
	}
}

// encryptedKey makes a key pair whose private half needs the password.
func encryptedKey(t *testing.T, dir, password string) (private, public string) {
	t.Helper()
	keyPEM, pubPEM, err := cryptoutils.GeneratePEMEncodedECDSAKeyPair(elliptic.P256(), cryptoutils.StaticPasswordFunc([]byte(password)))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(keyPEM, []byte("ENCRYPTED")) {
		t.Fatal("the key is in the clear")
	}
	private, public = filepath.Join(dir, "e.key"), filepath.Join(dir, "e.pub")
	writeTestFile(t, private, string(keyPEM))
	writeTestFile(t, public, string(pubPEM))
	return private, public
}
