// Package statement signs and verifies statements.
//
// The one rule: every statement, whether about weights, a release or a policy, is an in-toto Statement v1 in a DSSE
// envelope with exactly one signature in a Sigstore bundle v0.3, and there is one way to verify it. [Parse] makes
// a [Signed] whose signature is not yet checked; only [Signed.VerifyKey] and [Signed.VerifyChain] say who signed.
//
// The package does no I/O, has no clock and no network: bytes, keys and times are handed to it.
package statement

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Names on the wire, from the in-toto attestation framework, DSSE and the Sigstore bundle format.
const (
	MediaType     = "application/vnd.dev.sigstore.bundle.v0.3+json"
	PayloadType   = "application/vnd.in-toto+json"
	StatementType = "https://in-toto.io/Statement/v1"
)

var (
	// ErrMalformed means the bytes are not a statement that may be trusted whoever signed it. It is never transient.
	ErrMalformed = errors.New("malformed statement")
	// ErrSignature means the statement is well-formed but was not signed by the one that was asked about.
	ErrSignature = errors.New("signature does not verify")
	// ErrChain means the certificate that the signer shows is not one that the trusted roots stand behind.
	ErrChain = errors.New("certificate is not trusted")
)

// An ID names a statement: "sha256:" and the hex SHA-256 of the DSSE payload bytes as signed. It does not depend on
// the signature, which anyone can vary (ECDSA signatures are malleable), nor on who signed.
type ID string

// ParseID accepts "sha256:" followed by 64 lower-case hex digits.
func ParseID(s string) (ID, error) {
	if err := checkDigest(s); err != nil {
		return "", err
	}
	return ID(s), nil
}

// Hex returns the digest without its "sha256:" prefix.
func (id ID) Hex() string { return strings.TrimPrefix(string(id), "sha256:") }

func checkDigest(s string) error {
	hexed, ok := strings.CutPrefix(s, "sha256:")
	if !ok || !isSHA256(hexed) {
		return fmt.Errorf("%q is not sha256: followed by 64 lower-case hex digits", s)
	}
	return nil
}

// isSHA256 reports whether s is a SHA-256 in the only spelling that counts: lower-case hex.
func isSHA256(s string) bool {
	if len(s) != hex.EncodedLen(sha256.Size) {
		return false
	}
	return strings.Trim(s, "0123456789abcdef") == ""
}

// Material says how a bundle names its signer.
type Material int

// The materials. The zero Material is none.
const (
	MaterialKey         Material = iota + 1 // a hint to a public key that the verifier already holds
	MaterialChain                           // an X.509 chain, leaf first
	MaterialCertificate                     // one X.509 leaf
)

// A Signed is a well-formed statement whose signature has not been verified. It is immutable.
type Signed struct {
	material     Material
	hint         string
	rawKey       []byte // of old bundles; never trusted, only compared
	certificates []*x509.Certificate
	timestamps   [][]byte

	payload   []byte
	signature []byte
	line      []byte // the bundle as compact JSON

	subjectName   string
	subjectSHA256 string
	predicateType string
	predicate     jsontext.Value
}

// ID returns the statement's name.
func (s *Signed) ID() ID { return idOf(s.payload) }

func idOf(payload []byte) ID {
	sum := sha256.Sum256(payload)
	return ID("sha256:" + hex.EncodeToString(sum[:]))
}

// Payload returns the bytes that were signed.
func (s *Signed) Payload() []byte { return slices.Clone(s.payload) }

// PredicateType returns the URI that says what kind of statement this is.
func (s *Signed) PredicateType() string { return s.predicateType }

// Subject returns the one subject: a name, which is informational only, and the hex SHA-256 that binds.
func (s *Signed) Subject() (name, sha256Hex string) { return s.subjectName, s.subjectSHA256 }

// Predicate returns the predicate's JSON, as signed.
func (s *Signed) Predicate() jsontext.Value { return slices.Clone(s.predicate) }

// Canonical reports whether the payload is in the canonical form of RFC 8785, which all statements of this project
// are, and OMS statements need not be.
func (s *Signed) Canonical() bool {
	canonical := jsontext.Value(slices.Clone(s.payload))
	return canonical.Canonicalize() == nil && string(canonical) == string(s.payload)
}

// Material says how the bundle names its signer.
func (s *Signed) Material() Material { return s.material }

// Hint returns the name that the bundle gives to its signer's key, one of its [Hints]; "" if it names none. It only says
// which key to try.
func (s *Signed) Hint() string { return s.hint }

// Bundle returns the bundle as one line of JSON with a newline.
func (s *Signed) Bundle() []byte { return slices.Clone(s.line) }

// Certificates returns the signer's chain, leaf first, nil if the statement was signed by a bare key.
func (s *Signed) Certificates() []*x509.Certificate { return slices.Clone(s.certificates) }

// Timestamps returns the DER RFC 3161 responses that came with the signature, unverified.
func (s *Signed) Timestamps() [][]byte { return slices.Clone(s.timestamps) }

// Signature returns the raw signature, which is what an RFC 3161 timestamp is made over.
func (s *Signed) Signature() []byte { return slices.Clone(s.signature) }

// New returns the payload of a statement in the canonical form of RFC 8785. The subject's name is informational.
func New(predicateType, subjectName, subjectSHA256 string, predicate any) ([]byte, error) {
	if !isSHA256(subjectSHA256) {
		return nil, fmt.Errorf("make statement: subject digest %q is not 64 lower-case hex digits", subjectSHA256)
	}
	type subject struct {
		Name   string            `json:"name"`
		Digest map[string]string `json:"digest"`
	}
	payload, err := json.Marshal(struct {
		Type          string    `json:"_type"`
		Subject       []subject `json:"subject"`
		PredicateType string    `json:"predicateType"`
		Predicate     any       `json:"predicate"`
	}{StatementType, []subject{{subjectName, map[string]string{"sha256": subjectSHA256}}}, predicateType, predicate})
	if err != nil {
		return nil, fmt.Errorf("make statement: %w", err)
	}
	canonical := jsontext.Value(payload)
	if err := canonical.Canonicalize(); err != nil {
		return nil, fmt.Errorf("make statement: %w", err)
	}
	return canonical, nil
}
