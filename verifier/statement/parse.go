package statement

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// The bundle as it stands on the wire (sigstore protobuf-specs, sigstore_bundle.proto). It is decoded by hand-written
// shapes and not by protojson, which would take two spellings of each name and knows no publicKey.rawBytes.
type wireBundle struct {
	MediaType            string       `json:"mediaType"`
	VerificationMaterial wireMaterial `json:"verificationMaterial"`
	Envelope             *struct {
		Payload     []byte          `json:"payload"`
		PayloadType string          `json:"payloadType"`
		Signatures  []wireSignature `json:"signatures"`
	} `json:"dsseEnvelope"`
}

type wireSignature struct {
	Sig   []byte  `json:"sig"`
	KeyID *string `json:"keyid"` // informational in DSSE; absent, "" and null are all seen
}

type wireMaterial struct {
	PublicKey   *wirePublicKey `json:"publicKey"`
	Chain       *wireChain     `json:"x509CertificateChain"`
	Certificate *wireRaw       `json:"certificate"`
	// Log entries are no evidence for a key or a chain: they are neither trusted nor refused.
	TlogEntries []jsontext.Value `json:"tlogEntries"`
	Timestamps  *wireTimestamps  `json:"timestampVerificationData"`
}

type wireTimestamps struct {
	RFC3161 []wireTimestamp `json:"rfc3161Timestamps"`
}

type wireTimestamp struct {
	SignedTimestamp []byte `json:"signedTimestamp"`
}

type wirePublicKey struct {
	Hint       string         `json:"hint"`
	RawBytes   []byte         `json:"rawBytes"`   // bundles of model_signing before 1.0
	KeyDetails jsontext.Value `json:"keyDetails"` // says nothing that the key itself does not say
}

type wireChain struct {
	Certificates []wireRaw `json:"certificates"`
}

type wireRaw struct {
	RawBytes []byte `json:"rawBytes"`
}

type wireStatement struct {
	Type    string `json:"_type"`
	Subject []struct {
		Name   string            `json:"name"`
		Digest map[string]string `json:"digest"`
	} `json:"subject"`
	PredicateType string         `json:"predicateType"`
	Predicate     jsontext.Value `json:"predicate"`
}

// ErrUnknownField means that something signed has a field that this version can't read: it may be of a later one.
var ErrUnknownField = errors.New("unknown field")

// Unmarshal is how JSON that somebody signed is read: duplicate names, unknown names, another case of a name and
// invalid UTF-8 are all errors. Decisions quote them, so the same input gives the same text in every process; the
// library's own is worded at random.
func Unmarshal(data []byte, into any) error {
	err := json.Unmarshal(data, into, json.RejectUnknownMembers(true), json.MatchCaseInsensitiveNames(false))
	wrong := new(json.SemanticError)
	if !errors.As(err, &wrong) {
		return err
	}
	at := strings.TrimPrefix(string(wrong.JSONPointer), "/")
	switch {
	case errors.Is(wrong.Err, json.ErrUnknownName):
		return fmt.Errorf("%w %.200q", ErrUnknownField, at)
	case wrong.Err != nil:
		return fmt.Errorf("field %.200q: %w", at, wrong.Err)
	}
	return fmt.Errorf("field %.200q: %s is of the wrong kind", at, wrong.JSONKind)
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrMalformed, fmt.Errorf(format, args...))
}

// Parse reads one bundle. Whatever it accepts has one meaning: one signer, one signature, one subject, no name twice.
func Parse(bundle []byte) (*Signed, error) {
	if len(bundle) > MaxBundle {
		return nil, malformed("bundle of %d bytes is longer than %d", len(bundle), MaxBundle)
	}
	var w wireBundle
	if err := Unmarshal(bundle, &w); err != nil {
		return nil, malformed("read bundle: %w", err)
	}
	if w.MediaType != MediaType {
		return nil, malformed("mediaType is %q, want %q", w.MediaType, MediaType)
	}
	s := &Signed{}
	if err := s.setMaterial(&w.VerificationMaterial); err != nil {
		return nil, err
	}
	e := w.Envelope
	switch {
	case e == nil:
		return nil, malformed("dsseEnvelope is missing")
	case e.PayloadType != PayloadType:
		return nil, malformed("payloadType is %q, want %q", e.PayloadType, PayloadType)
	case len(e.Signatures) != 1:
		// Sigstore bundles hold exactly one: with two, verifiers disagree on which one counts.
		return nil, malformed("envelope holds %d signatures, want exactly 1", len(e.Signatures))
	case len(e.Signatures[0].Sig) == 0:
		return nil, malformed("the signature is empty")
	}
	s.payload, s.signature = e.Payload, e.Signatures[0].Sig
	if err := s.setStatement(); err != nil {
		return nil, err
	}
	s.line = bytes.Clone(bundle)
	if err := (*jsontext.Value)(&s.line).Compact(); err != nil {
		return nil, malformed("compact bundle: %w", err)
	}
	s.line = append(s.line, '\n')
	return s, nil
}

