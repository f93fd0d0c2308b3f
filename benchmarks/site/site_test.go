package site

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/benchmarks/bench"
)

// TestMainStays has one thread at a time run Go: only one that is locked lets no other goroutine run on it.
func TestMainStays(t *testing.T) {
	t.Setenv("ROUNDS", "")
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	defer func(args []string) { os.Args = args }(os.Args)
	os.Args = os.Args[:1]
	measured, shared := make(chan bool), false
	go func() { // the thread ends with this goroutine
		defer close(measured)
		Main(bench.Program{Name: "sample", Measure: func(context.Context, *bench.Job) error {
			other := make(chan int)
			go func() { other <- unix.Gettid() }()
			shared = <-other == unix.Gettid()
			return nil
		}})
	}()
	<-measured
	if shared {
		t.Error("the thread of what measures runs other goroutines, too")
	}
}

// TestNewFindsParts makes no site where they are not.
func TestNewFindsParts(t *testing.T) {
	t.Chdir(t.TempDir())
	in := t.TempDir()
	if _, err := New(t.Context(), Config{In: in, Memory: 1 << 20}); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "find the gateway") {
		t.Errorf("New() without a gateway = %v, want %v, and where to run it", err, os.ErrNotExist)
	}
	writeFile := func(path, text string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	writeFile("bin/weighbridge", "")
	var stderr bytes.Buffer
	if _, err := New(t.Context(), Config{In: in, Memory: 1 << 20, Stderr: &stderr}); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "llama-server") {
		t.Errorf("New() without llama-server = %v, want %v and what is not there", err, os.ErrNotExist)
	}
	if left, err := os.ReadDir(in); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v, want nothing", left, err)
	}
	writeFile(".ci/parts", "#!/bin/sh\necho building >&2\necho /cache/$1\n")
	parts, err := findParts(t.Context(), &stderr)
	if err != nil || !filepath.IsAbs(parts.Weighbridge) || parts.Llama != "/cache/llama-server" || stderr.String() != "building\n" {
		t.Errorf("findParts() = %+v, %v with progress %q, want both", parts, err, &stderr)
	}
}

func TestFacts(t *testing.T) {
	s := &Site{Parts: Parts{Weighbridge: "/nowhere/weighbridge", Llama: "/nowhere/llama-server"}, Dir: t.TempDir()}
	var names []string
	for _, f := range s.Facts(t.Context()) {
		names = append(names, f.Name)
	}
	for _, want := range []string{"processor", "weighbridge", "llama-server"} {
		if !slices.Contains(names, want) {
			t.Errorf("Facts() are about %q, want %q among them", names, want)
		}
	}
}

func TestChild(t *testing.T) {
	runtime.LockOSThread() // children die with the thread that started them
	defer runtime.UnlockOSThread()
	cmd := exec.Command("cat", "-")
	waiting, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	c, err := StartChild("cat", cmd)
	if err != nil {
		t.Fatal(err)
	}
	pid := c.PID()
	if pids, err := childrenOf(os.Getpid()); err != nil || !slices.Contains(pids, pid) {
		t.Errorf("childrenOf(us) = %v, %v, want %d among them", pids, err, pid)
	}
	if args, err := commandLine(pid); err != nil || !slices.Equal(args, []string{"-"}) {
		t.Errorf("commandLine(cat -) = %q, %v, want its argument", args, err)
	}
	c.Stop()
	if _, err := c.End(); err != nil {
		t.Errorf("End() = %v, want nil once it was stopped", err)
	}
}

