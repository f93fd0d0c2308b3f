package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"

	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
	"github.com/weighbridge/weighbridge/gateway/identity"
	"github.com/weighbridge/weighbridge/gateway/identity/devworkload"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

// A shared is a gateway process with several callers, each of which has an identity of its own.
type shared struct {
	*gatewayProcess
	svids string
}

const (
	loud  = "/apps/loud"
	quiet = "/apps/quiet"
)

// newShared returns a gateway that has not started, of a release with these runtime arguments and access rules.
func newShared(t *testing.T, model tinygguf.Config, args map[string]string, rules string) *shared {
	t.Helper()
	g := &shared{gatewayProcess: newGateway(t), svids: t.TempDir()}
	path := filepath.Join(g.Dir, "models", "shared.gguf")
	writeTiny(t, path, model)
	id := g.Release(path, func(d *trust.Descriptor) {
		d.Runtime.Args = args
		d.Behaviour.Output.MaxTokens = 1 << 16
	})
	g.Approve(id, trusttest.Alice, trust.Approval{})
	g.Approve(id, trusttest.Bob, trust.Approval{})
	g.Publish(id, "chat", 2)

	agent, err := devworkload.Open(devworkload.Config{TrustDomain: spiffeid.RequireTrustDomainFromString("test.example")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { agent.Close() })
	for _, path := range []string{"/gateway", loud, quiet} {
		if err := agent.Write(g.svids, devworkload.Identity{ID: spiffeid.RequireFromPath(agent.Bundle().TrustDomain(), path)}); err != nil {
			t.Fatal(err)
		}
	}
	g.allow(rules)
	return g
}

// allow writes the configuration with these rules.
func (g *shared) allow(rules string) {
	g.t.Helper()
	g.writeConfig("spiffe://test.example/apps/*")
	data, err := os.ReadFile(g.config)
	if err != nil {
		g.t.Fatal(err)
	}
	own := filepath.Join(g.svids, "gateway")
	var lines []string
	for line := range strings.Lines(string(data)) {
		switch {
		case strings.HasPrefix(line, "identity:"):
			line = fmt.Sprintf("identity: {files: {svid: %[1]s/svid.pem, key: %[1]s/key.pem, bundle: %[1]s/bundle.pem}}\n", own)
		case strings.HasPrefix(line, "access:"):
			line = "access: " + rules + "\n"
		}
		lines = append(lines, line)
	}
	if err := os.WriteFile(g.config, []byte(strings.Join(lines, "")), 0o600); err != nil {
		g.t.Fatal(err)
	}
}

// as is an HTTP client of one caller.
func (g *shared) as(path string) *http.Client {
	g.t.Helper()
	own := filepath.Join(g.svids, path)
	id, err := identity.Open(g.t.Context(), identity.Config{Files: &identity.Files{
		SVID: filepath.Join(own, "svid.pem"), Key: filepath.Join(own, "key.pem"), Bundle: filepath.Join(own, "bundle.pem"),
	}})
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { id.Close() })
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: id.ClientTLS(tlsconfig.AuthorizeMemberOf(id.TrustDomain()), "h2"), ForceAttemptHTTP2: true,
	}}
}

// A tally is what became of one caller's requests.
type tally struct {
	mu       sync.Mutex
	statuses map[int]int
	took     []time.Duration // of those that were answered
}

func (y *tally) p99() time.Duration {
	slices.Sort(y.took)
	return y.took[len(y.took)*99/100]
}

