package nonblock_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/backends/nonblock"
)

// pair returns both ends of a connection, as package net has them.
func pair(t *testing.T, network string) (ours, theirs net.Conn) {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s")
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if theirs, err = new(net.Dialer).DialContext(t.Context(), network, l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if ours, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return ours, theirs
}

// on has a test made over each kind of socket, with package net's own connection, which says what is right, and with ours.
func on(t *testing.T, test func(t *testing.T, ours, theirs net.Conn)) {
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network+" of package net", func(t *testing.T) {
			ours, theirs := pair(t, network)
			test(t, ours, theirs)
		})
		t.Run(network, func(t *testing.T) {
			ours, theirs := pair(t, network)
			c := nonblock.Conn(ours)
			if c == ours {
				t.Fatal("Conn() returned what it was given")
			}
			test(t, c, theirs)
		})
	}
}

// TestThrough sends more both ways than sockets hold, while the other end is late.
func TestThrough(t *testing.T) {
	on(t, func(t *testing.T, ours, theirs net.Conn) {
		sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
		var work sync.WaitGroup
		for _, way := range []struct{ from, to net.Conn }{{ours, theirs}, {theirs, ours}} {
			work.Go(func() {
				if n, err := way.from.Write(sent); n != len(sent) || err != nil {
					t.Errorf("Write() = %d, %v, want %d", n, err, len(sent))
				}
				if err := way.from.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
					t.Errorf("CloseWrite() = %v", err)
				}
			})
			work.Go(func() {
				time.Sleep(20 * time.Millisecond)
				if got, err := io.ReadAll(way.to); !bytes.Equal(got, sent) || err != nil {
					t.Errorf("read %d bytes, %v, want the %d that were sent", len(got), err, len(sent))
				}
			})
		}
		work.Wait()
	})
}

func TestNothing(t *testing.T) {
	on(t, func(t *testing.T, ours, _ net.Conn) {
		if n, err := ours.Read(nil); n != 0 || err != nil {
			t.Errorf("Read(nil) = %d, %v", n, err)
		}
		if n, err := ours.Write(nil); n != 0 || err != nil {
			t.Errorf("Write(nil) = %d, %v", n, err)
		}
	})
}

// checkFailed holds an error to package net's: servers look at what it was, and whether it was a deadline.
func checkFailed(t *testing.T, err error, op string, want error) {
	t.Helper()
	var of *net.OpError
	if !errors.Is(err, want) || !errors.As(err, &of) || of.Op != op || of.Addr == nil || of.Net == "" {
		t.Errorf("error = %#v (%v), want %v in a net.OpError of %s", err, err, want, op)
		return
	}
	if of.Timeout() != errors.Is(want, os.ErrDeadlineExceeded) {
		t.Errorf("%v: Timeout() = %t", err, of.Timeout())
	}
}

func TestDeadline(t *testing.T) {
	on(t, func(t *testing.T, ours, theirs net.Conn) {
		if err := ours.SetDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		_, err := ours.Read(make([]byte, 1))
		checkFailed(t, err, "read", os.ErrDeadlineExceeded)
		n, err := ours.Write(make([]byte, 8<<20))
		checkFailed(t, err, "write", os.ErrDeadlineExceeded)
		if n != 0 {
			t.Errorf("Write() after the deadline = %d", n)
		}
		if err := ours.SetDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		if _, err := theirs.Write([]byte("a")); err != nil {
			t.Fatal(err)
		}
		if n, err := ours.Read(make([]byte, 2)); n != 1 || err != nil {
			t.Errorf("Read() with no deadline any more = %d, %v", n, err)
		}
	})
}

// TestPart has a deadline come while part of what is written has gone.
func TestPart(t *testing.T) {
	on(t, func(t *testing.T, ours, theirs net.Conn) {
		much := make([]byte, 64<<20) // which takes its time
		if err := ours.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		n, err := ours.Write(much)
		checkFailed(t, err, "write", os.ErrDeadlineExceeded)
		ours.Close()
		if got, err := io.Copy(io.Discard, theirs); got != int64(n) || n == 0 || err != nil {
			t.Errorf("Write() = %d, but %d came, %v", n, got, err)
		}
	})
}

func TestClose(t *testing.T) {
	on(t, func(t *testing.T, ours, _ net.Conn) {
		var work sync.WaitGroup
		work.Go(func() {
			_, err := ours.Read(make([]byte, 1))
			checkFailed(t, err, "read", net.ErrClosed)
		})
		work.Go(func() {
			_, err := ours.Write(make([]byte, 64<<20))
			checkFailed(t, err, "write", net.ErrClosed)
		})
		time.Sleep(20 * time.Millisecond)
		if err := ours.Close(); err != nil {
			t.Errorf("Close() = %v", err)
		}
		work.Wait()
		_, err := ours.Read(make([]byte, 1))
		checkFailed(t, err, "read", net.ErrClosed)
	})
}

// TestGone writes to what nobody reads any more. That is an error, and no signal, which would end this program.
func TestGone(t *testing.T) {
	on(t, func(t *testing.T, ours, theirs net.Conn) {
		theirs.Close()
		if n, err := ours.Read(make([]byte, 1)); n != 0 || err != io.EOF { //nolint:errorlint // it is io.EOF itself, as everywhere
			t.Errorf("Read() = %d, %v, want EOF", n, err)
		}
		var err error
		for range 10 { // the first may still be taken
			if _, err = ours.Write(make([]byte, 64<<10)); err != nil {
				break
			}
			time.Sleep(time.Millisecond)
		}
		var errno syscall.Errno
		if !errors.As(err, &errno) || errno != syscall.EPIPE && errno != syscall.ECONNRESET {
			t.Fatalf("Write() = %v, want EPIPE or ECONNRESET", err)
		}
		checkFailed(t, err, "write", errno)
	})
}

// TestNoSocket leaves alone what is none.
func TestNoSocket(t *testing.T) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	if got := nonblock.Conn(ours); got != ours {
		t.Errorf("Conn(pipe) = %T, want it as it is", got)
	}
}

func TestListener(t *testing.T) {
	inner, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := nonblock.Listener(inner)
	theirs, err := new(net.Dialer).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, plain := c.(*net.TCPConn); plain {
		t.Error("Accept() returned package net's own connection")
	}
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		if _, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_TYPE); err != nil {
			t.Errorf("SyscallConn() is of no socket: %v", err)
		}
	}); err != nil {
		t.Error(err)
	}
	l.Close()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept() after Close() = %v", err)
	}
}
