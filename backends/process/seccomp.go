package process

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data, whose arguments are 64 bits wide; on the machines below the low half comes first.
const (
	dataNumber = 0
	dataArch   = 4
	dataArg0   = 16
	dataArg1   = 24
)

// x32Bit marks system calls of a second interface to amd64 kernels, whose numbers the filter does not know.
const x32Bit = 0x40000000

// forks are the numbers of the calls beside clone that make processes, where there are any.
var forks = map[string][]uint32{"amd64": {57, 58}} // fork and vfork

// restrictCalls installs a filter that leaves this process, and what it executes, no socket but a listening one with a
// path: sockets are UNIX streams only, and nothing can be connected. That covers what Landlock does not yet: datagrams,
// netlink, raw sockets, and the local sockets of other services, such as the SPIFFE Workload API, which would give a
// runtime the gateway's own identity. io_uring is refused because it makes sockets past any filter.
//
// Unless it may have processes it makes threads only: the signal by which it ends with its parent is not passed on to a
// process that it forks, and would leave that behind.
//
// With a network the sockets are TCP only, and may be connected: where to is up to the namespace that they are in. They
// reach no local socket, whatever its path.
func restrictCalls(network, processes bool) error {
	arch, known := map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}[runtime.GOARCH]
	if !known {
		return errors.New("no filter for this architecture")
	}
	filter := program(arch, network, processes)
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	failed, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return fmt.Errorf("install seccomp filter: %w", errno)
	} else if failed != 0 {
		return fmt.Errorf("install seccomp filter: thread %d has another one", failed)
	}
	return nil
}

func program(arch uint32, network, processes bool) []unix.SockFilter {
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	ret := func(action uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action}
	}
	refuse := func(errno unix.Errno) unix.SockFilter { return ret(unix.SECCOMP_RET_ERRNO | uint32(errno)) }
	// when answers a call only if the comparison holds, unless only if the value differs; else the next follows.
	when := func(op uint16, k uint32, then unix.SockFilter) []unix.SockFilter {
		return []unix.SockFilter{{Code: unix.BPF_JMP | op | unix.BPF_K, K: k, Jt: 0, Jf: 1}, then}
	}
	unless := func(k uint32, then unix.SockFilter) []unix.SockFilter {
		return []unix.SockFilter{{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jt: 1, Jf: 0}, then}
	}

	var p []unix.SockFilter
	add := func(list ...unix.SockFilter) { p = append(p, list...) }
	add(load(dataArch))
	add(unless(arch, ret(unix.SECCOMP_RET_KILL_PROCESS))...)
	add(load(dataNumber))
	add(when(unix.BPF_JGE, x32Bit, refuse(unix.ENOSYS))...)
	add(when(unix.BPF_JEQ, unix.SYS_IO_URING_SETUP, refuse(unix.ENOSYS))...)
	if !network {
		add(when(unix.BPF_JEQ, unix.SYS_CONNECT, refuse(unix.EACCES))...)
	}
	if !processes {
		for _, number := range forks[runtime.GOARCH] {
			add(when(unix.BPF_JEQ, number, refuse(unix.EPERM))...)
		}
		// Its flags are in memory, where a filter can't look: C libraries do without it then.
		add(when(unix.BPF_JEQ, unix.SYS_CLONE3, refuse(unix.ENOSYS))...)
		thread := []unix.SockFilter{
			load(dataArg0),
			{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: unix.CLONE_THREAD, Jt: 1, Jf: 0},
			refuse(unix.EPERM), ret(unix.SECCOMP_RET_ALLOW),
		}
		add(unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_CLONE, Jt: 0, Jf: uint8(len(thread))})
		add(thread...)
	}
	// It stays in the group, and under the signal, by which it is ended.
	add(when(unix.BPF_JEQ, unix.SYS_SETSID, refuse(unix.EPERM))...)
	add(when(unix.BPF_JEQ, unix.SYS_SETPGID, refuse(unix.EPERM))...)
	signal := []unix.SockFilter{load(dataArg0)}
	signal = append(signal, unless(unix.PR_SET_PDEATHSIG, ret(unix.SECCOMP_RET_ALLOW))...)
	signal = append(signal, load(dataArg1))
	signal = append(signal, unless(uint32(unix.SIGKILL), refuse(unix.EPERM))...)
	signal = append(signal, ret(unix.SECCOMP_RET_ALLOW))
	add(unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_PRCTL, Jt: 0, Jf: uint8(len(signal))})
	add(signal...)
	add(unless(unix.SYS_SOCKET, ret(unix.SECCOMP_RET_ALLOW))...)
	add(load(dataArg0))
	if network {
		// IPv6 too, which a runtime may try first.
		add(unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.AF_INET6, Jt: 2, Jf: 0})
		add(unless(unix.AF_INET, refuse(unix.EACCES))...)
	} else {
		add(unless(unix.AF_UNIX, refuse(unix.EACCES))...)
	}
	add(load(dataArg1))
	add(unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: 0xf}) // the rest are flags
	add(unless(unix.SOCK_STREAM, refuse(unix.EACCES))...)
	add(ret(unix.SECCOMP_RET_ALLOW))
	return p
}
