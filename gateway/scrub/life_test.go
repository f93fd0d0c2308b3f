package scrub_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weighbridge/weighbridge/gateway/catalog"
	"github.com/weighbridge/weighbridge/gateway/scrub"
)

// TestLife follows the copies of a release: each change is told and recorded once, soon after it could be seen.
func TestLife(t *testing.T) {
	s := newSite(t)
	a := s.write(filepath.Join(s.one, "a.gguf"))
	release := s.need(catalog.WhyPrevious, a, nil).Hex()[:10]
	good, err := os.ReadFile(a)
	s.must(err)
	synctest.Test(t, func(t *testing.T) {
		s.t = t
		s.start()
		step := func(what string, problems [][]string, records ...string) {
			t.Helper()
			after(2 * scrub.LookEvery)
			s.check(what, problems...)
			got := s.recorded()
			if len(got) != len(records) {
				t.Fatalf("%s: recorded %q, want %q", what, got, records)
			}
			for i, want := range records {
				if !strings.HasPrefix(got[i], want) {
					t.Errorf("%s: recorded %q, want %q", what, got[i], want)
				}
			}
		}
		bad := [][]string{{a, "is bad"}}
		after(scrub.FirstAfter)
		step("at first", nil)
		s.must(flip(a, 1))
		step("altered", bad, "chat "+release+" the copy of the weights at "+a+" is bad: a.gguf: was altered")
		s.must(flip(a, 2))
		step("altered otherwise", bad, "chat "+release+" the copy of the weights at "+a+" is bad: a.gguf: was altered")
		step("nothing new", bad)

		s.set(func() {
			s.needs = append(s.needs[:1:1], catalog.Need{Channel: "embed", Why: catalog.WhyServing, Release: s.needs[0].Release})
		})
		step("needed by another", [][]string{{"chat (previous release", ", embed (serving release", a}}, "embed "+release+" the copy of")
		s.set(func() { s.needs = s.needs[:1] })
		step("needed by one", bad, "embed "+release+" the bad copy at "+a+" is not needed any more")

		s.must(os.WriteFile(a, good, 0o644))
		step("repaired", nil, "chat "+release+" the copy at "+a+" is as signed again")
		s.must(os.Rename(a, a+".away"))
		step("gone", [][]string{{"no copy of the weights is stored"}}, "chat "+release+" no copy of the weights is stored")
		s.must(os.Rename(a+".away", a))
		step("there again", nil, "chat "+release+" what was missing is stored again")

		s.must(flip(a, 3))
		step("altered again", bad, "chat "+release+" the copy of")
		b := s.write(filepath.Join(s.two, "a.gguf"))
		s.SignModel(b)
		after(24 * time.Hour)
		step("another copy", [][]string{{a, "a good copy is at " + b}})
		s.must(os.Remove(a))
		step("the bad one taken away", nil, "chat "+release+" the bad copy at "+a+" is gone")
		s.must(flip(b, 3))
		step("the other altered", [][]string{{b, "there is no other copy"}}, "chat "+release+" the copy of")
		s.set(func() { s.terms.Every = 0 })
		step("off", nil, "chat "+release+" the bad copy at "+b+" is not looked at any more: scrub is off")
		s.set(func() { s.terms.Every = time.Hour })
		step("on", [][]string{{b}}, "chat "+release+" the copy of")
		s.set(func() { s.terms.Dirs = []string{s.one} })
		step("another directory", [][]string{{"no copy of the weights is stored"}}, "chat "+release+" no copy", "chat "+release+" the bad copy at "+b+" is gone")
		s.set(func() { s.needs = nil })
		step("nothing is needed", nil, "chat "+release+" what was missing is not needed any more")
		if got := s.metrics(); len(got) != 0 {
			t.Errorf("metrics = %q, want none", got)
		}
	})
}

