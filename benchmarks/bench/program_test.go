package bench_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/weighbridge/weighbridge/benchmarks/bench"
)

// asMain has this test's program be a benchmark that can't measure.
const asMain = "BENCH_TEST_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asMain) != "" {
		bench.Main(bench.Program{Name: "sample", Measure: func(context.Context, *bench.Job) error {
			if os.Getenv(asMain) == "broken" {
				return errors.New("broken")
			}
			return nil
		}})
		return
	}
	os.Exit(m.Run())
}

func TestMainExits(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		how    string
		status int
		stderr string
	}{{"well", 0, ""}, {"broken", 2, "sample: broken\n"}} {
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), asMain+"="+tt.how, "ROUNDS=")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		err := cmd.Run()
		if got := cmd.ProcessState.ExitCode(); got != tt.status || stderr.String() != tt.stderr {
			t.Errorf("%s: Main() exits with %d (%v) and says %q, want %d and %q", tt.how, got, err, &stderr, tt.status, tt.stderr)
		}
	}
}

func TestProgramParses(t *testing.T) {
	tests := []struct {
		name    string
		rounds  string
		args    string
		want    string // what is done; empty: nothing
		wantErr string
	}{
		{"default", "", "", `rounds 7, results "", fast false, rest []`, ""},
		{"all set", "2", "-results dir -fast more", `rounds 2, results "dir", fast true, rest [more]`, ""},
		{"most rounds", "1000", "", `rounds 1000, results "", fast false, rest []`, ""},
		{"help", "", "-h", "", ""},
		{"unknown flag", "", "-slow", "", "slow"},
		{"no rounds", "0", "", "", `ROUNDS="0"`},
		{"negative rounds", "-1", "", "", "ROUNDS"},
		{"endless rounds", "1001", "", "", "ROUNDS"},
		{"rounds in words", "many", "", "", "ROUNDS"},
		{"refused by its own check", "", "refused", "", "what it checks"},
		{"all problems at once, one", "0", "refused", "", "what it checks"},
		{"all problems at once, the other", "0", "refused", "", "ROUNDS"},
		{"a command", "0", "child -slow", "child [-slow]", ""},
		{"a command's name behind a flag", "", "-fast child", `rounds 7, results "", fast true, rest [child]`, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("ROUNDS", tt.rounds)
			var fast bool
			var rest []string
			var stdout, stderr bytes.Buffer
			p := bench.Program{
				Name:  "sample",
				Flags: func(flags *flag.FlagSet) { flags.BoolVar(&fast, "fast", false, "measure less") },
				Check: func(args []string) error {
					if rest = args; len(args) > 0 && args[0] == "refused" {
						return errors.New("what it checks")
					}
					return nil
				},
				Measure: func(_ context.Context, j *bench.Job) error {
					fmt.Fprintf(j.Stdout, "rounds %d, results %q, fast %v, rest %v", j.Rounds, j.Results, fast, rest)
					return nil
				},
				Commands: map[string]bench.Command{
					"child": func(_ context.Context, args []string, stdout io.Writer) error {
						fmt.Fprintf(stdout, "child %v", args)
						return nil
					},
				},
			}
			err := p.Run(t.Context(), strings.Fields(tt.args), &stdout, &stderr)
			if stdout.String() != tt.want || (err == nil) != (tt.wantErr == "") || err != nil && !strings.Contains(err.Error(), tt.wantErr) {
				t.Errorf("Run(%q) does %q, %v, want %q and an error with %q", tt.args, &stdout, err, tt.want, tt.wantErr)
			}
			if says := strings.Contains(stderr.String(), "Usage of sample:"); says != (tt.args == "-h" || tt.args == "-slow") {
				t.Errorf("Run(%q) says how it is used: %v:\n%s", tt.args, says, &stderr)
			}
		})
	}
}

// TestProgramNeedsLittle is of one that has no more than is required.
func TestProgramNeedsLittle(t *testing.T) {
	t.Setenv("ROUNDS", "")
	measured := false
	p := bench.Program{Name: "sample", Measure: func(context.Context, *bench.Job) error { measured = true; return nil }}
	if err := p.Run(t.Context(), nil, io.Discard, io.Discard); err != nil || !measured {
		t.Errorf("Run() = %v, measured %v, want it done", err, measured)
	}
	measured = false
	if err := p.Run(t.Context(), []string{"argument"}, io.Discard, io.Discard); err == nil || measured {
		t.Errorf("Run(argument) = %v, measured %v, want an error: it has no use for one", err, measured)
	}
}