// ParseLines reads bundles as JSON Lines, the form of a statement with several signers; a file that holds one bundle
// over several lines is accepted too. One bundle that is not well-formed spoils them all.
func ParseLines(data []byte) ([]*Signed, error) {
	all, bad := ParseEach(data)
	switch {
	case len(bad) > 0:
		return nil, bad[0]
	case len(all) == 0:
		return nil, malformed("no bundle in it")
	}
	return all, nil
}

// A BadLine is a bundle among others that is not well-formed.
type BadLine struct {
	Number    int // from 1
	Statement ID  // that it would hold, "" if it can't be told; it says nothing about what is in it
	Err       error
}

func (b *BadLine) Error() string { return fmt.Sprintf("bundle %d: %v", b.Number, b.Err) }
func (b *BadLine) Unwrap() error { return b.Err }

// ParseEach reads the bundles that are well-formed, and tells of each that is not: nobody can take a statement away by
// putting something else beside it.
func ParseEach(data []byte) (all []*Signed, bad []*BadLine) {
	if len(data) > MaxBundle {
		return nil, []*BadLine{{1, "", malformed("file of %d bytes is longer than %d", len(data), MaxBundle)}}
	}
	// What is wrong within a value is for Parse to say; here it only matters where one ends.
	dec := jsontext.NewDecoder(bytes.NewReader(data), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	for n := 1; ; n++ {
		value, err := dec.ReadValue()
		switch {
		case errors.Is(err, io.EOF):
			return all, bad
		case err != nil:
			return all, append(bad, &BadLine{n, "", malformed("%w", err)})
		case n > MaxLines:
			return all, append(bad, &BadLine{n, "", malformed("more than %d bundles", MaxLines)})
		}
		if s, err := Parse(value); err != nil {
			bad = append(bad, &BadLine{n, claimedID(value), err})
		} else {
			all = append(all, s)
		}
	}
}

// claimedID returns the id of whatever payload a bundle has, "" if it has none.
func claimedID(bundle []byte) ID {
	var w struct {
		Envelope struct {
			Payload []byte `json:"payload"`
		} `json:"dsseEnvelope"`
	}
	err := json.Unmarshal(bundle, &w, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	if err != nil || len(w.Envelope.Payload) == 0 {
		return ""
	}
	return idOf(w.Envelope.Payload)
}

// setMaterial takes the one signer that the bundle names; the field is a oneof.
func (s *Signed) setMaterial(m *wireMaterial) error {
	var chain []wireRaw
	named := 0
	if m.PublicKey != nil {
		named++
		s.material, s.hint, s.rawKey = MaterialKey, m.PublicKey.Hint, m.PublicKey.RawBytes
	}
	if m.Chain != nil {
		named++
		s.material, chain = MaterialChain, m.Chain.Certificates
	}
	if m.Certificate != nil {
		named++
		s.material, chain = MaterialCertificate, []wireRaw{*m.Certificate}
	}
	if named != 1 {
		return malformed("verificationMaterial names %d signers, want exactly one of publicKey, x509CertificateChain and certificate", named)
	}
	if s.material != MaterialKey && (len(chain) == 0 || len(chain) > MaxCertificates) {
		return malformed("the chain has %d certificates, want 1 to %d", len(chain), MaxCertificates)
	}
	for i, raw := range chain {
		c, err := x509.ParseCertificate(raw.RawBytes)
		if err != nil {
			return malformed("certificate %d: %w", i, err)
		}
		s.certificates = append(s.certificates, c)
	}
	if m.Timestamps != nil {
		if len(m.Timestamps.RFC3161) > maxTimestamps {
			return malformed("more than %d timestamps", maxTimestamps)
		}
		for _, t := range m.Timestamps.RFC3161 {
			s.timestamps = append(s.timestamps, t.SignedTimestamp)
		}
	}
	return nil
}

// setStatement reads the in-toto Statement v1 in the payload.
func (s *Signed) setStatement() error {
	var w wireStatement
	if err := Unmarshal(s.payload, &w); err != nil {
		return malformed("read payload: %w", err)
	}
	switch {
	case w.Type != StatementType:
		return malformed("_type is %q, want %q", w.Type, StatementType)
	case len(w.Subject) != 1:
		return malformed("%d subjects, want exactly 1", len(w.Subject))
	case len(w.Subject[0].Digest) != 1 || !isSHA256(w.Subject[0].Digest["sha256"]):
		return malformed("the subject's digest is not one sha256 of 64 lower-case hex digits")
	case w.PredicateType == "":
		return malformed("predicateType is missing")
	case w.Predicate.Kind() != jsontext.KindBeginObject:
		return malformed("predicate is not an object")
	}
	s.subjectName, s.subjectSHA256 = w.Subject[0].Name, w.Subject[0].Digest["sha256"]
	s.predicateType, s.predicate = w.PredicateType, w.Predicate
	return nil
}
