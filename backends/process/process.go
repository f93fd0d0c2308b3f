// Package process runs model servers as child processes that are confined, watched and never left behind.
//
// The one rule: a child lives no longer than the process that started it, and from before its first instruction it can
// reach nothing but what it was given: an executable, open files, and one private directory to make sockets in.
//
// [Start] runs one child, [Supervisor] keeps one alive. The confinement is applied by the child itself, which is first
// this very program, started again under [SandboxCommand]: so every main, and every TestMain of a package that starts
// children, calls [Hook] before anything else.
package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/backends"
)

const (
	// FirstFile is the descriptor number under which a child finds the first of [Config].Files.
	FirstFile = 3

	// launchTimeout is how long this program may take to start again and become the child: it is usually done in a
	// hundredth of a second, but the machine may be loading another model.
	launchTimeout = 30 * time.Second

	// stopGrace is how long a child may take to end after SIGTERM if the caller set no earlier limit. A runtime has
	// nothing to save; what it has begun to answer was to be drained before, and llama-server, when a stream is cut off
	// just then, sometimes never ends.
	stopGrace = 2 * time.Second

	// drainTimeout is how long what a dead child wrote is still read, in case something else holds its output open.
	drainTimeout = time.Second
)

// Path returns the path under which a child opens Files[i] of its [Config].
func Path(i int) string { return "/proc/self/fd/" + strconv.Itoa(FirstFile+i) }

// Config describes one child.
type Config struct {
	Self  string       // the executable that calls [Hook]; empty: this one
	Exec  *os.File     // what is executed, a sealed memory file in practice; statically linked or with system libraries
	Name  string       // the child's argv[0]
	Args  []string     // the rest of its arguments; its environment is always empty
	Files []*os.File   // inherited, from descriptor FirstFile on; all others are closed
	Dir   string       // its working directory, the only one in which it may make anything, and only sockets
	Log   *slog.Logger // gets what it writes, line by line, at Debug

	// Links are symbolic links that are made in Dir before the child starts, each to one of Files by its index.
	Links map[string]int
	// Lend keeps Files out of the child's own hands: a process beside it, in the same sandbox, holds them until
	// [Process.TakeBack]. The child opens them by Links and by arguments that are Path(i), and keeps open what it
	// opened so.
	Lend bool
}

// A Process is one running child, or one that has ended.
type Process struct {
	cmd     *exec.Cmd
	pid     int // of the runtime itself
	sandbox backends.Sandbox
	lent    *os.File // closed to take Files back; nil if they were not lent
	out     *output
	done    chan struct{}
	err     error // why it ended; written before done is closed
}

// Start starts a child and returns when the confined child has replaced this program. Config's files may be closed then.
func Start(c Config) (*Process, error) {
	if c.Exec == nil || c.Log == nil || c.Dir == "" {
		return nil, errors.New("start child process: executable, directory and log are required")
	}
	p := &Process{out: newOutput(c.Log), done: make(chan struct{})}
	started := make(chan error, 1)
	go p.run(c, started)
	if err := <-started; err != nil {
		<-p.done
		return nil, fmt.Errorf("start %s: %w", c.Name, err)
	}
	return p, nil
}

// run starts the child and waits for it, on one thread: the kernel sends the parent-death signal when the thread that
// forked the child ends, not the process, and Go ends idle threads.
func (p *Process) run(c Config, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(p.done)

	report, err := p.launch(c)
	if err != nil {
		started <- err
		return
	}
	rep, err := readReport(report)
	report.Close()
	p.sandbox, p.pid = rep.level(), rep.PID
	if err != nil {
		_ = p.cmd.Process.Kill() // it may have ended
	} else {
		started <- nil
	}
	p.wait()
	if err != nil {
		started <- p.withOutput(err)
	}
}

