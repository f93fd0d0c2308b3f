package site

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

// A Child is a process that was started to be measured.
type Child struct {
	Begun time.Time // just before the fork

	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended and was reaped
	err  error         // how it ended; written before done is closed

	killed bool // it did not end when it was asked to; of whoever calls Stop
}

// StartChild starts a process that dies with the thread that calls this, and that no Ctrl-C reaches but by us.
func StartChild(name string, cmd *exec.Cmd) (*Child, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	c := &Child{name: name, cmd: cmd, done: make(chan struct{}), Begun: time.Now()}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		c.err = cmd.Wait()
		close(c.done)
	}()
	return c, nil
}

// PID returns the process number.
func (c *Child) PID() int { return c.cmd.Process.Pid }

// Finish waits for the end of a process that ends by itself, with status 0 if all is well.
func (c *Child) Finish(ctx context.Context) (Usage, error) {
	select {
	case <-c.done:
		return c.usage(), c.err
	case <-ctx.Done():
		c.Stop()
		return Usage{}, context.Cause(ctx)
	}
}

// Stop ends the process and returns when it is gone. It may be called again, and after the process ended by itself.
func (c *Child) Stop() {
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

// End stops the process and returns what it used. It is an error if the process had to be killed: something of its may
// run on, and disturb what is measured next.
func (c *Child) End() (Usage, error) {
	c.Stop()
	if c.killed {
		return Usage{}, fmt.Errorf("%s did not end within %s of SIGTERM, and was killed", c.name, stopGrace)
	}
	return c.usage(), nil
}

// A Usage is what a process took from the machine.
type Usage struct {
	CPU    time.Duration
	Device int64 // bytes that it made the kernel read from a disk
}

// Add returns what both took.
func (u Usage) Add(o Usage) Usage { return Usage{u.CPU + o.CPU, u.Device + o.Device} }

// usage is that of the whole life of a process that is gone, and of the children that it has reaped. The kernel counts
// here, as blocks of 512 bytes, what it shows as read_bytes in /proc/PID/io: so for every user, and with no last look
// before the process ends.
func (c *Child) usage() Usage {
	const block = 512
	u := Usage{CPU: c.cmd.ProcessState.UserTime() + c.cmd.ProcessState.SystemTime()}
	if ru, ok := c.cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		u.Device = ru.Inblock * block
	}
	return u
}

// A Tail keeps the last bytes written to it. Of a process only its own copying goroutine writes, and it is read when that has
// ended.
type Tail struct{ data []byte }

func (t *Tail) Write(p []byte) (int, error) {
	t.add(p)
	return len(p), nil
}

func (t *Tail) add(p []byte) {
	t.data = append(t.data, p...)
	if extra := len(t.data) - maxTail; extra > 0 {
		t.data = t.data[extra:]
	}
}

func (t *Tail) String() string { return string(bytes.TrimSpace(t.data)) }
