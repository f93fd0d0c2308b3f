package audit_test

import (
	"bytes"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json"

	"github.com/weighbridge/weighbridge/gateway/audit"
	"github.com/weighbridge/weighbridge/verifier/statement"
)

const id = statement.ID("sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")

// full is a record with all that one can have.
func full() audit.Record {
	return audit.Record{
		Time: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC), Kind: audit.KindSwitch, Channel: "chat", Release: id, Statement: id,
		Identity: "CN=Alice, O=Bank", Caller: "spiffe://bank.example/apps/teller", Count: 3, Rule: "max-age", Why: "why not", Level: "sealed",
	}
}

func TestRecord(t *testing.T) {
	tests := []struct {
		name   string
		change func(*audit.Record)
		want   string // "" for a record that is kept as it is
	}{
		{"valid", func(*audit.Record) {}, ""},
		{"only what is required", func(r *audit.Record) { *r = audit.Record{Kind: r.Kind, Time: r.Time} }, ""},
		{"the longest", func(r *audit.Record) {
			r.Identity, r.Caller, r.Why = strings.Repeat(`"`, 2048), strings.Repeat(`\`, 2048), strings.Repeat(`"`, 1024)
		}, ""},
		{"no kind", func(r *audit.Record) { r.Kind = "" }, "unknown kind"},
		{"unknown kind", func(r *audit.Record) { r.Kind = "prompt" }, "unknown kind"},
		{"a channel of words", func(r *audit.Record) { r.Channel = "tell me" }, "channel"},
		{"a long channel", func(r *audit.Record) { r.Channel = strings.Repeat("x", 129) }, "channel"},
		{"half a release", func(r *audit.Record) { r.Release = id[:20] }, "release"},
		{"a statement of words", func(r *audit.Record) { r.Statement = "tell me" }, "statement"},
		{"a rule of words", func(r *audit.Record) { r.Rule = "tell me" }, "rule"},
		{"a level of words", func(r *audit.Record) { r.Level = "tell me" }, "level"},
		{"a long identity", func(r *audit.Record) { r.Identity = strings.Repeat("x", 2049) }, "identity"},
		{"an identity of two lines", func(r *audit.Record) { r.Identity = "a\nb" }, "identity"},
		{"a long caller", func(r *audit.Record) { r.Caller = strings.Repeat("x", 2049) }, "caller"},
		{"a caller that moves the cursor", func(r *audit.Record) { r.Caller = "a\x1b[A" }, "caller"},
		{"a caller that is no text", func(r *audit.Record) { r.Caller = "a\xff" }, "caller"},
		{"a negative count", func(r *audit.Record) { r.Count = -1 }, "count"},
		{"a count that JSON can't carry", func(r *audit.Record) { r.Count = 1<<53 + 1 }, "count"},
		{"a time of no calendar", func(r *audit.Record) { r.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }, "time"},
	}
	for _, tt := range tests {
		r := full()
		tt.change(&r)
		entry, err := r.Entry()
		if tt.want != "" {
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: Entry = %s, %v, want %q", tt.name, entry, err, tt.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: Entry = %v", tt.name, err)
			continue
		}
		if again, err := audit.ParseRecord(entry); err != nil || again != r {
			t.Errorf("%s: ParseRecord = %+v, %v, want %+v", tt.name, again, err, r)
		}
	}
	// A reason is the one text that is cut, for nothing is to fail for a long one.
	r := full()
	r.Why = "first\nline " + strings.Repeat("ß", 1024)
	entry, err := r.Entry()
	if err != nil {
		t.Fatal(err)
	}
	again, err := audit.ParseRecord(entry)
	if err != nil || len(again.Why) > 1024 || len(again.Why) < 1000 || !utf8.ValidString(again.Why) ||
		!strings.HasPrefix(again.Why, "first\uFFFDline ß") || !strings.HasSuffix(again.Why, "ß…") {
		t.Errorf("a long reason is kept as %q, %v", again.Why, err)
	}
}