// send sends so many requests at a steady rate, whether or not those before were answered.
func (g *shared) send(c *http.Client, rate float64, n int) *tally {
	y := &tally{statuses: map[int]int{}}
	url := g.url("/v1/chat/completions")
	var wg sync.WaitGroup
	tick := time.NewTicker(time.Duration(float64(time.Second) / rate))
	defer tick.Stop()
	for range n {
		<-tick.C
		wg.Go(func() {
			begun := time.Now()
			resp, err := c.Post(url, "application/json", strings.NewReader(`{"model":"chat","messages":[{"role":"user","content":"Who are you?"}]}`))
			if err != nil {
				g.t.Error(err)
				return
			}
			defer resp.Body.Close()
			_, err = io.Copy(io.Discard, resp.Body)
			took := time.Since(begun)
			y.mu.Lock()
			defer y.mu.Unlock()
			y.statuses[resp.StatusCode]++
			if resp.StatusCode == http.StatusOK && err == nil {
				y.took = append(y.took, took)
			}
			if resp.StatusCode == http.StatusTooManyRequests && resp.Header.Get("Retry-After") == "" {
				g.t.Error("a 429 does not say when to come back")
			}
		})
	}
	wg.Wait()
	return y
}

// TestServeIsFair has one caller send twenty times what it may, to a real runtime: it is told so, nothing of the other's
// fails, and the other's times are logged beside those without it.
func TestServeIsFair(t *testing.T) {
	const limit, rate, n = 10, 20, 60 // a second, and requests
	g := newShared(t, tinygguf.Config{Sentence: tinygguf.A.Sentence, ChatTemplate: tinygguf.ChatTemplate},
		map[string]string{"ctx-size": "1024", "threads": "1", "parallel": "4"},
		fmt.Sprintf(`[{caller: "spiffe://test.example/apps/loud", channels: [chat], methods: [chat], limits: {rate: %d/s, concurrent: 4}}, {caller: "spiffe://test.example/apps/quiet", channels: [chat], methods: [chat]}]`, limit))
	g.start("--init-state")
	g.await("release serves")
	one, other := g.as(loud), g.as(quiet)
	g.send(other, rate, 10) // connections are made

	alone := g.send(other, rate, n)
	var crowd, within *tally
	var wg sync.WaitGroup
	wg.Go(func() { within = g.send(one, limit, n*limit/rate) })
	beside := g.send(other, rate, n)
	wg.Wait()
	wg.Go(func() { crowd = g.send(one, 20*limit, 20*n*limit/rate) })
	crowded := g.send(other, rate, n)
	wg.Wait()
	for name, y := range map[string]*tally{"alone": alone, "beside": beside, "crowded": crowded} {
		if y.statuses[http.StatusOK] != n {
			t.Errorf("%s, the quiet caller got %v, want %d answers", name, y.statuses, n)
		}
	}
	// A burst of one second's worth, and then the rate.
	if most := limit + int(float64(limit)*float64(n)/rate) + limit; crowd.statuses[http.StatusTooManyRequests] == 0 || crowd.statuses[http.StatusOK] > most || len(crowd.statuses) != 2 {
		t.Errorf("the loud caller got %v, want at most %d answers and 429 for the rest", crowd.statuses, most)
	}
	t.Logf("p99 of the quiet caller: alone %s, beside one within its limit %s (got %v), beside one at 20 times that %s (got %v)",
		alone.p99(), beside.p99(), within.statuses, crowded.p99(), crowd.statuses)
}

