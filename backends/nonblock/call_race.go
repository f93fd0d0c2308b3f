//go:build race

package nonblock

import (
	"errors"
	"syscall"
)

// The race detector must see what comes before what: it knows package syscall's calls alone.

func recv(fd uintptr, data []byte) (int, syscall.Errno) { return errno(syscall.Read(int(fd), data)) }

func send(fd uintptr, data []byte) (int, syscall.Errno) { return errno(syscall.Write(int(fd), data)) }

func errno(n int, err error) (int, syscall.Errno) {
	var number syscall.Errno
	errors.As(err, &number)
	return n, number
}
