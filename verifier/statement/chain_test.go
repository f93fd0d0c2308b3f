package statement_test

import (
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/verifier/statement"
)

var (
	day  = 24 * time.Hour
	noon = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
)

// issue makes a certificate, self-signed if parent is nil.
func issue(t *testing.T, name string, key crypto.Signer, parent *x509.Certificate, by crypto.Signer, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(noon.UnixNano() % 1e9),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    noon.Add(-day), NotAfter: noon.Add(day),
		BasicConstraintsValid: true,
	}
	change(c)
	if parent == nil {
		parent, by = c, key
	}
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

func authority(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign }

func codeSigner(c *x509.Certificate) {
	c.KeyUsage = x509.KeyUsageDigitalSignature
	c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
}

func TestVerifyChain(t *testing.T) {
	rootKey, intKey, leafKey, otherKey := newKey(t, elliptic.P256()), newKey(t, elliptic.P256()), newKey(t, elliptic.P384()), newKey(t, elliptic.P256())
	root := issue(t, "root", rootKey, nil, nil, authority)
	other := issue(t, "root", otherKey, nil, nil, authority)
	mid := issue(t, "intermediate", intKey, root, rootKey, authority)
	leaf := issue(t, "leaf", leafKey, mid, intKey, codeSigner)
	oldMid := issue(t, "intermediate", intKey, root, rootKey, func(c *x509.Certificate) {
		authority(c)
		c.NotAfter = noon.Add(-time.Hour)
	})
	signer, err := statement.NewChainSigner(leafKey, []*x509.Certificate{leaf, mid})
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := signer.Sign(newPayload(t))
	if err != nil {
		t.Fatal(err)
	}
	alone, err := statement.NewChainSigner(leafKey, []*x509.Certificate{leaf})
	if err != nil {
		t.Fatal(err)
	}
	short, err := alone.Sign(newPayload(t))
	if err != nil {
		t.Fatal(err)
	}
	changed := withPayload(bundle, []byte(string(newPayload(t))[:len(newPayload(t))-1]+" }"))
	tests := []struct {
		name    string
		bundle  []byte
		trusted []*x509.Certificate
		at      time.Time
		ok      bool
	}{
		{"whole chain", bundle, []*x509.Certificate{root}, noon, true},
		{"intermediate held by the verifier", short, []*x509.Certificate{root, mid}, noon, true},
		{"nothing trusted", bundle, nil, noon, false},
		{"another root of that name", bundle, []*x509.Certificate{other}, noon, false},
		{"only the intermediate is trusted", bundle, []*x509.Certificate{mid}, noon, false},
		{"only the leaf is trusted", bundle, []*x509.Certificate{leaf}, noon, false},
		{"intermediate missing", short, []*x509.Certificate{root}, noon, false},
		{"intermediate expired", short, []*x509.Certificate{root, oldMid}, noon, false},
		{"before its validity", bundle, []*x509.Certificate{root}, noon.Add(-2 * day), false},
		{"after its validity", bundle, []*x509.Certificate{root}, noon.Add(2 * day), false},
		{"no time", bundle, []*x509.Certificate{root}, time.Time{}, false},
		{"payload changed", changed, []*x509.Certificate{root}, noon, false},
		{"signed by a key", sign(t, leafKey, newPayload(t)), []*x509.Certificate{root}, noon, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := statement.Parse(tt.bundle)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.VerifyChain(tt.trusted, tt.at); (err == nil) != tt.ok {
				t.Errorf("VerifyChain = %v, want accepted %v", err, tt.ok)
			}
		})
	}
	s, err := statement.Parse(bundle)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.VerifyKey(leafKey.Public()); !errors.Is(err, statement.ErrSignature) {
		t.Errorf("VerifyKey(leaf's key) = %v, want %v: a chain is not a bare key", err, statement.ErrSignature)
	}
}

func TestCheckLeaf(t *testing.T) {
	rootKey, key := newKey(t, elliptic.P256()), newKey(t, elliptic.P256())
	root := issue(t, "root", rootKey, nil, nil, authority)
	tests := []struct {
		name   string
		change func(*x509.Certificate)
		ok     bool
	}{
		{"code signer", codeSigner, true},
		{"marked as a CA that issues nothing", func(c *x509.Certificate) { codeSigner(c); c.IsCA = true }, true},
		{"CA", func(c *x509.Certificate) {
			codeSigner(c)
			c.IsCA, c.KeyUsage = true, c.KeyUsage|x509.KeyUsageCertSign
		}, false},
		{"key agreement only", func(c *x509.Certificate) { codeSigner(c); c.KeyUsage = x509.KeyUsageKeyAgreement }, false},
		{"no key usage", func(c *x509.Certificate) { codeSigner(c); c.KeyUsage = 0 }, false},
		{"no extended key usage", func(c *x509.Certificate) { codeSigner(c); c.ExtKeyUsage = nil }, false},
		{"server certificate", func(c *x509.Certificate) {
			codeSigner(c)
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}, false},
		{"any purpose", func(c *x509.Certificate) {
			codeSigner(c)
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
		}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			leaf := issue(t, "leaf", key, root, rootKey, tt.change)
			if err := statement.CheckLeaf(leaf); (err == nil) != tt.ok {
				t.Errorf("CheckLeaf = %v, want accepted %v", err, tt.ok)
			}
			if _, err := statement.NewChainSigner(key, []*x509.Certificate{leaf}); (err == nil) != tt.ok {
				t.Errorf("NewChainSigner = %v, want accepted %v", err, tt.ok)
			}
		})
	}
	self := issue(t, "self", key, nil, nil, func(c *x509.Certificate) {
		codeSigner(c)
		c.IsCA, c.KeyUsage = true, c.KeyUsage|x509.KeyUsageCertSign
	})
	if err := statement.CheckLeaf(self); err != nil {
		t.Errorf("CheckLeaf(a root that signs for itself) = %v, want nil", err)
	}
	if _, err := statement.NewChainSigner(newKey(t, elliptic.P256()), []*x509.Certificate{issue(t, "leaf", key, nil, nil, codeSigner)}); err == nil {
		t.Error("NewChainSigner(another key) = nil, want an error")
	}
}
