package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store/crashtest"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

// TestKilledWhileSwapping kills the gateway in each phase of a swap, with room for two releases and without, and at
// operations of its log on the disk: no runtime survives it, and the next gateway serves what is decided, with a log that has
// lost nothing.
func TestKilledWhileSwapping(t *testing.T) {
	for _, tt := range []struct{ memory, phase string }{
		{"1GiB", "read"}, {"1GiB", "start"}, {"1GiB", "warm-up"}, {"1GiB", "record"},
		{"5MiB", "drain"}, {"5MiB", "stop"}, {"5MiB", "start"}, // of what makes room
	} {
		t.Run(tt.phase+" within "+tt.memory, func(t *testing.T) {
			k := newKilled(t, filepath.Join(t.TempDir(), "audit"), tt.memory)
			k.Publish(k.next, "chat", 2)
			k.await("phase begins", "phase", tt.phase)
			if running := inside(t, k.Dir); tt.memory == "1GiB" && len(running) == 0 && os.Geteuid() == 0 { // others don't see where it works
				t.Error("no runtime is there before the gateway is killed")
			}
			k.check()
		})
	}
	const every = 9
	for n, struck := 1, true; struck && !t.Failed(); n += every {
		struck = false
		t.Run(fmt.Sprint("in operation ", n, " of the log"), func(t *testing.T) {
			disk := crashtest.Mount(t)
			k := newKilled(t, filepath.Join(disk.Path(), "audit"), "1GiB")
			disk.Arm(crashtest.Fault{At: n, Errno: unix.EIO, Rest: true, Then: func() { k.cmd.Process.Kill() }})
			k.Publish(k.next, "chat", 2)
			k.servesOrEnds()
			struck = disk.Struck()
			disk.Arm(crashtest.Fault{})
			k.check()
		})
	}
}

// A killed is a gateway that serves its first release, and is to be killed while it switches to the next.
type killed struct {
	*gatewayProcess
	audit  string        // the directory of its log
	next   statement.ID  // all but published
	seen   string        // a checkpoint from before
	exited chan struct{} // closed when the process has
}

func newKilled(t *testing.T, audit, memory string) *killed {
	t.Helper()
	k := &killed{gatewayProcess: newGateway(t), audit: audit, seen: filepath.Join(t.TempDir(), "checkpoint")}
	config, err := os.ReadFile(k.config)
	if err != nil {
		t.Fatal(err)
	}
	writeTestFile(t, k.config, string(config)+fmt.Sprintf("audit: {dir: %q}\nmemory: %s\n", audit, memory))
	model := filepath.Join(k.Dir, "models", "b.gguf")
	writeTiny(t, model, tinygguf.Config{Sentence: tinygguf.B.Sentence, ChatTemplate: tinygguf.ChatTemplate})
	k.next = k.Release(model, func(d *trust.Descriptor) {
		d.Runtime.Args = map[string]string{"ctx-size": "256", "threads": "1"}
		d.Warmup = trust.Warmup{Prompt: "Who are you?", Contains: tinygguf.B.Sentence}
	})
	k.Approve(k.next, trusttest.Alice, trust.Approval{})
	k.Approve(k.next, trusttest.Bob, trust.Approval{})
	k.run("--init-state")
	k.await("release serves")
	checkpoint, err := os.ReadFile(filepath.Join(audit, "checkpoint"))
	if err != nil {
		t.Fatal(err)
	}
	writeTestFile(t, k.seen, string(checkpoint))
	k.log.forget()
	return k
}

// run starts a gateway, and notes when it has ended.
func (k *killed) run(args ...string) {
	k.t.Helper()
	k.start(args...)
	exited := make(chan struct{})
	k.exited = exited
	go func() {
		k.cmd.Wait()
		close(exited)
	}()
}

// servesOrEnds waits for the next release or for the end of the gateway.
func (k *killed) servesOrEnds() {
	k.t.Helper()
	late := time.After(patience)
	for {
		attrs, more := k.log.find("release serves")
		if attrs != nil {
			return
		}
		select {
		case <-more:
		case <-k.exited:
			return
		case <-late:
			k.t.Fatalf("the gateway neither serves nor ends; the log:\n%s", k.log.data.String())
		}
	}
}

// check kills the gateway, if that has not happened, and makes sure of what it leaves.
func (k *killed) check() {
	k.t.Helper()
	k.cmd.Process.Kill()
	<-k.exited
	for _, pid := range inside(k.t, k.Dir) {
		awaitGone(k.t, pid)
	}
	k.run()
	if got := k.await("release serves")["release"]; got != string(k.next) {
		k.t.Errorf("%v serves after it was killed, want %s", got, k.next)
	}
	k.gatewayProcess.check(k.client(), string(k.next), tinygguf.B.Sentence)
	k.cmd.Process.Signal(unix.SIGTERM)
	<-k.exited
	status, stdout, stderr := runModel(k.t, "audit", "verify", k.audit, "--key", filepath.Join(k.Dir, "state", "gateway.key.pub"), "--checkpoint", k.seen)
	if status != exitDone {
		k.t.Errorf("audit verify: status %d: %s%s", status, stdout, stderr)
	}
}

// inside returns the processes that work in a directory or below it, as runtimes do, each in one of its own.
func inside(t *testing.T, dir string) (all []int) {
	t.Helper()
	dirs, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range dirs {
		cwd, err := os.Readlink(link)
		if err != nil || !strings.HasPrefix(cwd, dir+"/") {
			continue // it has ended, or it is another's
		}
		var pid int
		if _, err := fmt.Sscanf(link, "/proc/%d/cwd", &pid); err != nil {
			t.Fatal(err)
		}
		all = append(all, pid)
	}
	return all
}