func TestProgramEndsBySignal(t *testing.T) {
	t.Setenv("ROUNDS", "")
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		wait := func(ctx context.Context) error {
			if err := syscall.Kill(os.Getpid(), sig); err != nil {
				return err
			}
			<-ctx.Done()
			return ctx.Err()
		}
		p := bench.Program{
			Name:    "sample",
			Measure: func(ctx context.Context, _ *bench.Job) error { return wait(ctx) },
			Commands: map[string]bench.Command{
				"child": func(ctx context.Context, _ []string, _ io.Writer) error { return wait(ctx) },
			},
		}
		for _, args := range [][]string{nil, {"child"}} {
			if err := p.Run(t.Context(), args, io.Discard, io.Discard); !errors.Is(err, context.Canceled) {
				t.Errorf("Run(%q) at %v = %v, want %v", args, sig, err, context.Canceled)
			}
		}
	}
}

func TestJobTimes(t *testing.T) {
	var order []string
	var stderr bytes.Buffer
	job := &bench.Job{Rounds: 2, Stderr: &stderr}
	r, err := job.Time(t.Context(), []bench.Case{scripted("a", &order, 2)}, seconds)
	if err != nil {
		t.Fatal(err)
	}
	if r.Rounds != 2 || len(order) != 2 || r.Median("a", "time") != 2 {
		t.Errorf("Time() = %+v after %d rounds, want what was measured in 2", r, len(order))
	}
	if !strings.Contains(stderr.String(), "round 2 of 2: a: time 2.00 s\n") {
		t.Errorf("progress lacks the last round:\n%s", &stderr)
	}
}

// fullDisk takes nothing.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

func TestJobPublishes(t *testing.T) {
	r, dir := newReport(t), t.TempDir()
	saved := filepath.Join(dir, "sample.txt")
	t.Chdir(dir) // where it would be saved without a directory
	var stdout bytes.Buffer
	tests := []struct {
		name    string
		results string
		stdout  io.Writer
		want    error
		printed bool
		saved   bool
	}{
		{"printed", "", &stdout, nil, true, false},
		{"printed and saved", dir, &stdout, nil, true, true},
		{"not to be saved", filepath.Join(dir, "nowhere"), &stdout, os.ErrNotExist, true, false},
		{"not to be printed", dir, fullDisk{}, syscall.ENOSPC, false, false},
	}
	for _, tt := range tests {
		stdout.Reset()
		os.Remove(saved)
		job := &bench.Job{Results: tt.results, Stdout: tt.stdout}
		if err := job.Publish(r); !errors.Is(err, tt.want) {
			t.Errorf("%s: Publish() = %v, want %v", tt.name, err, tt.want)
		}
		if got := bytes.Equal(stdout.Bytes(), r.Text()); got != tt.printed {
			t.Errorf("%s: the report was printed: %v, want %v", tt.name, got, tt.printed)
		}
		if _, err := os.Stat(saved); (err == nil) != tt.saved {
			t.Errorf("%s: the report was saved: %v, want %v", tt.name, err == nil, tt.saved)
		}
	}
}

func TestResultCommand(t *testing.T) {
	for rounds, want := range map[int]string{bench.DefaultRounds: "make sample", 1: "make sample ROUNDS=1", 8: "make sample ROUNDS=8"} {
		r := &bench.Result{Rounds: rounds}
		if got := r.Command("make sample"); got != want {
			t.Errorf("Command() of %d rounds = %q, want %q", rounds, got, want)
		}
	}
}

// TestFindPart has a script in place of the real one.
func TestFindPart(t *testing.T) {
	t.Chdir(t.TempDir())
	var stderr bytes.Buffer
	if _, err := bench.FindPart(t.Context(), "tool", &stderr); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "repository's root") {
		t.Errorf("FindPart elsewhere = %v, want %v, and where to run it", err, os.ErrNotExist)
	}
	if err := os.Mkdir(".ci", 0o755); err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\necho looking for $1 >&2\n[ $1 = tool ] && echo /cache/$1\n"
	if err := os.WriteFile(filepath.Join(".ci", "parts"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if got, err := bench.FindPart(t.Context(), "tool", &stderr); got != "/cache/tool" || err != nil || stderr.String() != "looking for tool\n" {
		t.Errorf("FindPart(tool) = %q, %v with progress %q, want its path", got, err, &stderr)
	}
	if got, err := bench.FindPart(t.Context(), "other", &stderr); err == nil || !strings.Contains(err.Error(), "other") {
		t.Errorf("FindPart(other) = %q, %v, want an error that names it", got, err)
	}
}
