package statement

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// VerifyChain returns nil if the statement was signed by a leaf that chains to one of the trusted certificates and
// was fit to sign at the given time. Self-signed trusted certificates are the roots; others only help to build the
// chain, so trusting an intermediate alone trusts nothing.
func (s *Signed) VerifyChain(trusted []*x509.Certificate, at time.Time) error {
	if at.IsZero() {
		return errors.New("verify chain: no time to verify it at")
	}
	opts, err := s.chainOptions(CodeSigning, trusted)
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

// VerifyChainEver is [Signed.VerifyChain] without a time, for any purpose: it returns the spans in which the chain is
// valid, in no order, and an error where there is none: one that is [ErrChain] unless the signature itself is wrong.
func (s *Signed) VerifyChainEver(purpose Purpose, trusted []*x509.Certificate) ([]Validity, error) {
	opts, err := s.chainOptions(purpose, trusted)
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
func (s *Signed) chainOptions(purpose Purpose, trusted []*x509.Certificate) (x509.VerifyOptions, error) {
	opts := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}}
	if purpose == SVID {
		opts.KeyUsages = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
	}
	if len(s.certificates) == 0 {
		return opts, errors.New("signed by a bare key, not under a certificate")
	}
	if err := purpose.Check(s.certificates[0]); err != nil {
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

// A Purpose is what a leaf certificate must be fit for.
type Purpose int

const (
	// CodeSigning is that of who signs by name (OMS v1.0 sections 4.1 and 8.2).
	CodeSigning Purpose = iota
	// SVID is that of a SPIFFE workload (X509-SVID sections 2 and 4).
	SVID
	// Keyless is that of who holds an [Account]: a certificate for code signing, issued for some minutes by Sigstore.
	Keyless
)

// PurposeOf returns Keyless for a certificate that names the issuer of an account, SVID for one that carries a SPIFFE ID,
// CodeSigning for any other.
func PurposeOf(leaf *x509.Certificate) Purpose {
	if isKeyless(leaf) {
		return Keyless
	}
	if slices.ContainsFunc(leaf.URIs, func(u *url.URL) bool { return strings.EqualFold(u.Scheme, "spiffe") }) {
		return SVID
	}
	return CodeSigning
}

// Check returns nil if the certificate may sign at all: for digital signatures, and not one that issues certificates; for
// code signing by name, or with one SPIFFE ID. What crypto/x509 lets pass when it is absent must be present here.
//
// For code signing, a certificate that says CA:TRUE without the right to sign certificates issues none (RFC 5280 section
// 4.2.1.9): leaves of that kind are about, and are leaves. A self-signed one is its own root and is taken only by who
// trusts just it.
func (p Purpose) Check(leaf *x509.Certificate) error {
	var errs []error
	if leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		errs = append(errs, errors.New("the leaf's key usage lacks digitalSignature"))
	}
	if p == SVID {
		if leaf.IsCA || leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0 {
			errs = append(errs, errors.New("the SVID is a CA certificate"))
		}
		if _, err := SPIFFEIDOf(leaf); err != nil {
			errs = append(errs, err)
		}
	} else {
		if leaf.IsCA && leaf.KeyUsage&x509.KeyUsageCertSign != 0 && !SelfSigned(leaf) {
			errs = append(errs, errors.New("the leaf is a CA certificate: it may sign certificates"))
		}
		if !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageCodeSigning) {
			errs = append(errs, errors.New("the leaf's extended key usage lacks codeSigning"))
		}
	}
	if p == Keyless {
		if _, err := AccountOf(leaf); err != nil {
			errs = append(errs, err)
		}
	}
	if _, err := hashFor(leaf.PublicKey); err != nil {
		errs = append(errs, fmt.Errorf("the leaf's key: %w", err))
	}
	return errors.Join(errs...)
}

// SPIFFEIDOf returns the one SPIFFE ID of an SVID: its only URI, and that of a workload, not of a trust domain.
func SPIFFEIDOf(c *x509.Certificate) (spiffeid.ID, error) {
	if len(c.URIs) != 1 {
		return spiffeid.ID{}, fmt.Errorf("the SVID has %d URIs, want exactly one", len(c.URIs))
	}
	id, err := spiffeid.FromURI(c.URIs[0])
	if err == nil && id.Path() == "" {
		err = errors.New("it is a trust domain's, not a workload's")
	}
	if err != nil {
		return spiffeid.ID{}, fmt.Errorf("the SVID's ID: %w", err)
	}
	return id, nil
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
