package statement

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/x509"
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
	if len(s.certificates) == 0 {
		return fmt.Errorf("%w: signed by a bare key, not under a certificate", ErrSignature)
	}
	if at.IsZero() {
		return errors.New("verify chain: no time to verify it at")
	}
	leaf := s.certificates[0]
	if err := CheckLeaf(leaf); err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	roots, helpers := x509.NewCertPool(), x509.NewCertPool()
	anchors := 0
	for _, c := range trusted {
		if selfSigned(c) {
			roots.AddCert(c)
			anchors++
		} else {
			helpers.AddCert(c)
		}
	}
	if anchors == 0 {
		return fmt.Errorf("%w: none of the %d trusted certificates is a self-signed root", ErrSignature, len(trusted))
	}
	for _, c := range s.certificates[1:] {
		helpers.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: helpers,
		CurrentTime:   at,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	return s.verify(leaf.PublicKey)
}

// CheckLeaf returns nil if the certificate may sign at all (OMS v1.0 sections 4.1 and 8.2): for digital signatures, for
// code signing by name, and not one that issues certificates. What crypto/x509 lets pass when it is absent must be
// present here.
//
// A certificate that says CA:TRUE without the right to sign certificates issues none (RFC 5280 section 4.2.1.9): leaves
// of that kind are about, and are leaves. A self-signed one is its own root and is taken only by who trusts just it.
func CheckLeaf(leaf *x509.Certificate) error {
	var errs []error
	if leaf.IsCA && leaf.KeyUsage&x509.KeyUsageCertSign != 0 && !selfSigned(leaf) {
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

func selfSigned(c *x509.Certificate) bool {
	return bytes.Equal(c.RawSubject, c.RawIssuer) && c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}
