package store_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/verifier/store"
	"github.com/weighbridge/weighbridge/verifier/store/crashtest"
)

// A crash is one life on a disk that fails, and what is left of it afterwards on another.
type crash struct {
	t           *testing.T
	disk, after *crashtest.Disk
	policies    policies
	policyDir   string
	checked     *checked
}

// on returns the same with disks for a part of the test.
func (c crash) on(t *testing.T) *crash {
	c.t, c.disk, c.after = t, crashtest.Mount(t), crashtest.Mount(t)
	return &c
}

// TestCrashes has each file operation of a life go wrong, in turn.
func TestCrashes(t *testing.T) {
	dir := t.TempDir()
	c := crash{policies: newPolicies(t, dir), policyDir: dir, checked: &checked{outcomes: map[outcome]bool{}}}
	t.Run("errors", c.testErrors)
	t.Run("kills", c.testKills)
}

// testErrors fails each file operation. The process lives on: what it remembers is what the disk has, it goes back
// nowhere, and the step can be done again.
func (c crash) testErrors(t *testing.T) {
	tests := []struct {
		name  string
		fault crashtest.Fault
	}{
		{"once", crashtest.Fault{Errno: unix.EIO, Looks: true}},
		{"once, late", crashtest.Fault{Errno: unix.EIO, Late: true}},
		{"from then on", crashtest.Fault{Errno: unix.ENOSPC, Rest: true}},
		{"from then on, and nothing can be read", crashtest.Fault{Errno: unix.EIO, Looks: true, Rest: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := c.on(t)
			for tt.fault.At = 1; !t.Failed(); tt.fault.At++ {
				if !c.fail(tt.fault) {
					break
				}
			}
			t.Logf("%d operations", tt.fault.At-1)
		})
	}
}

// fail lives a life in which a fault happens, and two steps more, and reports whether it happened.
func (c *crash) fail(fault crashtest.Fault) bool {
	c.disk.Load(crashtest.Empty())
	c.disk.Arm(fault)
	l := newLife(c.disk.Path(), c.policies)
	defer func() { l.close() }()
	struck, last := false, len(l.steps)-1
	for i := 0; i <= last; i++ {
		when := fmt.Sprintf("operation %d (%s)", fault.At, l.steps[i].name)
		err := l.steps[i].do()
		if !c.disk.Struck() {
			if err != nil {
				c.t.Fatalf("%s, before the fault: %v", when, err)
			}
			continue
		}
		if !struck {
			struck, last = true, min(i+2, last)
		}
		acknowledged := i
		if err == nil {
			acknowledged++
		}
		c.checkAgreement(when, l, fault)
		c.checkCrashes(when, acknowledged)
		if err == nil {
			continue
		}
		c.disk.Heal()
		if err := l.steps[i].do(); err != nil {
			c.t.Errorf("%s, done again: %v", when, err)
			return true
		}
		c.checkCrashes(when+", done again", i+1)
	}
	return struck
}

// checkAgreement checks that the floor in memory is the one that the disk shows. Where the disk could not even be read
// it may be above it.
func (c *crash) checkAgreement(when string, l *life, fault crashtest.Fault) {
	c.t.Helper()
	if l.state == nil {
		return
	}
	c.after.Load(c.disk.Image(crashtest.Killed))
	there, err := store.ReadFloor(filepath.Join(newLife(c.after.Path(), c.policies).stateDir(), "floor.json"))
	if err != nil {
		c.t.Errorf("%s: %v", when, err)
		return
	}
	floor := l.state.Floor()
	if !floor.Covers(there) || (!fault.Looks || !fault.Rest) && !there.Covers(floor) {
		c.t.Errorf("%s: in memory the floor is %+v, and on disk %+v", when, floor, there)
	}
}

// testKills kills a process before and after each file operation. No state is open here when one
// is started, which would hold the lock too for a moment.
func (c crash) testKills(t *testing.T) {
	for _, late := range []bool{false, true} {
		name := map[bool]string{false: "before", true: "after"}[late]
		t.Run(name, func(t *testing.T) {
			c := c.on(t)
			n := 1
			for ; !t.Failed(); n++ {
				acknowledged := c.kill(crashtest.Fault{At: n, Errno: unix.EIO, Rest: true, Late: late})
				c.checkCrashes(fmt.Sprintf("killed %s operation %d", name, n), acknowledged)
				if !c.disk.Struck() {
					break
				}
			}
			t.Logf("%d operations", n-1)
		})
	}
}