// launch forks. It returns the pipe in which the child says how it is confined, and which its exec closes.
func (p *Process) launch(c Config) (report *os.File, err error) {
	report, reportW, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make report pipe: %w", err)
	}
	defer reportW.Close()
	outR, outW, err := os.Pipe()
	if err != nil {
		report.Close()
		return nil, fmt.Errorf("make output pipe: %w", err)
	}
	defer outW.Close()
	defer func() {
		if err != nil {
			err = errors.Join(err, report.Close(), outR.Close())
		}
	}()

	self := c.Self
	if self == "" {
		self = "/proc/self/exe"
	}
	spec, err := json.Marshal(sandboxSpec{
		Parent: os.Getpid(), Files: len(c.Files), Dir: c.Dir, Links: c.Links, Lend: c.Lend, Args: append([]string{c.Name}, c.Args...),
	})
	if err != nil {
		return nil, err
	}
	// The child ends with Stop, or with this process, and not with a context.
	p.cmd = exec.CommandContext(context.Background(), self, SandboxCommand, string(spec))
	p.cmd.Dir = c.Dir
	p.cmd.Env = []string{} // not nil, which would be ours: nothing may change how the child is confined
	p.cmd.Stdout, p.cmd.Stderr = outW, outW
	p.cmd.ExtraFiles = append(append([]*os.File{}, c.Files...), c.Exec, reportW)
	if c.Lend {
		var lentR *os.File
		if lentR, p.lent, err = os.Pipe(); err != nil {
			return nil, fmt.Errorf("make pipe to lend files by: %w", err)
		}
		defer lentR.Close()
		p.cmd.ExtraFiles = append(p.cmd.ExtraFiles, lentR)
	}
	// A process group of its own: a terminal's Ctrl-C is for the gateway, which drains before it stops runtimes.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go p.out.read(outR)
	return report, nil
}

// readReport waits until the child has confined itself and executed what it was told to, or has failed.
func readReport(r *os.File) (rep sandboxReport, err error) {
	if err := r.SetReadDeadline(time.Now().Add(launchTimeout)); err != nil {
		return rep, fmt.Errorf("wait for the sandbox: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(r, maxReport))
	if err != nil {
		return rep, fmt.Errorf("wait for the sandbox: %w", err)
	}
	if err := json.Unmarshal(data, &rep); err != nil {
		return rep, errors.New("the child ended before it was confined")
	}
	if rep.Error != "" {
		return rep, errors.New(rep.Error)
	}
	return rep, nil
}

// wait reaps the child, after ending what it may have left in its process group.
func (p *Process) wait() {
	pid := p.cmd.Process.Pid
	// Until it is reaped no other process can get its number, so that the signal can only reach its own group.
	for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	_ = unix.Kill(-pid, unix.SIGKILL) // most leave nothing
	p.err = p.cmd.Wait()
	if p.err == nil {
		p.err = errors.New("exit status 0")
	}
	p.TakeBack()
	p.out.finish()
}

// TakeBack closes files that were lent, soon after it returns: but for what the child has opened itself they are gone
// from it. It may be called at any time, and more than once.
func (p *Process) TakeBack() {
	if p.lent != nil {
		p.lent.Close() // a second time it only returns an error
	}
}

// PID returns the child's process number.
func (p *Process) PID() int { return p.pid }

// Sandbox says how the child is confined.
func (p *Process) Sandbox() backends.Sandbox { return p.sandbox }

// Done is closed when the child has ended and all it wrote has been read.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err says why the child ended, once Done is closed: it is never nil then.
func (p *Process) Err() error {
	<-p.done
	return p.err
}

// ErrWithOutput is Err with the last lines that the child wrote: for a child that never served, because a runtime
// may write parts of a request.
func (p *Process) ErrWithOutput() error { return p.withOutput(p.Err()) }

func (p *Process) withOutput(err error) error {
	if tail := p.out.tail(); tail != "" {
		return fmt.Errorf("%w; it wrote:\n%s", err, tail)
	}
	return err
}

// Stop asks the child to end, kills it when ctx ends or after a while, and returns when it is gone.
func (p *Process) Stop(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, stopGrace)
	defer cancel()
	// Both know whether the child was reaped, when its number may be another process's; that is not an error here.
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-ctx.Done():
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}
