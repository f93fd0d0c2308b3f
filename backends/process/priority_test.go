package process_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/backends/process"
)

// priorities returns those of all threads of a process, each once; see proc_pid_stat(5).
func priorities(t *testing.T, pid int) []int {
	t.Helper()
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(stats) == 0 {
		t.Fatalf("threads of process %d: %v, %v", pid, stats, err)
	}
	var all []int
	for _, stat := range stats {
		data, err := os.ReadFile(stat)
		if os.IsNotExist(err) {
			continue // it has ended
		} else if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(data), ") ")
		nice, err := strconv.Atoi(strings.Fields(rest)[16])
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, nice)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// TestYield: a child that yields is below its parent in all its threads until it is to hurry, and none that does not. Without
// the right to raise it again, it is never lowered.
func TestYield(t *testing.T) {
	runtime.LockOSThread() // where priorities are tried
	defer runtime.UnlockOSThread()
	raw, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		t.Fatal(err)
	}
	own := []int{20 - raw}
	lowered := own
	if process.MayRaise(own[0]) {
		lowered = []int{min(own[0]+process.YieldBy, 19)}
	} else {
		t.Log("priorities can't be raised here")
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	tests := []struct {
		name   string
		config process.Config
		want   []int
	}{
		{"yields", process.Config{Yield: true, Files: []*os.File{r}}, lowered},
		{"yields, with files that are lent", process.Config{Yield: true, Files: []*os.File{r}, Lent: []*os.File{r}}, lowered},
		{"does not yield", process.Config{Files: []*os.File{r}}, own},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.config.Args = []string{"wait"}
			p := startConfig(t, tt.config)
			if got := priorities(t, p.PID()); !slices.Equal(got, tt.want) {
				t.Errorf("its threads have the priorities %v, want %v", got, tt.want)
			}
			if err := p.Hurry(); err != nil {
				t.Fatal(err)
			}
			if got := priorities(t, p.PID()); !slices.Equal(got, own) {
				t.Errorf("once it is to hurry its threads have the priorities %v, want %v", got, own)
			}
			if got := priorities(t, os.Getpid()); !slices.Equal(got, own) {
				t.Errorf("this process has the priorities %v by now, want %v", got, own)
			}
		})
	}
}
