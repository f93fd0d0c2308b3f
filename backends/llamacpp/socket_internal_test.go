package llamacpp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/backends"
)

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
			dir := t.TempDir()
			listener, err := net.Listen("unix", filepath.Join(dir, socketName))
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			go func() {
				if conn, err := listener.Accept(); err == nil {
					serve(conn)
					<-t.Context().Done()
					conn.Close()
				}
			}()
			l := &launch{key: "key"}
			if l.dir, err = os.Open(dir); err != nil {
				t.Fatal(err)
			}
			defer l.dir.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			begun := time.Now()
			req := backends.ChatRequest{Messages: []backends.Message{{Role: "user", Content: strings.Repeat("x", 4<<20)}}, Whole: true}
			err = l.chat(ctx, req, func(backends.Chunk) error { return nil })
			if took := time.Since(begun); err == nil || took > 2*letGo {
				t.Errorf("chat() = %v after %s, want an error soon after the caller left", err, took)
			}
			if name != "an error stalls" && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("chat() = %v, want %v", err, context.DeadlineExceeded)
			}
		})
	}
}
