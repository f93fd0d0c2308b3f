// Package nonblock reads and writes sockets without telling the scheduler.
//
// The one rule: only a small call that does not wait is made so. Around each of its own the runtime of Go lets others have the
// processor in case the call takes long, and wakes the thread that watches for that, sysmon, if everything was idle before: to
// wake it, and to have it look around every 20 microseconds at first, takes a fifth of the processor time of a small request.
// What a socket has, or has room for, is there at once; waiting is done by the poller, as ever.
//
// What is lost: while sysmon sleeps, which it does until the next timer that was set when everything went idle, or for a minute,
// no goroutine that computes is asked to make room, and the network is not looked at while all processors compute. Whoever
// moves little computes little over it, and much is moved by calls as ever, which wake sysmon.
package nonblock

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"unsafe"
)

// Listener returns a listener whose connections are those of l, read and written so.
func Listener(l net.Listener) net.Listener { return listener{l} }

type listener struct{ net.Listener }

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return Conn(c), nil
}

// Conn returns a connection that is c, read and written so. One that is no stream socket of package net itself is returned as it
// is: it may have read ahead.
func Conn(c net.Conn) net.Conn {
	var of socket
	switch c := c.(type) {
	case *net.TCPConn:
		of = c
	case *net.UnixConn:
		of = c
	}
	if of == nil || of.LocalAddr().Network() == "unixgram" || of.LocalAddr().Network() == "unixpacket" {
		return c
	}
	raw, err := of.SyscallConn()
	if err != nil {
		return c
	}
	s := &conn{socket: of, raw: raw}
	s.reads.try = s.reads.attempt(recv)
	s.writes.try = s.writes.attempt(send)
	return s
}

// A socket is what both of package net's stream sockets can do.
type socket interface {
	net.Conn
	syscall.Conn
	CloseWrite() error
}

// A conn is a stream socket. Its methods may be called at once, as those of any net.Conn.
type conn struct {
	socket
	raw           syscall.RawConn
	reads, writes direction
}

// A direction is what is read, or written, at the moment.
type direction struct {
	mu   sync.Mutex // one call at a time
	data []byte
	done int           // bytes of data
	err  syscall.Errno // of the system call; 0: none
	try  func(fd uintptr) bool
}

// attempt returns what makes one system call, and reports whether that is the end of it: else it is made again when the
// socket is ready.
func (d *direction) attempt(call func(fd uintptr, data []byte) (int, syscall.Errno)) func(fd uintptr) bool {
	return func(fd uintptr) bool {
		for {
			var n int
			switch n, d.err = call(fd, d.data[d.done:]); d.err {
			case syscall.EINTR:
				continue
			case syscall.EAGAIN:
				return false
			case 0:
				d.done += n
			}
			return true
		}
	}
}

// Read reads what is there, and waits for something first.
func (c *conn) Read(data []byte) (int, error) {
	if len(data) == 0 {
		return c.socket.Read(data)
	}
	d := &c.reads
	d.mu.Lock()
	defer d.mu.Unlock()
	d.begin(data)
	defer d.end()
	if err := c.raw.Read(d.try); err != nil {
		return 0, c.failed("read", err)
	}
	if d.err != 0 {
		return 0, c.failed("read", os.NewSyscallError("read", d.err))
	}
	if d.done == 0 {
		return 0, io.EOF
	}
	return d.done, nil
}

// Write writes all of data, and waits for room meanwhile.
func (c *conn) Write(data []byte) (int, error) {
	d := &c.writes
	d.mu.Lock()
	defer d.mu.Unlock()
	d.begin(data)
	defer d.end()
	for {
		if err := c.raw.Write(d.try); err != nil {
			return d.done, c.failed("write", err)
		}
		if d.err != 0 {
			return d.done, c.failed("write", os.NewSyscallError("write", d.err))
		}
		if d.done == len(data) {
			return d.done, nil
		}
	}
}

func (d *direction) begin(data []byte) { d.data, d.done, d.err = data, 0, 0 }

// end forgets what was moved, which is its owner's again.
func (d *direction) end() { d.data = nil }

// failed names an error as package net does: servers tell by that what to make of it.
func (c *conn) failed(op string, err error) error {
	if of := new(net.OpError); errors.As(err, &of) { // the poller's
		err = of.Err
	}
	return &net.OpError{Op: op, Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

// recv and send make the calls of their names, see recv(2) and send(2), which end at once also where a socket was made to
// block. A socket whose other end is closed is an error, and no signal.

func recv(fd uintptr, data []byte) (int, syscall.Errno) {
	if len(data) > small {
		return numbered(syscall.Read(int(fd), data))
	}
	return call(syscall.SYS_RECVFROM, fd, data, syscall.MSG_DONTWAIT)
}

func send(fd uintptr, data []byte) (int, syscall.Errno) {
	if len(data) > small {
		return numbered(syscall.Write(int(fd), data))
	}
	return call(syscall.SYS_SENDTO, fd, data, syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL)
}

func call(number, fd uintptr, data []byte, flags uintptr) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(number, fd, uintptr(unsafe.Pointer(unsafe.SliceData(data))), uintptr(len(data)), flags, 0, 0)
	return int(n), errno // n is of no meaning with an error
}

// numbered is what package syscall's own calls return.
func numbered(n int, err error) (int, syscall.Errno) {
	var errno syscall.Errno
	errors.As(err, &errno)
	return n, errno
}
