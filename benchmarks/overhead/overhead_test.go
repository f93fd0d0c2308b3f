package main

import (
	"bytes"
	"context"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/benchmarks/bench"
	"github.com/weighbridge/weighbridge/benchmarks/site"
)

func TestPerToken(t *testing.T) {
	const tokens = streams * (longStream - shortStream)
	if got := perToken(time.Second, time.Second+tokens*30*time.Microsecond); got != 30 {
		t.Errorf("perToken() = %v µs, want 30", got)
	}
}

func TestCPUOf(t *testing.T) {
	before, err := cpuOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for begun := time.Now(); time.Since(begun) < 5*time.Millisecond; {
	}
	if after, err := cpuOf(os.Getpid()); err != nil || after <= before {
		t.Errorf("cpuOf(us) = %v, then %v, %v, want more", before, after, err)
	}
	if _, err := cpuOf(math.MaxInt32 >> 4); err == nil {
		t.Error("cpuOf(nobody) = nil, want an error")
	}
}

func TestParseMemory(t *testing.T) {
	tests := []struct {
		name, status string
		want         float64 // 0: an error
	}{
		{"resident and not shared", "VmRSS:\t  9000 kB\nRssAnon:\t  3072 kB\nRssShmem:\t   10 kB\n", 3},
		{"ended", "State:\tZ (zombie)\n", 0},
		{"no number", "RssAnon:\t  many kB\n", 0},
	}
	for _, tt := range tests {
		got, err := parseMemory(tt.status)
		if got != tt.want || (err == nil) != (tt.want > 0) {
			t.Errorf("%s: parseMemory() = %v, %v, want %v", tt.name, got, err, tt.want)
		}
	}
}

// A counter is an asker that notes what it is asked.
type counter struct {
	asked  chan site.Question
	answer site.Answer
}

func (c *counter) Close() {}

func (c *counter) Ask(_ context.Context, q site.Question) (site.Answer, error) {
	c.asked <- q
	return c.answer, nil
}

func TestDoor(t *testing.T) {
	c := &counter{make(chan site.Question, 512), site.Answer{Status: http.StatusOK, Text: "on"}}
	d := door{asker: c}
	if err := d.paced(t.Context(), 10, 1000); err != nil || len(c.asked) != 10 {
		t.Errorf("paced(10) = %v after %d requests, want 10", err, len(c.asked))
	}
	if _, _, err := latency(t.Context(), d, door{asker: &counter{make(chan site.Question, 1+single), c.answer}}); err != nil || len(c.asked) != 10+single {
		t.Errorf("latency() = %v after %d requests in all, want %d more", err, len(c.asked), single)
	}
	if err := d.streams(t.Context(), 3); err != nil || len(c.asked) != 10+single+streams {
		t.Errorf("streams() = %v after %d requests in all, want %d more", err, len(c.asked), streams)
	}
	for _, bad := range []site.Answer{{Status: http.StatusTooManyRequests, Body: "busy"}, {Status: http.StatusOK}} {
		d.asker = &counter{make(chan site.Question, 64), bad}
		if err := d.paced(t.Context(), 1, 1000); err == nil {
			t.Errorf("paced() with the answer %+v = nil, want an error", bad)
		}
	}
}

// TestBarely has the bare proxy pass on a request to a socket, as it is, and turn away a caller without a certificate.
func TestBarely(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "llama.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	behind := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(slices.Concat([]byte(r.URL.Path+" "), body))
	})}
	go behind.Serve(listener)
	defer behind.Close()

	w := &world{Site: &site.Site{Dir: t.TempDir()}}
	trust, err := w.newTrust()
	if err != nil {
		t.Fatal(err)
	}
	proxy := httptest.NewUnstartedServer(barely(socket))
	if proxy.TLS, err = serverTLS(w.Path(trust.dir)); err != nil {
		t.Fatal(err)
	}
	proxy.StartTLS()
	defer proxy.Close()
	post := func(certified bool) (string, error) {
		conf := trust.conf.Clone()
		if !certified {
			conf.Certificates = nil
		}
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: conf}}
		defer client.CloseIdleConnections()
		res, err := client.Post("https://"+proxy.Listener.Addr().String()+"/v1/x", "text/plain", strings.NewReader("hello"))
		if err != nil {
			return "", err
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		return string(body), err
	}
	if body, err := post(true); err != nil || body != "/v1/x hello" {
		t.Errorf("answer = %q, %v, want what is behind", body, err)
	}
	if body, err := post(false); err == nil {
		t.Errorf("answer without a certificate = %q, want an error", body)
	}
}

// TestReport reads the figures as they are read from release to release, and looks for directories in what is published.
func TestReport(t *testing.T) {
	w := &world{Site: &site.Site{
		Parts: site.Parts{Weighbridge: "/nowhere/weighbridge", Llama: "/nowhere/llama-server"}, Dir: "/somewhere/site",
		RuntimeArgs: []string{"--model", "/proc/self/fd/4", "--load-mode", "mmap", "--host", "x", "--api-key-file", "/proc/self/fd/3"},
	}}
	measured := map[string]bench.Values{
		gatewayHTTP: {cpu: 260, lightCPU: 390, tokenCPU: 12, p50: 1240, added: 240},
		gatewayGRPC: {cpu: 300, lightCPU: 400, tokenCPU: 20, p50: 1300, added: 300},
		bareProxy:   {cpu: 200, lightCPU: 300, tokenCPU: 10, p50: 1200, added: 200},
		direct:      {p50: 1000, added: 0},
	}
	suite := bench.Suite{Metrics: metrics, Rounds: 2}
	for _, name := range []string{gatewayHTTP, gatewayGRPC, bareProxy, direct} {
		suite.Cases = append(suite.Cases, bench.Case{Name: name, Run: func(context.Context) (bench.Values, error) { return measured[name], nil }})
	}
	r, err := suite.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	report := w.report(t.Context(), r, 512)
	text := report.Text()
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	for _, line := range []string{
		"cpu/bare-proxy: 1.30", "cpu-light/bare-proxy: 1.30", "cpu-light-us-gateway: 390", "cpu/nginx: n/a", "p50-added/bare-proxy: 1.20", "stream-token-cpu/bare-proxy: 1.20",
		"cpu-grpc/bare-proxy: 1.50", "cpu-us-gateway: 260", "p50-added-us-bare-proxy: 200", "idle-streams-rss-mib: 512",
	} {
		if !slices.Contains(lines, line) {
			t.Errorf("figures are %q, want %q among them", lines[len(lines)-len(report.Figures):], line)
		}
	}
	if lines[2] != "$ make bench-overhead ROUNDS=2" {
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
