package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/benchmarks/site"
	"github.com/weighbridge/weighbridge/gateway"
)

const (
	// idleConnections are open at once, each with a caller's certificate.
	idleConnections = 10_000

	// waiting is on how many of them a stream was asked for whose answer has not begun: as many as the gateway lets one caller
	// have under way at once.
	waiting = gateway.DefaultInFlight / 2

	// handshakes are made at once.
	handshakes = 16

	// settle is how long nothing happens before memory is looked at.
	settle = 2 * time.Second
)

// idle returns the memory of the gateway, in MiB, while callers hold connections open and wait for answers, which do not
// come because the model server stands still.
func (w *world) idle(ctx context.Context) (float64, error) {
	runtime, err := w.gateway.Runtime()
	if err != nil {
		return 0, err
	}
	address, err := w.gateway.Address(ctx, "http")
	if err != nil {
		return 0, err
	}
	id, err := w.gateway.Identity(ctx)
	if err != nil {
		return 0, err
	}
	defer id.Close()
	if err := unix.Kill(runtime, unix.SIGSTOP); err != nil {
		return 0, fmt.Errorf("halt llama-server: %w", err)
	}
	defer unix.Kill(runtime, unix.SIGCONT) //nolint:errcheck // it has not ended: it stood still
	dialer := &tls.Dialer{Config: id.ClientTLS(tlsconfig.AuthorizeMemberOf(id.TrustDomain()))}
	conns := make([]io.Closer, idleConnections)
	defer func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	}()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(handshakes)
	for i := range conns {
		g.Go(func() error {
			conn, err := dialer.DialContext(ctx, "tcp", address)
			if err != nil {
				return fmt.Errorf("connection %d: %w", i, err)
			}
			conns[i] = conn
			if i < waiting {
				_, err = io.WriteString(conn, streamRequest(address))
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	time.Sleep(settle)
	return memoryOf(w.gateway.PID())
}

// streamRequest asks for a stream, in the words of HTTP/1.1.
func streamRequest(host string) string {
	body := `{"model": "` + site.Channel + `", "stream": true, "messages": [{"role": "user", "content": "Go on?"}]}`
	return "POST /v1/chat/completions HTTP/1.1\r\nHost: " + host + "\r\nContent-Type: application/json\r\nContent-Length: " +
		strconv.Itoa(len(body)) + "\r\n\r\n" + body
}

// memoryOf returns what is resident in a process, in MiB, without the weights that it shares with its runtimes.
func memoryOf(pid int) (float64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("read memory of process: %w", err)
	}
	return parseMemory(string(data))
}

func parseMemory(status string) (float64, error) {
	for line := range strings.Lines(status) {
		rest, ok := strings.CutPrefix(line, "RssAnon:")
		if !ok {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read memory of process: %w", err)
		}
		return float64(kib) / 1024, nil
	}
	return 0, fmt.Errorf("read memory of process: it has none") // it has ended
}
