package process_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/process"
)

// patience is how long a test waits for what should happen at once.
const patience = 20 * time.Second

// start starts the stand-in in a private directory, confined, with the given files.
func start(t *testing.T, log *slog.Logger, files []*os.File, args ...string) *process.Process {
	t.Helper()
	return startConfig(t, process.Config{Args: args, Files: files, Log: log})
}

func startConfig(t *testing.T, c process.Config) *process.Process {
	t.Helper()
	c.Exec, c.Name, c.Dir = copyOfSelf(), standin, t.TempDir()
	defer c.Exec.Close()
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	p, err := process.Start(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		p.Stop(ctx)
	})
	return p
}

// TestSandbox has a stand-in try what no runtime may do, without a network and with one.
func TestSandbox(t *testing.T) {
	for name, network := range map[string]bool{"without a network": false, "with a network": true} {
		t.Run(name, func(t *testing.T) { testSandbox(t, network, nil) })
	}
	t.Run("as another user", func(t *testing.T) {
		if os.Geteuid() != 0 || os.Getenv(again) != "" {
			t.Skip("only root may start a child as somebody else")
		}
		testSandbox(t, false, &process.User{UID: 54321, GID: 54322})
	})
	if _, err := process.Start(process.Config{Exec: os.Stdin, Log: slog.Default(), Dir: "/", Network: true, User: &process.User{UID: 1}}); err == nil {
		t.Error("a child with a network started as another user, want an error")
	}
}

func testSandbox(t *testing.T, network bool, as *process.User) {
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(outside, "service.sock")
	listen(t, "unix", socket)
	listen(t, "unix", "@service.sock")
	_, port, _ := net.SplitHostPort(listen(t, "tcp", "127.0.0.1:0"))
	// Things a careless parent leaves lying about.
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: limit.Max, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_CORE, &limit)
	t.Setenv("WEIGHBRIDGE_SECRET", "x")
	leaked, err := unix.Open(filepath.Join(outside, "secret"), unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leaked)

	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := startConfig(t, process.Config{Files: []*os.File{w}, Args: []string{"probe", outside, socket, port}, Network: network, User: as})
	w.Close()
	var got probed
	if err := json.UnmarshalRead(r, &got); err != nil {
		t.Fatalf("probe did not report: %v, %v", err, p.ErrWithOutput())
	}

	allowed := []string{"write to /dev/null", "read system libraries", "reopen an inherited file", "listen inside"}
	kernelMay := []string{"signal the parent", "truncate a file outside"} // refused where the level is full
	if network {
		// It has none, and signals its own group.
		allowed = append(allowed[:3], "listen tcp", "signal the parent", "fork", "start a process")
		kernelMay = append(kernelMay, "connect a port of this machine")
	}
	if as != nil { // a pipe is its maker's, unlike memory
		allowed = slices.DeleteFunc(allowed, func(s string) bool { return s == "reopen an inherited file" })
		if got.UID != as.UID || got.GID != as.GID || got.Groups != 0 {
			t.Errorf("user %d, group %d, %d other groups, want user %d, group %d alone", got.UID, got.GID, got.Groups, as.UID, as.GID)
		}
	}
	for what, failure := range got.Did {
		want := slices.Contains(allowed, what)
		if (failure == "") != want && (p.Sandbox().Level == backends.SandboxFull || !slices.Contains(kernelMay, what)) {
			t.Errorf("%s: done %v (%s), want %v", what, failure == "", failure, want)
		}
	}
	if len(got.Environment) != 0 {
		t.Errorf("environment is %q, want none", got.Environment)
	}
	if want := []string{"0", "1", "2", "3"}; !slices.Equal(got.Descriptors, want) {
		t.Errorf("descriptors are %q, want %q", got.Descriptors, want)
	}
	if got.Dumpable != 0 || got.NoNewPrivs != 1 || got.CoreLimit != 0 {
		t.Errorf("dumpable %d, no_new_privs %d, core limit %d; want 0, 1, 0", got.Dumpable, got.NoNewPrivs, got.CoreLimit)
	}
}

func TestSandboxLevel(t *testing.T) {
	tests := []struct {
		landlock int
		seccomp  bool
		want     backends.SandboxLevel
		missing  string
	}{
		{7, true, backends.SandboxFull, ""},
		{6, true, backends.SandboxFull, ""},
		{5, true, backends.SandboxPartial, "signal"},
		{4, true, backends.SandboxPartial, "ioctl"},
		{2, true, backends.SandboxPartial, "truncate"},
		{0, true, backends.SandboxPartial, "no Landlock"},
		{7, false, backends.SandboxPartial, "datagrams"},
		{3, false, backends.SandboxPartial, "network"},
		{10, false, backends.SandboxPartial, "raw sockets"},
		{0, false, backends.SandboxNone, "no Landlock"},
	}
	for _, tt := range tests {
		got := process.Level(tt.landlock, tt.seccomp)
		if got.Level != tt.want || !strings.Contains(strings.Join(got.Missing, "; "), tt.missing) {
			t.Errorf("Level(%d, %v) = %v, want %v with %q", tt.landlock, tt.seccomp, got, tt.want, tt.missing)
		}
	}
	if got := process.NetworkLevel(false, ""); got.Level != backends.SandboxFull {
		t.Errorf("with namespaces of its own the level is %v, want full", got)
	}
	for _, got := range []backends.Sandbox{process.NetworkLevel(true, ""), process.NetworkLevel(false, "not allowed")} {
		if got.Level != backends.SandboxPartial || !strings.Contains(strings.Join(got.Missing, "; "), "its user's") {
			t.Errorf("level is %v, want partial and what its user may do", got)
		}
	}
}

