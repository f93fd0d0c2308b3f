// Package process runs model servers as child processes that are confined, watched and never left behind.
//
// The one rule: a child lives no longer than the process that started it, and from before its first instruction it can
// reach nothing but what it was given: an executable, open files, and one private directory to make sockets in, or a
// network that leads nowhere.
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
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
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
	Args  []string     // the rest of its arguments
	Env   []string     // its whole environment
	Files []*os.File   // inherited, from descriptor FirstFile on; all others are closed
	Dir   string       // its working directory, the only one in which it may make anything, and only sockets; an absolute path
	Log   *slog.Logger // gets what it writes, line by line, at Debug

	// Lent are files that the child does not hold itself: a process beside it, in the same sandbox, does, until
	// [Process.TakeBack]. The child opens them by Links, and by arguments that are their Path, counted on from Files; it
	// keeps open what it opened so. Until then every process of this user may open them too, but write to none.
	Lent []*os.File
	// Network is for children that can listen on nothing but TCP: the child may use a network, which is a loopback
	// interface of its own where the system has that to give, and is reached by [Process.Dial]. Its files in Dir are then
	// its own too: nothing outside sees or changes them.
	Network bool
	// ExecPath names a copy of Exec in Dir, from which the child is started, for one that starts itself again by the path
	// that it finds. Empty: it has no path.
	ExecPath string
	// Links are symbolic links that are made in Dir before the child starts, each to one of Files or Lent by its Path's
	// index.
	Links map[string]int
	// User is who the child runs as; nil: this process's user. Only root may set it, and not with a Network, whose children
	// find themselves by paths that are for this user alone.
	User *User
	// Yield is for a child that is started while others serve: until Process.Hurry it leaves the processor to them, if this
	// process may end that again.
	Yield bool
}

// A User is a user of this system, with one group and no others.
type User struct{ UID, GID int }

// A Process is one running child, or one that has ended.
type Process struct {
	cmd     *exec.Cmd
	pid     int // of the runtime itself
	runtime int // pidfd of the runtime, if that is not our own child; else -1
	sandbox backends.Sandbox
	lent    *os.File      // closed to take Lent back; nil if nothing was lent
	control *net.UnixConn // where Dial asks; nil without a network
	yields  bool          // it is below this program's priority until Hurry
	out     *output
	done    chan struct{}
	err     error // why it ended; written before done is closed
}

// Start starts a child and returns when the confined child has replaced this program. Config's files may be closed then.
func Start(c Config) (*Process, error) {
	if c.Exec == nil || c.Log == nil || c.Dir == "" {
		return nil, errors.New("start child process: executable, directory and log are required")
	}
	if c.User != nil && c.Network {
		return nil, errors.New("start child process: one with a network runs as this user only")
	}
	p := &Process{out: newOutput(c.Log), done: make(chan struct{}), runtime: -1}
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

	rep, err := p.confined(c)
	p.sandbox, p.pid = rep.level(), rep.PID
	if p.cmd == nil || p.cmd.Process == nil { // nothing was started
		started <- err
		return
	}
	if err == nil && c.stays() {
		p.runtime, err = openChildOf(p.cmd.Process.Pid, rep.PID)
	}
	if err != nil {
		_ = p.cmd.Process.Kill() // it may have ended
	} else {
		if p.sandbox.Level != backends.SandboxFull {
			c.Log.Warn("runtime is not fully confined", "runtime", c.Name, "sandbox", p.sandbox.Level, "missing", p.sandbox.Missing)
		}
		started <- nil
	}
	p.wait()
	if err != nil {
		started <- p.withOutput(err)
	}
}

// stays reports whether a process stays beside the child.
func (c Config) stays() bool { return len(c.Lent) > 0 || c.Network }

// confined starts the child in the best namespaces that it can have, and returns when it was confined.
func (p *Process) confined(c Config) (rep sandboxReport, err error) {
	var without []string // reasons
	for _, spaces := range c.attempts() {
		rep = sandboxReport{}
		var report *os.File
		if report, err = p.launch(c, spaces); err == nil {
			rep, err = readReport(report)
			report.Close()
		}
		if !errors.Is(err, errNoNamespaces) {
			break
		}
		p.forget()
		without = append(without, strings.TrimPrefix(err.Error(), errNoNamespaces.Error()+": "))
	}
	if c.Network && !rep.Namespaces {
		rep.NoNamespaces = strings.Join(slices.Compact(without), "; ")
	}
	return rep, err
}

// forget ends an attempt that failed, before the next one.
func (p *Process) forget() {
	if p.cmd.Process != nil {
		_ = p.cmd.Process.Kill() // it may have ended
		_ = p.cmd.Wait()         // says only how
		p.out.finish()
		p.out = newOutput(p.out.log)
	}
	p.letGo()
	p.cmd = nil
}

// letGo closes what this process holds of the child's.
func (p *Process) letGo() {
	p.TakeBack()
	if p.control != nil {
		p.control.Close()
	}
}

