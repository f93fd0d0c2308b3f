package catalog

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// decide reads the statements and tells each channel what it should serve. Statements that can't be read now were
// read before: what they decided stands, apart from what has expired since.
func (c *Catalog) decide() {
	set, bad, err := c.files.Read(c.sources(c.inputs))
	c.set = set // without what can't be read now and never was
	c.tellUnread(err)
	now := c.cfg.Now()
	changed := c.ledger.Follow(c.set)
	changed = c.tell(bad) || changed
	floor := c.cfg.State.Floor()
	decision := c.inputs.decide(c.ledger, floor, now)
	c.next = time.Time{}
	if most := c.inputs.Lease.MaxStaleness; most > 0 {
		c.endsAt(floor.Heard.Add(most+time.Second), now) // a lease has run out only after its last moment
	}
	for name, ch := range *c.channels.Load() {
		d, known := decision.Channels[name]
		t := target{policy: c.inputs.Policy, weights: c.inputs.Weights, ends: c.ledger.Ends(name, d), refused: c.ledger.Refusals(name, d, floor)}
		if !known {
			d.Reasons = append(d.Reasons, trust.Reason{Rule: trust.RuleScope, Why: "the trust policy knows no such channel"})
			t.refused = []string{trust.RuleScope}
		}
		for _, end := range t.ends {
			c.endsAt(end.At, now)
		}
		t.decision, t.grounds = d, c.ledger.Grounds(name, d, now)
		c.logDecision(name, d)
		ch.decided.Store(&t)
		ch.want(t)
	}
	// Only now: a disk that is slow, or does not answer, must not keep a channel from hearing that it has to stop.
	c.keepTime(now)
	c.keepWithdrawals(decision, now)
	if changed {
		c.recorder.tell(append(c.ledger.Judged(), unreadable(bad)...))
	}
}

// sources are the directories that statements come from: those that are watched, and the state's own, which withdrawals
// never leave.
func (c *Catalog) sources(in Inputs) []string {
	return append(in.Statements[:len(in.Statements):len(in.Statements)], c.cfg.State.WithdrawnDir())
}

// tellUnread tells of directories that can't be read, once for as long as it stays so. What they held counts still.
func (c *Catalog) tellUnread(err error) {
	was, text := c.unread.Load(), ""
	if err != nil {
		text = err.Error()
	}
	if c.unread.Store(&text); err != nil && (was == nil || *was != text) {
		c.cfg.Log.Error("directories of statements can't be read; what they held when they were read last still counts", "err", err)
	}
}

// Problems are what an operator should know that is no channel's: a line each.
func (c *Catalog) Problems() []string {
	if text := c.unread.Load(); text != nil && *text != "" {
		return strings.Split(*text, "\n")
	}
	return nil
}

// maxTold bounds what is logged about one file, which anyone may have written.
const maxTold = 512

// tell logs what is wrong with each file, once for as long as it stays so, and reports whether that is another than before.
func (c *Catalog) tell(bad []store.Problem) (changed bool) {
	told := make(map[string]string, len(bad))
	for _, b := range bad {
		told[b.File] = fmt.Sprintf("%.*s", maxTold, b.Err.Error())
		if c.told[b.File] != told[b.File] {
			changed = true
			c.cfg.Log.Warn("statement file does not count", "file", b.File, "err", told[b.File])
		}
	}
	c.told = told
	return changed
}

// keepTime makes the time high-water mark durable once a minute. If that fails, what serves goes on: the mark in
// memory protects this process, and the next minute tries again.
func (c *Catalog) keepTime(now time.Time) {
	if now.Sub(c.cfg.State.Floor().TimeHighWater) < time.Minute {
		return
	}
	err := c.cfg.State.Raise(func(f trust.Floor) trust.Floor {
		f.TimeHighWater = now.UTC()
		return f
	})
	if err != nil {
		c.cfg.Log.Error("time high-water mark was not saved", "err", err)
	}
}

