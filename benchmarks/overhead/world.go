package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"

	"github.com/weighbridge/weighbridge/benchmarks/site"
)

// room is more than the weights need.
const room = 1 << 30

// runtimeArgs are those of all llama-servers: a slot for each caller.
const runtimeArgs = "ctx-size: 2560, parallel: 8, threads: 1"

// A door is something that can be asked.
type door struct {
	name string
	peer bool
	pid  int // of the proxy; 0: there is none
	asker
}

// An asker is a client of a door.
type asker interface {
	Ask(context.Context, site.Question) (site.Answer, error)
	Close()
}

// A world is everything that is measured, running.
type world struct {
	*site.Site
	gateway *site.Gateway
	plain   *site.Plain // the llama-server of the peers
	nginx   string      // its version; empty: it is not there
	doors   []door
	direct  door // to a llama-server that no other door has: each door's is as little used, and so as slow to begin
	stops   []func()
}

func newWorld(ctx context.Context, stderr io.Writer) (_ *world, err error) {
	w := &world{}
	if w.Site, err = site.New(ctx, site.Config{Stderr: stderr, In: os.TempDir(), Memory: room}); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	if err := w.startGateway(ctx); err != nil {
		return nil, err
	}
	if w.plain, _, err = w.StartPlain(ctx, model, "mmap"); err != nil {
		return nil, err
	}
	w.stops = append(w.stops, w.plain.Stop)
	trust, err := w.newTrust()
	if err != nil {
		return nil, err
	}
	if err := w.startBare(ctx, trust); err != nil {
		return nil, err
	}
	if err := w.startNginx(ctx, trust, stderr); err != nil {
		return nil, err
	}
	w.add(direct, true, 0, askPlain(w.plain))
	reference, _, err := w.StartPlain(ctx, model, "mmap")
	if err != nil {
		return nil, err
	}
	w.direct = door{asker: askPlain(reference)}
	w.stops = append(w.stops, reference.Stop, w.direct.Close)
	return w, nil
}

// askPlain asks a llama-server past all doors.
func askPlain(p *site.Plain) *site.Caller {
	return site.NewCaller("http://llama-server", &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", p.Socket())
		},
	})
}

func (w *world) add(name string, peer bool, pid int, a asker) {
	w.doors = append(w.doors, door{name, peer, pid, a})
	w.stops = append(w.stops, a.Close)
}

// close stops everything, what was started last first.
func (w *world) close() error {
	for i := range w.stops {
		w.stops[len(w.stops)-1-i]()
	}
	return w.Close()
}

// model is the only one.
var model = site.ModelName("endless.gguf")

func (w *world) startGateway(ctx context.Context) (err error) {
	if w.gateway, err = w.ServeTiny(ctx, model, site.Endless, runtimeArgs); err != nil {
		return err
	}
	w.stops = append(w.stops, w.gateway.Stop)
	web, err := w.gateway.Caller(ctx)
	if err != nil {
		return err
	}
	w.add(gatewayHTTP, false, w.gateway.PID(), web)
	rpc, err := newRPC(ctx, w.gateway)
	if err != nil {
		return err
	}
	w.add(gatewayGRPC, false, w.gateway.PID(), rpc)
	return w.gateway.Learn()
}
