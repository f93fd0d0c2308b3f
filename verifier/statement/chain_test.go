package statement_test

import (
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net/url"
	"slices"
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

// TestVerifyChainEver holds the spans against VerifyChain at times in, between and around them.
func TestVerifyChainEver(t *testing.T) {
	rootKey, midKey, leafKey := newKey(t, elliptic.P256()), newKey(t, elliptic.P256()), newKey(t, elliptic.P256())
	from := func(from, to time.Duration, kind func(*x509.Certificate)) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			kind(c)
			c.NotBefore, c.NotAfter = noon.Add(from), noon.Add(to)
		}
	}
	root := issue(t, "root", rootKey, nil, nil, from(-10*day, 10*day, authority))
	first := issue(t, "mid", midKey, root, rootKey, from(-9*day, -2*day, authority))
	second := issue(t, "mid", midKey, root, rootKey, from(2*day, 9*day, authority))
	leaf := issue(t, "leaf", leafKey, first, midKey, from(-5*day, 5*day, codeSigner))
	signer, err := statement.NewChainSigner(leafKey, []*x509.Certificate{leaf, first})
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := signer.Sign(newPayload(t))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name    string
		bundle  []byte
		trusted []*x509.Certificate
		err     error
	}{
		{"one span", bundle, []*x509.Certificate{root}, nil},
		{"two spans", bundle, []*x509.Certificate{root, second}, nil},
		{"another root", bundle, []*x509.Certificate{issue(t, "root", midKey, nil, nil, authority)}, statement.ErrChain},
		{"no root", bundle, []*x509.Certificate{second}, statement.ErrChain},
		{"altered", withPayload(bundle, []byte(string(newPayload(t))[:len(newPayload(t))-1]+" }")), []*x509.Certificate{root}, statement.ErrSignature},
		{"signed by a key", sign(t, leafKey, newPayload(t)), []*x509.Certificate{root}, statement.ErrChain},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := statement.Parse(tt.bundle)
			if err != nil {
				t.Fatal(err)
			}
			spans, err := s.VerifyChainEver(statement.CodeSigning, tt.trusted)
			if !errors.Is(err, tt.err) || (err == nil) != (len(spans) > 0) {
				t.Fatalf("VerifyChainEver = %v, %v, want %v", spans, err, tt.err)
			}
			for hours := -12 * 24; hours <= 12*24; hours += 3 {
				at := noon.Add(time.Duration(hours) * time.Hour)
				in := slices.ContainsFunc(spans, func(v statement.Validity) bool { return v.Contains(at) })
				if want := s.VerifyChain(tt.trusted, at) == nil; in != want {
					t.Errorf("%s is in %v: %v, want %v", at, spans, in, want)
				}
			}
		})
	}
}

func TestSVID(t *testing.T) {
	rootKey, key := newKey(t, elliptic.P256()), newKey(t, elliptic.P256())
	root := issue(t, "root", rootKey, nil, nil, authority)
	id := func(text string) *url.URL {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	svid := func(c *x509.Certificate) {
		c.KeyUsage, c.URIs = x509.KeyUsageDigitalSignature, []*url.URL{id("spiffe://bank.example/apps/signer")}
	}
	tests := []struct {
		name   string
		change func(*x509.Certificate)
		ok     bool
	}{
		{"SVID", svid, true},
		{"with the purposes of TLS", func(c *x509.Certificate) {
			svid(c)
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
		}, true},
		{"CA", func(c *x509.Certificate) { svid(c); c.IsCA = true }, false},
		{"may sign certificates", func(c *x509.Certificate) { svid(c); c.KeyUsage |= x509.KeyUsageCertSign }, false},
		{"may sign revocations", func(c *x509.Certificate) { svid(c); c.KeyUsage |= x509.KeyUsageCRLSign }, false},
		{"no signatures", func(c *x509.Certificate) { svid(c); c.KeyUsage = x509.KeyUsageKeyAgreement }, false},
		{"two IDs", func(c *x509.Certificate) { svid(c); c.URIs = append(c.URIs, id("spiffe://bank.example/admin")) }, false},
		{"an ID and another URI", func(c *x509.Certificate) { svid(c); c.URIs = append(c.URIs, id("https://bank.example/")) }, false},
		{"a trust domain", func(c *x509.Certificate) { svid(c); c.URIs = []*url.URL{id("spiffe://bank.example")} }, false},
		{"not an ID", func(c *x509.Certificate) { svid(c); c.URIs = []*url.URL{id("spiffe://bank.example/a//b")} }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			leaf := issue(t, "", key, root, rootKey, tt.change)
			if got := statement.PurposeOf(leaf); got != statement.SVID {
				t.Errorf("PurposeOf = %v, want %v", got, statement.SVID)
			}
			signer, err := statement.NewChainSigner(key, []*x509.Certificate{leaf})
			if (err == nil) != tt.ok || (statement.SVID.Check(leaf) == nil) != tt.ok {
				t.Fatalf("NewChainSigner = %v, want accepted %v", err, tt.ok)
			}
			if !tt.ok {
				return
			}
			bundle, err := signer.Sign(newPayload(t))
			if err != nil {
				t.Fatal(err)
			}
			s, err := statement.Parse(bundle)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.VerifyChainEver(statement.SVID, []*x509.Certificate{root}); err != nil {
				t.Errorf("VerifyChainEver = %v, want nil", err)
			}
			if err := s.VerifyChain([]*x509.Certificate{root}, noon); !errors.Is(err, statement.ErrSignature) {
				t.Errorf("VerifyChain = %v, want %v: weights are signed by code signers", err, statement.ErrSignature)
			}
		})
	}
}

func TestSubjectOf(t *testing.T) {
	key := newKey(t, elliptic.P256())
	name := func(values ...string) (all pkix.Name) {
		for _, v := range values {
			all.ExtraNames = append(all.ExtraNames, pkix.AttributeTypeAndValue{Type: []int{2, 5, 4, 3}, Value: v})
		}
		return all
	}
	for want, subject := range map[string]pkix.Name{
		"CN=Dora,OU=Risk,O=Bank": {CommonName: "Dora", OrganizationalUnit: []string{"Risk"}, Organization: []string{"Bank"}},
		`CN=Dora\,O=Bank`:        {CommonName: "Dora,O=Bank"},
		"CN=Dora,CN=mallory":     name("mallory", "Dora"),
		"":                       {},
	} {
		c := issue(t, "", key, nil, nil, func(c *x509.Certificate) { codeSigner(c); c.Subject = subject })
		if got, err := statement.SubjectOf(c); err != nil || got != want {
			t.Errorf("SubjectOf = %q, %v, want %q", got, err, want)
		}
	}
}

func TestCodeSigning(t *testing.T) {
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
			if err := statement.CodeSigning.Check(leaf); (err == nil) != tt.ok {
				t.Errorf("Check = %v, want accepted %v", err, tt.ok)
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
	if err := statement.CodeSigning.Check(self); err != nil {
		t.Errorf("Check(a root that signs for itself) = %v, want nil", err)
	}
	if _, err := statement.NewChainSigner(newKey(t, elliptic.P256()), []*x509.Certificate{issue(t, "leaf", key, nil, nil, codeSigner)}); err == nil {
		t.Error("NewChainSigner(another key) = nil, want an error")
	}
}
