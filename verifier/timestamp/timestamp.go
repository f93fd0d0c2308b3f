// Package timestamp says when something was signed, by the word of a trusted authority.
//
// The one rule: a time counts only if an RFC 3161 authority that the caller trusts put it on exactly this signature.
// The time that a bundle, a certificate or this machine claims is no evidence.
//
// The package does no I/O, has no network and no clock: responses and certificates are handed to it.
package timestamp

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/sigstore/timestamp-authority/v2/pkg/verification"
)

// ErrNoTime means that no response proves a time: get the signature stamped by an authority that is trusted, or
// verify at another time.
var ErrNoTime = errors.New("no trusted timestamp")

// Verify returns the earliest time that a trusted authority put on the signature. Self-signed certificates are the
// roots; others help to build the chain, or are the authority's own where a response does not bring it.
func Verify(responses [][]byte, signature []byte, trusted []*x509.Certificate) (time.Time, error) {
	if len(responses) == 0 {
		return time.Time{}, fmt.Errorf("%w: the bundle holds none", ErrNoTime)
	}
	opts, authorities := sortOut(trusted)
	if len(opts.Roots) == 0 {
		return time.Time{}, fmt.Errorf("%w: none of the %d certificates given for authorities is a self-signed root", ErrNoTime, len(trusted))
	}
	var earliest time.Time
	var errs []error
	for i, r := range responses {
		at, err := verify(r, signature, opts, authorities)
		if err != nil {
			errs = append(errs, fmt.Errorf("timestamp %d: %w", i+1, err))
			continue
		}
		if earliest.IsZero() || at.Before(earliest) {
			earliest = at
		}
	}
	if earliest.IsZero() {
		return time.Time{}, fmt.Errorf("%w: %w", ErrNoTime, errors.Join(errs...))
	}
	return earliest, nil
}

func sortOut(trusted []*x509.Certificate) (opts verification.VerifyOpts, authorities []*x509.Certificate) {
	for _, c := range trusted {
		switch {
		case bytes.Equal(c.RawSubject, c.RawIssuer) && c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil:
			opts.Roots = append(opts.Roots, c)
		case c.IsCA:
			opts.Intermediates = append(opts.Intermediates, c)
		default:
			authorities = append(authorities, c)
		}
	}
	return opts, authorities
}

// verify checks one response: its signature, the authority's chain and purpose at the stamped time, and that it was
// made over this signature (RFC 3161 section 2.4.2).
func verify(response, signature []byte, opts verification.VerifyOpts, authorities []*x509.Certificate) (time.Time, error) {
	ts, err := verification.VerifyTimestampResponse(response, bytes.NewReader(signature), opts)
	for _, c := range authorities {
		if err == nil {
			break
		}
		opts.TSACertificate = c
		ts, err = verification.VerifyTimestampResponse(response, bytes.NewReader(signature), opts)
	}
	if err != nil {
		return time.Time{}, err
	}
	return ts.Time, nil
}