// keepWithdrawals makes what was withdrawn durable. What it stops is stopped whether or not that succeeds, and for as
// long as the statements are there it is tried again.
func (c *Catalog) keepWithdrawals(decision trust.Decision, now time.Time) {
	changed := false
	if err := c.keepStatements(decision); err != nil {
		c.cfg.Log.Error("a withdrawal was not kept; it holds for as long as its statement is there", "err", err)
	}
	withdraw := func(f trust.Floor) trust.Floor {
		for _, name := range slices.Sorted(maps.Keys(decision.Channels)) {
			var more bool
			f, more = f.Withdraw(decision.Channels[name], c.inputs.Policy, now)
			changed = changed || more
		}
		return f
	}
	if withdraw(c.cfg.State.Floor()); !changed && !c.unsaved {
		return
	}
	before := c.cfg.State.Floor()
	err := c.cfg.State.Raise(withdraw)
	c.noteWithdrawn(before, withdraw(before))
	if c.unsaved = err != nil; c.unsaved {
		c.cfg.Log.Error("a withdrawal was not saved; it holds for as long as its statement is there", "err", err)
		return
	}
	c.cfg.Log.Info("withdrawals recorded", "withdrawn", len(c.cfg.State.Floor().Withdrawn))
}

// keepStatements copies the withdrawals that count into the state, before the floor counts them.
func (c *Catalog) keepStatements(decision trust.Decision) error {
	count := map[statement.ID]bool{}
	for _, d := range decision.Channels {
		for _, r := range d.Reasons {
			count[r.Statement] = count[r.Statement] || r.Rule == trust.RuleWithdrawn && r.Counted
		}
	}
	var errs []error
	for _, s := range c.set {
		if !count[s.ID()] {
			continue
		}
		if sum := sha256.Sum256(s.Bundle()); !c.kept[sum] {
			err := c.cfg.State.KeepWithdrawal(s)
			c.kept[sum] = err == nil
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// logDecision logs a channel's decision when it differs from the last.
func (c *Catalog) logDecision(name string, d trust.Channel) {
	last, seen := c.last[name]
	if seen && last.Serve == d.Serve && last.Epoch == d.Epoch && last.Stale == d.Stale && reflect.DeepEqual(last.Missing, d.Missing) &&
		reflect.DeepEqual(last.Pending, d.Pending) {
		return
	}
	c.last[name] = d
	attrs := []any{"channel", name, "release", d.Serve, "epoch", d.Epoch, "publication", d.Publication}
	for _, p := range d.Pending {
		attrs = append(attrs, "pending", fmt.Sprintf("%s at epoch %d: %s", p.Release, p.Epoch, whyNot(trust.Channel{Missing: p.Missing})))
	}
	if d.Serve == "" {
		c.cfg.Log.Warn("channel may serve nothing", append(attrs, "why", whyNot(d))...)
		return
	}
	if d.Stale != "" {
		c.cfg.Log.Warn("the site's lease has run out", append(attrs, "why", d.Stale)...)
		return
	}
	c.cfg.Log.Info("channel decided", attrs...)
}

// maxWhy bounds how many reasons are told of a channel that serves nothing.
const maxWhy = 8

// whyNot says in one line why a channel may serve nothing. A publication below the floor is history that every channel
// gathers: it is told only if there is nothing else to tell.
func whyNot(d trust.Channel) string {
	if d.Stale != "" {
		return d.Stale
	}
	var why, history []string
	for _, m := range d.Missing {
		why = append(why, fmt.Sprintf("%s by role %s", m, m.Role))
	}
	for _, r := range d.Reasons {
		switch text := r.Rule + ": " + r.Why; {
		case r.Counted:
		case r.Rule == trust.RuleEpochReplay:
			history = append(history, text)
		default:
			why = append(why, text)
		}
	}
	if len(why) == len(d.Missing) {
		why = append(why, history...)
	}
	why = slices.Compact(why)
	if len(why) == 0 {
		return "no publication for this channel counts"
	}
	return strings.Join(why[:min(len(why), maxWhy)], "; ")
}
