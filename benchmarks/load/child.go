package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"syscall"
	"time"
)

// stopGrace is how long a process may take to end after SIGTERM: a gateway first gives back gigabytes.
const stopGrace = 15 * time.Second

// maxTail bounds what is kept of what a process wrote, in bytes.
const maxTail = 4 << 10

// A child is a process that a case has started.
type child struct {
	name  string
	cmd   *exec.Cmd
	begun time.Time     // just before the fork
	done  chan struct{} // closed when it has ended and was reaped
	err   error         // how it ended; written before done is closed

	killed bool // it did not end when it was asked to; of whoever calls stop
}

// startChild starts a process that dies with this one, and that no Ctrl-C reaches but by us.
func startChild(name string, cmd *exec.Cmd) (*child, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	c := &child{name: name, cmd: cmd, done: make(chan struct{}), begun: time.Now()}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		c.err = cmd.Wait()
		close(c.done)
	}()
	return c, nil
}

// finish waits for the end of a process that ends by itself, with status 0 if all is well.
func (c *child) finish(ctx context.Context) (usage, error) {
	select {
	case <-c.done:
		return c.usage(), c.err
	case <-ctx.Done():
		c.stop()
		return usage{}, context.Cause(ctx)
	}
}

// stop ends the process and returns when it is gone. It may be called again, and after the process ended by itself.
func (c *child) stop() {
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	late := time.NewTimer(stopGrace)
	defer late.Stop()
	select {
	case <-c.done:
	case <-late.C:
		c.killed = true
		_ = c.cmd.Process.Kill()
		<-c.done
	}
}

// end stops the process and returns what it used. It is an error if the process had to be killed: something of its may
// run on, and disturb what is measured next.
func (c *child) end() (usage, error) {
	c.stop()
	if c.killed {
		return usage{}, fmt.Errorf("%s did not end within %s of SIGTERM, and was killed", c.name, stopGrace)
	}
	return c.usage(), nil
}

// A usage is what a process took from the machine.
type usage struct {
	cpu    time.Duration
	device int64 // bytes that it made the kernel read from a disk
}

func (u usage) add(o usage) usage { return usage{u.cpu + o.cpu, u.device + o.device} }

// usage is that of the whole life of a process that is gone, and of the children that it has reaped. The kernel counts
// here, as blocks of 512 bytes, what it shows as read_bytes in /proc/PID/io: so for every user, and with no last look
// before the process ends.
func (c *child) usage() usage {
	const block = 512
	u := usage{cpu: c.cmd.ProcessState.UserTime() + c.cmd.ProcessState.SystemTime()}
	if ru, ok := c.cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		u.device = ru.Inblock * block
	}
	return u
}

// A tail keeps the last bytes written to it. Only the process's own copying goroutine writes, and it is read when that
// has ended.
type tail struct{ data []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.add(p)
	return len(p), nil
}

func (t *tail) add(p []byte) {
	t.data = append(t.data, p...)
	if extra := len(t.data) - maxTail; extra > 0 {
		t.data = t.data[extra:]
	}
}

func (t *tail) String() string { return string(bytes.TrimSpace(t.data)) }
