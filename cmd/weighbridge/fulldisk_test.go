package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

// stateDiskSize is room for the state, the audit log and what that keeps in reserve.
const stateDiskSize = "size=20m"

// mountSmall gives the goroutine of a test, and every process it starts from then on, a small disk at dir.
func mountSmall(t *testing.T, dir string) {
	t.Helper()
	runtime.LockOSThread() // and never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNS); errors.Is(err, unix.EPERM) {
		t.Skipf("this user may not make mount namespaces: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	if err == nil {
		err = unix.Mount("tmpfs", dir, "tmpfs", 0, stateDiskSize)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
}

// fill writes a file until there is no room for another byte.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := 1 << 20; block > 0; block /= 16 {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, block))
		}
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
}

// TestServeOnAFullDisk fills the disk of the state and of the audit log: what serves goes on, a publication is refused with
// the reason, and a withdrawal bites as fast as ever; with room again all of it is recorded.
func TestServeOnAFullDisk(t *testing.T) {
	g := newGateway(t)
	g.SignPolicy(withdrawable)
	state := filepath.Join(g.Dir, "state")
	mountSmall(t, state)
	g.start("--init-state")
	first := g.await("release serves")["release"].(string)
	client := g.client()
	full := filepath.Join(state, "full")
	fill(t, full)

	second := g.publish("b.gguf", tinygguf.B.Sentence, 2)
	if err, _ := g.await("release is not served")["err"].(string); !strings.Contains(err, "no space left on device") {
		t.Errorf("a publication on a full disk: %q", err)
	}
	command := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "weighbridge", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	if out := command("status", "--server", "unix:"+filepath.Join(g.Dir, "control.sock")); !strings.Contains(out, first[:19]) || !strings.Contains(out, "no space left on device") {
		t.Errorf("status says\n%s\nwant that %s serves, and why nothing newer does", out, first)
	}
	g.check(client, first, tinygguf.A.Sentence)

	begun := time.Now()
	g.Withdraw(trusttest.Carol, statement.ID(first))
	g.await("release stopped: it is no longer approved")
	bites(t, begun)
	if status, body, _ := g.ask(client); status == 200 {
		t.Errorf("what was withdrawn answers: %s", body)
	}

	if err := os.Remove(full); err != nil {
		t.Fatal(err)
	}
	g.log.forget()
	if got := g.await("release serves")["release"]; got != second {
		t.Errorf("serves %v with room again, want %s", got, second)
	}
	g.cmd.Process.Signal(os.Interrupt)
	g.cmd.Wait()
	shown := command("audit", "show", filepath.Join(state, "audit"))
	for _, want := range []string{" withdrawal channel chat release " + first, " stop channel chat release " + first, " switch channel chat release " + second} {
		if !strings.Contains(shown, want) {
			t.Errorf("the log has no %q in it:\n%s", want, shown)
		}
	}
	command("audit", "verify", filepath.Join(state, "audit"), "--key", filepath.Join(state, "gateway.key.pub"))
}
