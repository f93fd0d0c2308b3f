package gateway_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/gateway"
	"github.com/weighbridge/weighbridge/gateway/access"
	"github.com/weighbridge/weighbridge/gateway/fair"
	"github.com/weighbridge/weighbridge/gateway/identity"
	"github.com/weighbridge/weighbridge/gateway/identity/devworkload"
	"github.com/weighbridge/weighbridge/gateway/receipt/receipttest"
	"github.com/weighbridge/weighbridge/gateway/telemetry"
)

const (
	release = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	weights = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	level   = "sealed"

	// waitLimit is when a test gives up waiting for what must happen.
	waitLimit = 20 * time.Second
)

// A catalog serves what a test puts in it. The real one is on the other side of the front door's edge.
type catalog struct {
	mu       sync.Mutex
	channels map[string]*channel
}

// A channel answers with fixed chunks.
type channel struct {
	missing error // why it does not serve
	limits  gateway.Limits
	chunks  []backends.Chunk
	fail    error             // after the chunks
	block   bool              // after the chunks, until the request ends
	panics  bool              // after the chunks
	entered chan struct{}     // gets a value when a request is being answered, if not nil
	turns   *fair.Queue       // at the runtime; nil: everybody has one
	site    *receipttest.Site // whose release it serves; nil: none of anybody's

	mu    sync.Mutex
	got   []backends.ChatRequest
	spans []trace.SpanContext // in which they came
	ended []error             // the causes with which requests ended
	taken int

	embedded, counted int // requests
	done              int
}

func (c *catalog) Acquire(_ context.Context, name string) (gateway.Serving, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ch, ok := c.channels[name]
	switch {
	case !ok:
		return nil, fmt.Errorf("%q: %w", name, gateway.ErrUnknownChannel)
	case ch.missing != nil:
		return nil, fmt.Errorf("%w: %w", gateway.ErrNotServing, ch.missing)
	}
	ch.mu.Lock()
	defer ch.mu.Unlock()
	ch.taken++
	return &serving{name, ch}, nil
}

func (c *catalog) Ready() bool {
	return slices.ContainsFunc(c.Channels(), func(i gateway.ChannelInfo) bool { return i.State == gateway.StateReady })
}

func (c *catalog) Channels() []gateway.ChannelInfo {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []gateway.ChannelInfo
	for name, ch := range c.channels {
		info := gateway.ChannelInfo{Channel: name, State: "none", Since: time.Unix(1700000000, 0)}
		if ch.missing == nil {
			info.Release, info.Weights, info.Level, info.State = release, weights, level, gateway.StateReady
			info.Size, info.Format, info.Does = 42, "gguf", []string{gateway.DoesChat}
		}
		all = append(all, info)
	}
	return all
}

type serving struct {
	name string
	*channel
}

func (s *serving) Info() gateway.ServingInfo {
	if s.site != nil {
		by := s.site.Served()
		return gateway.ServingInfo{Channel: s.name, Release: by.Release, Weights: by.Weights, Level: by.Level, Sandbox: by.Sandbox, Limits: s.limits, Grounds: by.Grounds}
	}
	return gateway.ServingInfo{Channel: s.name, Release: release, Weights: weights, Level: level, Limits: s.limits}
}

func (s *serving) Enter(ctx context.Context, caller string) (func(), error) {
	if s.turns == nil {
		return func() {}, nil
	}
	return s.turns.Enter(ctx, caller)
}

func (s *serving) Chat(ctx context.Context, req backends.ChatRequest, emit func(backends.Chunk) error) (err error) {
	s.mu.Lock()
	s.got = append(s.got, req)
	s.spans = append(s.spans, trace.SpanContextFromContext(ctx))
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ended = append(s.ended, err)
	}()
	for _, c := range s.chunks {
		if err := emit(c); err != nil {
			return err
		}
	}
	if s.entered != nil {
		s.entered <- struct{}{}
	}
	if s.panics {
		panic("a bug")
	}
	if s.block {
		<-ctx.Done()
		return ctx.Err()
	}
	return s.fail
}

