package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
)

// Listeners are where callers come in, without TLS: the gateway adds it. Either may be nil.
type Listeners struct {
	GRPC, HTTP net.Listener
}

// Serve answers until ctx ends or a door fails, and closes the listeners. New requests are refused then, answers in
// flight get Config.Drain to finish, and the rest is cut off. When it returns, no request is being answered.
func (g *Gateway) Serve(ctx context.Context, l Listeners) error {
	if l.GRPC == nil && l.HTTP == nil {
		return errors.New("gateway: nothing to listen on")
	}
	work, ctx := errgroup.WithContext(ctx)
	rpc, reporter := g.grpcServer()
	web, wait := g.httpServer()
	g.report(reporter)
	if l.GRPC != nil {
		work.Go(func() error {
			if err := rpc.Serve(l.GRPC); err != nil {
				return fmt.Errorf("serve gRPC: %w", err)
			}
			return nil
		})
	}
	if l.HTTP != nil {
		work.Go(func() error {
			if err := web.ServeTLS(l.HTTP, "", ""); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve HTTP: %w", err)
			}
			return nil
		})
	}
	work.Go(func() error {
		tick := time.NewTicker(healthInterval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				g.report(reporter)
			case <-ctx.Done():
				reporter.Shutdown() // balancers look elsewhere from now on
				g.shutdown(rpc, web)
				wait()
				return nil
			}
		}
	})
	return work.Wait()
}

// report tells the health service whether any channel answers.
func (g *Gateway) report(h *health.Server) {
	ready := false
	for _, info := range g.catalog.Channels() {
		ready = ready || info.State == StateReady
	}
	setHealth(h, ready)
}

// shutdown closes both doors at once, and returns when nothing moves behind them, or the time is up.
func (g *Gateway) shutdown(rpc *grpc.Server, web *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), g.drain)
	defer cancel()
	var doors sync.WaitGroup
	doors.Go(func() {
		stop := context.AfterFunc(ctx, func() {
			g.log.Warn("answers were cut off by the shutdown", "protocol", protocolGRPC, "after", g.drain)
			rpc.Stop()
		})
		defer stop()
		rpc.GracefulStop()
	})
	doors.Go(func() {
		if err := web.Shutdown(ctx); err != nil {
			g.log.Warn("answers were cut off by the shutdown", "protocol", protocolHTTP, "after", g.drain)
			_ = web.Close()
		}
	})
	doors.Wait()
}

// httpServer returns the server of the HTTP door, and a function that waits for its handlers: a server that was cut
// off does not.
func (g *Gateway) httpServer() (_ *http.Server, wait func()) {
	var handlers sync.WaitGroup
	handler := g.httpHandler()
	return &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			handlers.Add(1)
			defer handlers.Done()
			handler.ServeHTTP(w, r)
		}),
		TLSConfig:         g.identity.ServerTLS("h2", "http/1.1"),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		ConnContext:       func(ctx context.Context, _ net.Conn) context.Context { return withOpened(ctx) },
		ErrorLog:          slog.NewLogLogger(g.log.Handler(), slog.LevelInfo),
	}, handlers.Wait
}
