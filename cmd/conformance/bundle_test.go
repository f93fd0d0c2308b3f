package main_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// An object is JSON to be broken.
type object = map[string]any

// TestVerifySignedAnew breaks the bundle as the suite does (conformance/config/bundle-transforms.yaml), but signs what
// it made of it: the suite leaves the old signature, which alone refuses all that is changed under it, whether or not
// the check exists that the case is named after.
func TestVerifySignedAnew(t *testing.T) {
	g := keyGroup(t, elliptic.P384())
	nothing := func(_, _, _ object) {}
	tests := []struct {
		name   string
		change func(bundle, envelope, statement object)
		want   int
	}{
		{"as it was", nothing, done},
		{"wrong-mediatype", func(b, _, _ object) { b["mediaType"] = "application/json" }, refused},
		{"older mediatype", func(b, _, _ object) { b["mediaType"] = "application/vnd.dev.sigstore.bundle.v0.1+json" }, refused},
		{"wrong-payload-type", func(_, e, _ object) { e["payloadType"] = "application/octet-stream" }, refused},
		{"no-signature", func(_, e, _ object) { e["signatures"] = []any{} }, refused},
		{"keyid absent", func(_, e, _ object) { delete(e["signatures"].([]any)[0].(object), "keyid") }, done},
		{"keyid null", func(_, e, _ object) { e["signatures"].([]any)[0].(object)["keyid"] = nil }, done},
		{"tlogEntries absent", func(b, _, _ object) { delete(b["verificationMaterial"].(object), "tlogEntries") }, done},
		{"missing-envelope", func(b, _, _ object) { delete(b, "dsseEnvelope") }, refused},
		{"other name of the model", func(_, _, s object) { s["subject"].([]any)[0].(object)["name"] = "other" }, done},
		{"unknown member of a resource", func(_, _, s object) { s["predicate"].(object)["resources"].([]any)[0].(object)["mediaType"] = "x" }, done},
		{"ignore_paths absent", func(_, _, s object) { delete(s["predicate"].(object)["serialization"].(object), "ignore_paths") }, done},
		{"wrong-statement-type", func(_, _, s object) { s["_type"] = "https://in-toto.io/Statement/v0.1" }, refused},
		{"wrong-predicate", func(_, _, s object) { s["predicateType"] = "https://example.com/wrong-predicate/v1.0" }, refused},
		{"no-predicate", func(_, _, s object) { delete(s, "predicate") }, refused},
		{"no-subject", func(_, _, s object) { s["subject"] = []any{} }, refused},
		{"empty-resources", func(_, _, s object) { s["predicate"].(object)["resources"] = []any{} }, refused},
		{"missing-serialization", func(_, _, s object) { delete(s["predicate"].(object), "serialization") }, refused},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := request{"key", models["simple"].write(t), []string{"ignore-me"}}
			bundle := filepath.Join(t.TempDir(), "bundle.sig")
			r.sign(t, bundle, g)
			rewrite(t, bundle, func(b, e, s object) {
				tt.change(b, e, s)
				if signatures := e["signatures"].([]any); len(signatures) > 0 {
					payload := marshal(t, s)
					e["payload"] = payload
					signatures[0].(object)["sig"] = g.dsse(t, fmt.Sprint(e["payloadType"]), payload)
				}
			})
			if status, stderr := r.verify(t, bundle, g.verify("key")...); status != tt.want {
				t.Errorf("verify-model: status %d, want %d: %s", status, tt.want, stderr)
			}
		})
	}
}

// rewrite changes a bundle in place; change sees the bundle, its envelope and a copy of its statement.
func rewrite(t *testing.T, path string, change func(bundle, envelope, statement object)) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var typed bundle
	var b, s object
	unmarshal(t, data, &typed)
	unmarshal(t, data, &b)
	unmarshal(t, typed.DSSEEnvelope.Payload, &s)
	change(b, b["dsseEnvelope"].(object), s)
	put(t, path, string(marshal(t, b)))
}

// dsse signs a payload as DSSE wants it, whatever the payload says. The key is on P-384.
func (g group) dsse(t *testing.T, payloadType string, payload []byte) []byte {
	t.Helper()
	data, err := os.ReadFile(g.private)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha512.Sum384(fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(payload), payload))
	sig, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