// TestParseRecord: there is one way to write a record.
func TestParseRecord(t *testing.T) {
	valid := `{"channel":"chat","kind":"stop","time":"2026-01-02T03:04:05Z"}`
	tests := []struct{ name, entry string }{
		{"valid", valid},
		{"another order", `{"kind":"stop","channel":"chat","time":"2026-01-02T03:04:05Z"}`},
		{"a space", strings.Replace(valid, ",", ", ", 1)},
		{"an unknown field", strings.Replace(valid, "channel", "prompt", 1)},
		{"another case", strings.Replace(valid, "channel", "Channel", 1)},
		{"an empty field", strings.Replace(valid, `"chat"`, `""`, 1)},
		{"a field twice", strings.Replace(valid, `{`, `{"channel":"chat",`, 1)},
		{"another zone", strings.Replace(valid, "Z", "+00:00", 1)},
		{"no time", `{"channel":"chat","kind":"stop"}`},
		{"something after it", valid + "x"},
		{"too long", `{"why":"` + strings.Repeat("x", 20<<10) + `"}`},
		{"nothing", ""},
		{"null", "null"},
	}
	for _, tt := range tests {
		_, err := audit.ParseRecord([]byte(tt.entry))
		if (err == nil) != (tt.entry == valid) {
			t.Errorf("%s: ParseRecord(%q) = %v", tt.name, tt.entry, err)
		}
	}
}

// TestNoteKeepsWhatItCan: a note is never lost for a field that can't be recorded.
func TestNoteKeepsWhatItCan(t *testing.T) {
	dir := t.TempDir()
	create(t, dir)
	l := open(t, dir)
	r := full()
	r.Channel, r.Caller, r.Release, r.Why = "tell me", "a\nb", "x", "a\nb"
	l.Note(r)
	l.Note(audit.Record{Kind: "prompt", Time: r.Time, Channel: "chat"})
	if _, err := l.Append(t.Context(), r); err == nil {
		t.Error("Append of a malformed record = nil")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	want := full()
	want.Channel, want.Caller, want.Release, want.Why = "", "", "", "a\uFFFDb"
	got := records(t, dir)
	if len(got) != 2 || got[0] != want || got[1].Kind != audit.KindGap || got[1].Count != 1 {
		t.Errorf("records = %+v, want %+v and a gap", got, want)
	}
}

// FuzzParseRecord: a record that is read is written back to the very bytes, and needs no more room than is kept for one.
func FuzzParseRecord(f *testing.F) {
	entry, err := full().Entry()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(entry)
	f.Add([]byte(`{"kind":"stop","time":"2026-01-02T03:04:05.1Z"}`))
	f.Fuzz(func(t *testing.T, entry []byte) {
		r, err := audit.ParseRecord(entry)
		if err != nil {
			return
		}
		again, err := r.Entry()
		if err != nil || !bytes.Equal(again, entry) {
			t.Errorf("ParseRecord(%q), written back: %q, %v", entry, again, err)
		}
	})
}

// FuzzParseBundle: entries that are read are written back to the very bytes.
func FuzzParseBundle(f *testing.F) {
	f.Add([]byte("\x00\x01a\x00\x02bc"), 2)
	f.Add([]byte("\x00\x01a\x00\x02bc"), 1)
	f.Add([]byte("\x00\x00"), 1)
	f.Add([]byte("\xff\xffa"), 1)
	f.Fuzz(func(t *testing.T, bundle []byte, width int) {
		entries, err := audit.ParseBundle(bundle, min(max(width, 0), 256))
		if err != nil {
			return
		}
		var again []byte
		for _, e := range entries {
			again = audit.AppendEntry(again, e)
		}
		if !bytes.Equal(again, bundle) || len(entries) != min(max(width, 0), 256) {
			t.Errorf("ParseBundle(%q, %d) = %q, written back %q", bundle, width, entries, again)
		}
	})
}

// FuzzParseProof: a proof that is read proves nothing that the log did not sign.
func FuzzParseProof(f *testing.F) {
	dir := f.TempDir()
	create(f, dir)
	write(f, dir, 5)
	l := open(f, dir)
	p, err := l.Prove(2)
	if err != nil {
		f.Fatal(err)
	}
	data, err := json.Marshal(p)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	who := verifier(f)
	another, err := withdrawal(9).Entry()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := audit.ParseProof(data)
		if err == nil && p.Check(another, who) == nil {
			t.Errorf("%q proves a record that is not in the log", data)
		}
	})
}

// BenchmarkAppend writes records of 64 callers at once.
func BenchmarkAppend(b *testing.B) {
	dir := b.TempDir()
	create(b, dir)
	l := open(b, dir)
	r := full()
	var group sync.WaitGroup
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ResetTimer()
	for range 64 {
		group.Go(func() {
			for left.Add(-1) >= 0 {
				if _, err := l.Append(b.Context(), r); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
}
