package llamacpp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/backendtest"
	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
)

// listening returns a launch, and where it is listened to instead of by llama-server.
func listening(t *testing.T) (*launch, net.Listener) {
	t.Helper()
	dir := t.TempDir()
	listener, err := net.Listen("unix", filepath.Join(dir, socketName))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	l := &launch{key: "key"}
	if l.dir, err = os.Open(dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.dir.Close() })
	return l, listener
}

// TestLetGo has callers leave a llama-server that does not notice: neither what it does not read nor what it does not answer
// holds them for long.
func TestLetGo(t *testing.T) {
	for name, serve := range map[string]func(net.Conn){
		"it does not read":   func(net.Conn) {},
		"it does not answer": func(c net.Conn) { _, _ = io.Copy(io.Discard, c) },
		"an error stalls": func(c net.Conn) {
			go io.Copy(io.Discard, c)
			_, _ = fmt.Fprintf(c, "HTTP/1.1 500 Internal Server Error\r\nContent-Length: %d\r\n\r\n%*s", maxError+1, maxError, " ")
		},
	} {
		t.Run(name, func(t *testing.T) {
			l, listener := listening(t)
			go func() {
				if conn, err := listener.Accept(); err == nil {
					serve(conn)
					<-t.Context().Done()
					conn.Close()
				}
			}()
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			begun := time.Now()
			req := backends.ChatRequest{Messages: []backends.Message{{Role: "user", Content: strings.Repeat("x", 4<<20)}}, Whole: true}
			err := l.chat(ctx, req, func(backends.Chunk) error { return nil })
			if took := time.Since(begun); err == nil || took > 2*letGo {
				t.Errorf("chat() = %v after %s, want an error soon after the caller left", err, took)
			}
			if name != "an error stalls" && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("chat() = %v, want %v", err, context.DeadlineExceeded)
			}
		})
	}
}

// TestLeaves has a caller leave a llama-server that then closes the connection, as it does: it is told at once.
func TestLeaves(t *testing.T) {
	l, listener := listening(t)
	asked := make(chan struct{})
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = conn.Read(make([]byte, 1))
		close(asked)
		_, _ = io.Copy(io.Discard, conn)
	}()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var left time.Time
	go func() {
		<-asked
		left = time.Now()
		cancel()
	}()
	req := backends.ChatRequest{Messages: []backends.Message{{Role: "user", Content: "hi"}}, Whole: true}
	err := l.chat(ctx, req, func(backends.Chunk) error { return nil })
	if took := time.Since(left); !errors.Is(err, context.Canceled) || took > letGo/2 {
		t.Errorf("chat() = %v %s after the caller left, want %v at once", err, took, context.Canceled)
	}
}

// TestEndlessHeader reads no more of a header than it may have, however short its lines are.
func TestEndlessHeader(t *testing.T) {
	l, listener := listening(t)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, err = io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
		for err == nil {
			_, err = io.WriteString(conn, "A: b\r\n")
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, _, err := l.ask(ctx, http.MethodGet, "/health", nil); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("ask() = %v, want %v", err, io.ErrUnexpectedEOF)
	}
}

// TestReached has a connection closed before a request goes out: on one that was kept nothing can have been seen of it, and it
// is sent anew; on a new one llama-server may have ended by it.
func TestReached(t *testing.T) {
	for _, used := range []bool{false, true} {
		l, listener := listening(t)
		closed := make(chan struct{})
		go func() {
			for first := true; ; first = false {
				conn, err := listener.Accept()
				switch {
				case err != nil:
					return
				case first:
					conn.Close()
					close(closed)
				default:
					_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				}
			}
		}()
		c, err := l.connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		c.release()
		<-closed
		l.idle.keep(c)
		c.used = used
		c, reached, err := l.ask(t.Context(), http.MethodGet, "/health", nil)
		if (err == nil) != used || !reached || !used && !errors.Is(err, syscall.EPIPE) {
			t.Errorf("ask() on a connection that was closed, and used before: %t, = reached %t, %v", used, reached, err)
		}
		if err == nil {
			c.drop()
		}
	}
}

// TestKept counts the connections that are made for requests, and waits for those that end.
func TestKept(t *testing.T) {
	l, listener := listening(t)
	var made atomic.Int32
	ended := make(chan struct{}, 10)
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}`)
		}),
		ConnState: func(_ net.Conn, s http.ConnState) {
			switch s {
			case http.StateNew:
				made.Add(1)
			case http.StateClosed:
				ended <- struct{}{}
			}
		},
	}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	ask := func(t *testing.T, when string, want int32) {
		t.Helper()
		req := backends.ChatRequest{Messages: []backends.Message{{Role: "user", Content: "hi"}}, Whole: true}
		if err := l.chat(t.Context(), req, func(backends.Chunk) error { return nil }); err != nil || made.Load() != want {
			t.Errorf("chat() %s = %v over connection %d, want %d", when, err, made.Load(), want)
		}
	}
	end := func(when string) {
		t.Helper()
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Errorf("no connection has ended %s", when)
		}
	}
	synctest.Test(t, func(t *testing.T) { // where time passes in Sleep alone
		ask(t, "at first", 1)
		ask(t, "at once", 1)
		time.Sleep(keepFor - 1)
		ask(t, "just in time", 1)
		time.Sleep(keepFor - 1)
		ask(t, "just in time again", 1)
		time.Sleep(5 * time.Second)
		ask(t, "when llama-server would have closed it", 2)
	})
	end("when it was kept for too long")
	l.idle.close()
	end("with the launch")
	ask(t, "after the launch", 3)
	end("after the launch")

	l.idle.closed = false
	server.SetKeepAlivesEnabled(false)
	ask(t, "of a server that closes", 4)
	if n := len(l.idle.conns); n != 0 {
		t.Errorf("%d connections are kept that the server said it closes", n)
	}
}

// TestStopLetsGo checks that nothing is kept of a llama-server that has ended.
func TestStopLetsGo(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{Command: self, RuntimeDir: t.TempDir(), Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Stop(context.Background()) })
	if err := s.Start(t.Context(), backendtest.Seal(t, backendtest.WriteModel(t, tinygguf.A)), backends.Spec{}); err != nil {
		t.Fatal(err)
	}
	req := backendtest.Question("whole")
	req.Whole = true
	if _, _, err := backendtest.Ask(t.Context(), s, req); err != nil {
		t.Fatal(err)
	}
	l, _ := s.sup.Peek()
	kept := l.idle.take()
	if kept == nil {
		t.Fatal("no connection is kept after a whole answer")
	}
	l.idle.keep(kept)
	s.Stop(t.Context())
	if _, err := kept.Write(nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write() on a connection that was kept = %v after Stop, want %v", err, net.ErrClosed)
	}
}
