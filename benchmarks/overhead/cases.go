package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/benchmarks/bench"
	"github.com/weighbridge/weighbridge/benchmarks/site"
)

// Names of the cases. Figures are named after them.
const (
	gatewayHTTP = "gateway"
	gatewayGRPC = "gateway gRPC"
	bareProxy   = "bare proxy"
	nginx       = "nginx"
	direct      = "llama-server alone"
)

// What cases measure.
const (
	cpu      = "CPU per request"
	lightCPU = "where few come"
	tokenCPU = "CPU per token" //nolint:gosec // no credential
	p50      = "p50"
	added    = "p50 added"
)

var metrics = []bench.Metric{
	{Name: cpu, Unit: "µs", Digits: 0},
	{Name: lightCPU, Unit: "µs", Digits: 0},
	{Name: tokenCPU, Unit: "µs", Digits: 1},
	{Name: p50, Unit: "µs", Digits: 0},
	{Name: added, Unit: "µs", Digits: 0},
}

// The load. It leaves a machine of two cores time to spare.
const (
	connections = 8
	rate        = 150             // requests a second, over all connections
	lightRate   = 50              // where the processor has forgotten a proxy between any two of its requests
	paced       = 4 * time.Second // how long they are sent
	warmUp      = 2 * connections // requests before anything is measured: connections are made meanwhile

	single = 150 // requests one after the other, for the latency

	streams     = 8   // of each length
	longStream  = 200 // tokens
	shortStream = 8

	// pause is after each stream: llama-server then closes the connection without having said so, and a proxy that has not
	// noticed would send the next request into it.
	pause = 50 * time.Millisecond
)

func (w *world) cases() []bench.Case {
	var all []bench.Case
	for _, d := range w.doors {
		all = append(all, bench.Case{Name: d.name, Peer: d.peer, Run: func(ctx context.Context) (bench.Values, error) { return d.measure(ctx, w.direct) }})
	}
	return all
}

// measure asks a door at a steady rate, then one request after the other, then for streams.
func (d door) measure(ctx context.Context, direct door) (bench.Values, error) {
	if err := d.paced(ctx, warmUp, rate); err != nil {
		return nil, err
	}
	v := bench.Values{}
	for metric, rate := range map[string]int{cpu: rate, lightCPU: lightRate} {
		requests := int(paced/time.Second) * rate
		used, err := d.using(func() error { return d.paced(ctx, requests, rate) })
		if err != nil {
			return nil, err
		}
		v[metric] = microseconds(used) / float64(requests)
	}
	var err error
	if v[p50], v[added], err = latency(ctx, d, direct); err != nil {
		return nil, err
	}
	short, err := d.using(func() error { return d.streams(ctx, shortStream) })
	if err != nil {
		return nil, err
	}
	long, err := d.using(func() error { return d.streams(ctx, longStream) })
	if err != nil {
		return nil, err
	}
	v[tokenCPU] = perToken(short, long)
	if d.pid == 0 { // nothing is between
		delete(v, cpu)
		delete(v, lightCPU)
		delete(v, tokenCPU)
	}
	return v, nil
}

// perToken is what a token costs beside the request that it belongs to.
func perToken(short, long time.Duration) float64 {
	return microseconds(long-short) / (streams * (longStream - shortStream))
}

// paced sends requests for one token at even intervals, over all connections: more of them are there than requests
// under way, unless the machine is too busy.
func (d door) paced(ctx context.Context, requests, rate int) error {
	begun := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	for n := range connections {
		g.Go(func() error {
			for i := n; i < requests; i += connections {
				time.Sleep(time.Until(begun.Add(time.Duration(i) * time.Second / time.Duration(rate))))
				if err := d.ask(ctx, site.Question{MaxTokens: 1}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// latency is the median of requests that have everything to themselves, and what is more in it than in that of requests
// which are sent past the door, one after each.
func latency(ctx context.Context, d, direct door) (median, more float64, err error) {
	var took [2]bench.Series
	for range single {
		for i, one := range []door{d, direct} {
			begun := time.Now()
			if err := one.ask(ctx, site.Question{MaxTokens: 1}); err != nil {
				return 0, 0, err
			}
			took[i] = append(took[i], microseconds(time.Since(begun)))
		}
	}
	return took[0].Median(), took[0].Median() - took[1].Median(), nil
}

func (d door) streams(ctx context.Context, tokens int) error {
	for range streams {
		if err := d.ask(ctx, site.Question{MaxTokens: tokens, Stream: true}); err != nil {
			return err
		}
		time.Sleep(pause)
	}
	return nil
}

func (d door) ask(ctx context.Context, q site.Question) error {
	q.Text = "Go on?"
	a, err := d.Ask(ctx, q)
	switch {
	case err != nil:
		return err
	case a.Status != http.StatusOK:
		return fmt.Errorf("answer = %d %s", a.Status, a.Body)
	case a.Text == "":
		return errors.New("an answer is empty")
	}
	return nil
}

// using returns the processor time that the proxy took meanwhile.
func (d door) using(do func() error) (time.Duration, error) {
	before, err := cpuOf(d.pid)
	if err != nil {
		return 0, err
	}
	if err := do(); err != nil {
		return 0, err
	}
	after, err := cpuOf(d.pid)
	return after - before, err
}

// cpuOf reads the processor clock of a process, of all its threads, which is finer than the ticks in /proc. Of 0 it is our
// own. The number of such a clock is made as clock_getcpuclockid(3) makes it.
func cpuOf(pid int) (time.Duration, error) {
	const scheduled = 2 // user and system time, to the nanosecond
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|scheduled), &t); err != nil {
		return 0, fmt.Errorf("read processor time: %w", err)
	}
	return time.Duration(t.Nano()), nil
}

func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
