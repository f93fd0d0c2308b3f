package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/benchmarks/site"
)

func TestParseOwnMemory(t *testing.T) {
	const status = "Name:\tweighbridge\nVmRSS:\t    3000 kB\nRssAnon:\t     900 kB\nRssShmem:\t    2000 kB\n"
	tests := []struct {
		name, old, new string
		ok             bool
	}{
		{"valid", "", "", true},
		{"ended", "VmRSS:\t    3000 kB\n", "", false},
		{"no shared memory", "RssShmem:\t    2000 kB\n", "", false},
		{"not a number", "3000", "many", false},
	}
	for _, tt := range tests {
		got, err := parseOwnMemory(strings.Replace(status, tt.old, tt.new, 1))
		if (err == nil) != tt.ok || tt.ok && got != 1000<<10 {
			t.Errorf("%s: parseOwnMemory() = %d, %v, want %d", tt.name, got, err, 1000<<10)
		}
	}
}

func TestParseCPU(t *testing.T) {
	const stat = "42 (a) b) S 1 42 42 0 -1 4194560 100 200 0 0 150 50 30 7 20 0 1 0 12345"
	tests := []struct {
		name, text string
		ok         bool
	}{
		{"valid", stat, true},
		{"cut off", stat[:48], false},
		{"not a number", strings.Replace(stat, "150", "x", 1), false},
		{"empty", "", false},
	}
	for _, tt := range tests {
		own, reaped, err := parseCPU(tt.text)
		if (err == nil) != tt.ok || tt.ok && (own != 2*time.Second || reaped != 370*time.Millisecond) {
			t.Errorf("%s: parseCPU() = %v, %v, %v, want 2s and 370ms", tt.name, own, reaped, err)
		}
	}
}

// TestProcess looks at one process in all the ways that the cases do.
func TestProcess(t *testing.T) {
	runtime.LockOSThread() // children die with the thread that started them
	defer runtime.UnlockOSThread()
	cmd := exec.Command("cat")
	waiting, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer waiting.Close()
	c, err := site.StartChild("cat", cmd)
	if err != nil {
		t.Fatal(err)
	}
	if own, err := ownMemory(c.PID()); err != nil || own < 0 {
		t.Errorf("ownMemory(cat) = %d, %v, want some", own, err)
	}
	if _, _, err := cpuOf(c.PID()); err != nil {
		t.Error(err)
	}
	s := watchMemory(c.PID())
	c.Stop()
	s.finish(c.Begun, time.Now())
	if _, err := ownMemory(c.PID()); err == nil {
		t.Error("ownMemory of a process that has ended = nil, want an error")
	}
}

func TestFill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "model")
	size := int64(3*os.Getpagesize() + 1)
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := fill(t.Context(), modelFile{path, size}); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if share, err := resident(f, size); err != nil || share != 1 {
		t.Errorf("resident() = %v, %v, want all of a file that was just read", share, err)
	}
}

func TestRestartCPU(t *testing.T) {
	before := moment{gatewayCPU: 5 * time.Second, gatewayWaits: 0, runtimeCPU: 2 * time.Second}
	// The old runtime took a second to end, the gateway half of one to start the new one, which took three.
	after := moment{gatewayCPU: 5500 * time.Millisecond, gatewayWaits: 3 * time.Second, runtimeCPU: 3 * time.Second}
	if got, want := after.restartCPU(before), 4500*time.Millisecond; got != want {
		t.Errorf("restartCPU() = %v, want %v", got, want)
	}
}
