package scrub_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/gateway/audit"
	"github.com/weighbridge/weighbridge/gateway/catalog"
	"github.com/weighbridge/weighbridge/gateway/scrub"
	"github.com/weighbridge/weighbridge/gateway/telemetry"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

func TestMain(m *testing.M) {
	scrub.Hook()
	if path := os.Getenv(holdEnv); path != "" {
		hold(path)
	}
	os.Exit(m.Run())
}

// fast is a rate that holds nobody.
const fast = 1 << 40

// A site is a signed world with weights in two directories. Its scrubber runs by the clock of a synctest bubble.
type site struct {
	*trusttest.World
	t        *testing.T
	one, two string
	scrubber *scrub.Scrubber
	handler  http.Handler // of its metrics

	mu      sync.Mutex // guards what follows, and what a test changes while the scrubber runs
	needs   []catalog.Need
	terms   scrub.Terms
	records []audit.Record
	log     bytes.Buffer
}

// Note implements [scrub.Trail].
func (s *site) Note(r audit.Record) { s.set(func() { s.records = append(s.records, r) }) }

// Write implements [io.Writer], for the log.
func (s *site) Write(line []byte) (n int, err error) {
	s.set(func() { n, err = s.log.Write(line) })
	return n, err
}

// logged returns what was logged.
func (s *site) logged() (text string) {
	s.set(func() { text = s.log.String() })
	return text
}

// set changes what the scrubber may read or write.
func (s *site) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

func newSite(t *testing.T) *site {
	t.Helper()
	w := trusttest.New(t)
	s := &site{World: w, t: t, one: filepath.Join(w.Dir, "one"), two: filepath.Join(w.Dir, "two")}
	s.terms = scrub.Terms{Dirs: []string{s.one, s.two}, Every: 24 * time.Hour, Rate: fast}
	for _, dir := range s.terms.Dirs {
		s.must(os.Mkdir(dir, 0o755))
	}
	return s
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// write writes a file that is as long as some blocks and a bit.
func (s *site) write(path string) string {
	s.t.Helper()
	s.must(os.MkdirAll(filepath.Dir(path), 0o755))
	s.must(os.WriteFile(path, bytes.Repeat([]byte(filepath.Base(path)), 3<<20/len(filepath.Base(path))), 0o644))
	return path
}

// need makes a release of the model at path one that chat needs.
func (s *site) need(why catalog.Why, path string, edit func(*trust.Descriptor)) statement.ID {
	s.t.Helper()
	if _, err := os.Stat(path + ".sig"); err != nil {
		s.SignModel(path)
	}
	d := s.Descriptor(path)
	if edit != nil {
		edit(&d)
	}
	payload, err := trust.NewRelease(d)
	s.must(err)
	r, err := trust.ParseRelease(s.Sign(trusttest.Trainer, payload))
	s.must(err)
	s.needs = append(s.needs, catalog.Need{Channel: "chat", Why: why, Release: r})
	return r.ID
}

// start runs a scrubber until the bubble's test ends.
func (s *site) start() {
	s.t.Helper()
	s.open()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { s.scrubber.Run(ctx) })
	s.t.Cleanup(func() { cancel(); running.Wait() })
}

func (s *site) open() {
	s.t.Helper()
	if s.scrubber != nil {
		return
	}
	tel, err := telemetry.Open(s.t.Context(), telemetry.Config{})
	s.must(err)
	s.scrubber, err = scrub.New(scrub.Config{
		Needs: func() (now []catalog.Need) { s.set(func() { now = s.needs }); return now },
		Terms: func() (now scrub.Terms) { s.set(func() { now = s.terms }); return now },
		Trail: s,
		Log:   slog.New(slog.NewTextHandler(s, nil)), Meter: tel.Meter("weighbridge/scrub"),
	})
	s.must(err)
	s.handler = tel.Handler()
	s.scrubber.InProcess(nil)
}

// metrics are those of the scrub, as a Prometheus server would see them.
func (s *site) metrics() []string {
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return regexp.MustCompile(`(?m)^weighbridge_scrub_.*$`).FindAllString(w.Body.String(), -1)
}

// after waits until all that is due by then was read.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// check wants a problem for each of these, with all of the texts in it, and nothing else.
func (s *site) check(when string, want ...[]string) {
	s.t.Helper()
	got := s.scrubber.Problems()
	if len(got) != len(want) {
		s.t.Fatalf("%s: problems = %q, want %d", when, got, len(want))
	}
	for i, texts := range want {
		for _, text := range texts {
			if !strings.Contains(got[i], text) {
				s.t.Errorf("%s: problem is %q, want %q in it", when, got[i], text)
			}
		}
	}
	bad := 0
	for _, line := range s.metrics() {
		if _, err := fmt.Sscanf(line, `weighbridge_scrub_bad{channel="chat"} %d`, &bad); err == nil && bad != len(want) {
			s.t.Errorf("%s: %s, want %d", when, line, len(want))
		}
	}
}

