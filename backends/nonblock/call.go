//go:build !race

package nonblock

import (
	"syscall"
	"unsafe"
)

// recv and send make the calls of their names, see recv(2) and send(2), which end at once also where a socket was made to
// block. A socket whose other end is closed is an error, and no signal.

func recv(fd uintptr, data []byte) (int, syscall.Errno) {
	return call(syscall.SYS_RECVFROM, fd, data, syscall.MSG_DONTWAIT)
}

func send(fd uintptr, data []byte) (int, syscall.Errno) {
	return call(syscall.SYS_SENDTO, fd, data, syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL)
}

func call(number, fd uintptr, data []byte, flags uintptr) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(number, fd, uintptr(unsafe.Pointer(unsafe.SliceData(data))), uintptr(len(data)), flags, 0, 0)
	return int(n), errno // n is of no meaning with an error
}