// TestChangesAreSeen soon, long before it is a copy's turn, whatever is changed.
func TestChangesAreSeen(t *testing.T) {
	for name, change := range map[string]func(dir string) error{
		"a file of a directory": func(dir string) error { return flip(filepath.Join(dir, "deep", "a.gguf"), 0) },
		"its time put back": func(dir string) error {
			path := filepath.Join(dir, "deep", "a.gguf")
			before, err := os.Stat(path)
			return errors.Join(err, flip(path, 0), os.Chtimes(path, before.ModTime(), before.ModTime()))
		},
		"a file too much": func(dir string) error { return os.WriteFile(filepath.Join(dir, "b.gguf"), nil, 0o644) },
		"a file is gone":  func(dir string) error { return os.Remove(filepath.Join(dir, "deep", "a.gguf")) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			dir := filepath.Join(s.one, "model")
			s.write(filepath.Join(dir, "deep", "a.gguf"))
			s.SignModel(dir)
			s.need(catalog.WhyServing, dir, nil)
			synctest.Test(t, func(t *testing.T) {
				s.t = t
				s.start()
				after(scrub.FirstAfter + scrub.LookEvery)
				s.check("at first")
				s.must(change(dir))
				after(2 * scrub.LookEvery)
				s.check("after the change", []string{dir})
			})
		})
	}
}

// TestAdvice: that a copy is good is said only once it was read.
func TestAdvice(t *testing.T) {
	s := newSite(t)
	a, b := s.write(filepath.Join(s.one, "a.gguf")), s.write(filepath.Join(s.two, "a.gguf"))
	s.need(catalog.WhyServing, a, nil)
	s.SignModel(b)
	s.must(flip(a, 0))
	synctest.Test(t, func(t *testing.T) {
		s.t = t
		s.open()
		s.scrubber.InProcess(func(path string) error {
			if path == b {
				s.check("before the other was read", []string{a, "fetch it again; the copy at " + b + " was not read yet"})
			}
			return nil
		})
		s.start()
		after(scrub.FirstAfter + time.Second)
		s.check("after that", []string{a, "fetch it again; a good copy is at " + b})
		if got := s.recorded(); len(got) != 1 {
			t.Errorf("recorded %q, want one record: advice is no finding", got)
		}
	})
}

// TestTurns: a copy is read once a day, all of them by their turns, and the metric says since when all were.
func TestTurns(t *testing.T) {
	s := newSite(t)
	for i, name := range []string{"a.gguf", "b.gguf", "c.gguf"} {
		s.need([]catalog.Why{catalog.WhyServing, catalog.WhyPrevious, catalog.WhyPending}[i], s.write(filepath.Join(s.one, name)), nil)
	}
	synctest.Test(t, func(t *testing.T) {
		s.t = t
		var read []string
		s.open()
		s.scrubber.InProcess(func(path string) error {
			s.set(func() { read = append(read, filepath.Base(path)) })
			time.Sleep(10 * time.Minute)
			return nil
		})
		begun := time.Now()
		s.start()
		after(scrub.FirstAfter + 20*time.Minute + time.Second)
		if got := s.metrics(); !slices.Equal(got, []string{`weighbridge_scrub_bad{channel="chat"} 0`}) {
			t.Errorf("metrics before all were read = %q", got)
		}
		after(10 * time.Minute)
		since := float64(begun.Add(scrub.FirstAfter + 10*time.Minute).Unix())
		if got, want := s.metrics(), fmt.Sprintf("weighbridge_scrub_time_seconds{channel=\"chat\"} %v", since); len(got) != 2 || got[1] != want {
			t.Errorf("metrics = %q, want %s", got, want)
		}
		after(23 * time.Hour)
		soFar := func() (all []string) {
			s.set(func() { all = slices.Clone(read) })
			return all
		}
		if read := soFar(); len(read) != 3 {
			t.Errorf("read %q within a day, want each once", read)
		}
		after(2 * time.Hour)
		if read := soFar(); len(read) != 6 || !slices.Equal(read[:3], read[3:]) {
			t.Errorf("read %q in two days, want each twice, in the same order", read)
		}

		s.set(func() { read, s.terms.Every = nil, 10*time.Minute }) // which is not enough
		after(2 * time.Hour)
		for _, name := range []string{"a.gguf", "b.gguf", "c.gguf"} {
			if read := soFar(); len(slices.DeleteFunc(slices.Clone(read), func(other string) bool { return other != name })) < 3 {
				t.Errorf("read %q in two hours, want %s by its turns", read, name)
			}
		}
	})
}