// Embed makes a vector of each text's length.
func (s *serving) Embed(_ context.Context, req backends.EmbedRequest) (e backends.Embeddings, err error) {
	s.mu.Lock()
	s.embedded++
	s.mu.Unlock()
	for _, text := range req.Inputs {
		e.Vectors = append(e.Vectors, []float32{float32(len(text)), 0.5})
		e.PromptTokens += len(text)
	}
	return e, s.fail
}

// Count makes a token of each byte.
func (s *serving) Count(_ context.Context, req backends.ChatRequest) (n int, err error) {
	s.mu.Lock()
	s.counted++
	s.mu.Unlock()
	for _, m := range req.Messages {
		n += len(m.Content)
	}
	return n, s.fail
}

func (s *serving) Done() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done++
}

// request returns the one request that reached the runtime.
func (c *channel) request(t *testing.T) backends.ChatRequest {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.got) != 1 {
		t.Fatalf("%d requests reached the runtime, want 1", len(c.got))
	}
	return c.got[0]
}

// checkLeases expects every lease to have been given back.
func (c *channel) checkLeases(t *testing.T) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.taken != c.done {
		t.Errorf("%d leases were taken and %d given back", c.taken, c.done)
	}
}

// hello answers "Hello, world." in three pieces.
func hello() *channel {
	return &channel{chunks: []backends.Chunk{
		{Text: "Hello, "}, {Text: "world."}, {FinishReason: "stop", Usage: &backends.Usage{PromptTokens: 7, CompletionTokens: 3}},
	}}
}

// A log that a test can read.
type logbook struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// A door is a running gateway with a trust domain around it.
type door struct {
	t       *testing.T
	agent   *devworkload.Agent
	us      *identity.Source
	dir     string
	gateway *gateway.Gateway
	catalog *catalog
	log     *logbook
	metrics http.Handler
	grpc    string
	http    string
	tokens  struct{ grpc, http string } // the doors for JWT-SVIDs
	stop    func() error                // shuts down and waits

	transports []*http.Transport
}

const (
	domain  = "bank.example"
	partner = "partner.example" // of which a gateway knows nothing, unless a test federates with it
)

// open starts a gateway on which spiffe://bank.example/apps/* may use the channels chat and quiet.
func open(t *testing.T, channels map[string]*channel, change ...func(*gateway.Config)) *door {
	t.Helper()
	return openWith(t, newAgent(t, domain), channels, change...)
}

