package scrub

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/weighbridge/weighbridge/gateway/audit"
	"github.com/weighbridge/weighbridge/verifier/statement"
)

// A report is what is known, for whoever asks. It is immutable.
type report struct {
	problems []string
	channels map[string]channelReport // those that need anything
}

type channelReport struct {
	bad   int64     // copies, and things of which there is none
	since time.Time // since when every copy was read; zero: one was not yet
}

// A subject is what is told once for as long as it stays so: that a copy is bad which a channel may need for a release.
type subject struct {
	channel string
	release statement.ID
	of      statement.ID // what is stored: the statement that lists its files
	path    string       // of the copy; "": that there is none
}

func (s subject) compare(other subject) int {
	return cmp.Or(cmp.Compare(s.channel, other.channel), cmp.Compare(s.release, other.release), cmp.Compare(s.of, other.of), cmp.Compare(s.path, other.path))
}

// Problems are what an operator should know of stored weights: a line each, with what to do.
func (s *Scrubber) Problems() []string { return slices.Clone(s.shown.Load().problems) }

// tell records what has changed, and shows what is.
func (s *Scrubber) tell(terms Terms) {
	now := map[subject]string{}
	r := &report{channels: map[string]channelReport{}}
	for _, name := range s.needed {
		r.channels[name] = channelReport{}
	}
	if s.trouble != "" {
		r.problems = append(r.problems, plain("stored weights can't be checked: "+s.trouble))
	}
	read := map[string][]time.Time{}
	for _, id := range slices.Sorted(maps.Keys(s.wanted)) {
		w := s.wanted[id]
		faults := w.faults()
		for _, path := range slices.Sorted(maps.Keys(faults)) {
			r.problems = append(r.problems, plain(w.needed()+": "+faults[path]+w.advice(path)))
			for _, u := range w.uses {
				now[subject{u.channel, u.release, id, path}] = plain(faults[path])
			}
		}
		for _, name := range w.channels() {
			c := r.channels[name]
			c.bad += int64(len(faults))
			for _, copied := range w.copies {
				read[name] = append(read[name], copied.readAt)
			}
			if len(read[name]) > 0 {
				c.since = slices.MinFunc(read[name], time.Time.Compare) // zero, if one was not read yet
			}
			r.channels[name] = c
		}
	}
	s.shown.Store(r)
	s.record(terms, now)
}

// record logs and records what is bad and was not, or not like that, and what is so no longer.
func (s *Scrubber) record(terms Terms, now map[subject]string) {
	for _, about := range slices.SortedFunc(maps.Keys(now), subject.compare) {
		if why := now[about]; s.told[about] != why {
			s.cfg.Log.Error("stored weights are bad", "channel", about.channel, "release", about.release, "why", why)
			s.cfg.Trail.Note(audit.Record{Kind: audit.KindScrub, Channel: about.channel, Release: about.release, Why: why})
		}
	}
	for _, about := range slices.SortedFunc(maps.Keys(s.told), subject.compare) {
		if _, still := now[about]; !still {
			why := plain(s.over(terms, about))
			s.cfg.Log.Info("stored weights are bad no longer", "channel", about.channel, "release", about.release, "why", why)
			s.cfg.Trail.Note(audit.Record{Kind: audit.KindScrub, Channel: about.channel, Release: about.release, Why: why})
		}
	}
	s.told = now
}

// over says why something is not bad any more.
func (s *Scrubber) over(terms Terms, about subject) string {
	w := s.wanted[about.of]
	needed := w != nil && slices.ContainsFunc(w.uses, func(u use) bool { return u.channel == about.channel && u.release == about.release })
	what := "what was missing"
	if about.path != "" {
		what = "the bad copy at " + about.path
	}
	switch {
	case terms.Every == 0:
		return what + " is not looked at any more: scrub is off"
	case !needed:
		return what + " is not needed any more"
	case about.path == "":
		return what + " is stored again"
	case w.copies[about.path] == nil:
		return what + " is gone"
	}
	return "the copy at " + about.path + " is as signed again"
}

// String says what is wrong with a copy, "" if nothing is.
func (a answer) String() string {
	if a.Unread != "" {
		return "can't be read: " + a.Unread
	}
	text := strings.Join(a.Problems, "; ")
	if a.More > 0 {
		text += fmt.Sprintf("; and %d more", a.More)
	}
	return text
}

// faults are what is wrong with what is stored, by the path of the copy; "" is that there is none.
func (w *wanted) faults() map[string]string {
	all := map[string]string{}
	if w.missing != "" {
		all[""] = "no copy of the " + w.what() + " is stored: " + w.missing
	}
	for path, c := range w.copies {
		if c.bad != "" {
			all[path] = fmt.Sprintf("the copy of the %s at %s is bad: %s", w.what(), path, c.bad)
		}
	}
	return all
}

func (w *wanted) what() string {
	if w.uses[0].adapter {
		return "adapter"
	}
	return "weights"
}

// needed says by whom it may be needed.
func (w *wanted) needed() string {
	var all []string
	for _, u := range w.uses {
		all = append(all, fmt.Sprintf("%s (%s release %s)", u.channel, u.why, u.release))
	}
	return strings.Join(slices.Compact(all), ", ")
}

func (w *wanted) channels() []string {
	var all []string
	for _, u := range w.uses {
		all = append(all, u.channel)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// advice says what to do about a bad copy. That there is none says it already.
func (w *wanted) advice(path string) string {
	if path == "" {
		return ""
	}
	unread := ""
	for _, other := range slices.Sorted(maps.Keys(w.copies)) {
		switch c := w.copies[other]; {
		case c.readAt.IsZero():
			unread = other
		case c.bad == "":
			return ": fetch it again; a good copy is at " + other
		}
	}
	switch {
	case unread != "":
		return ": fetch it again; the copy at " + unread + " was not read yet"
	case len(w.copies) > 1:
		return ": fetch it again; no copy is good"
	}
	return ": fetch it again; there is no other copy"
}

// plain makes one line of a text, of characters that print: names on disk hold anything.
func plain(s string) string {
	return strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return utf8.RuneError
		}
		return c
	}, strings.ReplaceAll(s, "\n", "; "))
}