func TestChildFinishes(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c, err := StartChild("sh", exec.Command("sh", "-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"))
	if err != nil {
		t.Fatal(err)
	}
	if used, err := c.Finish(t.Context()); err != nil || used.CPU <= 0 {
		t.Errorf("Finish() = %+v, %v, want some processor time", used, err)
	}
	if c, err = StartChild("false", exec.Command("false")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Finish(t.Context()); err == nil {
		t.Error("Finish() of what failed = nil, want an error")
	}
	if _, err := StartChild("nothing", exec.Command(filepath.Join(t.TempDir(), "nothing"))); err == nil {
		t.Error("StartChild() of nothing = nil, want an error")
	}
}

// TestIdentities gives each caller an identity and a rule of its own.
func TestIdentities(t *testing.T) {
	s := &Site{Dir: t.TempDir()}
	ids, rules, err := s.identities(map[string]string{"loud": "rate: 10/s", "quiet": ""})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if !strings.Contains(ids, "files: {svid: ./svids/gateway/svid.pem") {
		t.Errorf("the gateway's identity is %q, want files", ids)
	}
	for _, want := range []string{`/apps/loud", channels: [chat], methods: [chat, models], limits: {rate: 10/s}}`, `/apps/quiet", channels: [chat], methods: [chat, models], limits: {` + ampleLimits} {
		if !strings.Contains(rules, want) {
			t.Errorf("rules = %q, want %q among them", rules, want)
		}
	}
	id, err := s.Identity(t.Context(), "loud")
	if err != nil {
		t.Fatal(err)
	}
	defer id.Close()
	if got := id.TrustDomain().Name(); got != trustDomain {
		t.Errorf("trust domain = %q, want %q", got, trustDomain)
	}
	if _, err := s.Identity(t.Context(), "nobody"); err == nil {
		t.Error("Identity(nobody) = nil, want an error")
	}
	if ids, _, err := (&Site{}).identities(nil); err != nil || !strings.Contains(ids, "development") {
		t.Errorf("without callers the identity is %q, %v, want development", ids, err)
	}
}

func TestReplaceArgs(t *testing.T) {
	args := []string{"--model", "/proc/self/fd/4", "--jinja", "--load-mode", "mmap", "--model"}
	got := replaceArgs(args, map[string]string{"--model": "m.gguf", "--load-mode": "none", "--absent": "x"})
	if want := []string{"--model", "m.gguf", "--jinja", "--load-mode", "none", "--model"}; !slices.Equal(got, want) {
		t.Errorf("replaceArgs() = %q, want %q", got, want)
	}
	if args[1] != "/proc/self/fd/4" {
		t.Error("replaceArgs changed what it was given")
	}
}

func TestEventLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	write := func(text string) {
		t.Helper()
		if _, err := file.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	const at = "2026-11-28T23:31:18.123456789Z"
	line := func(msg string, n int) string { return fmt.Sprintf(`{"time":%q,"msg":%q,"n":%d}`+"\n", at, msg, n) }
	l := newEventLog(path)
	check := func(msg string, want any) {
		t.Helper()
		e, found, err := l.find(msg)
		if err != nil || found != (want != nil) || e.Attrs["n"] != want || found && e.At.Format(time.RFC3339Nano) != at {
			t.Errorf("find(%s) = %v, %t, %v, want the line with %v", msg, e, found, err, want)
		}
	}
	check("a", nil)
	write(line("a", 1))
	b := line("b", 2)
	write(b[:20])
	check("a", 1.0)
	check("b", nil) // it is not whole
	write(b[20:] + "no JSON\n" + `{"time":"now","msg":"c","n":4}` + "\n" + line("a", 3))
	check("b", 2.0)
	check("c", nil)
	check("a", 1.0) // the first line still
	write(line("d", 5))
	if err := l.forget(); err != nil {
		t.Fatal(err)
	}
	check("a", nil)
	check("d", nil)
	write(line("a", 6))
	check("a", 6.0)
	if got := l.last.String(); !strings.Contains(got, "no JSON") {
		t.Errorf("last = %q, want all that was written", got)
	}
	write(strings.Repeat("x", 2*maxTail))
	check("e", nil)
	if got := len(l.last.data); got != maxTail {
		t.Errorf("last keeps %d bytes, want %d", got, maxTail)
	}
	if _, _, err := newEventLog(path + ".none").find("a"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("find in no file = %v, want ErrNotExist", err)
	}
}

func TestReadText(t *testing.T) {
	const part = `data: {"choices":[{"delta":{"content":%s}}]}` + "\n\n"
	said := strings.Replace(part, "%s", `"I am "`, 1) + strings.Replace(part, "%s", `"A."`, 1)
	tests := []struct {
		name, body string
		stream     bool
		want       string
		err        error
	}{
		{"whole", `{"choices":[{"message":{"content":" I am A."}}]}`, false, "I am A.", nil},
		{"stream", said + "data: [DONE]\n\n", true, "I am A.", nil},
		{"stream without choices", said + `data: {"choices":[],"usage":{}}` + "\n\ndata: [DONE]\n", true, "I am A.", nil},
		{"stream that is cut off", said, true, "", io.ErrUnexpectedEOF},
		{"nothing of a stream", "", true, "", io.ErrUnexpectedEOF},
	}
	for _, tt := range tests {
		if got, err := readText(strings.NewReader(tt.body), tt.stream); got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%s: readText() = %q, %v, want %q, %v", tt.name, got, err, tt.want, tt.err)
		}
	}
	if got, err := readText(strings.NewReader("data: no\n"), true); err == nil {
		t.Errorf("readText of no JSON = %q, want an error", got)
	}
}