func unmarshal(t *testing.T, data []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatal(err)
	}
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestSuiteBundles verifies bundles that the suite keeps, made by the Python and the Go implementation, and the same
// ones against other models. testdata/README says where they are from.
func TestSuiteBundles(t *testing.T) {
	key := []string{"--public-key", "testdata/signing-key-pub.pem"}
	other := keyGroup(t, elliptic.P384()).verify("key")
	ignored := []string{"ignore-me"}
	tests := []struct {
		bundle, model string
		ignore, flags []string
		want          int
	}{
		{"key-simple", "simple", ignored, key, done},
		{"key-simple", "simple", nil, key, done}, // its own ignore_paths has ignore-me
		{"key-simple", "simple", ignored, other, refused},
		{"key-simple", "with-nested-ignore", ignored, key, refused},
		{"key-simple-go", "simple", ignored, key, done},
		{"key-simple-go", "simple", nil, key, refused}, // its ignore_paths are of another directory
		{"key-simple-go", "simple", nil, append(slices.Clone(key), "--ignore-unsigned-files"), done},
		{"key-simple-go", "simple", ignored, other, refused},
		{"key-multi-file", "multi-file", nil, key, done},
		{"key-multi-file", "single-file", nil, key, refused},
		{"key-single-file", "single-file", nil, key, done},
		{"key-single-file", "single-file/model.bin", nil, key, done}, // section 6.1.2: a file goes by its base name
		{"key-single-file", "simple/signme-1", nil, key, refused},
		{"key-single-file", "simple", nil, key, refused},

		// Section 11: rawBytes for a hint, keyid null, no ignore_paths, and "." for the name of a file.
		{"v0.3.1-elliptic-key", "simple/signme-1", nil, key, done},
		{"v0.3.1-elliptic-key", "simple/signme-1", nil, other, refused},
		{"v0.3.1-elliptic-key", "simple/signme-2", nil, key, refused},
		{"v0.3.1-elliptic-key", "simple", nil, key, refused},
		{"v1.0.0-elliptic-key", "simple/signme-1", nil, key, done},
		{"v1.0.0-elliptic-key", "simple/signme-2", nil, key, refused},
		{"v1.0.1-elliptic-key", "simple", ignored, key, done},
		{"v1.0.1-elliptic-key", "simple", nil, key, refused}, // it has no ignore_paths yet
		{"v1.1.0-elliptic-key", "simple", ignored, key, done},
		{"v1.1.0-elliptic-key", "simple", nil, key, done},
		{"v1.1.0-elliptic-key", "simple", ignored, other, refused},
		{"v1.1.0-elliptic-key", "with-nested-ignore", ignored, key, refused},
	}
	for _, tt := range tests {
		t.Run(tt.bundle+"/"+tt.model, func(t *testing.T) {
			name, file, _ := strings.Cut(tt.model, "/")
			r := request{"key", filepath.Join(models[name].write(t), file), tt.ignore}
			if status, stderr := r.verify(t, filepath.Join("testdata", tt.bundle+".sig"), tt.flags...); status != tt.want {
				t.Errorf("verify-model %q: status %d, want %d: %s", tt.flags, status, tt.want, stderr)
			}
		})
	}
}

// TestDifferences pins where the suite expects another answer. Each case is signed as such bundles are, by hand, since
// sign-model makes none of them.
func TestDifferences(t *testing.T) {
	plain := func(object) {}
	tests := []struct {
		name   string
		leaf   func(*x509.Certificate)
		change func(statement object)
		says   string // "" if the bundle verifies
	}{
		{"a bundle made by hand", nil, plain, ""},
		// The leaf of historical-*-certificate is marked as a CA's, and may not sign certificates.
		{"historical-v1.1.0-certificate", func(c *x509.Certificate) { c.IsCA = true }, plain, ""},
		{"signed by an intermediate CA", func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, c.KeyUsage|x509.KeyUsageCertSign }, plain, "CA certificate"},
		// Sections 5.1, 10 and 11.2: verifiers MAY read the layout of v0.2.0.
		{"historical-v0.2.0-certificate", nil, func(s object) { s["predicateType"] = "https://model_signing/Digests/v0.1" }, "predicate type"},
		// The suite's own expectation, but it wants sign-model to make the bundle.
		{"certificate-no-code-signing-eku", func(c *x509.Certificate) { c.ExtKeyUsage = nil }, plain, "codeSigning"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			good, g := newChain(t, valid, valid, valid, nil), newChain(t, valid, valid, valid, tt.leaf)
			r := request{"certificate", models["simple"].write(t), []string{"ignore-me"}}
			bundle := filepath.Join(t.TempDir(), "bundle.sig")
			r.sign(t, bundle, good)
			rewrite(t, bundle, func(b, e, s object) {
				tt.change(s)
				payload := marshal(t, s)
				e["payload"] = payload
				e["signatures"].([]any)[0].(object)["sig"] = g.dsse(t, "application/vnd.in-toto+json", payload)
				var chain []object
				for _, file := range append([]string{g.cert}, g.chain...) {
					data, err := os.ReadFile(file)
					if err != nil {
						t.Fatal(err)
					}
					block, _ := pem.Decode(data)
					chain = append(chain, object{"rawBytes": block.Bytes})
				}
				b["verificationMaterial"].(object)["x509CertificateChain"] = object{"certificates": chain}
			})
			status, stderr := r.verify(t, bundle, g.verify("certificate")...)
			if want := map[bool]int{true: done, false: refused}[tt.says == ""]; status != want || !strings.Contains(stderr, tt.says) {
				t.Errorf("verify-model: status %d, want %d; says %q, want %q in it", status, want, stderr, tt.says)
			}
		})
	}
}
