package process

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const (
	// yieldBy is how far below this program a child begins that yields: on a busy machine it then gets about a tenth of
	// what it would. With less than that, it would never be ready where no core is ever idle.
	yieldBy = 10

	// lowest is the lowest priority there is: see setpriority(2).
	lowest = 19
)

// priority is that of the calling thread.
func priority() (int, error) {
	raw, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		return 0, os.NewSyscallError("getpriority", err)
	}
	return 20 - raw, nil // the system call, unlike the C library, returns no negative numbers
}

func setPriority(which, who, to int) error {
	return os.NewSyscallError("setpriority", unix.Setpriority(which, who, to))
}

// mayRaise reports whether a child that was lowered can be raised to now again, the calling thread's priority: by a limit
// (RLIMIT_NICE, LimitNICE of a service), which says nothing of another user's child, or by CAP_SYS_NICE, with which the
// thread can be raised, too. It is tried for a moment, as a capability may be one that counts only in a container.
func mayRaise(now int, another bool) bool {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NICE, &limit); err == nil && limit.Cur >= uint64(20-now) && !another {
		return true
	}
	if setPriority(unix.PRIO_PROCESS, 0, now-1) != nil {
		return false
	}
	return setPriority(unix.PRIO_PROCESS, 0, now) == nil // lowering is always allowed
}

// lowerThread lowers the priority of the calling thread, which is locked, and so of what it starts, which may be another
// user's; undo raises its own again. Without the right to undo it nothing is done: a child that serves must not stay behind.
func lowerThread(another bool) (lowered bool, undo func(), err error) {
	now, err := priority()
	if err != nil || !mayRaise(now, another) {
		return false, func() {}, err
	}
	if err := setPriority(unix.PRIO_PROCESS, 0, min(now+yieldBy, lowest)); err != nil {
		return false, func() {}, err
	}
	return true, func() { _ = setPriority(unix.PRIO_PROCESS, 0, now) }, nil // it may
}

// Hurry ends the child's yielding, once it is to serve. It does nothing for one that does not yield.
func (p *Process) Hurry() error {
	if !p.yields {
		return nil
	}
	now, err := priority()
	if err == nil {
		// Of all threads in its process group, which no runtime leaves: Linux keeps a priority for each thread.
		err = setPriority(unix.PRIO_PGRP, p.cmd.Process.Pid, now)
	}
	if err != nil {
		return fmt.Errorf("raise the priority of a runtime: %w", err)
	}
	return nil
}
