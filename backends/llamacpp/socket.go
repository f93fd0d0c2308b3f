package llamacpp

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"syscall"
	"time"
)

// baseURL names a host because HTTP wants one; connections go to the socket.
const baseURL = "http://llama-server"

// A conn is a connection for one request. Its end is how llama-server learns to stop, and frees the slot; it closes them
// after a stream in any case. http.Transport would put two goroutines beside each, and waking them costs more than all that
// is done here.
type conn struct {
	net.Conn
	kept func() bool // undoes that the end of the request closes it
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.kept()
	return c.Conn.Close()
}

// connect returns a connection that is closed when ctx ends.
func (l *launch) connect(ctx context.Context) (*conn, error) {
	raw, err := l.dial(ctx)
	if err != nil {
		return nil, err
	}
	return &conn{raw, context.AfterFunc(ctx, func() { raw.Close() })}, nil
}

// ask sends the connection's request and returns the answer, whose body is read from the connection.
func (c *conn) ask(r *http.Request) (*http.Response, error) {
	r.Close = true
	if err := r.Write(c); err != nil {
		return nil, fmt.Errorf("send request: %w", err)
	}
	answer := &io.LimitedReader{R: c, N: maxHeader}
	resp, err := http.ReadResponse(bufio.NewReader(answer), r)
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	answer.N = math.MaxInt64 // of its body, which others bound
	return resp, nil
}

// dial connects to the socket. A full queue of connections, which llama-server keeps short, is waited for.
func (l *launch) dial(ctx context.Context) (net.Conn, error) {
	raw, err := l.dir.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("reach private directory: %w", err)
	}
	for {
		var conn net.Conn
		var dialErr error
		// Control keeps the descriptor from being closed meanwhile, whose number could then be another directory's.
		err := raw.Control(func(fd uintptr) {
			var d net.Dialer
			conn, dialErr = d.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", fd, socketName))
		})
		if err != nil {
			return nil, fmt.Errorf("reach private directory: %w", err)
		}
		if !errors.Is(dialErr, syscall.EAGAIN) {
			return conn, dialErr
		}
		select {
		case <-time.After(dialInterval):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
