// Package trust decides which release each channel may serve.
//
// The one rule: a statement counts only if a rule of the accepted policy says that it does. [Decide] is a pure
// function of policy, statements, time and floor: the same inputs give the same [Decision] in every gateway, on the
// command line and in a pipeline, in whatever order and from wherever the statements came. It gives a reason for each
// statement it was handed, counted or not.
//
// Start with [Anchor.Accept], the only way to a [Policy] that is anchored in the site's pinned root keys; then
// [Decide]; after serving what it said, keep [Floor.Accept] durably. The package does no I/O, has no clock and no
// network, and trusts no statement before its signature was verified.
package trust

import (
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/verifier/statement"
)

// Predicate types of the statements that this version reads.
const (
	PolicyType      = "urn:weighbridge:policy:v1"
	ReleaseType     = "urn:weighbridge:release:v1"
	ApprovalType    = "urn:weighbridge:approval:v1"
	PublicationType = "urn:weighbridge:publication:v1"
	EvaluationType  = "https://in-toto.io/attestation/test-result/v0.1"
	WithdrawalType  = "urn:weighbridge:withdrawal:v1"
	ReceiptType     = "urn:weighbridge:receipt:v1"
)

// Rules, as they are named in reasons and in what is missing.
const (
	RuleSignature        = "signature"         // the signature is not that of the key which the bundle names
	RuleUnknownIdentity  = "unknown-identity"  // no identity of the policy signed it
	RuleRole             = "role"              // the signer is, or is not, a member of the role
	RuleThreshold        = "threshold"         // too few distinct identities, or the same identity again
	RuleSeparation       = "separation"        // the identity acted earlier in another of the separated roles
	RuleScope            = "scope"             // it speaks of another channel, or of a release not published here
	RuleExpired          = "expired"           // past its expiry
	RuleMaxAge           = "max-age"           // an evaluation that is too old, or of the future
	RuleTestFailed       = "test-failed"       // an evaluation that failed, was followed by one, or lacks a required test
	RuleRollback         = "rollback-unserved" // a rollback to a release that the channel has not served
	RuleEpochReplay      = "epoch-replay"      // not above the epoch that was accepted, or superseded by a newer one
	RuleEpochConflict    = "epoch-conflict"    // two publications of one epoch
	RuleEpochJump        = "epoch-jump"        // too far above the accepted epoch
	RuleWithdrawn        = "withdrawn"         // the release or its weights were withdrawn
	RuleLifecycle        = "lifecycle"         // the identity is not active
	RuleUnknownField     = "unknown-field"     // a field that this version can't read or can't enforce
	RuleUnknownPredicate = "unknown-predicate" // a kind of statement that this version does not read
)

var (
	// ErrMalformed means a statement or a document says something that this version can't read exactly; it counts
	// for nothing, whoever signed it.
	ErrMalformed = errors.New("malformed")
	// ErrRefused means a policy is well-formed but may not be relied on here. The caller keeps the policy it has.
	ErrRefused = errors.New("policy refused")
)

// A Problem is one thing that is wrong with a document. Path names the key, in the spelling of the document's file.
type Problem struct {
	Path string
	Why  string
}

func (p Problem) Error() string { return p.Path + ": " + p.Why }

// problems collects everything that is wrong with a document, so that its author learns it all at once.
type problems []Problem

func (p *problems) add(path, format string, args ...any) {
	*p = append(*p, Problem{path, fmt.Sprintf(format, args...)})
}

// err is nil, or all problems joined.
func (p problems) err() error {
	errs := make([]error, len(p))
	for i := range p {
		errs[i] = p[i]
	}
	return errors.Join(errs...)
}

// Problems returns the problems that err was made of, none if it was made of others.
func Problems(err error) []Problem {
	var found []Problem
	switch e := err.(type) { //nolint:errorlint // this is the walk through what is wrapped
	case Problem:
		found = append(found, e)
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			found = append(found, Problems(inner)...)
		}
	case interface{ Unwrap() error }:
		found = Problems(e.Unwrap())
	}
	return found
}

// decode reads a predicate of ours. There is exactly one way to write each: the payload is canonical (RFC 8785), and
// the predicate is byte for byte what this version would write for what it read. So nothing in it can be overlooked:
// no unknown or repeated member, no null where a value belongs, no default spelled out by one signer and left out by
// another.
func decode(s *statement.Signed, predicateType string, into any) error {
	if got := s.PredicateType(); got != predicateType {
		return fmt.Errorf("%w: predicate type is %q, want %q", ErrMalformed, got, predicateType)
	}
	if !s.Canonical() {
		return fmt.Errorf("%w: the payload is not canonical JSON (RFC 8785)", ErrMalformed)
	}
	predicate := s.Predicate()
	if err := statement.Unmarshal(predicate, into); err != nil {
		return fmt.Errorf("%w: read predicate: %w", ErrMalformed, err)
	}
	written, err := canonical(into)
	if err != nil {
		return fmt.Errorf("%w: read predicate: %w", ErrMalformed, err)
	}
	if string(written) != string(predicate) {
		return fmt.Errorf("%w: the predicate is not in the one form that is written (a null, a missing field or a default spelled out)", ErrMalformed)
	}
	return nil
}

// canonical returns the JSON of v in the form of RFC 8785.
func canonical(v any) (jsontext.Value, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("canonical JSON: %w", err)
	}
	text := jsontext.Value(data)
	if err := text.Canonicalize(); err != nil {
		return nil, fmt.Errorf("canonical JSON: %w", err)
	}
	return text, nil
}
