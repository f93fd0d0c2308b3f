package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/benchmarks/bench"
	"github.com/weighbridge/weighbridge/benchmarks/site"
)

// TestDemands holds the loud callers to what their cases say.
func TestDemands(t *testing.T) {
	perSecond := func(d *demand) int { return int(time.Duration(d.Connections) * time.Second / d.Every) }
	tests := []struct {
		name string
		d    *demand
		rate int // 0: as soon as there is an answer
		many int // connections
	}{
		{"rate 1 x", byRate(1), loudRate, ratedConnections},
		{"rate 20 x", byRate(times), 20 * loudRate, ratedConnections},
		{"at once 1 x", atOnce(1), 0, loudConcurrent},
		{"at once 20 x", atOnce(times), 0, 20 * loudConcurrent},
	}
	for _, tt := range tests {
		rate := 0
		if tt.d.Every > 0 {
			rate = perSecond(tt.d)
		}
		if rate != tt.rate || tt.d.Connections != tt.many {
			t.Errorf("%s: %d a second on %d connections, want %d on %d", tt.name, rate, tt.d.Connections, tt.rate, tt.many)
		}
	}
}

// to dials a server without TLS.
func to(server *httptest.Server) func(context.Context) (io.ReadWriteCloser, error) {
	return func(ctx context.Context) (io.ReadWriteCloser, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", server.Listener.Addr().String())
	}
}

// TestLoud counts what becomes of requests, and stays on its connection unless that is ended.
func TestLoud(t *testing.T) {
	const last = 6
	tests := []struct {
		name   string
		answer func(w http.ResponseWriter)
		want   tally // of so many requests
	}{
		{"answered", func(w http.ResponseWriter) { _, _ = io.WriteString(w, "on") }, tally{Answered: last}},
		{"refused", func(w http.ResponseWriter) { http.Error(w, "busy", http.StatusTooManyRequests) }, tally{Refused: last}},
		{"refused, and the connection closed", func(w http.ResponseWriter) {
			w.Header().Set("Connection", "close")
			http.Error(w, "busy", http.StatusTooManyRequests)
		}, tally{Refused: last, Anew: last - 1}},
		{"failed", func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) }, tally{Failed: last, Example: "Internal Server Error"}},
		{"cut off", func(http.ResponseWriter) { panic(http.ErrAbortHandler) }, tally{Failed: last, Anew: last - 1, Example: "unexpected EOF"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			asked := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err != nil || !bytes.Contains(body, []byte(`"max_tokens":8`)) {
					t.Errorf("body = %q, %v, want a request for 8 tokens", body, err)
				}
				if asked++; asked == last {
					stop()
				}
				tt.answer(w)
			}))
			defer server.Close()
			var got tally
			c := &loudConn{
				dial:    to(server),
				request: demand{Tokens: 8}.request("gateway"), tally: &got,
			}
			if err := c.ask(ctx, demand{}, time.Now()); err != nil || got != tt.want {
				t.Errorf("ask() = %v with %+v, want %+v", err, got, tt.want)
			}
		})
	}
}

// TestLoudPauses waits after a refusal for as long as it should, and after an answer not at all.
func TestLoudPauses(t *testing.T) {
	const pause = 20 * time.Millisecond
	for _, status := range []int{http.StatusOK, http.StatusTooManyRequests} {
		ctx, stop := context.WithCancel(t.Context())
		var at []time.Time
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if at = append(at, time.Now()); len(at) == 5 {
				stop()
			}
			w.WriteHeader(status)
		}))
		c := &loudConn{
			dial:    to(server),
			request: demand{}.request("gateway"), tally: &tally{},
		}
		if err := c.ask(ctx, demand{Pause: pause}, time.Now()); err != nil {
			t.Error(err)
		}
		server.Close()
		shortest := at[1].Sub(at[0])
		for i := range at[2:] {
			shortest = min(shortest, at[i+2].Sub(at[i+1]))
		}
		if paused := shortest >= pause; paused != (status == http.StatusTooManyRequests) {
			t.Errorf("after status %d it paused for %s at least", status, shortest)
		}
		stop()
	}
}

func TestCounts(t *testing.T) {
	var c counts
	c.addQuiet([]site.Sample{{}, {Failure: "503"}, {Wrong: "an answer is empty"}})
	c.loud.add(tally{Answered: 1, Refused: 2, Failed: 3, Anew: 4, Example: "a"})
	c.loud.add(tally{Answered: 1, Refused: 1, Failed: 1, Anew: 1, Example: "b"})
	want := counts{requests: 3, failed: 2, example: "503", loud: tally{Answered: 2, Refused: 3, Failed: 4, Anew: 5, Example: "a"}}
	if c != want || c.loud.sent() != 9 {
		t.Errorf("counts = %+v with %d sent, want %+v with 9", c, c.loud.sent(), want)
	}
}

// TestReport reads the figures as they are read from release to release, and looks for directories in what is published.
func TestReport(t *testing.T) {
	w := &world{
		Site: &site.Site{
			Parts: site.Parts{Weighbridge: "/nowhere/weighbridge", Llama: "/nowhere/llama-server"}, Dir: "/somewhere/site",
			RuntimeArgs: []string{"--model", "/proc/self/fd/4", "--load-mode", "mmap", "--host", "x", "--api-key-file", "/proc/self/fd/3"},
		},
		total: counts{requests: 2800, failed: 1, example: "503", loud: tally{Answered: 100, Refused: 1900, Anew: 2}},
	}
	measured := map[string]bench.Values{
		alone:     {p99: 10, p50: 5},
		rateOnce:  {p99: 11, p50: 6},
		rateOver:  {p99: 11.5, p50: 6, refused: 95, asked: 200, answered: 10, loudCPU: 5},
		countOnce: {p99: 20, p50: 10},
		countOver: {p99: 21, p50: 10, refused: 90, asked: 200, answered: 20, loudCPU: 5},
	}
	cases := w.cases()
	for i := range cases {
		v := measured[cases[i].Name]
		cases[i].Run = func(context.Context) (bench.Values, error) { return v, nil }
	}
	r, err := bench.Suite{Cases: cases, Metrics: metrics, Rounds: 2}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	report := w.report(t.Context(), r)
	text := report.Text()
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	for _, line := range []string{
		"quiet-requests: 2800", "loud-requests: 2000", "loud-connections-made-anew: 2", "quiet-failed-requests: 1", "p50-alone-ms: 5.0",
		"p99-at-once-20x-ms: 21.0", "refused-rate-20x-percent: 95.0", "p99-rate-20x/p99-alone: 1.15", "p99-rate-20x/p99-rate-1x: 1.05",
		"p99-at-once-20x/p99-alone: 2.10", "p99-at-once-20x/p99-at-once-1x: 1.05",
		"- failed first: 503",
	} {
		if !slices.Contains(lines, line) {
			t.Errorf("report lacks %q:\n%s", line, text)
		}
	}
	if lines[2] != "$ make bench-fair ROUNDS=2" {
		t.Errorf("report says %q, not how to repeat it", lines[2])
	}
	for _, text := range [][]byte{text, report.Plot()} {
		for _, bad := range []string{"/somewhere", "/nowhere", "/proc/self"} {
			if bytes.Contains(text, []byte(bad)) {
				t.Errorf("report names %s:\n%s", bad, text)
			}
		}
	}
}
