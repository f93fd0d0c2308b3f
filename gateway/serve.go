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

	"github.com/weighbridge/weighbridge/backends/nonblock"
)

// Listeners are where callers come in, without TLS: the gateway adds it. Any may be nil.
type Listeners struct {
	GRPC, HTTP           net.Listener // callers show a certificate
	TokenGRPC, TokenHTTP net.Listener // callers show a JWT-SVID in each request
}

// A doorway is the servers of one kind of callers.
type doorway struct {
	rpc      *grpc.Server
	reporter *health.Server
	web      *http.Server
	wait     func()
}

func (g *Gateway) doorway(token bool) *doorway {
	var d doorway
	d.rpc, d.reporter = g.grpcServer(token)
	d.web, d.wait = g.httpServer(token)
	return &d
}

// serve answers at those listeners that are there.
func (d *doorway) serve(work *errgroup.Group, rpc, web net.Listener) {
	if rpc != nil {
		work.Go(func() error {
			if err := d.rpc.Serve(nonblock.Listener(rpc)); err != nil && !errors.Is(err, grpc.ErrServerStopped) { // before it began
				return fmt.Errorf("serve gRPC: %w", err)
			}
			return nil
		})
	}
	if web != nil {
		work.Go(func() error {
			if err := d.web.ServeTLS(nonblock.Listener(web), "", ""); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("serve HTTP: %w", err)
			}
			return nil
		})
	}
}

// Serve answers until ctx ends or a door fails, and closes the listeners. New requests are refused then, answers in
// flight get Config.Drain to finish, and the rest is cut off. When it returns, no request is being answered.
func (g *Gateway) Serve(ctx context.Context, l Listeners) error {
	if l == (Listeners{}) {
		return errors.New("gateway: nothing to listen on")
	}
	work, ctx := errgroup.WithContext(ctx)
	certified, tokens := g.doorway(false), g.doorway(true)
	doors := []*doorway{certified, tokens}
	told := g.report(doors, nil)
	certified.serve(work, l.GRPC, l.HTTP)
	tokens.serve(work, l.TokenGRPC, l.TokenHTTP)
	work.Go(func() error {
		tick := time.NewTicker(healthInterval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				told = g.report(doors, told)
			case <-ctx.Done():
				g.shutdown(doors)
				return nil
			}
		}
	})
	defer g.ledger.flush()
	return work.Wait()
}

// fitness is whether there is anything to answer by.
type fitness struct {
	usable bool // our own identity
	ready  bool // a channel
}

// report tells the health services and the log what has changed since it told them last, if it ever did.
func (g *Gateway) report(doors []*doorway, told *fitness) *fitness {
	err := g.identity.Check(g.now())
	is := fitness{usable: err == nil, ready: g.catalog.Ready()}
	if told != nil && is == *told {
		return told
	}
	switch before := told == nil || told.usable; {
	case before && !is.usable:
		g.log.Error("callers are refused", "err", err)
	case !before && is.usable:
		g.log.Info("there is an identity again, callers are answered")
	}
	for _, d := range doors {
		setHealth(d.reporter, is.ready && is.usable)
	}
	return &is
}

// shutdown closes all doors at once, and returns when nothing moves behind them: at the latest when the time is up.
func (g *Gateway) shutdown(doors []*doorway) {
	ctx, cancel := context.WithTimeout(context.Background(), g.drain)
	defer cancel()
	var closing sync.WaitGroup
	for _, d := range doors {
		d.reporter.Shutdown() // balancers look elsewhere from now on
		closing.Go(func() {
			stop := context.AfterFunc(ctx, func() {
				g.log.Warn("answers were cut off by the shutdown", "protocol", protocolGRPC, "after", g.drain)
				d.rpc.Stop()
			})
			defer stop()
			d.rpc.GracefulStop()
		})
		closing.Go(func() {
			if err := d.web.Shutdown(ctx); err != nil {
				g.log.Warn("answers were cut off by the shutdown", "protocol", protocolHTTP, "after", g.drain)
				_ = d.web.Close()
			}
			d.wait()
		})
	}
	closing.Wait()
}

// httpServer returns the server of an HTTP door, and a function that waits for its handlers: a server that was cut
// off does not.
func (g *Gateway) httpServer(token bool) (_ *http.Server, wait func()) {
	var handlers sync.WaitGroup
	handler := g.httpHandler()
	return &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			handlers.Add(1)
			defer handlers.Done()
			handler.ServeHTTP(w, r)
		}),
		TLSConfig:         g.tls(token, "h2", "http/1.1"),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams},
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			return withConnection(ctx, token)
		},
		ErrorLog: slog.NewLogLogger(g.log.Handler(), slog.LevelInfo),
	}, handlers.Wait
}
