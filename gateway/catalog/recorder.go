package catalog

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/weighbridge/weighbridge/gateway/audit"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

const (
	// recordsAtOnce bounds the records of statements that wait for the log together: it writes them in one go.
	recordsAtOnce = 64
	// recordAgain is how soon records that could not be written are tried again.
	recordAgain = 5 * time.Second
	// maxNobodys is how many refusals of what nobody of the policy signed are recorded in nobodysTime: who can write into
	// a directory of statements must not fill the log's disk by that. The others follow, if they are there still.
	maxNobodys  = 100
	nobodysTime = time.Hour
)

// A recorder records of each statement once that it was accepted or refused, and again when that changes. What it has
// recorded it knows from the log itself, so that a restart repeats nothing and loses nothing. Nobody waits for it: a statement
// takes effect by a switch, which has a record of its own.
type recorder struct {
	trail Trail
	tells func(error)
	mail  chan []trust.Reason // the newest only

	nobodys int       // recorded since
	since   time.Time // the beginning of this nobodysTime

	mu   sync.Mutex
	last map[signing]map[string]bool // what is recorded: the rules by which it is refused, or "" for accepted
}

// A signing is a statement and who signed it, "" where that is nobody of the policy.
type signing struct {
	statement statement.ID
	who       string
	file      string // of what is no statement, and why
}

// newRecorder returns a recorder; tells is called with what keeps it from recording.
func newRecorder(trail Trail, tells func(error)) recorder {
	return recorder{trail: trail, tells: tells, mail: make(chan []trust.Reason, 1), last: map[signing]map[string]bool{}}
}

// tell says how all statements are judged now. It never blocks.
func (r *recorder) tell(judged []trust.Reason) {
	select {
	case <-r.mail:
	default:
	}
	r.mail <- judged // only the catalog's goroutine sends, so there is room
}

// run records what it is told until ctx ends.
func (r *recorder) run(ctx context.Context) {
	if err := r.trail.Records(func(rec audit.Record) error {
		r.recorded(rec)
		return ctx.Err()
	}); err != nil && ctx.Err() == nil {
		r.tells(fmt.Errorf("look which statements are recorded: %w", err))
	}
	var judged []trust.Reason
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case judged = <-r.mail:
		case <-again:
		}
		again = nil
		switch later, err := r.record(ctx, judged); {
		case err != nil && ctx.Err() == nil:
			r.tells(fmt.Errorf("record statements: %w", err))
			again = time.After(recordAgain)
		case later:
			again = time.After(nobodysTime)
		}
	}
}

// record records what is not yet. It reports whether something is left for later.
func (r *recorder) record(ctx context.Context, judged []trust.Reason) (later bool, err error) {
	accepted, told := map[signing]bool{}, map[signing]map[string]bool{}
	for _, j := range judged {
		s := signingOf(j.Statement, j.Identity, j.Why)
		if accepted[s] = accepted[s] || j.Counted; told[s] == nil {
			told[s] = map[string]bool{}
		}
	}
	r.forget(told)
	if now := time.Now(); now.Sub(r.since) >= nobodysTime {
		r.since, r.nobodys = now, 0
	}
	var all errgroup.Group
	all.SetLimit(recordsAtOnce)
	for _, j := range judged {
		s := signingOf(j.Statement, j.Identity, j.Why)
		// Who signed twice, and once in vain, has signed.
		if ctx.Err() != nil || !j.Counted && accepted[s] || told[s][j.Rule] || r.has(s, j.Rule) {
			continue
		}
		if !j.Counted && j.Identity == "" {
			if later = later || r.nobodys >= maxNobodys; r.nobodys >= maxNobodys {
				continue
			}
			r.nobodys++
		}
		told[s][j.Rule] = true
		rec := audit.Record{Kind: audit.KindStatementAccepted, Statement: j.Statement, Identity: j.Identity}
		if !j.Counted {
			rec.Kind, rec.Rule, rec.Why = audit.KindStatementRefused, j.Rule, j.Why
		}
		all.Go(func() error {
			_, err := r.trail.Append(ctx, rec)
			if err == nil {
				r.recorded(rec)
			}
			return err
		})
	}
	return later, errors.Join(all.Wait(), ctx.Err())
}

// forget lets go what nobody of the policy signed and that is not there any more: others could make it endless.
func (r *recorder) forget(there map[signing]map[string]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for s := range r.last {
		if s.who == "" && there[s] == nil {
			delete(r.last, s)
		}
	}
}

func (r *recorder) has(s signing, rule string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last[s][rule]
}

// recorded remembers a record. One that says otherwise than those before of the same takes their place.
func (r *recorder) recorded(rec audit.Record) {
	s := signingOf(rec.Statement, rec.Identity, rec.Why)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch rec.Kind {
	case audit.KindStatementAccepted:
		r.last[s] = map[string]bool{"": true}
	case audit.KindStatementRefused:
		if r.last[s] == nil || r.last[s][""] {
			r.last[s] = map[string]bool{}
		}
		r.last[s][rec.Rule] = true
	}
}

func signingOf(id statement.ID, who, why string) signing {
	if id == "" {
		return signing{file: why}
	}
	return signing{id, who, ""}
}

// maxUnreadable is more than the words of a [store.Problem] take here, and less than a record cuts.
const maxUnreadable = 900

// unreadable are the reasons of files among the statements that are none.
func unreadable(bad []store.Problem) []trust.Reason {
	var all []trust.Reason
	for _, b := range bad {
		rule := trust.RuleSignature
		if errors.Is(b.Err, statement.ErrUnknownField) {
			rule = trust.RuleUnknownField
		}
		why := fmt.Sprintf("%.*s", maxUnreadable, fmt.Sprintf("%+q: %.*s", filepath.Base(b.File), maxTold, strconv.QuoteToASCII(b.Err.Error())))
		all = append(all, trust.Reason{Rule: rule, Statement: b.Statement, Why: why})
	}
	return all
}