// TestRestless: what is being written is not told to be bad, unless it never ends.
func TestRestless(t *testing.T) {
	s := newSite(t)
	a := s.write(filepath.Join(s.one, "a.gguf"))
	s.need(catalog.WhyServing, a, nil)
	s.must(flip(a, 0))
	synctest.Test(t, func(t *testing.T) {
		s.t = t
		times, writing := 0, true
		s.open()
		s.scrubber.InProcess(func(path string) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			if times++; writing {
				return os.Chtimes(path, time.Time{}, time.Unix(int64(times), 0))
			}
			return nil
		})
		s.start()
		after(scrub.FirstAfter + time.Second)
		for range scrub.MaxRestless - 1 {
			after(scrub.LookEvery)
			s.check("while it is written")
		}
		s.set(func() {
			if times != scrub.MaxRestless {
				t.Errorf("read %d times, want %d", times, scrub.MaxRestless)
			}
		})
		after(scrub.LookEvery)
		s.check("when it never ends", []string{a, "was altered"})
		s.set(func() { writing = false })
		s.must(flip(a, 0))
		after(2 * scrub.LookEvery)
		s.check("when it has ended")
		s.set(func() { writing = true })
		s.must(flip(a, 0))
		after((scrub.MaxRestless - 1) * scrub.LookEvery)
		s.check("while it is written again")
	})
}

// TestTrouble: that nothing can be read is a problem of its own, logged once, and nobody's weights are bad for it.
func TestTrouble(t *testing.T) {
	s := newSite(t)
	a := s.write(filepath.Join(s.one, "a.gguf"))
	s.need(catalog.WhyServing, a, nil)
	s.must(flip(a, 0))
	synctest.Test(t, func(t *testing.T) {
		s.t = t
		why := errors.New("no more processes")
		s.open()
		s.scrubber.InProcess(func(string) (now error) { s.set(func() { now = why }); return now })
		s.start()
		after(scrub.FirstAfter + 5*scrub.LookEvery)
		if got := s.scrubber.Problems(); !slices.Equal(got, []string{"stored weights can't be checked: no more processes"}) {
			t.Errorf("problems = %q", got)
		}
		if n := strings.Count(s.logged(), "no more processes"); n != 1 {
			t.Errorf("logged %d times, want once", n)
		}
		if got := s.recorded(); len(got) != 0 {
			t.Errorf("recorded %q", got)
		}
		s.set(func() { why = nil })
		after(2 * scrub.LookEvery)
		s.check("when it works again", []string{a, "was altered"})
	})
}

// TestTakenAway: a copy that goes while it is read was not bad.
func TestTakenAway(t *testing.T) {
	s := newSite(t)
	a, b := s.write(filepath.Join(s.one, "a.gguf")), s.write(filepath.Join(s.two, "a.gguf"))
	s.need(catalog.WhyServing, a, nil)
	s.SignModel(b)
	s.must(flip(a, 0))
	synctest.Test(t, func(t *testing.T) {
		s.t = t
		s.open()
		s.scrubber.InProcess(func(path string) error {
			if path == a {
				return os.Remove(a)
			}
			return nil
		})
		s.start()
		after(scrub.FirstAfter + 3*scrub.LookEvery)
		s.check("afterwards")
		if got := s.recorded(); len(got) != 0 {
			t.Errorf("recorded %q", got)
		}
	})
}
