package process

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
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

// lend runs the executable as a child of this process, which holds what is lent to it until it is told to close that,
// and ends when the child does.
//
// The child may open what this process holds because both are in the same sandbox.
func lend(spec sandboxSpec, report *os.File, rep sandboxReport) error {
	inherited := []*os.File{os.Stdin, os.Stdout, os.Stderr}
	for i := range spec.Files {
		inherited = append(inherited, os.NewFile(uintptr(FirstFile+i), "inherited"))
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
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	child, err := os.StartProcess("/proc/self/fd/"+strconv.Itoa(spec.executable()), spec.Args, &os.ProcAttr{
		Env:   []string{},
		Files: inherited,
		Sys:   &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		err = fmt.Errorf("execute: %w", err)
		return errors.Join(err, json.MarshalWrite(report, sandboxReport{Error: err.Error()}))
	}
	for _, f := range inherited[3:] { // the child's alone: a key is not for others who may look at this process
		f.Close()
	}
	rep.PID = child.Pid
	if err := errors.Join(json.MarshalWrite(report, rep), report.Close()); err != nil {
		return fmt.Errorf("report sandbox: %w", err)
	}
	go func() {
		until := os.NewFile(uintptr(spec.until()), "until")
		_, _ = io.Copy(io.Discard, until) // nothing comes but the end
		for i := range spec.Lent {
			_ = syscall.Close(FirstFile + spec.Files + i) // they were inherited open
		}
	}()
	ended := make(chan error, 1)
	var status syscall.WaitStatus
	go func() {
		state, err := child.Wait()
		if err == nil {
			status = state.Sys().(syscall.WaitStatus)
		}
		ended <- err
	}()
	for {
		select {
		case sig := <-stop:
			_ = child.Signal(sig) // it may have ended; from this thread, since where threads are confined one by one no other may
		case err := <-ended:
			switch {
			case err != nil:
				return fmt.Errorf("wait for the runtime: %w", err)
			case status.Signaled():
				os.Exit(signalExit + int(status.Signal()))
			}
			os.Exit(status.ExitStatus())
		}
	}
}
