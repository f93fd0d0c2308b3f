package audit

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/verifier/statement"
)

// A Kind says what a record is about.
type Kind string

// The kinds of records.
const (
	KindStatementAccepted Kind = "statement-accepted" // an identity of the policy signed it: Statement, Identity
	KindStatementRefused  Kind = "statement-refused"  // it counts for nothing: Rule and Why; Statement and Identity where known
	KindPolicy            Kind = "policy"             // another trust policy is in force: Statement
	KindLoad              Kind = "load"               // weights are loaded for a channel: Release, Level
	KindSwitch            Kind = "switch"             // a channel serves another release: Release, Statement, Level
	KindRollback          Kind = "rollback"           // a channel serves an earlier release again
	KindWithdrawal        Kind = "withdrawal"         // a release was withdrawn
	KindStop              Kind = "stop"               // a channel serves nothing any more: Why
	KindIdentity          Kind = "identity"           // an identity came, changed or went: Identity, Why, and the policy in Statement
	KindRefusedCallers    Kind = "refused-callers"    // calls that were refused: Caller, Count; no Caller: of all others together
	KindScrub             Kind = "scrub"              // stored weights that Release needs on Channel are bad, or no longer: Why
	KindReceipt           Kind = "receipt"            // a receipt was given: its digest is Statement
	KindGap               Kind = "gap"                // Count records are missing here, because they could not be written
)

var kinds = []Kind{
	KindStatementAccepted, KindStatementRefused, KindPolicy, KindLoad, KindSwitch, KindRollback, KindWithdrawal,
	KindStop, KindIdentity, KindRefusedCallers, KindScrub, KindReceipt, KindGap,
}

// Kinds returns all kinds.
func Kinds() []Kind { return slices.Clone(kinds) }

// A Record is what happened. There is no field for a prompt or an answer: every text is an identifier, except Why, which
// holds this program's own words.
type Record struct {
	Time      time.Time    `json:"time"` // zero: when it is handed over
	Kind      Kind         `json:"kind"`
	Channel   string       `json:"channel,omitzero"`
	Release   statement.ID `json:"release,omitzero"`
	Statement statement.ID `json:"statement,omitzero"`
	Identity  string       `json:"identity,omitzero"` // who signed
	Caller    string       `json:"caller,omitzero"`   // who called, a SPIFFE ID
	Count     int64        `json:"count,omitzero"`
	Rule      string       `json:"rule,omitzero"` // as in package trust, or of the access rules
	Why       string       `json:"why,omitzero"`  // cut where it is too long
	Level     string       `json:"level,omitzero"`
}

// ErrMalformed means a record says something that the log has no place for.
var ErrMalformed = errors.New("malformed record")

// Entry returns the record as the log holds it: the one canonical JSON document (RFC 8785) for it.
func (r Record) Entry() ([]byte, error) {
	r, err := r.settled()
	if err != nil {
		return nil, err
	}
	return r.marshal()
}

// ParseRecord reads an entry. It accepts exactly what [Record.Entry] writes.
func ParseRecord(entry []byte) (Record, error) {
	var r Record
	if err := json.Unmarshal(entry, &r, json.RejectUnknownMembers(true)); err != nil {
		return Record{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	again, err := r.Entry()
	if err != nil {
		return Record{}, err
	}
	if string(again) != string(entry) {
		return Record{}, fmt.Errorf("%w: it is not in the one form that is written", ErrMalformed)
	}
	return r, nil
}

func (r Record) marshal() ([]byte, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	text := jsontext.Value(data)
	if err := text.Canonicalize(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if len(text) > maxEntry {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrMalformed, maxEntry)
	}
	return text, nil
}

// nameForm is that of channels, rules and levels.
var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:@+-]*$`)

// settled returns the record without what can't be recorded, and an error that says what that was.
func (r Record) settled() (Record, error) {
	var bad []error
	drop := func(name string, text *string, ok bool) {
		if *text != "" && !ok {
			bad = append(bad, fmt.Errorf("%w: %s is too long, or has characters that it can't have", ErrMalformed, name))
			*text = ""
		}
	}
	name := func(s string) bool { return len(s) <= maxName && nameForm.MatchString(s) }
	id := func(s statement.ID) bool { _, err := statement.ParseID(string(s)); return err == nil }
	drop("channel", &r.Channel, name(r.Channel))
	drop("rule", &r.Rule, name(r.Rule))
	drop("level", &r.Level, name(r.Level))
	drop("release", (*string)(&r.Release), id(r.Release))
	drop("statement", (*string)(&r.Statement), id(r.Statement))
	drop("identity", &r.Identity, len(r.Identity) <= maxText && plain(r.Identity) == r.Identity)
	drop("caller", &r.Caller, len(r.Caller) <= maxText && plain(r.Caller) == r.Caller)
	r.Why = cut(plain(r.Why), maxWhy)
	if r.Count < 0 || r.Count > maxCount {
		bad = append(bad, fmt.Errorf("%w: count %d", ErrMalformed, r.Count))
		r.Count = 0
	}
	if r.Time = r.Time.UTC().Round(0); r.Time.Year() < 1 || r.Time.Year() > 9999 {
		bad = append(bad, fmt.Errorf("%w: time is not of this calendar", ErrMalformed))
		r.Time = time.Time{}
	}
	if !slices.Contains(kinds, r.Kind) {
		bad = append(bad, fmt.Errorf("%w: unknown kind %.40q", ErrMalformed, r.Kind))
		r = Record{Time: r.Time, Kind: KindGap, Count: 1, Why: "a record of a kind that the log does not know"}
	}
	return r, errors.Join(bad...)
}

// plain replaces what does not print, so that no record can move the cursor of who reads it.
func plain(s string) string {
	return strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return utf8.RuneError
		}
		return c
	}, s)
}

// cut shortens s to at most limit bytes, and shows that.
func cut(s string, limit int) string {
	const mark = "…"
	if len(s) <= limit {
		return s
	}
	end := limit - len(mark)
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + mark
}