const (
	diskEnv   = "WEIGHBRIDGE_TEST_DISK"
	policyEnv = "WEIGHBRIDGE_TEST_POLICIES"
)

// kill has another process live, kills it at a fault, and returns how many steps it said it had done.
func (c *crash) kill(fault crashtest.Fault) (acknowledged int) {
	c.t.Helper()
	c.disk.Load(crashtest.Empty())
	cmd := exec.CommandContext(c.t.Context(), "/proc/self/exe", "-test.run=^TestLife$")
	cmd.Env = append(os.Environ(), diskEnv+"="+c.disk.Path(), policyEnv+"="+c.policyDir)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	told, tell, err := os.Pipe()
	if err != nil {
		c.t.Fatal(err)
	}
	defer told.Close()
	defer tell.Close()
	cmd.ExtraFiles = []*os.File{tell}
	started := make(chan struct{}) // it may be there before Start says so
	fault.Then = func() { <-started; cmd.Process.Kill() }
	c.disk.Arm(fault)
	err = cmd.Start()
	close(started)
	if err != nil {
		c.t.Fatal(err)
	}
	tell.Close()
	for lines := bufio.NewScanner(told); lines.Scan(); {
		acknowledged++
	}
	err = cmd.Wait()
	c.disk.Heal()
	if struck := c.disk.Struck(); struck == (err == nil) {
		c.t.Fatalf("operation %d happened: %t, but the process: %v\n%s", fault.At, struck, err, &out)
	}
	return acknowledged
}

// TestLife is the process that is killed.
func TestLife(t *testing.T) {
	dir := os.Getenv(diskEnv)
	if dir == "" {
		t.Skip("this is run by TestCrashes")
	}
	tell := os.NewFile(3, "acknowledgements")
	l := newLife(dir, readPolicies(t, os.Getenv(policyEnv)))
	err := l.run(0, func(s step) { fmt.Fprintln(tell, s.name) })
	if err != nil {
		t.Fatal(err)
	}
}

// checkCrashes checks, for each crash that could happen now, the whole invariant: all that was acknowledged is
// remembered, and beyond it at most the step that was being done, whole. What a restart has seen is not lost either,
// and the rest of the life can be lived.
func (c *crash) checkCrashes(when string, acknowledged int) {
	c.t.Helper()
	for _, how := range crashtest.Crashes {
		when := when + ", then " + how.String()
		image := c.disk.Image(how)
		if c.checked.already(outcome{acknowledged, image.Sum()}) {
			continue
		}
		c.after.Load(image)
		l := newLife(c.after.Path(), c.policies)
		memories := l.memories()
		seen := c.checkMemory(when, l, memories[acknowledged:min(acknowledged+2, len(memories))])
		if how == crashtest.Killed { // after the others all that is there is durable
			c.after.Load(c.after.Image(crashtest.PowerLost))
			l = newLife(c.after.Path(), c.policies)
			c.checkMemory(when+", restart and power lost", l, []memory{seen})
			c.after.Load(image)
			l = newLife(c.after.Path(), c.policies)
		}
		if err := l.run(acknowledged, func(step) {}); err != nil {
			c.t.Errorf("%s: what was left to do: %v", when, err)
		}
		c.checkMemory(when+", and the rest", l, memories[len(memories)-1:])
	}
}

// An outcome is what is left after so many steps were acknowledged. Many lives have the same.
type outcome struct {
	acknowledged int
	image        [sha256.Size]byte
}

// checked are the outcomes that need no check any more.
type checked struct {
	mu       sync.Mutex
	outcomes map[outcome]bool
}

func (c *checked) already(o outcome) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	is := c.outcomes[o]
	c.outcomes[o] = true
	return is
}

// checkMemory checks that what is remembered is one of some memories, and returns it. A step changes one part of it.
func (c *crash) checkMemory(when string, l *life, allowed []memory) memory {
	c.t.Helper()
	got, err := l.look(c.policies)
	if err != nil {
		c.t.Errorf("%s: %v", when, err)
		return got
	}
	for part, is := range got.parts() {
		var want []string
		for _, m := range allowed {
			want = append(want, m.parts()[part])
		}
		if !slices.Contains(want, is) {
			c.t.Errorf("%s: the %s is\n%s\nwant\n%s", when, part, is, strings.Join(want, "\nor\n"))
		}
	}
	return got
}
