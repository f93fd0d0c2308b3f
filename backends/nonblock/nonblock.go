// Package nonblock reads and writes sockets without telling the scheduler.
//
// The one rule: only a system call that cannot block is made so. Around each of its own the runtime of Go lets others have the
// processor in case the call takes long, and wakes the thread that watches for that whenever everything was idle before: to
// wake it, and to have it look around every 20 microseconds until everything is idle again, takes a fifth of the processor time
// of a small request. What a socket has, or has room for, is there at once; waiting is done by the poller, as ever.
//
// Nothing is lost but that a goroutine which has computed for long, and has done nothing else that wakes that thread, is asked
// to make room a little later.
package nonblock

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
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

// Conn returns a connection that is c, read and written so. One that is no socket is returned as it is.
func Conn(c net.Conn) net.Conn {
	socket, ok := c.(syscall.Conn)
	if !ok {
		return c
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return c
	}
	s := &conn{Conn: c, raw: raw}
	s.reads.try = s.reads.attempt(recv)
	s.writes.try = s.writes.attempt(send)
	return s
}

// A conn is a stream socket. Its methods may be called at once, as those of any net.Conn.
type conn struct {
	net.Conn
	raw           syscall.RawConn
	reads, writes direction
}

// A direction is what is read, or written, at the moment.
type direction struct {
	mu   sync.Mutex // by whom
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
		return 0, nil
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
		return 0, c.failed("read", os.NewSyscallError("recvfrom", d.err))
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
			return d.done, c.failed("write", os.NewSyscallError("sendto", d.err))
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

// SyscallConn returns the socket, for its options.
func (c *conn) SyscallConn() (syscall.RawConn, error) { return c.raw, nil }

// CloseWrite says that nothing more will come.
func (c *conn) CloseWrite() error {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	return half.CloseWrite()
}
