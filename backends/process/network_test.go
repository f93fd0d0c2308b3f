package process_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/backends/process"
)

const port = 11434

// startServing starts a stand-in that has a network, a file by name, and a child of its own.
func startServing(t *testing.T, log *lineLog) (p *process.Process, dir string) {
	t.Helper()
	file := memoryFile(t, "named", "sealed")
	defer file.Close()
	dir = t.TempDir()
	executable := copyOfSelf()
	defer executable.Close()
	p, err := process.Start(process.Config{
		Exec: executable, Name: standin, Args: []string{"serve", "child", fmt.Sprint(port)}, Env: []string{"ONE=1"}, Dir: dir, Log: log.logger(),
		Files: []*os.File{file}, Links: map[string]int{"names/one": 0}, Network: true, ExecPath: "standin",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		p.Stop(ctx)
	})
	return p, dir
}

// TestNetwork checks what a runtime that has a network has, down to the process that it starts itself.
func TestNetwork(t *testing.T) {
	lines := newLineLog()
	p, dir := startServing(t, lines)
	t.Logf("the sandbox is %+v", p.Sandbox())
	first, denied := true, "read-only file system"
	if !hasNamespaces(p) {
		first, denied = false, "permission denied"
	}
	lines.waitFor(t, fmt.Sprintf(`child: sealed <nil>, 1 links <nil>, first %v, remove names/one: %s, env [ONE=1]`, first, denied))
	lines.waitFor(t, fmt.Sprintf(`grandchild: sealed <nil>, 1 links <nil>, first false, remove names/one: %s, env []`, denied))
	checkUnseen(t, p, dir)
	// What others put where its directory is can't be opened, even if that is seen.
	if err := os.WriteFile(filepath.Join(dir, "planted"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := ask(t, p, "open planted"); err != nil || !strings.Contains(got, "permission denied") && !strings.Contains(got, "no such file") {
		t.Errorf("opening what was planted: %q, %v; want an error", got, err)
	}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() { checkEcho(t, p) })
	}
	all.Wait()

	if _, err := p.Dial(t.Context(), port+1); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("Dial() where nobody listens = %v, want refused", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Dial(gone, port); !errors.Is(err, context.Canceled) {
		t.Errorf("Dial() without a caller = %v, want %v", err, context.Canceled)
	}
	checkEcho(t, p)
	p.Stop(t.Context())
	if _, err := p.Dial(t.Context(), port); err == nil {
		t.Error("Dial() after Stop succeeded")
	}
}

func checkEcho(t *testing.T, p *process.Process) {
	t.Helper()
	if got, err := ask(t, p, "hello"); err != nil || got != "hello" {
		t.Errorf("it says %q, %v; want hello", got, err)
	}
}

// ask sends a line and returns the one that comes back.
func ask(t *testing.T, p *process.Process, line string) (string, error) {
	t.Helper()
	conn, err := p.Dial(t.Context(), port)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := fmt.Fprintln(conn, line); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(conn)
	return strings.TrimSpace(string(answer)), err
}

func TestDialWithoutNetwork(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	p := startConfig(t, process.Config{Args: []string{"wait"}, Files: []*os.File{r}})
	r.Close()
	if _, err := p.Dial(t.Context(), port); err == nil || !strings.Contains(err.Error(), "no network") {
		t.Errorf("Dial() = %v, want an error", err)
	}
}

// TestNetworkLeavesNothing kills one of the three processes: the others end with it.
func TestNetworkLeavesNothing(t *testing.T) {
	for _, victim := range []string{"beside it", "runtime"} {
		t.Run(victim, func(t *testing.T) {
			lines := newLineLog()
			p, dir := startServing(t, lines)
			lines.waitFor(t, "grandchild: ")
			processes := below(t, parentOf(t, p.PID()))
			if len(processes) != 2 {
				t.Fatalf("processes %v are there, want the runtime and its child", processes)
			}
			var watched []int
			for _, pid := range processes {
				fd, err := unix.PidfdOpen(pid, 0)
				if err != nil {
					t.Fatal(err)
				}
				defer unix.Close(fd)
				watched = append(watched, fd)
			}
			pid := p.PID()
			if victim == "beside it" {
				pid = parentOf(t, pid)
			}
			if err := unix.Kill(pid, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			<-p.Done()
			for i, fd := range watched {
				if !ended(fd) {
					t.Errorf("process %d lives on", processes[i])
				}
			}
			checkUnseen(t, p, dir)
		})
	}
}

// TestDiesWithItsParent kills what started a runtime: nothing of it is left, down to its own child.
func TestDiesWithItsParent(t *testing.T) {
	for mode, want := range map[string]int{"parent": 1, "lending parent": 3, "network parent": 3} { // with the one beside it, and its child
		t.Run(mode, func(t *testing.T) { testDiesWithItsParent(t, mode, want) })
	}
}

func testDiesWithItsParent(t *testing.T, mode string, want int) {
	parent := exec.Command("/proc/self/exe", mode, t.TempDir())
	parent.Args[0] = standin
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	defer parent.Wait()
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil {
		parent.Process.Kill()
		t.Fatal(err)
	}
	processes := below(t, parent.Process.Pid)
	if len(processes) != want {
		t.Errorf("processes %v are there, want %d", processes, want)
	}
	var watched []int
	for _, pid := range processes {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		watched = append(watched, fd)
	}
	parent.Process.Kill()
	for i, fd := range watched {
		if !ended(fd) {
			t.Errorf("process %d lives on after its parent was killed", processes[i])
		}
	}
}

// hasNamespaces reports whether a child has what this system has to give in most places.
func hasNamespaces(p *process.Process) bool {
	return !strings.Contains(strings.Join(p.Sandbox().Missing, "; "), "no namespaces of its own")
}

// checkUnseen checks that nobody outside sees a child's directory.
func checkUnseen(t *testing.T, p *process.Process, dir string) {
	t.Helper()
	if got, err := os.ReadDir(dir); hasNamespaces(p) && (err != nil || len(got) != 0) {
		t.Errorf("its directory has %v, %v as others see it; want nothing", got, err)
	}
}

// Environment variables by which a test has others run again where less is allowed.
const (
	again       = "WEIGHBRIDGE_TEST_AGAIN"
	noNamespace = "WEIGHBRIDGE_TEST_NO_NAMESPACE"
)

// forbidNamespaces takes away from this process, in a user namespace of its own, what a system may not allow.
func forbidNamespaces() error {
	if os.Getenv(noNamespace) == "" {
		return nil
	}
	return os.WriteFile("/proc/sys/user/max_net_namespaces", []byte("0"), 0)
}

// TestNetworkElsewhere runs the tests of networks again as a user who needs a user namespace for all others, and where
// there are none.
func TestNetworkElsewhere(t *testing.T) {
	if os.Getenv(again) != "" {
		t.Skip("runs again")
	}
	for _, tt := range []struct {
		name, env, want string
		uid             int
	}{
		{"as a user", again + "=1", "in a user namespace", 1000},
		{"without namespaces", noNamespace + "=1", "no namespaces of its own", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := exec.Command("/proc/self/exe", "-test.v", "-test.run=^(TestSandbox|TestNetwork|TestNetworkLeavesNothing|TestDiesWithItsParent)$")
			cmd.Env = append(os.Environ(), again+"=1", tt.env)
			cmd.SysProcAttr = &syscall.SysProcAttr{
				Cloneflags:  unix.CLONE_NEWUSER,
				UidMappings: []syscall.SysProcIDMap{{ContainerID: tt.uid, HostID: os.Geteuid(), Size: 1}},
				GidMappings: []syscall.SysProcIDMap{{ContainerID: tt.uid, HostID: os.Getegid(), Size: 1}},
			}
			out, err := cmd.CombinedOutput()
			if errors.Is(err, unix.EPERM) {
				t.Skip("no user namespaces here")
			}
			if err != nil || !strings.Contains(string(out), tt.want) {
				t.Errorf("tests end with %v, want success with a sandbox that is %q:\n%s", err, tt.want, out)
			}
		})
	}
}

// listen listens until the test ends and returns the address.
func listen(t *testing.T, network, address string) string {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// below lists the processes that descend from one.
func below(t *testing.T, pid int) (found []int) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, stat := range all {
		data, err := os.ReadFile(stat)
		if err != nil {
			continue // it has ended
		}
		var child, parent int
		var state string
		_, rest, _ := strings.Cut(string(data), ") ")
		if _, err := fmt.Sscan(rest, &state, &parent); err != nil || parent != pid {
			continue
		}
		if _, err := fmt.Sscan(string(data), &child); err != nil {
			t.Fatal(err)
		}
		found = append(append(found, child), below(t, child)...)
	}
	return found
}
