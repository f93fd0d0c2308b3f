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
func link(name string, i int, lent bool) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return fmt.Errorf("make directory of links: %w", err)
	}
	if err := os.Symlink(pathFor(i, lent), name); err != nil {
		return fmt.Errorf("link file: %w", err)
	}
	return nil
}

// pathFor is where the runtime finds Files[i]: among its own, or with this process, which lends them.
func pathFor(i int, lent bool) string {
	if !lent {
		return Path(i)
	}
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), FirstFile+i)
}

// lend runs the executable as a child of this process, which holds the inherited files for it until it is told to close
// them, and ends when the child does.
//
// The child may open what this process holds because both are in the same sandbox.
func lend(spec sandboxSpec, executable int, report *os.File, rep sandboxReport) error {
	for i := range spec.Files {
		for at, arg := range spec.Args {
			if arg == Path(i) {
				spec.Args[at] = pathFor(i, true)
			}
		}
	}
	// The child inherits its output alone.
	if err := unix.CloseRange(FirstFile, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close descriptors: %w", err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	child, err := os.StartProcess("/proc/self/fd/"+strconv.Itoa(executable), spec.Args, &os.ProcAttr{
		Env:   []string{},
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys:   &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		err = fmt.Errorf("execute: %w", err)
		return errors.Join(err, json.MarshalWrite(report, sandboxReport{Error: err.Error()}))
	}
	rep.PID = child.Pid
	if err := errors.Join(json.MarshalWrite(report, rep), report.Close()); err != nil {
		return fmt.Errorf("report sandbox: %w", err)
	}
	go func() {
		until := os.NewFile(uintptr(executable+2), "until")
		_, _ = io.Copy(io.Discard, until) // nothing comes but the end
		for i := range spec.Files {
			_ = syscall.Close(FirstFile + i) // they were inherited open
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
