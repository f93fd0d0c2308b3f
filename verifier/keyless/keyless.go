// Package keyless verifies what was signed under the short-lived certificates of a Sigstore instance.
//
// The one rule: all that is believed is in the trusted root that a [Verifier] is made from. It asks no network, no TUF
// repository and no clock, so the same bundle gets the same verdict everywhere and for ever. What the bundle itself does
// not bring, log entry and time included, is missing.
//
// It stands outside of the trust core, which must import neither HTTP nor gRPC: Sigstore's library brings both.
package keyless

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/weighbridge/weighbridge/verifier/statement"
)

// A Verifier verifies bundles by one trusted root. It is immutable and may be used concurrently.
type Verifier struct {
	root     *root.TrustedRoot
	sigstore *verify.Verifier
}

// New makes a verifier from the JSON of a trusted root, such as trusted_root.json of the public instance.
func New(trustedRoot []byte) (*Verifier, error) {
	material, err := readRoot(trustedRoot)
	if err != nil {
		return nil, fmt.Errorf("read trusted root: %w", err)
	}
	var missing []error
	for _, need := range []struct {
		what string
		n    int
	}{
		{"certificate authority", len(material.FulcioCertificateAuthorities())},
		{"certificate transparency log", len(material.CTLogs())},
		{"transparency log", len(material.RekorLogs())},
	} {
		if need.n == 0 {
			missing = append(missing, fmt.Errorf("it names no %s, so nothing could ever verify", need.what))
		}
	}
	if err := errors.Join(missing...); err != nil {
		return nil, fmt.Errorf("read trusted root: %w", err)
	}
	// The time may be an authority's or the log's: Rekor v2 gives none. It is never the clock's.
	v, err := verify.NewVerifier(material, verify.WithSignedCertificateTimestamps(1), verify.WithTransparencyLog(1),
		verify.WithObserverTimestamps(1), verify.WithoutStatementPredicate())
	if err != nil {
		return nil, fmt.Errorf("make keyless verifier: %w", err)
	}
	return &Verifier{material, v}, nil
}

// Verify returns when the holder of the account signed the statement: the earliest time that an authority or a log of the
// trusted root vouches for. An error is [statement.ErrSignature] if the signature itself is wrong, [statement.ErrChain] if
// the instance does not stand behind it.
func (v *Verifier) Verify(s *statement.Signed, by statement.Account) (time.Time, error) {
	// The trusted root holds every authority there is, so a bundle brings the leaf alone (bundle v0.3).
	if s.Material() != statement.MaterialCertificate {
		return time.Time{}, fmt.Errorf("%w: the bundle does not hold one certificate", statement.ErrChain)
	}
	leaf := s.Certificates()[0]
	if err := statement.Keyless.Check(leaf); err != nil {
		return time.Time{}, fmt.Errorf("%w: %w", statement.ErrChain, err)
	}
	account, err := statement.AccountOf(leaf)
	if err != nil {
		return time.Time{}, fmt.Errorf("%w: %w", statement.ErrChain, err)
	}
	if account != by {
		return time.Time{}, fmt.Errorf("%w: it was issued to %s, want %s", statement.ErrChain, account, by)
	}
	if err := s.VerifyLeaf(); err != nil {
		return time.Time{}, err
	}
	at, err := v.verify(s, by)
	if err != nil {
		return time.Time{}, fmt.Errorf("%w: %w", statement.ErrChain, err)
	}
	return at, nil
}

// verify hands the bundle to Sigstore's own library.
func (v *Verifier) verify(s *statement.Signed, by statement.Account) (time.Time, error) {
	b, signed, err := read(s)
	if err != nil {
		return time.Time{}, err
	}
	who, err := verify.NewShortCertificateIdentity(by.Issuer, "", by.Subject, "")
	if err != nil {
		return time.Time{}, err
	}
	result, err := v.sigstore.Verify(b, verify.NewPolicy(signed, verify.WithCertificateIdentity(who)))
	if err != nil {
		return time.Time{}, oneLine(err)
	}
	var earliest time.Time
	for _, t := range result.VerifiedTimestamps {
		if earliest.IsZero() || t.Timestamp.Before(earliest) {
			earliest = t.Timestamp.UTC()
		}
	}
	if earliest.IsZero() {
		return time.Time{}, errors.New("no trusted time")
	}
	if err := v.checkTimes(s, b.GetVerificationMaterial().GetTlogEntries(), earliest); err != nil {
		return time.Time{}, err
	}
	return earliest, nil
}

// oneLine makes a reason of the library's error, whose text may run over lines and end in a cause that is none.
func oneLine(err error) error {
	text := strings.ReplaceAll(err.Error(), "; error: %!w(<nil>)", "")
	return errors.New(strings.Join(strings.Fields(text), " "))
}

// read reads the bundle anew, as the library does, and makes sure that it says what was parsed before: what is verified
// must be what counts. It also returns by what the library is to recognize what was signed.
func read(s *statement.Signed) (*bundle.Bundle, verify.ArtifactPolicyOption, error) {
	raw := &protobundle.Bundle{}
	if err := protojson.Unmarshal(s.Bundle(), raw); err != nil {
		return nil, nil, fmt.Errorf("read bundle: %w", err)
	}
	e := raw.GetDsseEnvelope()
	if e.GetPayloadType() != statement.PayloadType || !bytes.Equal(e.GetPayload(), s.Payload()) ||
		len(e.GetSignatures()) != 1 || !bytes.Equal(e.GetSignatures()[0].GetSig(), s.Signature()) ||
		!bytes.Equal(raw.GetVerificationMaterial().GetCertificate().GetRawBytes(), s.Certificates()[0].Raw) {
		return nil, nil, errors.New("the bundle can be read in two ways")
	}
	for _, entry := range raw.GetVerificationMaterial().GetTlogEntries() {
		if err := checkKind(entry); err != nil {
			return nil, nil, err
		}
	}
	signed := asMessage(raw, s)
	if signed == nil {
		_, subject := s.Subject()
		sum, err := hex.DecodeString(subject)
		if err != nil {
			return nil, nil, err
		}
		signed = verify.WithArtifactDigest("sha256", sum)
	}
	b, err := bundle.NewBundle(raw)
	if err != nil {
		return nil, nil, fmt.Errorf("read bundle: %w", err)
	}
	return b, signed, nil
}
