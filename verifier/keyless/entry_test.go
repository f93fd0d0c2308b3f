package keyless_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"os"
	"testing"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"

	"github.com/weighbridge/weighbridge/verifier/keyless"
	"github.com/weighbridge/weighbridge/verifier/keyless/keylesstest"
	"github.com/weighbridge/weighbridge/verifier/statement"
)

// TestPlainEntry: a log of version 1 may hold a statement by the hash of what its signature is over, with each kind of key;
// then one thing broken per row.
func TestPlainEntry(t *testing.T) {
	instance := keylesstest.New(t)
	v, err := keyless.New(instance.TrustedRoot())
	if err != nil {
		t.Fatal(err)
	}
	text := payload(t, "approved")
	plain := func(change func(*keylesstest.Signing)) keylesstest.Signing {
		return signing(func(s *keylesstest.Signing) {
			s.Plain = true
			if change != nil {
				change(s)
			}
		})
	}
	on := func(curve elliptic.Curve) *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	// material is of another bundle, whose signature is by the same key.
	material := func(payload []byte, s keylesstest.Signing) *protobundle.VerificationMaterial {
		var of *protobundle.VerificationMaterial
		s.Broken = func(b *protobundle.Bundle) { of = b.GetVerificationMaterial() }
		instance.Sign(payload, s)
		return of
	}
	broken := func(change func(*protobundle.VerificationMaterial)) keylesstest.Signing {
		return plain(func(s *keylesstest.Signing) {
			s.Broken = func(b *protobundle.Bundle) { change(b.GetVerificationMaterial()) }
		})
	}
	for _, tt := range []struct {
		name string
		s    keylesstest.Signing
		want error
	}{
		{"P-256", plain(nil), nil},
		{"P-384", plain(func(s *keylesstest.Signing) { s.Key = on(elliptic.P384()) }), nil},
		{"P-521", plain(func(s *keylesstest.Signing) { s.Key = on(elliptic.P521()) }), nil},
		{"without the log's time", plain(func(s *keylesstest.Signing) { s.Without = []keylesstest.Part{keylesstest.Promise} }), nil},

		{"without a time", plain(func(s *keylesstest.Signing) {
			s.Without = []keylesstest.Part{keylesstest.Promise, keylesstest.Timestamp}
		}), statement.ErrChain},
		{"certificate that is in no log", plain(func(s *keylesstest.Signing) { s.Without = []keylesstest.Part{keylesstest.SCT} }), statement.ErrChain},
		{"without a proof", broken(func(m *protobundle.VerificationMaterial) { m.TlogEntries[0].InclusionProof = nil }), statement.ErrChain},
		{"entry of another signature", broken(func(m *protobundle.VerificationMaterial) {
			m.TlogEntries = material(text, plain(nil)).GetTlogEntries()
		}), statement.ErrChain},
		{"entry of another statement", broken(func(m *protobundle.VerificationMaterial) {
			m.TlogEntries = material(payload(t, "another"), plain(nil)).GetTlogEntries()
		}), statement.ErrChain},
		{"entry with an envelope, of another statement, besides", broken(func(m *protobundle.VerificationMaterial) {
			m.TlogEntries = append(m.TlogEntries, material(payload(t, "another"), signing(nil)).GetTlogEntries()...)
		}), statement.ErrChain},
		{"altered", plain(func(s *keylesstest.Signing) {
			s.Broken = func(b *protobundle.Bundle) { b.GetDsseEnvelope().Payload = payload(t, "altered") }
		}), statement.ErrSignature},
	} {
		t.Run(tt.name, func(t *testing.T) {
			at, err := v.Verify(instance.Signed(text, tt.s), carol)
			if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) || err == nil && !at.Equal(now) {
				t.Errorf("Verify = %s, %v, want %s, %v", at, err, now, tt.want)
			}
		})
	}
	if _, err := v.Verify(instance.Signed(text, plain(nil)), flow); !errors.Is(err, statement.ErrChain) {
		t.Errorf("Verify by another account = %v, want %v", err, statement.ErrChain)
	}
}

// TestProduction verifies what a workflow signed at the production instance. testdata/README says where it is from.
func TestProduction(t *testing.T) {
	read := func(name string) []byte {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	verifier := func(instance string) *keyless.Verifier {
		v, err := keyless.New(read("../../configs/sigstore/" + instance + "/trusted_root.json"))
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	signed, err := statement.Parse(read("testdata/workflow.sigstore.json"))
	if err != nil {
		t.Fatal(err)
	}
	const beacon = "https://github.com/sigstore-conformance/extremely-dangerous-public-oidc-beacon/.github/workflows/extremely-dangerous-oidc-beacon.yml@refs/heads/"
	actions := statement.Account{Issuer: "https://token.actions.githubusercontent.com", Subject: beacon + "main"}
	at, err := verifier("production").Verify(signed, actions)
	if want := time.Date(2026, 5, 13, 19, 47, 33, 0, time.UTC); err != nil || !at.Equal(want) {
		t.Errorf("Verify = %s, %v, want %s", at, err, want)
	}
	for _, other := range []statement.Account{{Issuer: actions.Issuer, Subject: beacon + "dev"}, {Issuer: carol.Issuer, Subject: actions.Subject}} {
		if _, err := verifier("production").Verify(signed, other); !errors.Is(err, statement.ErrChain) {
			t.Errorf("Verify by %s = %v, want %v", other, err, statement.ErrChain)
		}
	}
	if _, err := verifier("staging").Verify(signed, actions); !errors.Is(err, statement.ErrChain) {
		t.Errorf("Verify by staging = %v, want %v", err, statement.ErrChain)
	}
}
