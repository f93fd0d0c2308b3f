package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/weighbridge/weighbridge/benchmarks/bench"
	"github.com/weighbridge/weighbridge/benchmarks/site"
)

// measured is a world whose cases have run, in name only.
func measured(t *testing.T, withSmallPages bool) (*world, *bench.Result) {
	t.Helper()
	w := &world{
		Site: &site.Site{
			Parts: site.Parts{Weighbridge: "/nowhere/weighbridge", Llama: "/nowhere/llama-server"}, Dir: "/somewhere/site",
			RuntimeArgs: []string{"--model", "/proc/self/fd/4", "--load-mode", "mmap", "--host", "x", "--api-key-file", "/proc/self/fd/3"},
		},
		signing: "/nowhere/model_signing", model: modelFile{"/somewhere/model.gguf", 4e9},
	}
	cases := w.cases(withSmallPages)
	for i := range cases {
		took := float64(i + 1)
		cases[i].Run = func(context.Context) (bench.Values, error) {
			return bench.Values{seconds: took, cpu: took, device: 4002, rss: 100, rssOne: 90, rssTwo: 100}, nil
		}
	}
	r, err := bench.Suite{Cases: cases, Metrics: metrics, Rounds: 2}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return w, r
}

func TestFigures(t *testing.T) {
	for _, withSmallPages := range []bool{false, true} {
		w, r := measured(t, withSmallPages)
		text := string(w.report(t.Context(), options{layers: fullLayers, small: withSmallPages}, r).Text())
		lines := strings.Split(strings.TrimSpace(text), "\n")
		want := []string{
			"verified-cold/plain-mmap-cold: 3.000",
			"verified-cold/model_signing+plain-cold: 0.750",
			"warm/plain-warm: 1.200",
			"device-bytes/model-bytes: 1.0005",
			"gateway-rss-mib: 100.0",
		}
		if got := lines[len(lines)-len(want):]; !slices.Equal(got, want) {
			t.Errorf("the last lines are %q, want %q", got, want)
		}
		if got := slices.Contains(lines, "warm-small-pages/plain-warm: 1.600"); got != withSmallPages {
			t.Errorf("huge pages %v: figures of them %v:\n%s", withSmallPages, got, text)
		}
		if got := strings.Contains(text, "SMALL=1, as root"); got == withSmallPages {
			t.Errorf("huge pages %v: how to ask for them is said: %v", withSmallPages, got)
		}
	}
}

// TestReportNamesNoPlace looks for directories in what is published.
func TestReportNamesNoPlace(t *testing.T) {
	w, r := measured(t, false)
	report := w.report(t.Context(), options{layers: 1}, r)
	for _, text := range []string{string(report.Text()), string(report.Plot())} {
		for _, bad := range []string{"/somewhere", "/nowhere", "/proc/self"} {
			if strings.Contains(text, bad) {
				t.Errorf("report names %s:\n%s", bad, text)
			}
		}
	}
	if want := "make bench-load ROUNDS=2 LAYERS=1"; report.Command != want {
		t.Errorf("command = %q, want %q", report.Command, want)
	}
}

// TestPublish keeps the results of the full model.
func TestPublish(t *testing.T) {
	for layers, save := range map[int]bool{fullLayers: true, 1: false} {
		w, r := measured(t, false)
		o, dir := &options{layers: layers}, t.TempDir()
		var stdout, stderr bytes.Buffer
		if err := o.publish(&bench.Job{Results: dir, Stdout: &stdout, Stderr: &stderr}, w.report(t.Context(), *o, r)); err != nil {
			t.Fatal(err)
		}
		_, err := os.Stat(filepath.Join(dir, "load.txt"))
		if saved, said := err == nil, stderr.Len() > 0; saved != save || said == save || stdout.Len() == 0 {
			t.Errorf("%d layers: saved %v, said so %v, printed %d bytes, want saved %v", layers, saved, said, stdout.Len(), save)
		}
	}
}

func TestEvictionNote(t *testing.T) {
	tests := []struct {
		eviction
		want string
	}{
		{eviction{}, "cold: at most 0.00 % of the model stayed in the page cache"},
		{eviction{stayed: 0.004}, "cold: at most 0.40 % of the model stayed in the page cache"},
		{eviction{stayed: 0.25}, "not cold: up to 25.0 % of the model stayed in the page cache"},
		{eviction{stayed: 0.002, dropped: true}, "cold: at most 0.20 % of the model stayed in the page cache; the whole page cache had to be dropped for that, so that programs were cold too"},
	}
	for _, tt := range tests {
		if got := tt.note(); got != tt.want {
			t.Errorf("note() = %q, want %q", got, tt.want)
		}
	}
}