// TestServeTakesTurns has one caller fill a real runtime with long answers, many times over, and another ask now and then: it
// waits for one of those that run to end at most.
func TestServeTakesTurns(t *testing.T) {
	const slots, crowd, questions = 2, 24, 10
	g := newShared(t, tinygguf.Config{Sentence: "on and on and on ", Endless: true, ChatTemplate: tinygguf.ChatTemplate},
		map[string]string{"ctx-size": "2048", "threads": "1", "parallel": fmt.Sprint(slots)},
		`[{caller: "spiffe://test.example/apps/*", channels: [chat], methods: [chat]}]`)
	g.start("--init-state")
	g.await("release serves")
	ask := func(c *http.Client, tokens int) {
		body := fmt.Sprintf(`{"model":"chat","max_tokens":%d,"messages":[{"role":"user","content":"x"}]}`, tokens)
		resp, err := c.Post(g.url("/v1/chat/completions"), "application/json", strings.NewReader(body))
		if err != nil {
			t.Error(err)
			return
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
			t.Errorf("POST = %s, %v", resp.Status, err)
		}
	}
	one, other := g.as(loud), g.as(quiet)
	var asking atomic.Bool
	asking.Store(true)
	var wg sync.WaitGroup
	for range crowd {
		wg.Go(func() {
			for asking.Load() {
				ask(one, 400)
			}
		})
	}
	g.await("request", "caller", "spiffe://test.example"+loud) // by then all the others wait
	for range questions {
		ask(other, 1)
	}
	asking.Store(false)
	wg.Wait()

	// longest returns the longest wait of a caller's requests, and the longest of its turns.
	longest := func(path string) (wait, turn time.Duration) {
		for _, attrs := range g.log.findAll("request", "caller", "spiffe://test.example"+path) {
			waited, _ := attrs["wait"].(float64) // absent: it did not
			took, _ := attrs["duration"].(float64)
			wait, turn = max(wait, time.Duration(waited)), max(turn, time.Duration(took-waited))
		}
		return wait, turn
	}
	waited, _ := longest(quiet)
	crowded, turn := longest(loud)
	if waited > turn {
		t.Errorf("the quiet caller waited for %s, and the longest turn took %s", waited, turn)
	}
	if crowded < 3*turn {
		t.Errorf("the loud caller waited for %s, with turns of up to %s: there was no crowd", crowded, turn)
	}
	t.Logf("the quiet caller waited for %s at most, the loud one for %s, turns took up to %s", waited, crowded, turn)
}

// TestServeEndsStreams takes a caller's rule away while it is streamed to: the stream ends with an error that says so,
// within a second of the signal, and the other caller's goes on.
func TestServeEndsStreams(t *testing.T) {
	rule := func(path string) string {
		return fmt.Sprintf(`{caller: "spiffe://test.example%s", channels: [chat], methods: [chat]}`, path)
	}
	g := newShared(t, tinygguf.Config{Sentence: "on and on and on ", Endless: true, ChatTemplate: tinygguf.ChatTemplate, Context: 1 << 16},
		map[string]string{"ctx-size": "131072", "threads": "1", "parallel": "2"}, "["+rule(loud)+", "+rule(quiet)+"]")
	g.start("--init-state")
	g.await("release serves")
	stream := func(path string) *bufio.Scanner {
		resp, err := g.as(path).Post(g.url("/v1/chat/completions"), "application/json",
			strings.NewReader(`{"model":"chat","stream":true,"max_tokens":60000,"messages":[{"role":"user","content":"x"}]}`))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("POST = %s", resp.Status)
		}
		lines := bufio.NewScanner(resp.Body)
		for range 20 {
			lines.Scan()
		}
		return lines
	}
	taken, kept := stream(loud), stream(quiet)
	go func() {
		for kept.Scan() { // so that it is not its reader that holds it up
		}
	}()
	g.allow("[" + rule(quiet) + "]")
	begun := time.Now()
	g.cmd.Process.Signal(syscall.SIGHUP)
	var last string
	for taken.Scan() {
		if taken.Text() != "" {
			last = taken.Text()
		}
	}
	took := time.Since(begun)
	var e struct{ Error struct{ Type, Code string } }
	if err := json.Unmarshal([]byte(strings.TrimPrefix(last, "data: ")), &e); err != nil || e.Error.Type != "permission_error" || e.Error.Code != "permission_revoked" {
		t.Errorf("the stream ended with %q, want permission_revoked", last)
	}
	if t.Logf("the stream ended %s after the signal", took); took > 5*time.Second { // a second on a machine that does nothing else
		t.Errorf("the stream ended %s after the signal", took)
	}
	attrs := g.await("request", "caller", "spiffe://test.example"+loud)
	if attrs["outcome"] != "permission_revoked" || attrs["status"] != float64(http.StatusForbidden) {
		t.Errorf("the log says %v, want permission_revoked", attrs)
	}
	if attrs, _ := g.log.find("request", "caller", "spiffe://test.example"+quiet); attrs != nil {
		t.Errorf("the other caller's stream ended: %v", attrs)
	}
}
