package catalog_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/backendtest"
	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
	"github.com/weighbridge/weighbridge/backends/llamacpp"
	"github.com/weighbridge/weighbridge/gateway/catalog"
)

// Weights that a runtime has copied are given back by everyone, and read again for the next one.
func TestWeightsAreGivenBack(t *testing.T) {
	s := newWorld(t)
	s.backend = func(string) (backends.Backend, error) {
		return llamacpp.New(llamacpp.Config{Command: backendtest.LlamaServer(t), RuntimeDir: s.sockets, GiveBack: true, Log: s.log()})
	}
	s.start(gib)
	a := s.release("a.gguf", 1, nil)
	st := s.untilServes(a)
	s.check(a, "I am version A.")
	noneHeld(t, s)

	// What is on disk by now must not serve: the bytes are verified again.
	s.overwrite("a.gguf", tinygguf.B)
	if err := syscall.Kill(st.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.until("a refusal of the altered file", func(st catalog.Status) bool { return strings.Contains(st.Error, "was altered") })
	s.overwrite("a.gguf", tinygguf.A)
	s.until("another runtime", func(now catalog.Status) bool {
		return now.State == catalog.StateReady && now.PID != 0 && now.PID != st.PID && now.Error == ""
	})
	s.check(a, "I am version A.")
	noneHeld(t, s)

	// One that dies again soon is not read again at once: that would be for ever.
	again := s.until("a process", func(st catalog.Status) bool { return st.PID != 0 }).PID
	killed := time.Now()
	if err := syscall.Kill(again, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.until("a third runtime", func(st catalog.Status) bool { return st.State == catalog.StateReady && st.PID != 0 && st.PID != again })
	if took := time.Since(killed); took < 2*time.Second {
		t.Errorf("the third runtime came after %s, want a pause of two seconds", took)
	}
}

// parentOf returns the number of a process's parent, which lends the runtime its files.
func parentOf(t *testing.T, pid int) (parent int) {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // after the name
	var state string
	if _, err := fmt.Sscan(rest, &state, &parent); err != nil {
		t.Fatal(err)
	}
	return parent
}

// noneHeld checks that no process has the model's memory file open, or mapped.
func noneHeld(t *testing.T, s *site) {
	t.Helper()
	if used := s.cat.Memory(); used.InUse != 0 || used.Warm != 0 {
		t.Errorf("memory = %+v, want none in use or warm", used)
	}
	var dirs, held []string
	runtime := s.cat.Status()["chat"].PID
	for _, pid := range []int{os.Getpid(), parentOf(t, runtime), runtime} {
		dirs = append(dirs, fmt.Sprintf("/proc/%d/fd/*", pid), fmt.Sprintf("/proc/%d/map_files/*", pid))
	}
	s.until("no one to hold the weights", func(catalog.Status) bool {
		held = nil
		for _, dir := range dirs {
			files, err := filepath.Glob(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				if name, err := os.Readlink(f); err == nil && strings.HasPrefix(name, "/memfd:weighbridge:.") {
					held = append(held, f+" "+name)
				}
			}
		}
		return held == nil
	})
}
