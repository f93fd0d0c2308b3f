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
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/nonblock"
)

// A conn is a connection, for one request at a time. http.Transport would put two goroutines beside each, and waking them
// costs more than all that is done here.
type conn struct {
	net.Conn
	asks    *bufio.Writer     // of what goes
	answers *bufio.Reader     // of what comes
	header  *io.LimitedReader // what it reads, which a header must not use up
	answer  *response         // to the request that is under way
	used    bool              // by an earlier request
	since   time.Time         // when it was kept
	release func() bool       // has the end of the request's context give nothing up any more
	given   sync.Once         // up
}

// connect returns a connection on which llama-server learns when ctx ends.
func (l *launch) connect(ctx context.Context) (*conn, error) {
	c := l.idle.take()
	if c == nil {
		raw, err := l.dial(ctx)
		if err != nil {
			return nil, err
		}
		raw = nonblock.Conn(raw)
		c = &conn{Conn: raw, header: &io.LimitedReader{R: raw}}
		c.asks, c.answers = bufio.NewWriter(raw), bufio.NewReaderSize(c.header, maxLine)
	}
	c.release = context.AfterFunc(ctx, c.giveUp)
	return c, nil
}

// giveUp tells llama-server that nobody waits for the answer any more. It notices that between two tokens, or after a
// second at most, and then closes the connection.
func (c *conn) giveUp() {
	c.given.Do(func() {
		if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite() // it may be closed
		}
		_ = c.SetDeadline(time.Now().Add(letGo)) // also of a write that llama-server does not read
	})
}

// Close gives up what was asked, and lets the connection go when llama-server has: only then its slot is free.
func (c *conn) Close() error {
	c.release()
	c.giveUp()
	_, _ = io.Copy(io.Discard, c.Conn) // its end is all that counts
	return c.Conn.Close()
}

// ask sends a request and returns the connection on which the answer has begun. reached says whether llama-server may have
// seen the request.
func (l *launch) ask(ctx context.Context, method, path string, body []byte) (c *conn, reached bool, err error) {
	for {
		if c, err = l.connect(ctx); err != nil {
			return nil, reached, err
		}
		if err = c.ask(ctx, l.key, method, path, body); err == nil {
			return c, true, nil
		}
		c.Close()
		// One that was kept may have been closed: by llama-server, after a while, or with it. To ask anew is safe where nothing
		// could be sent, and also if llama-server lives: then it was not the request that ended it.
		reached = reached || !c.used || !errors.Is(err, syscall.EPIPE)
		if !c.used || ctx.Err() != nil {
			return nil, reached, err
		}
	}
}

// ask writes a request by hand, in the words of HTTP/1.1: all of it is ours, and http.Request takes longer over it than the
// kernel.
func (c *conn) ask(ctx context.Context, key, method, path string, body []byte) (err error) {
	for _, part := range []string{
		method, " ", path, " HTTP/1.1\r\nHost: llama-server\r\nAuthorization: Bearer ", key,
		"\r\nContent-Type: application/json\r\nContent-Length: ", strconv.Itoa(len(body)), "\r\n",
	} {
		_, _ = c.asks.WriteString(part)
	}
	header := http.Header{}
	backends.Trace(ctx, header)
	_ = header.Write(c.asks)
	_, _ = c.asks.WriteString("\r\n")
	_, _ = c.asks.Write(body)
	if err := c.asks.Flush(); err != nil { // the error of all writes
		return fmt.Errorf("send request: %w", err)
	}
	c.header.N = maxHeader
	if c.answer, err = readResponse(c.answers); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	c.header.N = math.MaxInt64 // of its body, which others bound
	return nil
}

// end lets the connection of an answer go that was read as far as it is needed. It is kept for the next request if that was
// to its end; after a stream llama-server closes it.
func (l *launch) end(c *conn) {
	if c.spent() && c.release() {
		l.idle.keep(c)
		return
	}
	c.drop()
}

// spent reports whether nothing more can come of an answer, nor came after it.
func (c *conn) spent() bool {
	if !c.answer.again {
		return false
	}
	n, err := c.answer.body.Read(make([]byte, 1))
	return n == 0 && errors.Is(err, io.EOF) && c.answers.Buffered() == 0
}

// drop closes a connection on which nothing is under way.
func (c *conn) drop() {
	c.release()
	c.Conn.Close()
}

// idle are the connections that are kept: no more than requests were under way at once. llama-server closes one that is not
// used for five seconds.
type idle struct {
	mu     sync.Mutex
	conns  []*conn // the last kept is the last
	closed bool    // none is kept any more
}

// keep keeps a connection.
func (i *idle) keep(c *conn) {
	c.used, c.since = true, time.Now()
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		c.drop()
		return
	}
	i.conns = append(i.conns, c)
}

// take returns the connection that was kept last, if that is still good; else nil, and closes all.
func (i *idle) take() *conn {
	i.mu.Lock()
	defer i.mu.Unlock()
	if last := len(i.conns) - 1; last >= 0 && time.Since(i.conns[last].since) < keepFor {
		c := i.conns[last]
		i.conns = i.conns[:last]
		return c
	}
	i.clear()
	return nil
}

// close closes all, and those that are still to come.
func (i *idle) close() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.closed = true
	i.clear()
}

func (i *idle) clear() {
	for _, c := range i.conns {
		c.drop()
	}
	i.conns = nil
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
