package process

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/procfs"
)

// Resources are what a process and all that descend from it take. What has ended of them is not counted.
type Resources struct {
	Processes int
	CPU       time.Duration
	Memory    int64 // bytes of their own, resident: without files that they map, such as sealed weights
}

// ResourcesOf looks at a process, such as a [Process]'s PID, as the kernel shows it to everybody. Of one that is not there
// they are zero.
func ResourcesOf(pid int) (r Resources) {
	if pid <= 0 {
		return r
	}
	for _, pid := range append(descendants(pid), pid) {
		p, err := procfs.NewProc(pid)
		if err != nil {
			continue // it has ended
		}
		stat, statErr := p.Stat()
		status, statusErr := p.NewStatus()
		if statErr != nil || statusErr != nil {
			continue
		}
		r.Processes++
		r.CPU += time.Duration(stat.CPUTime() * float64(time.Second))
		r.Memory += int64(status.RssAnon)
	}
	return r
}

// descendants lists the children of a process, theirs, and so on.
func descendants(pid int) (all []int) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // its only error is a bad pattern
	for _, list := range lists {
		text, _ := os.ReadFile(list) // none where it has ended
		for _, field := range strings.Fields(string(text)) {
			if child, err := strconv.Atoi(field); err == nil {
				all = append(append(all, child), descendants(child)...)
			}
		}
	}
	return all
}
