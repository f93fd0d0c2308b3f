package trust

import (
	"fmt"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/verifier/statement"
)

// An Approval says that a release may be served. Its statement's subject is the release's id.
type Approval struct {
	Channels []string  `json:"channels,omitempty"` // sorted; none: every channel
	Expires  time.Time `json:"expires,omitzero"`
	Ticket   string    `json:"ticket,omitempty"`
}

// A Publication says that a channel now serves a release. Its statement's subject is the release's id.
type Publication struct {
	Channel  string       `json:"channel"`
	Epoch    int64        `json:"epoch"`
	Previous statement.ID `json:"previous,omitempty"` // the publication it follows, where its signer knew it
	Expires  time.Time    `json:"expires,omitzero"`
	Rollback bool         `json:"rollback,omitzero"` // goes back to a release that the channel has served
	Reason   string       `json:"reason,omitempty"`  // of a rollback
}

// An Evaluation says how a release did in tests: the in-toto test-result predicate v0.1, with the time at which the
// tests ended. Its statement's subject is the release's id.
type Evaluation struct {
	Result        string           `json:"result"` // PASSED, WARNED or FAILED; only PASSED meets a requirement
	Configuration []jsontext.Value `json:"configuration"`
	URL           string           `json:"url,omitempty"`
	PassedTests   []string         `json:"passedTests,omitempty"` // sorted, as the others are
	WarnedTests   []string         `json:"warnedTests,omitempty"`
	FailedTests   []string         `json:"failedTests,omitempty"`
	FinishedOn    time.Time        `json:"finishedOn"` // an evaluation's age is counted from here
}

// Results of an [Evaluation].
const (
	Passed = "PASSED"
	Warned = "WARNED"
	Failed = "FAILED"
)

// A Withdrawal says that a release, or weights wherever they are used, must stop. It is for ever. Its statement's subject
// is the release's id, or the weights' root.
type Withdrawal struct {
	Of     string `json:"of"` // release or weights
	Reason string `json:"reason"`
}

// What a [Withdrawal] is of.
const (
	OfRelease = "release"
	OfWeights = "weights"
)

// NewApproval checks the approval and returns the payload to sign.
func NewApproval(release statement.ID, a Approval) ([]byte, error) {
	a.Channels = slices.Compact(slices.Sorted(slices.Values(a.Channels)))
	a.Expires = a.Expires.UTC()
	if err := a.check(); err != nil {
		return nil, err
	}
	return statement.New(ApprovalType, "release", release.Hex(), a)
}

// NewPublication checks the publication and returns the payload to sign.
func NewPublication(release statement.ID, p Publication) ([]byte, error) {
	p.Expires = p.Expires.UTC()
	if err := p.check(); err != nil {
		return nil, err
	}
	return statement.New(PublicationType, "release", release.Hex(), p)
}

// ParseApproval reads an approval and the release it is about, whoever signed it.
func ParseApproval(s *statement.Signed) (release statement.ID, a Approval, err error) {
	if err := decode(s, ApprovalType, &a); err != nil {
		return "", Approval{}, fmt.Errorf("approval: %w", err)
	}
	if err := a.check(); err != nil {
		return "", Approval{}, fmt.Errorf("approval: %w: %w", ErrMalformed, err)
	}
	return subjectID(s), a, nil
}

// ParsePublication reads a publication and the release it is about, whoever signed it.
func ParsePublication(s *statement.Signed) (release statement.ID, p Publication, err error) {
	if err := decode(s, PublicationType, &p); err != nil {
		return "", Publication{}, fmt.Errorf("publication: %w", err)
	}
	if err := p.check(); err != nil {
		return "", Publication{}, fmt.Errorf("publication: %w: %w", ErrMalformed, err)
	}
	return subjectID(s), p, nil
}

// NewEvaluation checks the evaluation and returns the payload to sign.
func NewEvaluation(release statement.ID, e Evaluation) ([]byte, error) {
	e.FinishedOn = e.FinishedOn.UTC()
	for _, names := range []*[]string{&e.PassedTests, &e.WarnedTests, &e.FailedTests} {
		*names = slices.Compact(slices.Sorted(slices.Values(*names)))
	}
	if e.Configuration == nil {
		e.Configuration = []jsontext.Value{}
	}
	if err := e.check(); err != nil {
		return nil, err
	}
	return statement.New(EvaluationType, "release", release.Hex(), e)
}