// openWith is open, for the identities of an agent.
func openWith(t *testing.T, agent *devworkload.Agent, channels map[string]*channel, change ...func(*gateway.Config)) *door {
	t.Helper()
	dir, err := os.MkdirTemp("", "wb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := &door{t: t, dir: dir, agent: agent, catalog: &catalog{channels: channels}, log: &logbook{}}
	d.us = d.source(d.agent, "/gateway", func(c *identity.Config) {
		c.Tokens, c.Proxies = true, []spiffeid.ID{spiffeid.RequireFromString("spiffe://" + domain + "/proxy")}
	})
	rules, err := access.Parse([]access.Rule{
		{Caller: "spiffe://" + domain + "/apps/*", Channels: []string{"chat", "quiet", "ghost"}, Methods: []string{"chat", "generate", "embed", "models"}},
		{Caller: "spiffe://" + partner + "/apps/*", Channels: []string{"chat"}, Methods: []string{"chat", "models"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	tel, err := telemetry.Open(t.Context(), telemetry.Config{Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	d.metrics = tel.Handler()
	config := gateway.Config{
		Catalog: d.catalog, Access: func() *access.Policy { return rules }, Identity: d.us,
		Log: slog.New(slog.NewJSONHandler(d.log, nil)), Meter: tel.Meter("test"), Tracer: tel.Tracer("test"),
	}
	for _, f := range change {
		f(&config)
	}
	gw, err := gateway.New(config)
	if err != nil {
		t.Fatal(err)
	}
	l := gateway.Listeners{GRPC: listen(t), HTTP: listen(t), TokenGRPC: listen(t), TokenHTTP: listen(t)}
	d.grpc, d.http = l.GRPC.Addr().String(), l.HTTP.Addr().String()
	d.tokens.grpc, d.tokens.http = l.TokenGRPC.Addr().String(), l.TokenHTTP.Addr().String()
	d.gateway = gw
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- gw.Serve(ctx, l) }()
	d.stop = sync.OnceValue(func() error {
		for _, tr := range d.transports {
			tr.CloseIdleConnections() // else the shutdown gives each a second
		}
		cancel()
		err := <-served
		for _, ch := range channels {
			ch.checkLeases(t)
		}
		if n := gw.Visits(); n != 0 {
			t.Errorf("%d requests are in flight after the end", n)
		}
		return err
	})
	t.Cleanup(func() {
		if err := d.stop(); err != nil {
			t.Errorf("Serve = %v", err)
		}
	})
	return d
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func newAgent(t *testing.T, td string) *devworkload.Agent {
	t.Helper()
	agent, err := devworkload.Open(devworkload.Config{TrustDomain: spiffeid.RequireTrustDomainFromString(td)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { agent.Close() })
	return agent
}

// source takes an identity through a Workload API socket.
func (d *door) source(agent *devworkload.Agent, path string, change ...func(*identity.Config)) *identity.Source {
	d.t.Helper()
	td := agent.Bundle().TrustDomain()
	id := devworkload.Identity{ID: spiffeid.RequireFromPath(td, path)}
	socket := filepath.Join(d.dir, strings.ReplaceAll(td.Name()+path, "/", "-"))
	if _, err := os.Stat(socket); err != nil {
		if err := agent.Serve(socket, id); err != nil {
			d.t.Fatal(err)
		}
	}
	c := identity.Config{WorkloadAPI: "unix://" + socket}
	for _, f := range change {
		f(&c)
	}
	s, err := identity.Open(d.t.Context(), c)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { s.Close() })
	return s
}

// tls is a client with an identity of the gateway's trust domain.
func (d *door) tls(path string, protos ...string) *tls.Config {
	return d.source(d.agent, path).ClientTLS(tlsconfig.AuthorizeMemberOf(spiffeid.RequireTrustDomainFromString(domain)), protos...)
}

// conn is a gRPC connection of an app.
func (d *door) conn(path string) *grpc.ClientConn { return d.dial(d.tls(path, "h2")) }

func (d *door) dial(config *tls.Config) *grpc.ClientConn {
	d.t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+d.grpc, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { conn.Close() })
	return conn
}

// client is an HTTP client of an app.
func (d *door) client(path string) *http.Client {
	return d.clientOf(d.tls(path, "h2", "http/1.1"))
}

func (d *door) clientOf(config *tls.Config) *http.Client {
	h2 := false
	for _, p := range config.NextProtos {
		h2 = h2 || p == "h2"
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: h2}
	d.transports = append(d.transports, transport)
	return &http.Client{Transport: transport}
}

func (d *door) url(path string) string { return "https://" + d.http + path }

// A reply is the head of an HTTP response.
type reply struct {
	Status     string
	StatusCode int
	Proto      string
	Header     http.Header
}

// post sends a body to the chat endpoint and returns the answer, read to its end.
func (d *door) post(c *http.Client, body string) (reply, string) {
	d.t.Helper()
	return d.postTo(c, "/v1/chat/completions", body)
}

func (d *door) postTo(c *http.Client, path, body string) (reply, string) {
	d.t.Helper()
	resp, err := c.Post(d.url(path), "application/json", strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return reply{resp.Status, resp.StatusCode, resp.Proto, resp.Header}, string(text)
}

// eventually waits for what another goroutine is about to do.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(waitLimit); !done(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s did not happen", what)
		}
		select {
		case <-time.After(time.Millisecond):
		case <-t.Context().Done():
			t.Fatalf("%s did not happen", what)
		}
	}
}
