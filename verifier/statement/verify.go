package statement

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
)

// VerifyKey returns nil if pub, and the key that the bundle names if it names one, signed exactly this payload. A
// statement that was signed under a certificate is refused: its identity is not a bare key.
func (s *Signed) VerifyKey(pub crypto.PublicKey) error {
	if s.material != MaterialKey {
		return fmt.Errorf("%w: signed under a certificate, not by a bare key", ErrSignature)
	}
	if err := s.checkHint(pub); err != nil {
		return err
	}
	return s.verify(pub)
}

func (s *Signed) verify(pub crypto.PublicKey) error {
	hash, err := hashFor(pub)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	// DSSE section 2: the signature is over the pre-authentication encoding of type and payload.
	signed := dsse.PAE(PayloadType, s.payload)
	valid := false
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		// In DER alone, as every signer writes it: sigstore's verifier would take r and s side by side too.
		h := hash.New()
		h.Write(signed)
		valid = ecdsa.VerifyASN1(k, h.Sum(nil), s.signature)
	case ed25519.PublicKey:
		valid = ed25519.Verify(k, signed, s.signature)
	}
	if !valid {
		return ErrSignature
	}
	return nil
}

// VerifyChain returns nil if the statement was signed by a leaf that chains to one of the trusted certificates and
// was fit to sign at the given time. Self-signed trusted certificates are the roots; others only help to build the
// chain, so trusting an intermediate alone trusts nothing.
func (s *Signed) VerifyChain(trusted []*x509.Certificate, at time.Time) error {
	if at.IsZero() {
		return errors.New("verify chain: no time to verify it at")
	}
	opts, err := s.chainOptions(trusted)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	opts.CurrentTime = at
	if _, err := s.certificates[0].Verify(opts); err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	return s.verify(s.certificates[0].PublicKey)
}

// A Validity is a span of time, both ends included (RFC 5280 section 4.1.2.5).
type Validity struct{ NotBefore, NotAfter time.Time }

// Contains reports whether t is in the span.
func (v Validity) Contains(t time.Time) bool { return !t.Before(v.NotBefore) && !t.After(v.NotAfter) }

// VerifyChainEver is [Signed.VerifyChain] without a time: it returns the spans in which VerifyChain returns nil, in no
// order, and an error where there is none: one that is [ErrChain] unless the signature itself is wrong.
func (s *Signed) VerifyChainEver(trusted []*x509.Certificate) ([]Validity, error) {
	opts, err := s.chainOptions(trusted)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrChain, err)
	}
	leaf := s.certificates[0]
	if err := s.verify(leaf.PublicKey); err != nil {
		return nil, err
	}
	// A chain begins to be valid when the last of its certificates does, so trying each beginning finds every chain.
	var tried []time.Time
	var spans []Validity
	for _, c := range slices.Concat(s.certificates, trusted) {
		at := c.NotBefore
		if at.Before(leaf.NotBefore) || slices.ContainsFunc(tried, at.Equal) {
			continue
		}
		tried = append(tried, at)
		opts.CurrentTime = at
		chains, failed := leaf.Verify(opts)
		if failed != nil {
			err = failed
		}
		for _, chain := range chains {
			span := Validity{leaf.NotBefore, leaf.NotAfter}
			for _, c := range chain {
				if c.NotBefore.After(span.NotBefore) {
					span.NotBefore = c.NotBefore
				}
				if c.NotAfter.Before(span.NotAfter) {
					span.NotAfter = c.NotAfter
				}
			}
			if !slices.Contains(spans, span) {
				spans = append(spans, span)
			}
		}
	}
	if len(spans) == 0 {
		return nil, fmt.Errorf("%w: %w", ErrChain, err)
	}
	return spans, nil
}

// chainOptions is how the leaf's chain is verified, but for the time.
func (s *Signed) chainOptions(trusted []*x509.Certificate) (x509.VerifyOptions, error) {
	opts := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}}
	if len(s.certificates) == 0 {
		return opts, errors.New("signed by a bare key, not under a certificate")
	}
	if err := CheckLeaf(s.certificates[0]); err != nil {
		return opts, err
	}
	anchors := 0
	for _, c := range trusted {
		if SelfSigned(c) {
			opts.Roots.AddCert(c)
			anchors++
		} else {
			opts.Intermediates.AddCert(c)
		}
	}
	if anchors == 0 {
		return opts, fmt.Errorf("none of the %d trusted certificates is a self-signed root", len(trusted))
	}
	for _, c := range s.certificates[1:] {
		opts.Intermediates.AddCert(c)
	}
	return opts, nil
}

// CheckLeaf returns nil if the certificate may sign at all (OMS v1.0 sections 4.1 and 8.2): for digital signatures, for
// code signing by name, and not one that issues certificates. What crypto/x509 lets pass when it is absent must be
// present here.
//
// A certificate that says CA:TRUE without the right to sign certificates issues none (RFC 5280 section 4.2.1.9): leaves
// of that kind are about, and are leaves. A self-signed one is its own root and is taken only by who trusts just it.
func CheckLeaf(leaf *x509.Certificate) error {
	var errs []error
	if leaf.IsCA && leaf.KeyUsage&x509.KeyUsageCertSign != 0 && !SelfSigned(leaf) {
		errs = append(errs, errors.New("the leaf is a CA certificate: it may sign certificates"))
	}
	if leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		errs = append(errs, errors.New("the leaf's key usage lacks digitalSignature"))
	}
	if !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageCodeSigning) {
		errs = append(errs, errors.New("the leaf's extended key usage lacks codeSigning"))
	}
	if _, err := hashFor(leaf.PublicKey); err != nil {
		errs = append(errs, fmt.Errorf("the leaf's key: %w", err))
	}
	return errors.Join(errs...)
}

// SubjectOf returns the name of a certificate's subject in the form of RFC 2253, with every attribute that it has: unlike
// [pkix.Name.String] it can't be made to look like another name by saying an attribute twice.
func SubjectOf(c *x509.Certificate) (string, error) {
	var name pkix.RDNSequence
	if rest, err := asn1.Unmarshal(c.RawSubject, &name); err != nil || len(rest) > 0 {
		return "", fmt.Errorf("subject of certificate %s: not a name", c.SerialNumber)
	}
	return name.String(), nil
}

// SelfSigned reports whether a certificate is a root: signed by its own key under its own name.
func SelfSigned(c *x509.Certificate) bool {
	return bytes.Equal(c.RawSubject, c.RawIssuer) && c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}
