package access

import (
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// A Meter counts what callers use of the limits of their rules. It outlives policies: what was used before the rules
// were read again stays used. Nothing is kept over a restart, so that after one even a day's quota is whole.
//
// Its methods may be called concurrently.
type Meter struct {
	now func() time.Time

	mu       sync.Mutex
	accounts map[holder]*account
}

// A holder has an account: one caller, by one rule.
type holder struct {
	caller spiffeid.ID
	rule   string
}

// An account is what a holder has used. One that is idle and has nothing used is as good as none.
type account struct {
	limits *limits
	used   [quotas]float64 // at the time at; what is above the quota has to come back before anything is free
	at     time.Time
	active int64 // requests
}

// Tokens are those of one request.
type Tokens struct{ Prompt, Completion int64 }

// A LimitError means that the rules allow it, and their limits have no room for it now.
type LimitError struct {
	Rule  int           // the one that has room first
	Limit string        // its key below limits, such as "rate" or "tokens.prompt.day"
	Text  string        // the limit, such as "10 requests a second"
	Retry time.Duration // until there is room, if nothing else is used; a guess for "concurrent"
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("access[%d].limits.%s: the caller is at its limit of %s, for %s", e.Rule, e.Limit, e.Text, e.Retry)
}

// NewMeter returns a meter on which nothing is used.
func NewMeter(now func() time.Time) *Meter {
	return &Meter{now: now, accounts: map[holder]*account{}}
}

// A Pass lets one request through. End must be called once.
type Pass struct {
	Grant

	meter   *Meter
	account *account // nil: without limits
	taken   [quotas]float64
}

// Enter lets a request in by the first of its grants that has room, or returns a [*LimitError]. It sets the tokens
// aside that the request is expected to take at most.
func (m *Meter) Enter(caller spiffeid.ID, grants []Grant, expected Tokens) (*Pass, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	var first *LimitError
	for _, g := range grants {
		if g.rule.limits == nil {
			return &Pass{Grant: g}, nil
		}
		a := m.account(holder{caller, g.rule.key}, g.rule.limits, now)
		taken := g.rule.limits.amounts(expected)
		full := a.full(taken[:])
		if full == nil {
			a.take(taken)
			a.active++
			return &Pass{g, m, a, taken}, nil
		}
		first = first.or(full, g)
	}
	if first == nil {
		panic("access: internal error: a request enters without a grant")
	}
	return nil, first
}

// Full returns a [*LimitError] if none of the grants has room for another request of the caller, whatever tokens that takes.
// Nothing is taken.
func (m *Meter) Full(caller spiffeid.ID, grants []Grant) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	var first *LimitError
	for _, g := range grants {
		h, l := holder{caller, g.rule.key}, g.rule.limits
		if l == nil || m.accounts[h] == nil {
			return nil
		}
		request := l.amounts(Tokens{})
		full := m.account(h, l, now).full(request[:ofRequests+1])
		if full == nil {
			return nil
		}
		first = first.or(full, g)
	}
	if first == nil {
		return nil // no grants: that is for others to say
	}
	return first
}

// or returns which of two has room first. The other is a grant's; e may be nil.
func (e *LimitError) or(full *LimitError, of Grant) *LimitError {
	if e != nil && e.Retry <= full.Retry {
		return e
	}
	full.Rule = of.Rule()
	return full
}

// End gives back what was set aside and charges what was used.
func (p *Pass) End(used Tokens) {
	if p.account == nil {
		return
	}
	p.meter.mu.Lock()
	defer p.meter.mu.Unlock()
	a := p.account
	a.settle(p.meter.now())
	a.active--
	for i, n := range []int64{ofPromptMinute: used.Prompt, ofPromptDay: used.Prompt, ofCompletionMinute: used.Completion, ofCompletionDay: used.Completion} {
		if i != ofRequests && a.limits.quota[i].size > 0 {
			a.used[i] = max(0, a.used[i]+float64(n)-p.taken[i])
		}
	}
}

// amounts are what a request takes of each quota. What is more than all of one takes all of it: else it could never be
// let in.
func (l *limits) amounts(t Tokens) [quotas]float64 {
	amounts := [quotas]float64{
		ofRequests: 1, ofPromptMinute: float64(t.Prompt), ofPromptDay: float64(t.Prompt),
		ofCompletionMinute: float64(t.Completion), ofCompletionDay: float64(t.Completion),
	}
	for i := range amounts {
		amounts[i] = min(amounts[i], l.quota[i].size)
	}
	return amounts
}

// account returns the account of a holder as it stands now, by the limits in force now.
func (m *Meter) account(h holder, l *limits, now time.Time) *account {
	a := m.accounts[h]
	if a == nil {
		m.sweep(now)
		a = &account{limits: l, at: now}
		m.accounts[h] = a
	}
	a.settle(now)
	a.limits = l
	return a
}

// sweep looks at some accounts, in no order, and drops those that are as good as none. If there are too many still, the
// one of these goes that comes soonest to that: a crowd of callers makes the meter forget a little, never grow.
func (m *Meter) sweep(now time.Time) {
	var next holder
	soonest, seen := time.Duration(math.MaxInt64), 0
	for h, a := range m.accounts {
		if seen++; seen > swept {
			break
		}
		if a.active > 0 {
			continue
		}
		a.settle(now)
		if left := a.left(); left == 0 {
			delete(m.accounts, h)
		} else if left < soonest {
			next, soonest = h, left
		}
	}
	if len(m.accounts) >= maxAccounts {
		delete(m.accounts, next)
	}
}

// settle brings back what has come back since.
func (a *account) settle(now time.Time) {
	passed := max(0, now.Sub(a.at).Seconds())
	a.at = now
	for i, q := range a.limits.quota {
		if a.used[i] = max(0, a.used[i]-passed*q.second); q.size == 0 {
			a.used[i] = 0
		}
	}
}

// left is how long it takes until everything has come back.
func (a *account) left() time.Duration {
	var longest time.Duration
	for i, q := range a.limits.quota {
		longest = max(longest, q.until(a.used[i]))
	}
	return longest
}

// until is how long it takes until so much has come back.
func (q quota) until(n float64) time.Duration {
	if n <= 0 {
		return 0
	}
	return time.Duration(min(math.Ceil(n/q.second*float64(time.Second)), math.MaxInt64/2))
}

// full returns which limit has no room, of several the one that takes longest; nil if all have. Quotas of which there is no
// amount are not looked at.
func (a *account) full(amounts []float64) *LimitError {
	var full *LimitError
	if most := a.limits.concurrent; most > 0 && a.active >= most {
		full = &LimitError{Limit: concurrent, Text: concurrency(most), Retry: concurrentRetry}
	}
	for i, n := range amounts {
		q := a.limits.quota[i]
		over := a.used[i] + n - q.size
		if q.size == 0 || over <= rounding {
			continue
		}
		if wait := q.until(over); full == nil || wait > full.Retry {
			full = &LimitError{Limit: names[i], Text: q.text, Retry: wait}
		}
	}
	return full
}

// rounding is far below one request or token, and above what sums of fractions are off by.
const rounding = 1e-9

func (a *account) take(amounts [quotas]float64) {
	for i, n := range amounts {
		a.used[i] += n
	}
}