// ended waits until the process of a pidfd has ended.
func ended(pidfd int) bool {
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
		if n, _ := unix.Poll(fds, int(time.Until(deadline).Milliseconds())); n == 1 {
			return true
		}
	}
	return false
}

func TestOutlivesTheThreadThatStartedIt(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var p *process.Process
	var threadEnds sync.WaitGroup
	threadEnds.Go(func() {
		runtime.LockOSThread() // and never unlock: the thread ends with this goroutine
		p = start(t, slog.New(slog.DiscardHandler), []*os.File{r}, "wait")
	})
	threadEnds.Wait()
	r.Close()
	// Only a living child takes more than the pipe holds.
	if _, err := w.Write(make([]byte, 1<<20)); err != nil {
		t.Errorf("child ended with the thread that called Start: %v (%v)", err, p.Err())
	}
}

func TestLeavesNoOffspring(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	executable := copyOfSelf()
	defer executable.Close()
	p := startConfig(t, process.Config{Files: []*os.File{r}, Lent: []*os.File{executable}, Args: []string{"breed"}})
	r.Close()
	<-p.Done()
	w.SetWriteDeadline(time.Now().Add(patience))
	// The offspring would read for ever. Without it, nobody does.
	for err == nil {
		_, err = w.Write(make([]byte, 1<<20))
	}
	if !errors.Is(err, syscall.EPIPE) {
		t.Errorf("write to the offspring of an ended child: %v, want %v", err, syscall.EPIPE)
	}
}

// TestSandboxCommandRefuses runs the hidden subcommand as a user might, or as it runs when its parent has just died.
func TestSandboxCommandRefuses(t *testing.T) {
	spec := `{"parent":%d,"files":0,"dir":"/","args":["x"]}`
	tests := []struct {
		name string
		args []string
		want string
	}{
		{"no specification", nil, "started by weighbridge itself"},
		{"not a specification", []string{"--help"}, "read sandbox specification"},
		{"an unknown field", []string{`{"parent":1,"trust":true}`}, "read sandbox specification"},
		{"an empty one", []string{`{}`}, "a field is missing"},
		{"another parent", []string{fmt.Sprintf(spec, 1)}, "which has ended"},
		{"no executable", []string{fmt.Sprintf(spec, os.Getpid())}, "read executable"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cmd := exec.Command("/proc/self/exe", append([]string{process.SandboxCommand}, tt.args...)...)
			out, err := cmd.CombinedOutput()
			if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 126 || !strings.Contains(string(out), tt.want) {
				t.Errorf("%q: %v, %q; want exit status 126 and %q", tt.args, err, out, tt.want)
			}
		})
	}
}

func TestStop(t *testing.T) {
	t.Run("gently", func(t *testing.T) {
		r, w, _ := os.Pipe()
		defer w.Close()
		p := start(t, slog.New(slog.DiscardHandler), []*os.File{r}, "wait")
		p.Stop(t.Context())
		if got, want := fmt.Sprint(p.Err()), "signal: terminated"; got != want {
			t.Errorf("Err() = %q, want %q", got, want)
		}
		p.Stop(t.Context()) // again: nothing
	})
	t.Run("by force when the context ends", func(t *testing.T) {
		lines := newLineLog()
		p := start(t, lines.logger(), nil, "stubborn")
		lines.waitFor(t, "ready")
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		p.Stop(ctx)
		if got, want := fmt.Sprint(p.Err()), "signal: killed"; got != want {
			t.Errorf("Err() = %q, want %q", got, want)
		}
	})
}

func TestOutputIsBounded(t *testing.T) {
	lines := newLineLog()
	p := start(t, lines.logger(), nil, "shout")
	<-p.Done()
	got := lines.all()
	if n := strings.Count(got, "msg=\"runtime output\""); n != process.MaxLines {
		t.Errorf("%d lines were logged, want %d", n, process.MaxLines)
	}
	if want := "lines=51"; !strings.Contains(got, want) {
		t.Errorf("log does not say %q", want)
	}
	for line := range strings.Lines(got) {
		if len(line) > process.MaxLine+100 {
			t.Errorf("logged a line of %d bytes", len(line))
		}
	}
	err := p.ErrWithOutput().Error()
	last := fmt.Sprintf("line %d", process.MaxLines+49)
	if !strings.HasPrefix(err, "exit status 3; it wrote:\n") || !strings.HasSuffix(err, last) || strings.Count(err, "\n") != process.TailSize {
		t.Errorf("ErrWithOutput() = %q, want exit status and last %d lines", err, process.TailSize)
	}
}

func TestStartRefuses(t *testing.T) {
	script, err := os.Create(filepath.Join(t.TempDir(), "script"))
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(script, "#!/bin/sh\n")
	onDisk, err := os.Open("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	valid := process.Config{Exec: copyOfSelf(), Name: standin, Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler)}
	tests := []struct {
		name  string
		spoil func(*process.Config)
		want  string
	}{
		{"no executable", func(c *process.Config) { c.Exec = nil }, "required"},
		{"no directory", func(c *process.Config) { c.Dir = "" }, "required"},
		{"a missing directory", func(c *process.Config) { c.Dir += "/none" }, "no such file"},
		{"a script", func(c *process.Config) { c.Exec = script }, "not scripts"},
		{"an executable on disk", func(c *process.Config) { c.Exec = onDisk }, "not a memory file"},
		{"another program as itself", func(c *process.Config) { c.Self = "/bin/true" }, "ended before it was confined"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := valid
			tt.spoil(&c)
			if _, err := process.Start(c); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Start() = %v, want an error with %q", err, tt.want)
			}
		})
	}
}