// NewWithdrawal checks the withdrawal of a release, or of weights by their root, and returns the payload to sign.
func NewWithdrawal(target statement.ID, w Withdrawal) ([]byte, error) {
	if err := w.check(); err != nil {
		return nil, err
	}
	return statement.New(WithdrawalType, w.Of, target.Hex(), w)
}

// ParseEvaluation reads an evaluation and the release it is about, whoever signed it.
func ParseEvaluation(s *statement.Signed) (release statement.ID, e Evaluation, err error) {
	if err := decode(s, EvaluationType, &e); err != nil {
		return "", Evaluation{}, fmt.Errorf("evaluation: %w", err)
	}
	if err := e.check(); err != nil {
		return "", Evaluation{}, fmt.Errorf("evaluation: %w: %w", ErrMalformed, err)
	}
	return subjectID(s), e, nil
}

// ParseWithdrawal reads a withdrawal and what it withdraws, whoever signed it.
func ParseWithdrawal(s *statement.Signed) (target statement.ID, w Withdrawal, err error) {
	if err := decode(s, WithdrawalType, &w); err != nil {
		return "", Withdrawal{}, fmt.Errorf("withdrawal: %w", err)
	}
	if err := w.check(); err != nil {
		return "", Withdrawal{}, fmt.Errorf("withdrawal: %w: %w", ErrMalformed, err)
	}
	return subjectID(s), w, nil
}

// subjectID is the release, or the weights, that an act is about.
func subjectID(s *statement.Signed) statement.ID {
	_, sum := s.Subject()
	return statement.ID("sha256:" + sum)
}

func (a Approval) check() error {
	var bad problems
	if len(a.Channels) > maxChannels {
		bad.add("channels", "names %d channels, more than %d", len(a.Channels), maxChannels)
		return bad.err()
	}
	for i, name := range a.Channels {
		if err := checkName(name); err != nil {
			bad.add("channels", "%v", err)
		}
		if i > 0 && a.Channels[i-1] >= name {
			bad.add("channels", "is not sorted, or names %q twice", name)
		}
	}
	checkTime(&bad, "expires", a.Expires)
	checkLine(&bad, "ticket", a.Ticket, false)
	return bad.err()
}

func (p Publication) check() error {
	var bad problems
	if err := checkName(p.Channel); err != nil {
		bad.add("channel", "%v", err)
	}
	if p.Epoch < 1 || p.Epoch > maxNumber {
		bad.add("epoch", "must be from 1 to %d", int64(maxNumber))
	}
	if p.Previous != "" {
		if _, err := statement.ParseID(string(p.Previous)); err != nil {
			bad.add("previous", "%v", err)
		}
	}
	checkTime(&bad, "expires", p.Expires)
	checkLine(&bad, "reason", p.Reason, p.Rollback)
	return bad.err()
}

func (e Evaluation) check() error {
	var bad problems
	checkWord(&bad, "result", e.Result, []string{Passed, Warned, Failed})
	if e.FinishedOn.IsZero() {
		bad.add("finishedOn", "is required")
	}
	checkTime(&bad, "finishedOn", e.FinishedOn)
	if len(e.Configuration) > maxConfigurations {
		bad.add("configuration", "has %d entries, more than %d", len(e.Configuration), maxConfigurations)
	}
	checkLine(&bad, "url", e.URL, false)
	for _, list := range []struct {
		path  string
		names []string
	}{{"passedTests", e.PassedTests}, {"warnedTests", e.WarnedTests}, {"failedTests", e.FailedTests}} {
		checkTests(&bad, list.path, list.names)
	}
	return bad.err()
}

// checkTime wants one spelling of each instant: in UTC, in years that RFC 3339 can write.
func checkTime(bad *problems, path string, t time.Time) {
	if _, offset := t.Zone(); offset != 0 {
		bad.add(path, "is not in UTC")
	}
	if !t.IsZero() && (t.Year() < 1970 || t.Year() > 9999) {
		bad.add(path, "is not a time from 1970 to 9999")
	}
}

// checkTests checks the names of tests, of which each has one place.
func checkTests(bad *problems, path string, names []string) {
	if len(names) > maxTests {
		bad.add(path, "names %d tests, more than %d", len(names), maxTests)
		return
	}
	for i, name := range names {
		checkLine(bad, path, name, true)
		if i > 0 && names[i-1] >= name {
			bad.add(path, "is not sorted, or names %.80q twice", name)
		}
	}
}

func (w Withdrawal) check() error {
	var bad problems
	checkWord(&bad, "of", w.Of, []string{OfRelease, OfWeights})
	checkLine(&bad, "reason", w.Reason, true)
	return bad.err()
}
