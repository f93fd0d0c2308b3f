package main

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/benchmarks/bench"
	"github.com/weighbridge/weighbridge/benchmarks/site"
)

// at is a moment of the tests, in milliseconds.
func at(ms int) time.Time { return time.UnixMilli(int64(ms)) }

func TestValues(t *testing.T) {
	var took bench.Series
	for ms := range 101 {
		took = append(took, float64(100-ms))
	}
	if v := values(took); v[p99] != 99 || v[p50] != 50 || v[reqs] != 101 {
		t.Errorf("values(0 to 100) = %v, want 99, 50 and how many", v)
	}
}

func TestFirstAnswer(t *testing.T) {
	const old, fresh = "sha256:old", "sha256:new"
	tests := []struct {
		name string
		all  []site.Sample
		want time.Time
	}{
		{"one", []site.Sample{{Due: at(110), Done: at(150), Release: fresh}}, at(150)},
		{"the first that was answered", []site.Sample{{Due: at(110), Done: at(180), Release: fresh}, {Due: at(120), Done: at(140), Release: fresh}}, at(140)},
		{"of another release", []site.Sample{{Due: at(110), Done: at(150), Release: old}}, time.Time{}},
		{"from when it served before", []site.Sample{{Due: at(90), Done: at(150), Release: fresh}}, time.Time{}},
		{"that failed", []site.Sample{{Due: at(110), Done: at(150), Release: fresh, Failure: "cut off"}}, time.Time{}},
		{"nothing", nil, time.Time{}},
	}
	for _, tt := range tests {
		if got, ok := firstAnswer(tt.all, fresh, at(100)); got != tt.want || ok == tt.want.IsZero() {
			t.Errorf("%s: firstAnswer() = %v, %v, want %v", tt.name, got, ok, tt.want)
		}
	}
}

func TestSwitched(t *testing.T) {
	w := &world{}
	for _, tt := range []struct {
		release string
		want    []string
	}{{"a", []string{"a"}}, {"b", []string{"b", "a"}}, {"c", []string{"c", "b"}}, {"b", []string{"b", "c"}}} {
		if w.switched(tt.release); !slices.Equal(w.serving, tt.want) {
			t.Errorf("after %s: %q serve or are warm, want %q", tt.release, w.serving, tt.want)
		}
	}
}

func TestCounts(t *testing.T) {
	var c counts
	c.add([]site.Sample{{}, {Wrong: "A for B"}, {Failure: "503", Wrong: "nothing"}}, time.Second)
	c.add([]site.Sample{{Failure: "cut off"}}, time.Second)
	if want := (counts{requests: 4, failed: 2, mixed: 1, asking: 2 * time.Second, example: "A for B"}); c != want {
		t.Errorf("counts = %+v, want %+v", c, want)
	}
}

// TestProcesses sees one of two processes end.
func TestProcesses(t *testing.T) {
	runtime.LockOSThread() // children die with the thread that started them
	defer runtime.UnlockOSThread()
	var pids []int
	for range 2 {
		cmd := exec.Command("cat")
		if _, err := cmd.StdinPipe(); err != nil {
			t.Fatal(err)
		}
		c, err := site.StartChild("cat", cmd)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Stop()
		pids = append(pids, c.PID())
	}
	watched, err := watchProcesses(pids)
	if err != nil {
		t.Fatal(err)
	}
	defer watched.close()
	p, err := os.FindProcess(pids[1])
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := watched.awaitOne(); err != nil || watched[0].Revents != 0 {
		t.Errorf("awaitOne() = %v, first process %v, want that the second one ended", err, watched[0])
	}
	if _, err := watchProcesses([]int{-1}); err == nil {
		t.Error("watchProcesses of no process = nil, want an error")
	}
}

// TestReport reads the figures as they are read from release to release, and looks for directories in what is published.
func TestReport(t *testing.T) {
	w := &world{
		Site: &site.Site{
			Parts: site.Parts{Weighbridge: "/nowhere/weighbridge", Llama: "/nowhere/llama-server"}, Dir: "/somewhere/site",
			RuntimeArgs: []string{"--model", "/proc/self/fd/4", "--load-mode", "mmap", "--host", "x", "--api-key-file", "/proc/self/fd/3"},
		},
		total: counts{requests: 1280, failed: 1, mixed: 2, asking: 20 * time.Second, swaps: 40, example: "503"},
	}
	cases := w.cases()
	for i := range cases {
		ms := float64(10 * (i + 1))
		cases[i].Run = func(context.Context) (bench.Values, error) {
			return bench.Values{p99: ms, p50: ms, first: ms, reqs: 100}, nil
		}
	}
	r, err := bench.Suite{Cases: cases, Metrics: metrics, Rounds: 2}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	report := w.report(t.Context(), r)
	text := string(report.Text())
	lines := strings.Split(strings.TrimSpace(text), "\n")
	want := []string{
		"requests-per-second: 64.0",
		"publication-to-first-answer-ms: 30",
		"failed-requests: 1",
		"mixed-answers: 2",
		"p99-during/p99-before: 1.50",
		"warm-rollback-ms: 40",
	}
	for _, line := range want {
		if !slices.Contains(lines, line) {
			t.Errorf("figures are %q, want %q among them", lines[len(lines)-len(report.Figures):], line)
		}
	}
	if !slices.Contains(lines, "- went wrong first: 503") || lines[2] != "$ make bench-swap ROUNDS=2" {
		t.Errorf("report does not say what went wrong, or how to repeat it:\n%s", text)
	}
	for _, text := range []string{text, string(report.Plot())} {
		for _, bad := range []string{"/somewhere", "/nowhere", "/proc/self"} {
			if strings.Contains(text, bad) {
				t.Errorf("report names %s:\n%s", bad, text)
			}
		}
	}
}
