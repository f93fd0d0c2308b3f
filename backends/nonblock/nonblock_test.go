package nonblock_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
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

// TestThrough sends more both ways than sockets hold.
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
				if got, err := io.ReadAll(way.to); !bytes.Equal(got, sent) || err != nil {
					t.Errorf("read %d bytes, %v, want the %d that were sent", len(got), err, len(sent))
				}
			})
		}
		work.Wait()
	})
}

// TestWriters has several write at once, on whose messages nobody breaks in, in small calls and in others.
func TestWriters(t *testing.T) {
	for _, size := range []int{1000, 100_000} {
		on(t, func(t *testing.T, ours, theirs net.Conn) {
			const each = 50
			var work sync.WaitGroup
			for _, letter := range []byte("abcd") {
				work.Go(func() {
					for range each {
						if n, err := ours.Write(bytes.Repeat([]byte{letter}, size)); n != size || err != nil {
							t.Errorf("Write() = %d, %v, want %d", n, err, size)
						}
					}
				})
			}
			message := make([]byte, size)
			for range 4 * each {
				if _, err := io.ReadFull(theirs, message); err != nil {
					t.Fatal(err)
				}
				if bytes.Count(message, message[:1]) != size {
					t.Fatalf("a message of %q has others in it", message[:1])
				}
			}
			work.Wait()
		})
	}
}

// TestReaders has several read at once, which each gets bytes of its own.
func TestReaders(t *testing.T) {
	on(t, func(t *testing.T, ours, theirs net.Conn) {
		const all = 20_000
		var work sync.WaitGroup
		var seen [256]atomic.Int32
		for range 4 {
			work.Go(func() {
				some := make([]byte, 16)
				for {
					n, err := ours.Read(some)
					for _, b := range some[:n] {
						seen[b].Add(1)
					}
					if err != nil {
						return
					}
				}
			})
		}
		for i := range all {
			if _, err := theirs.Write([]byte{byte(i)}); err != nil {
				t.Fatal(err)
			}
		}
		theirs.Close()
		work.Wait()
		for b := range seen {
			if got, want := seen[b].Load(), int32((all-b+255)/256); got != want {
				t.Fatalf("byte %d was read %d times, want %d", b, got, want)
			}
		}
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
	on(t, func(t *testing.T, ours, theirs net.Conn) {
		var work sync.WaitGroup
		work.Go(func() {
			_, err := ours.Read(make([]byte, 1))
			checkFailed(t, err, "read", net.ErrClosed)
		})
		work.Go(func() {
			_, err := ours.Write(make([]byte, 64<<20))
			checkFailed(t, err, "write", net.ErrClosed)
		})
		if _, err := io.ReadFull(theirs, make([]byte, 1)); err != nil { // it is being written
			t.Fatal(err)
		}
		if err := ours.Close(); err != nil {
			t.Errorf("Close() = %v", err)
		}
		work.Wait()
		for _, data := range [][]byte{nil, make([]byte, 1)} {
			_, err := ours.Read(data)
			checkFailed(t, err, "read", net.ErrClosed)
		}
	})
}

// TestGone writes to what nobody reads any more.
func TestGone(t *testing.T) {
	on(t, func(t *testing.T, ours, theirs net.Conn) {
		theirs.Close()
		if n, err := ours.Read(make([]byte, 1)); n != 0 || err != io.EOF { //nolint:errorlint // it is io.EOF itself, as everywhere
			t.Errorf("Read() = %d, %v, want EOF", n, err)
		}
		var err error
		for range 100 { // the first may still be taken
			if _, err = ours.Write(make([]byte, 1<<10)); err != nil {
				break
			}
		}
		var errno syscall.Errno
		if !errors.As(err, &errno) || errno != syscall.EPIPE && errno != syscall.ECONNRESET {
			t.Fatalf("Write() = %v, want EPIPE or ECONNRESET", err)
		}
		checkFailed(t, err, "write", errno)
	})
}

// ahead is a connection that has read ahead, as one does that looks at what comes first.
type ahead struct{ *net.TCPConn }

// TestOther leaves alone what is no stream socket, and what is more than one.
func TestOther(t *testing.T) {
	pipe, theirs := net.Pipe()
	defer pipe.Close()
	defer theirs.Close()
	datagrams, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer datagrams.Close()
	packets, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	ours, _ := pair(t, "tcp")
	for _, c := range []net.Conn{pipe, datagrams, packets, ahead{ours.(*net.TCPConn)}} {
		if got := nonblock.Conn(c); got != c {
			t.Errorf("Conn(%T) = %T, want it as it is", c, got)
		}
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
