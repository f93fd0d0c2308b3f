package gateway

import (
	"encoding/binary"
	"net"
	"sync"
	"time"
)

// goAway is the HTTP/2 frame by which a server begins to shut a connection down (RFC 9113, section 6.8): the client starts
// nothing new on it, finishes what it has begun, and connects anew.
var goAway = []byte{
	0, 0, 8, 7, 0, 0, 0, 0, 0, // length, GOAWAY, no flags, stream 0
	0x7f, 0xff, 0xff, 0xff, // no stream is refused
	0, 0, 0, 0, // no error
}

// frameHeader is the length of what stands before each frame.
const frameHeader = 9

// A leaver sends goAway once, between two frames of the HTTP/2 server that writes to it: gRPC's has no way to ask one
// client to connect anew.
type leaver struct {
	net.Conn
	timer *time.Timer

	mu      sync.Mutex
	header  []byte // of the frame that is being written, as far as it is
	left    int    // bytes of it that are still to come after its header
	started bool   // whether the server has spoken: it must do so first
	due     bool
}

// leaveAfter asks the client of a connection to connect anew after a time.
func leaveAfter(conn net.Conn, d time.Duration) net.Conn {
	l := &leaver{Conn: conn}
	l.timer = time.AfterFunc(d, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.due = true
		_ = l.leave() // whoever writes next will learn of it
	})
	return l
}

// Write implements net.Conn.
func (l *leaver) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := l.Conn.Write(p)
	l.follow(p[:n])
	if err == nil {
		err = l.leave()
	}
	return n, err
}

// follow finds out where in a frame the written bytes end.
func (l *leaver) follow(p []byte) {
	for len(p) > 0 {
		l.started = true
		if l.left > 0 {
			n := min(l.left, len(p))
			l.left, p = l.left-n, p[n:]
			continue
		}
		n := min(frameHeader-len(l.header), len(p))
		l.header, p = append(l.header, p[:n]...), p[n:]
		if len(l.header) == frameHeader {
			l.left = int(binary.BigEndian.Uint32(l.header) >> 8)
			l.header = l.header[:0]
		}
	}
}

// leave sends the frame if it is time, and if no other is under way.
func (l *leaver) leave() error {
	if !l.due || !l.started || l.left > 0 || len(l.header) > 0 {
		return nil
	}
	l.due = false
	_, err := l.Conn.Write(goAway)
	return err
}

// Close implements net.Conn.
func (l *leaver) Close() error {
	l.timer.Stop()
	return l.Conn.Close()
}
