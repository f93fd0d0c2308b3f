package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/digitorus/timestamp"

	"github.com/weighbridge/weighbridge/verifier/statement"
)

// newAuthority makes a self-signed RFC 3161 root and an authority under it; it returns the root's file and a function
// that stamps data.
func newAuthority(t *testing.T) (root string, stamp func(data []byte, at time.Time) []byte) {
	t.Helper()
	issue := func(key, by *ecdsa.PrivateKey, c, parent *x509.Certificate) *x509.Certificate {
		c.NotBefore, c.NotAfter, c.BasicConstraintsValid = time.Now().Add(-96*time.Hour), time.Now().Add(time.Hour), true
		der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), by)
		if err != nil {
			t.Fatal(err)
		}
		made, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	dir := t.TempDir()
	rootKey, key := writeKey(t, dir, "root", elliptic.P256()), writeKey(t, dir, "tsa", elliptic.P256())
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "time root"}, IsCA: true, KeyUsage: x509.KeyUsageCertSign}
	ca := issue(rootKey, rootKey, template, template)
	purpose, err := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}})
	if err != nil {
		t.Fatal(err)
	}
	tsa := issue(key, rootKey, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "time"}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: purpose}},
	}, ca)
	root = filepath.Join(dir, "time-root.crt")
	writeTestFile(t, root, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw})))
	return root, func(data []byte, at time.Time) []byte {
		sum := sha256.Sum256(data)
		ts := timestamp.Timestamp{
			HashAlgorithm: crypto.SHA256, HashedMessage: sum[:], Time: at, SerialNumber: big.NewInt(3),
			Policy: asn1.ObjectIdentifier{1, 2, 3}, AddTSACertificate: true,
		}
		response, err := ts.CreateResponseWithOpts(tsa, key, crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		return response
	}
}

// A leaf that has expired since still counts if a trusted authority stamped the signature while it was valid, and only then.
func TestModelVerifyTimestamp(t *testing.T) {
	ca := newTestCA(t, time.Now().Add(-time.Hour))
	root, stamp := newAuthority(t)
	model, sig := newModel(t), filepath.Join(t.TempDir(), "model.sig")
	if status, _, stderr := runModel(t, "model", "sign", model, "--signature", sig, "--private-key", ca.file("leaf.key"),
		"--signing-certificate", ca.file("leaf.crt"), "--certificate-chain", ca.file("mid.crt")); status != exitDone {
		t.Fatal(stderr)
	}
	bundle, err := os.ReadFile(sig)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := statement.Parse(bundle)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name     string
		response []byte
		root     string
		status   int
	}{
		{"while it was valid", stamp(signed.Signature(), time.Now().Add(-2*time.Hour)), root, exitDone},
		{"after it expired", stamp(signed.Signature(), time.Now().Add(-time.Minute)), root, exitRefused},
		{"before it was valid", stamp(signed.Signature(), time.Now().Add(-72*time.Hour)), root, exitRefused},
		{"over other bytes", stamp(signed.Payload(), time.Now().Add(-2*time.Hour)), root, exitRefused},
		{"by a stranger", stamp(signed.Signature(), time.Now().Add(-2*time.Hour)), ca.file("root.crt"), exitRefused},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			data := `"timestampVerificationData":{"rfc3161Timestamps":[{"signedTimestamp":"` + base64.StdEncoding.EncodeToString(tt.response) + `"}]},"tlogEntries"`
			stamped := filepath.Join(t.TempDir(), "stamped.sig")
			writeTestFile(t, stamped, string(bytes.Replace(bundle, []byte(`"tlogEntries"`), []byte(data), 1)))
			status, _, stderr := runModel(t, "model", "verify", model, "--signature", stamped, "--certificate-chain", ca.file("root.crt"),
				"--verification-time", "timestamp", "--timestamp-authority", tt.root)
			if status != tt.status {
				t.Errorf("status %d, want %d: %s", status, tt.status, stderr)
			}
			// The stamp itself changes nothing for who asks about now.
			if status, _, stderr := runModel(t, "model", "verify", model, "--signature", stamped, "--certificate-chain", ca.file("root.crt")); status != exitRefused || !strings.Contains(stderr, "expired") {
				t.Errorf("now: status %d: %s", status, stderr)
			}
		})
	}
}