// openChildOf returns a pidfd of a process that is a child of another. A number that is another process's by now, whoever
// said it, is an error: what a pidfd is of gets killed.
func openChildOf(parent, pid int) (int, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1, fmt.Errorf("find the runtime's process: %w", os.NewSyscallError("pidfd_open", err))
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err == nil {
		_, rest, _ := strings.Cut(string(stat), ") ") // behind the name, which may hold anything
		if fields := strings.Fields(rest); len(fields) < 2 || fields[1] != strconv.Itoa(parent) {
			err = fmt.Errorf("process %d is no child of %d", pid, parent)
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("find the runtime's process: %w", err)
	}
	return fd, nil
}

// launch forks. It returns the socket on which the child says how it is confined, and which its exec closes.
func (p *Process) launch(c Config, spaces namespaces) (_ *os.File, err error) {
	report, reportW, err := socketPair("report")
	if err != nil {
		return nil, err
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
			p.letGo()
			err = errors.Join(err, report.Close(), outR.Close())
		}
	}()

	if p.cmd, err = c.command(spaces); err != nil {
		return nil, err
	}
	p.cmd.Stdout, p.cmd.Stderr = outW, outW
	p.cmd.ExtraFiles = slices.Concat(c.Files, c.Lent, []*os.File{c.Exec, reportW})
	if len(c.Lent) > 0 {
		var until *os.File
		if p.lent, until, err = socketPair("until"); err != nil {
			return nil, err
		}
		defer until.Close()
		p.cmd.ExtraFiles = append(p.cmd.ExtraFiles, until)
	}
	if c.Network {
		var control *os.File
		if p.control, control, err = controlSocket(); err != nil {
			return nil, err
		}
		defer control.Close()
		p.cmd.ExtraFiles = append(p.cmd.ExtraFiles, control)
	}
	if err := p.fork(c); err != nil {
		if spaces.refused(err) {
			err = fmt.Errorf("%w: %w", errNoNamespaces, err)
		}
		return nil, err
	}
	go p.out.read(outR)
	return report, nil
}

// fork starts the child, with the priority that it has until Hurry: from before its first instruction.
func (p *Process) fork(c Config) error {
	if c.Yield {
		lowered, undo, err := lowerThread(c.User != nil)
		if err != nil {
			return err
		}
		defer undo()
		p.yields = lowered
	}
	return p.cmd.Start()
}

// command is this program, to confine itself and become the child.
func (c Config) command(spaces namespaces) (*exec.Cmd, error) {
	self := c.Self
	if self == "" {
		self = "/proc/self/exe"
	}
	spec, err := json.Marshal(sandboxSpec{
		Parent: os.Getpid(), Files: len(c.Files), Lent: len(c.Lent), Dir: c.Dir, Links: c.Links, Args: append([]string{c.Name}, c.Args...),
		Env: c.Env, Exec: c.ExecPath, Network: c.Network, Namespaces: spaces, User: c.User,
	})
	if err != nil {
		return nil, err
	}
	// The child ends with Stop, or with this process, and not with a context.
	cmd := exec.CommandContext(context.Background(), self, SandboxCommand, string(spec))
	cmd.Dir = c.Dir
	cmd.Env = []string{} // not nil, which would be ours: nothing may change how the child is confined
	// A process group of its own: a terminal's Ctrl-C is for the gateway, which drains before it stops runtimes.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	spaces.apply(cmd.SysProcAttr)
	return cmd, nil
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
		return rep, fmt.Errorf("the child ended before it was confined: %w", err)
	}
	switch {
	case rep.NoNamespaces != "":
		return rep, fmt.Errorf("%w: %s", errNoNamespaces, rep.NoNamespaces)
	case rep.Error != "":
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
	if p.runtime >= 0 {
		killAndWait(p.runtime)
	}
	p.letGo()
	p.out.finish()
}

// killAndWait ends the process of a pidfd, which is not our child, and closes it when that is gone.
func killAndWait(pidfd int) {
	_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0) // it may have ended
	untilReadable(pidfd)
	unix.Close(pidfd)
}

// untilReadable waits until there is something to read. Of a pidfd: until its process has ended.
func untilReadable(fd int) {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(fds, -1); err != unix.EINTR {
			return
		}
	}
}

// socketPair returns two ends of a socket, the first one ours. The runtime can open what lends files to it by the
// descriptors in /proc, but no socket.
func socketPair(name string) (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make socket %s: %w", name, os.NewSyscallError("socketpair", err))
	}
	if err := unix.SetNonblock(fds[0], true); err != nil { // so that waiting for it can have a limit
		return nil, nil, errors.Join(fmt.Errorf("make socket %s: %w", name, err), unix.Close(fds[0]), unix.Close(fds[1]))
	}
	return os.NewFile(uintptr(fds[0]), name), os.NewFile(uintptr(fds[1]), name), nil
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
