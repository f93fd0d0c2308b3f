package process_test

import (
	"os"
	"testing"

	"github.com/weighbridge/weighbridge/backends/process"
)

// TestResources looks at a child and at the process that it forks.
func TestResources(t *testing.T) {
	executable := copyOfSelf()
	defer executable.Close()
	lines := newLineLog()
	p := startConfig(t, process.Config{Lent: []*os.File{executable}, Args: []string{"fork"}, Log: lines.logger()})
	lines.waitFor(t, "grandchild: ")
	if r := process.ResourcesOf(p.PID()); r.Processes != 2 || r.Memory <= 0 {
		t.Errorf("the child takes %+v, want two processes and memory", r)
	}
	self := process.ResourcesOf(os.Getpid())
	for self.CPU == 0 { // until it has taken a tick of the clock
		self = process.ResourcesOf(os.Getpid())
	}
	if self.Processes < 4 {
		t.Errorf("this process takes %+v, want it, the one beside the child, that, and its own", self)
	}
	if none := process.ResourcesOf(0); none != (process.Resources{}) {
		t.Errorf("no process takes %+v", none)
	}
}
