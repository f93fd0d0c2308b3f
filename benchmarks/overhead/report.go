package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/weighbridge/weighbridge/benchmarks/bench"
)

// report says everything that is needed to repeat the result, and computes the figures.
func (w *world) report(ctx context.Context, r *bench.Result, idle float64) *bench.Report {
	return &bench.Report{
		Name:    "overhead",
		Title:   "What stands between a caller and its model server costs",
		Command: r.Command("make bench-overhead"),
		Facts: append(w.Facts(ctx),
			bench.Fact{Name: nginx, Value: cmp.Or(w.nginx, "not there")},
			bench.Fact{Name: "llama-server's options", Value: strings.Join(w.PlainArgs("mmap", "MODEL", "KEY"), " ")},
			bench.Fact{Name: gatewayHTTP, Value: "weighbridge serve: OpenAI's API over HTTP/1.1 with mTLS, identity, access rules, limits, metrics, audit log and an access log to a file"},
			bench.Fact{Name: gatewayGRPC, Value: "the same process, its gRPC service, all requests on one connection; its answers are always streams"},
			bench.Fact{Name: bareProxy, Value: "net/http/httputil.ReverseProxy over HTTP/1.1 with mTLS and connections to llama-server that stay open, built by the same Go, with no access log"},
			bench.Fact{Name: nginx + " does", Value: "one worker, proxy_pass over HTTP/1.1 with mTLS and connections to llama-server that stay open, no buffering, an access log to a file"},
			bench.Fact{Name: direct, Value: "asked on its unix socket, without TLS, on connections that stay open"},
		),
		Notes: []string{
			fmt.Sprintf("CPU is that of the proxy's process alone, user and system; per request: of one token, %d a second over %d connections for %s, and where few come %d a second", rate, connections, paced, lightRate),
			fmt.Sprintf("per token: %d streams of %d tokens, less %d of %d, one after the other", streams, longStream, streams, shortStream),
			fmt.Sprintf("p50 is of %d requests of one token, one after the other on one connection; added is what is more in it than in that of as many to a llama-server that nobody else asks, one after each of them", single),
			fmt.Sprintf("idle streams: %d connections with mTLS, idle but for %d, on which a stream has been asked for and has not begun: the gateway bounds the requests under way on purpose, and one caller may have no more; memory is what is resident and not shared", idleConnections, waiting),
		},
		Result:  r,
		Figures: figures(r, idle),
	}
}

func figures(r *bench.Result, idle float64) []bench.Figure {
	ratio := func(name string, a, b float64) bench.Figure { return bench.Figure{Name: name, Value: a / b, Digits: 2} }
	var all []bench.Figure
	for _, c := range []struct{ name, metric, suffix string }{
		{gatewayHTTP, "gateway", ""}, {gatewayGRPC, "grpc", ""}, {bareProxy, "bare-proxy", ""}, {nginx, "nginx", ""},
	} {
		all = append(all,
			bench.Figure{Name: "cpu-us-" + c.metric, Value: r.Median(c.name, cpu)},
			bench.Figure{Name: "cpu-light-us-" + c.metric, Value: r.Median(c.name, lightCPU)},
			bench.Figure{Name: "stream-token-cpu-us-" + c.metric, Value: r.Median(c.name, tokenCPU), Digits: 1},
			bench.Figure{Name: "p50-added-us-" + c.metric, Value: r.Median(c.name, added)},
		)
	}
	return append(all,
		ratio("cpu-grpc/bare-proxy", r.Median(gatewayGRPC, cpu), r.Median(bareProxy, cpu)),
		ratio("stream-token-cpu-grpc/bare-proxy", r.Median(gatewayGRPC, tokenCPU), r.Median(bareProxy, tokenCPU)),
		ratio("p50-added/nginx", r.Median(gatewayHTTP, added), r.Median(nginx, added)),
		ratio("stream-token-cpu/nginx", r.Median(gatewayHTTP, tokenCPU), r.Median(nginx, tokenCPU)),
		bench.Figure{Name: "idle-streams-rss-mib", Value: idle},
		ratio("cpu/bare-proxy", r.Median(gatewayHTTP, cpu), r.Median(bareProxy, cpu)),
		ratio("cpu-light/bare-proxy", r.Median(gatewayHTTP, lightCPU), r.Median(bareProxy, lightCPU)),
		ratio("cpu/nginx", r.Median(gatewayHTTP, cpu), r.Median(nginx, cpu)),
		ratio("p50-added/bare-proxy", r.Median(gatewayHTTP, added), r.Median(bareProxy, added)),
		ratio("stream-token-cpu/bare-proxy", r.Median(gatewayHTTP, tokenCPU), r.Median(bareProxy, tokenCPU)),
	)
}
