package audit

import (
	"maps"
	"slices"
	"time"
)

// Tallies are calls that were refused, and not yet recorded.
type tallies struct {
	until  time.Time          // when they are to be recorded
	caller map[string]*Record // of the first, counting the others; nil: there are none
}

// others is the caller that stands for those that are too many to be told apart.
const others = ""

// RefusedCaller counts a call that was refused. It never blocks. There is one record for each caller and minute, with the
// channel and the rule if they were always the same; a channel must be one that exists, not what the caller asked for.
func (l *Log) RefusedCaller(identity, channel, rule string) {
	now := l.config.Now()
	if len(channel) > maxName || len(rule) > maxName { // not to be kept, even for a minute
		channel, rule = cut(channel, maxName), cut(rule, maxName)
	}
	l.mu.Lock()
	first := l.refused.count(identity, channel, rule, now)
	l.mu.Unlock()
	if first {
		l.rouse() // so that the writer waits for the end of the minute
	}
}

// count reports whether it is the first.
func (t *tallies) count(identity, channel, rule string, now time.Time) bool {
	first := t.caller == nil
	if first {
		t.caller, t.until = map[string]*Record{}, now.Add(refusedEvery)
	}
	c := t.caller[identity]
	if c == nil && (len(t.caller) >= maxRefused || len(identity) > maxText) {
		identity = others
		c = t.caller[identity]
	}
	if c == nil {
		c = &Record{Time: now, Kind: KindRefusedCallers, Channel: channel, Caller: identity, Rule: rule}
		t.caller[identity] = c
	}
	c.Count++
	if c.Channel != channel {
		c.Channel, c.Why = "", "on several channels or by several rules"
	}
	if c.Rule != rule {
		c.Rule, c.Why = "", "on several channels or by several rules"
	}
	return first
}

// flush hands over what was counted until a minute is over, or now if the log is closed. While what waits already can't be
// written, it is counted on: a caller must not fill the memory that is kept for others. It returns when to look again, zero
// if nothing is left. l.mu is held.
func (l *Log) flush(now time.Time) time.Time {
	t := &l.refused
	switch {
	case t.caller == nil:
		return time.Time{}
	case !l.closing && now.Before(t.until):
		return t.until
	case !l.closing && l.failure != nil:
		return now.Add(retryAfter)
	}
	for _, name := range slices.Sorted(maps.Keys(t.caller)) {
		r, _ := t.caller[name].settled() // what a caller made up is left out
		l.note(r)
	}
	*t = tallies{}
	return time.Time{}
}
