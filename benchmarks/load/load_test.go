package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
	"github.com/weighbridge/weighbridge/benchmarks/bench"
)

func TestOptions(t *testing.T) {
	tests := []struct {
		name string
		env  map[string]string
		args []string
		want options
		err  string
	}{
		{"default", nil, nil, options{layers: fullLayers}, ""},
		{"all set", map[string]string{"LAYERS": "3", "SMALL": "1", "PRESENT": "1"}, []string{"-model"}, options{3, true, true, true}, ""},
		{"not small", map[string]string{"SMALL": "0"}, nil, options{layers: fullLayers}, ""},
		{"too large", map[string]string{"LAYERS": "35"}, nil, options{}, "LAYERS"},
		{"no layers", map[string]string{"LAYERS": "0"}, nil, options{}, "LAYERS"},
		{"layers in words", map[string]string{"LAYERS": "few"}, nil, options{}, "LAYERS"},
		{"small in words", map[string]string{"SMALL": "yes"}, nil, options{}, "SMALL"},
		{"present in words", map[string]string{"PRESENT": "yes"}, nil, options{}, "PRESENT"},
		{"argument", nil, []string{"dir"}, options{}, "unexpected"},
		{"all problems at once, one", map[string]string{"ROUNDS": "0", "LAYERS": "0"}, nil, options{}, "ROUNDS"},
		{"all problems at once, the other", map[string]string{"ROUNDS": "0", "LAYERS": "0"}, nil, options{}, "LAYERS"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, name := range []string{"ROUNDS", "LAYERS", "SMALL", "PRESENT"} {
				t.Setenv(name, tt.env[name])
			}
			var o, got options
			p := o.program()
			p.Measure = func(context.Context, *bench.Job) error { got = o; return nil }
			err := p.Run(t.Context(), tt.args, io.Discard, io.Discard)
			if got != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("Run(%q) measures %+v, %v, want %+v and an error with %q", tt.args, got, err, tt.want, tt.err)
			}
		})
	}
}

func TestOpenModel(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", cache)
	said := 0
	say := func(string, ...any) { said++ }
	var want bytes.Buffer
	if err := tinygguf.Write(&want, tinygguf.A); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time it is there
		m, err := openModel(t.Context(), tinygguf.A, say)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(m.path); err != nil || !bytes.Equal(got, want.Bytes()) || m.size != int64(want.Len()) {
			t.Errorf("model %+v holds %d bytes, %v, want those of its configuration", m, len(got), err)
		}
	}
	if said != 1 {
		t.Errorf("said %d times that a model is written, want once", said)
	}
	a, errA := modelPath("dir", tinygguf.A)
	b, errB := modelPath("dir", tinygguf.B)
	if a == b || errA != nil || errB != nil {
		t.Errorf("modelPath of two configurations = %q, %v and %q, %v, want two names", a, errA, b, errB)
	}
}

func TestOpenModelLeavesNothingUnfinished(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", cache)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := openModel(ctx, tinygguf.A, func(string, ...any) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("openModel() = %v, want %v", err, context.Canceled)
	}
	if left, err := filepath.Glob(filepath.Join(cache, "weighbridge", "models", "*")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v, want nothing", left, err)
	}
}

func TestWithSmall(t *testing.T) {
	setting := filepath.Join(t.TempDir(), "shmem_enabled")
	read := func() string {
		data, err := os.ReadFile(setting)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	failed := errors.New("failed")
	for _, want := range []error{nil, failed} {
		if err := os.WriteFile(setting, []byte("always within_size advise [never] deny force\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		during := ""
		c := withSmall(setting, bench.Case{Name: "warm", Run: func(context.Context) (bench.Values, error) {
			during = read()
			return bench.Values{"time": 1}, want
		}})
		v, err := c.Run(t.Context())
		if !errors.Is(err, want) || v["time"] != 1 || c.Name != "warm-small-pages" {
			t.Errorf("%s = %v, %v, want %v", c.Name, v, err, want)
		}
		if after := read(); during != "deny" || after != "never" {
			t.Errorf("setting was %q and then %q, want advise and then never", during, after)
		}
	}
	if err := checkSetting(filepath.Join(setting, "nowhere")); err == nil || !strings.Contains(err.Error(), "SMALL=1") {
		t.Errorf("checkSetting of no setting = %v, want an error that names SMALL=1", err)
	}
	for text, ok := range map[string]bool{"a [b] c": true, "": false, "a b": false, "a [b": false} {
		if word, got := chosen(text); got != ok || ok && word != "b" {
			t.Errorf("chosen(%q) = %q, %v, want %v", text, word, got, ok)
		}
	}
}

func TestAllowHuge(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct{ before, during string }{{"never", "advise"}, {"deny", "advise"}, {"within_size", "within_size"}, {"force", "force"}} {
		path := filepath.Join(dir, tt.before)
		text := strings.Replace("always within_size advise never deny force\n", tt.before, "["+tt.before+"]", 1)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		said, restore := allowHuge(path)
		during, err := os.ReadFile(path)
		if err := errors.Join(err, restore()); err != nil {
			t.Fatal(err)
		}
		after, err := os.ReadFile(path)
		changed := tt.before != tt.during
		if word := strings.TrimSpace(string(during)); err != nil || changed && (word != tt.during || string(after) != tt.before) || !changed && string(after) != text {
			t.Errorf("%s: was %q meanwhile and %q (%v) then, want %s and %s", tt.before, during, after, err, tt.during, tt.before)
		}
		if !strings.HasPrefix(said, tt.during) || strings.Contains(said, tt.before) != (changed || tt.before == tt.during) {
			t.Errorf("%s: it says %q", tt.before, said)
		}
	}
	if said, restore := allowHuge(filepath.Join(dir, "nowhere")); said != "not supported" || restore() != nil {
		t.Errorf("without such a setting it says %q", said)
	}
}

func TestPeaks(t *testing.T) {
	begin := time.Unix(1000, 0)
	var samples []sample
	for i, bytes := range []int64{5, 9, 7, 3, 4} {
		samples = append(samples, sample{begin.Add(time.Duration(i) * time.Second), bytes})
	}
	if before, after := peaks(samples, begin.Add(3*time.Second)); before != 9 || after != 4 {
		t.Errorf("peaks() = %d, %d, want 9, 4", before, after)
	}
	if before, after := peaks(nil, begin); before != 0 || after != 0 {
		t.Errorf("peaks() of nothing = %d, %d, want none", before, after)
	}
}