// recorded returns what was recorded since it was asked last, and logged.
func (s *site) recorded() (why []string) {
	s.t.Helper()
	var records []audit.Record
	s.set(func() { records, s.records = s.records, nil })
	for _, r := range records {
		if _, err := r.Entry(); err != nil || r.Kind != audit.KindScrub {
			s.t.Errorf("record %+v: %v", r, err)
		}
		why = append(why, fmt.Sprintf("%s %.10s %s", r.Channel, r.Release.Hex(), r.Why))
		if n := strings.Count(s.logged(), string(r.Release)); n < 1 {
			s.t.Errorf("nothing was logged of %s", r.Release)
		}
	}
	return why
}

func flip(path string, at int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	b := make([]byte, 1)
	_, rerr := f.ReadAt(b, at)
	b[0] ^= 1
	_, werr := f.WriteAt(b, at)
	return errors.Join(rerr, werr, f.Close())
}

// TestScrub has weights that are as signed, in two directories, as a file and as a directory, and an adapter; each row
// changes one thing before anything was read.
func TestScrub(t *testing.T) {
	type paths struct{ file, again, dir, adapter string }
	tests := []struct {
		name   string
		change func(*site, paths) error
		want   func(paths) [][]string
	}{
		{"all is well", func(*site, paths) error { return nil }, nil},
		{"one bit flipped, and another copy is good", func(_ *site, p paths) error { return flip(p.file, 2<<20) }, func(p paths) [][]string {
			return [][]string{{"chat (serving release sha256:", "the copy of the weights at " + p.file + " is bad: a.gguf: was altered: bytes 0 to 3145728: expected sha256:", ", actual sha256:",
				": fetch it again; a good copy is at " + p.again}}
		}},
		{"two bad copies", func(_ *site, p paths) error { return errors.Join(flip(p.file, 0), flip(p.again, 3<<20-5)) }, func(p paths) [][]string {
			return [][]string{{p.file, "fetch it again; no copy is good"}, {p.again, "fetch it again; no copy is good"}}
		}},
		{"the only copy is bad", func(_ *site, p paths) error { return errors.Join(flip(p.file, 9), os.Remove(p.again)) }, func(p paths) [][]string {
			return [][]string{{p.file, "fetch it again; there is no other copy"}}
		}},
		{"cut short", func(_ *site, p paths) error { return os.Truncate(p.file, 5000) }, func(p paths) [][]string {
			return [][]string{{p.file, "was altered: bytes 0 to 5000"}}
		}},
		{"one byte longer", func(_ *site, p paths) error { return os.Truncate(p.file, 3<<20+1) }, func(p paths) [][]string {
			return [][]string{{p.file, "was altered"}}
		}},
		{"one copy is gone", func(_ *site, p paths) error { return os.Remove(p.file) }, nil},
		{"all copies are gone", func(_ *site, p paths) error { return errors.Join(os.Remove(p.file), os.Remove(p.again)) }, func(paths) [][]string {
			return [][]string{{"chat (serving release sha256:", "no copy of the weights is stored", "weights not found", "bring the weights and their signature there"}}
		}},
		{"a directory is gone, and the copy in the other", func(s *site, p paths) error { return errors.Join(os.RemoveAll(s.two), os.Remove(p.file)) }, func(p paths) [][]string {
			return [][]string{{"no copy of the weights is stored: look for weights: open " + filepath.Dir(p.again), "; weights not found"}}
		}},
		{"a signature is gone", func(_ *site, p paths) error { return os.Remove(filepath.Join(p.dir, "model.sig")) }, func(paths) [][]string {
			return [][]string{{"chat (previous release sha256:", "no copy of the weights is stored"}}
		}},
		{"a pipe in its place", func(_ *site, p paths) error { return errors.Join(os.Remove(p.file), unix.Mkfifo(p.file, 0o644)) }, func(p paths) [][]string {
			return [][]string{{p.file, "is not a regular file"}}
		}},
		{"a file of a directory altered", func(_ *site, p paths) error { return flip(filepath.Join(p.dir, "b.gguf"), 7) }, func(p paths) [][]string {
			return [][]string{{"chat (previous release sha256:", "the copy of the weights at " + p.dir + " is bad: b.gguf: was altered"}}
		}},
		{"many files of a directory are gone", func(_ *site, p paths) error { return os.RemoveAll(filepath.Join(p.dir, "deep")) }, func(p paths) [][]string {
			return [][]string{{"deep/1.json: is missing: ", "deep/3.json: is missing: ", "; and 2 more: fetch it again; there"}}
		}},
		{"a file too much", func(_ *site, p paths) error { return os.WriteFile(filepath.Join(p.dir, "x.py"), nil, 0o644) }, func(p paths) [][]string {
			return [][]string{{"x.py: is not listed in the signature"}}
		}},
		{"a name that moves the cursor", func(_ *site, p paths) error {
			return os.WriteFile(filepath.Join(p.dir, "\x1b[A.py"), nil, 0o644)
		}, func(paths) [][]string {
			return [][]string{{`\x1b[A.py`}}
		}},
		{"a path that does", func(_ *site, p paths) error {
			return errors.Join(os.Rename(p.dir, p.dir+"\x1b\xff"), flip(filepath.Join(p.dir+"\x1b\xff", "b.gguf"), 7))
		}, func(p paths) [][]string {
			return [][]string{{p.dir + "\ufffd\ufffd is bad"}}
		}},
		{"an adapter altered", func(_ *site, p paths) error { return flip(p.adapter, 7) }, func(p paths) [][]string {
			return [][]string{{"chat (serving release sha256:", "the copy of the adapter at " + p.adapter + " is bad"}}
		}},
		{"what is being imported", func(s *site, p paths) error {
			s.SignModel(s.write(filepath.Join(s.one, ".import-1", "a.gguf")))
			return flip(filepath.Join(s.one, ".import-1", "a.gguf"), 1)
		}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t)
			p := paths{filepath.Join(s.one, "a.gguf"), filepath.Join(s.two, "a.gguf"), filepath.Join(s.one, "b"), filepath.Join(s.one, "lora.gguf")}
			for _, path := range []string{p.file, p.again, p.adapter, filepath.Join(p.dir, "b.gguf")} {
				s.write(path)
			}
			for i := range 5 {
				s.write(filepath.Join(p.dir, "deep", fmt.Sprintf("%d.json", i+1)))
			}
			for _, path := range []string{p.file, p.again, p.adapter, p.dir} {
				s.SignModel(path)
			}
			s.need(catalog.WhyServing, p.file, func(d *trust.Descriptor) {
				d.Behaviour.Adapters = []trust.Adapter{s.Adapter(p.adapter, d.Weights.Root)}
			})
			s.need(catalog.WhyPrevious, p.dir, nil)
			s.must(tt.change(s, p))
			var want [][]string
			if tt.want != nil {
				want = tt.want(p)
			}
			synctest.Test(t, func(t *testing.T) {
				s.t = t
				s.start()
				after(scrub.FirstAfter - time.Second)
				s.check("before the first pass")
				after(2 * time.Second)
				s.check("after it", want...)
				if got := s.recorded(); len(got) != len(want) {
					t.Errorf("recorded %q, want %d records", got, len(want))
				}
				after(25 * time.Hour)
				s.check("a day later", want...)
				if got := s.recorded(); len(got) != 0 {
					t.Errorf("recorded %q again", got)
				}
			})
		})
	}
}

func TestNewWantsAll(t *testing.T) {
	_, err := scrub.New(scrub.Config{})
	for _, field := range []string{"Needs", "Terms", "Trail", "Log", "Meter"} {
		if err == nil || !strings.Contains(err.Error(), field+" is required") {
			t.Errorf("New = %v, want %s to be required", err, field)
		}
	}
}

// TestPace: what is read beyond the burst comes no faster than the rate, whoever reads.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 1 << 20
		begun := time.Now()
		wait := scrub.Pace(rate)
		var readers sync.WaitGroup
		for range 4 {
			readers.Go(func() {
				for range 8 {
					wait(1 << 20)
				}
			})
		}
		readers.Wait()
		if took, want := time.Since(begun), (32<<20-scrub.Burst)/rate*time.Second; took != want {
			t.Errorf("32 MiB at 1 MiB/s took %s, want %s", took, want)
		}
		time.Sleep(time.Hour) // a pause saves no more than the burst
		begun = time.Now()
		for range 8 {
			wait(1 << 20)
		}
		if took, want := time.Since(begun), (8<<20-scrub.Burst)/rate*time.Second; took != want {
			t.Errorf("8 MiB after a pause took %s, want %s", took, want)
		}
	})
}
