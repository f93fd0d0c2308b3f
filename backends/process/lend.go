package process

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/go-json-experiment/json"
	"golang.org/x/sys/unix"
)

// signalExit is added to the number of the signal that ended the runtime, as shells do.
const signalExit = 128

// link makes a symbolic link to an inherited file in the working directory.
func (s sandboxSpec) link(name string, i int) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return fmt.Errorf("make directory of links: %w", err)
	}
	if err := os.Symlink(s.path(i), name); err != nil {
		return fmt.Errorf("link file: %w", err)
	}
	return nil
}

// path is where the runtime finds a file: among its own, or with this process, which lends it.
func (s sandboxSpec) path(i int) string {
	if i < s.Files {
		return Path(i)
	}
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), FirstFile+i)
}

// stay runs the executable as a child of this process, which holds what is lent to it until it is told to close that,
// connects to it, and ends when the child does.
//
// The child may open what this process holds because both are in the same sandbox.
func stay(spec sandboxSpec, report *os.File, rep sandboxReport) error {
	inherited := []uintptr{0, 1, 2}
	for i := range spec.Files {
		inherited = append(inherited, uintptr(FirstFile+i))
	}
	for at, arg := range spec.Args {
		for i := range spec.Lent {
			if arg == Path(spec.Files+i) {
				spec.Args[at] = spec.path(spec.Files + i)
			}
		}
	}
	if err := unix.CloseRange(FirstFile, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close descriptors: %w", err)
	}
	parent, err := unix.PidfdOpen(spec.Parent, 0)
	if err != nil || os.Getppid() != spec.Parent {
		return errors.Join(errors.New("the parent has ended"), err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	// Which the kernel sends to a group with a stopped process when the parent ends. Without a handler it would end this one
	// before all others; ignored, it would be by the runtime too.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	reached := uintptr(min(spec.Lent, 1)) // by the child, which another user's may not do either unless it is told so
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, reached, 0, 0, 0); err != nil {
		return fmt.Errorf("hide from the runtime: %w", err)
	}
	// Not by package os, which starts a process of its own first, to see what the kernel can: it would be the first one of
	// the namespace, and end it.
	child, _, err := syscall.StartProcess(spec.execPath(), spec.Args, &syscall.ProcAttr{
		Env:   spec.Env,
		Files: inherited,
		// The first process of a namespace knows no parent, for which Go makes it kill itself: which it can't.
		Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		err = fmt.Errorf("execute: %w", err)
		return errors.Join(err, json.MarshalWrite(report, sandboxReport{Error: err.Error()}))
	}
	for _, fd := range inherited[3:] { // the child's alone: a key is not for others who may look at this process
		_ = syscall.Close(int(fd)) // they were inherited open
	}
	rep.PID = child
	if err := errors.Join(json.MarshalWrite(report, rep), report.Close()); err != nil {
		return fmt.Errorf("report sandbox: %w", err)
	}
	if spec.Lent > 0 {
		go func() {
			until := os.NewFile(uintptr(spec.until()), "until")
			_, _ = io.Copy(io.Discard, until) // nothing comes but the end
			for i := range spec.Lent {
				_ = syscall.Close(FirstFile + spec.Files + i) // they were inherited open
			}
		}()
	}
	if spec.Network {
		go serveDials(spec.control())
	}
	var orphaned chan struct{}
	if spec.Namespaces == sharedNamespaces { // else all end with the namespace
		orphaned = make(chan struct{})
		go func() {
			untilReadable(parent)
			close(orphaned)
		}()
	}
	return waitFor(child, stop, orphaned)
}

// waitFor ends this process as the child has ended, and all of them when the parent has. It signals from this thread,
// since where threads are confined one by one no other may.
func waitFor(child int, stop <-chan os.Signal, orphaned <-chan struct{}) error {
	ended := make(chan struct{})
	go func() {
		// It is reaped below, so that its number is its own as long as signals are passed on.
		for unix.Waitid(unix.P_PID, child, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
		}
		close(ended)
	}()
	for {
		select {
		case sig := <-stop:
			_ = syscall.Kill(child, sig.(syscall.Signal)) // it may have ended
		case <-orphaned:
			return syscall.Kill(0, syscall.SIGKILL) // this process's group, which nothing can leave
		case <-ended:
			var status syscall.WaitStatus
			if _, err := syscall.Wait4(child, &status, 0, nil); err != nil {
				return fmt.Errorf("wait for the runtime: %w", err)
			}
			if status.Signaled() {
				os.Exit(signalExit + int(status.Signal()))
			}
			os.Exit(status.ExitStatus())
		}
	}
}
