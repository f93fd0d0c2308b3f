package statement_test

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"encoding/hex"
	"testing"
	"time"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/weighbridge/weighbridge/verifier/statement"
)

// TestSigstoreReadsOurBundles holds our bundles against the reference implementation of the format.
func TestSigstoreReadsOurBundles(t *testing.T) {
	key, stranger := newKey(t, elliptic.P256()), newKey(t, elliptic.P256())
	line := sign(t, key, newPayload(t))
	var b bundle.Bundle
	if err := b.UnmarshalJSON(bytes.TrimSpace(line)); err != nil {
		t.Fatalf("sigstore-go reads the bundle: %v", err)
	}
	s, err := statement.Parse(line)
	if err != nil {
		t.Fatal(err)
	}
	_, subject := s.Subject()
	sum, err := hex.DecodeString(subject)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		by   crypto.Signer
		ok   bool
	}{{"signer", key, true}, {"stranger", stranger, false}} {
		v, err := signature.LoadVerifier(tt.by.Public(), crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		material := root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) {
			return root.NewExpiringKey(v, time.Time{}, time.Time{}), nil
		})
		verifier, err := verify.NewVerifier(material, verify.WithNoObserverTimestamps())
		if err != nil {
			t.Fatal(err)
		}
		_, err = verifier.Verify(&b, verify.NewPolicy(verify.WithArtifactDigest("sha256", sum), verify.WithKey()))
		if (err == nil) != tt.ok {
			t.Errorf("sigstore-go verifies with the %s's key: %v, want accepted %v", tt.name, err, tt.ok)
		}
	}
}
