package gateway_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/gateway"
	"github.com/weighbridge/weighbridge/gateway/identity/devworkload"
	pb "github.com/weighbridge/weighbridge/proto/weighbridge/inference/v1"
)

// ask sends a question with headers, and returns the head and the body of the answer.
func (d *door) ask(c *http.Client, address, body string, headers map[string]string) (reply, string) {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), http.MethodPost, "https://"+address+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	for name, value := range headers {
		req.Header.Set(name, value)
	}
	resp, err := c.Do(req)
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

// token is a JWT-SVID of an app for an audience.
func (d *door) token(path, audience string) string {
	d.t.Helper()
	token, err := d.agent.Token(spiffeid.RequireFromPath(spiffeid.RequireTrustDomainFromString(domain), path), []string{audience})
	if err != nil {
		d.t.Fatal(err)
	}
	return token
}

// anonymous is a client that shows nothing, and knows the gateway by its SPIFFE ID.
func (d *door) anonymous(protos ...string) *tls.Config {
	c := tlsconfig.TLSClientConfig(d.agent.Bundle(), tlsconfig.AuthorizeID(spiffeid.RequireFromString("spiffe://"+domain+"/gateway")))
	c.NextProtos = protos
	return c
}

// TestTokens calls with JWT-SVIDs, over both protocols.
func TestTokens(t *testing.T) {
	const us = "spiffe://" + domain + "/gateway"
	d := open(t, map[string]*channel{"chat": hello()})
	client := d.clientOf(d.anonymous("h2", "http/1.1"))
	conn, err := grpc.NewClient("passthrough:///"+d.tokens.grpc, grpc.WithTransportCredentials(credentials.NewTLS(d.anonymous("h2"))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	good := d.token("/apps/demo", us)
	tests := []struct {
		name, header string
		status       int
		code         codes.Code
		challenge    string
	}{
		{"valid", "Bearer " + good, 200, codes.OK, ""},
		{"none", "", 401, codes.Unauthenticated, "Bearer"},
		{"API key", "Bearer sk-123", 401, codes.Unauthenticated, `Bearer error="invalid_token"`},
		{"for another", "Bearer " + d.token("/apps/demo", us+"2"), 401, codes.Unauthenticated, `Bearer error="invalid_token"`},
		{"no rule", "Bearer " + d.token("/batch/job", us), 403, codes.PermissionDenied, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			headers, ctx := map[string]string{}, t.Context()
			if tt.header != "" {
				headers["Authorization"] = tt.header
				ctx = metadata.AppendToOutgoingContext(ctx, "authorization", tt.header)
			}
			resp, body := d.ask(client, d.tokens.http, question, headers)
			if resp.StatusCode != tt.status || resp.Header.Get("Www-Authenticate") != tt.challenge {
				t.Errorf("POST = %s, %q: %s, want %d, %q", resp.Status, resp.Header.Get("Www-Authenticate"), body, tt.status, tt.challenge)
			}
			if tt.status != 200 {
				readError(t, body)
			}
			if _, _, _, err := chat(ctx, conn, ask()); status.Code(err) != tt.code {
				t.Errorf("Chat = %v, want %v", err, tt.code)
			}
		})
	}
	health := grpc_health_v1.NewHealthClient(conn)
	if _, err := health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("health Check without a token = %v, want UNAUTHENTICATED", err)
	}
	if _, err := health.Check(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+d.token("/batch/job", us)), &grpc_health_v1.HealthCheckRequest{}); err != nil {
		t.Errorf("health Check = %v", err)
	}
	// A certificate counts for nothing where tokens do, and a token for nothing where certificates do.
	if resp, _ := d.ask(d.client("/apps/demo"), d.tokens.http, question, nil); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("POST with a certificate to the door for tokens = %s, want 401", resp.Status)
	}
	if resp, err := d.clientOf(d.anonymous("h2")).Get(d.url("/v1/models")); err == nil {
		resp.Body.Close()
		t.Errorf("GET without a certificate = %s, want no connection", resp.Status)
	}
	d.stop()
	if !strings.Contains(d.log.String(), `"auth":"jwt"`) {
		t.Errorf("the log does not say how the caller was known:\n%s", d.log)
	}
	if signature := good[strings.LastIndex(good, "."):]; strings.Contains(d.log.String(), signature) || strings.Contains(d.log.String(), "sk-123") {
		t.Error("the log holds a token")
	}
}

// TestTokenBesideCertificate sends tokens where a certificate says who calls.
func TestTokenBesideCertificate(t *testing.T) {
	d := open(t, map[string]*channel{"chat": hello()})
	client, conn := d.client("/apps/demo"), d.conn("/apps/demo")
	for header, want := range map[string]struct {
		status int
		code   codes.Code
	}{
		"Bearer sk-123":                        {200, codes.OK},
		"Bearer " + d.token("/apps/demo", "x"): {200, codes.OK},
		"Bearer " + d.token("/apps/else", "x"): {401, codes.Unauthenticated},
	} {
		if resp, body := d.ask(client, d.http, question, map[string]string{"Authorization": header}); resp.StatusCode != want.status {
			t.Errorf("POST = %s: %s, want %d", resp.Status, body, want.status)
		}
		if _, _, _, err := chat(metadata.AppendToOutgoingContext(t.Context(), "authorization", header), conn, ask()); status.Code(err) != want.code {
			t.Errorf("Chat = %v, want %v", err, want.code)
		}
	}
}

// TestForwarded calls through a proxy, and as one that is none.
func TestForwarded(t *testing.T) {
	d := open(t, map[string]*channel{"chat": hello()})
	const xfcc = "By=spiffe://" + domain + "/proxy;URI=spiffe://" + domain
	tests := []struct {
		name, peer, header string
		status             int
		code               codes.Code
	}{
		{"proxy speaks for an app", "/proxy", xfcc + "/apps/demo", 200, codes.OK},
		{"proxy speaks for one without a rule", "/proxy", xfcc + "/batch/job", 403, codes.PermissionDenied},
		{"proxy speaks for nobody", "/proxy", "", 401, codes.Unauthenticated},
		{"another speaks for an app", "/batch/job", xfcc + "/apps/demo", 403, codes.PermissionDenied},
		{"app speaks for another", "/apps/demo", xfcc + "/batch/job", 200, codes.OK},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			headers, ctx := map[string]string{}, t.Context()
			if tt.header != "" {
				headers["X-Forwarded-Client-Cert"] = tt.header
				ctx = metadata.AppendToOutgoingContext(ctx, "x-forwarded-client-cert", tt.header)
			}
			if resp, body := d.ask(d.client(tt.peer), d.http, question, headers); resp.StatusCode != tt.status {
				t.Errorf("POST = %s: %s, want %d", resp.Status, body, tt.status)
			}
			if _, _, _, err := chat(ctx, d.conn(tt.peer), ask()); status.Code(err) != tt.code {
				t.Errorf("Chat = %v, want %v", err, tt.code)
			}
		})
	}
	if _, err := grpc_health_v1.NewHealthClient(d.conn("/proxy")).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{}); err != nil {
		t.Errorf("health Check by the proxy itself = %v", err)
	}
	d.stop()
	if want := `"auth":"proxy","proxy":"spiffe://bank.example/proxy"`; !strings.Contains(d.log.String(), want) {
		t.Errorf("the log lacks %s:\n%s", want, d.log)
	}
}

// clock is one that a test sets ahead.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

// set makes it t now.
func (c *clock) set(t time.Time) { c.ahead.Store(int64(time.Until(t))) }

// visitor is an app of a federated trust domain, whose SVIDs end long before the gateway's own.
func (d *door) visitor(protos ...string) (config *tls.Config, ends time.Time) {
	d.t.Helper()
	td := spiffeid.RequireTrustDomainFromString(partner)
	agent, err := devworkload.Open(devworkload.Config{TrustDomain: td, Lifetime: devworkload.DefaultLifetime / 2})
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { agent.Close() })
	if err := d.agent.Federate(agent); err != nil {
		d.t.Fatal(err)
	}
	svid, err := agent.Issue(devworkload.Identity{ID: spiffeid.RequireFromPath(td, "/apps/visitor")})
	if err != nil {
		d.t.Fatal(err)
	}
	config = tlsconfig.MTLSClientConfig(svid, d.agent.Bundle(), tlsconfig.AuthorizeAny())
	config.NextProtos = protos
	// The gateway hears of the bundle in a moment.
	eventually(d.t, "federation", func() bool {
		conn, err := tls.Dial("tcp", d.http, config)
		if err != nil {
			return false
		}
		defer conn.Close()
		_, err = conn.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
		if err == nil {
			_, err = conn.Read(make([]byte, 1))
		}
		return err == nil
	})
	return config, svid.Certificates[0].NotAfter
}

// counted counts the connections that a client makes from now on.
func counted(config *tls.Config) *atomic.Int32 {
	var n atomic.Int32
	verify := config.VerifyPeerCertificate
	config.VerifyPeerCertificate = func(raw [][]byte, chains [][]*x509.Certificate) error {
		n.Add(1)
		return verify(raw, chains)
	}
	return &n
}

// TestFederated answers callers of another trust domain by the rules, and keeps health and reflection from them.
func TestFederated(t *testing.T) {
	d := open(t, map[string]*channel{"chat": hello()})
	config, _ := d.visitor("h2")
	if resp, body := d.post(d.clientOf(config.Clone()), question); resp.StatusCode != http.StatusOK {
		t.Errorf("POST = %s: %s", resp.Status, body)
	}
	conn := d.dial(config.Clone())
	if _, _, _, err := chat(t.Context(), conn, ask()); err != nil {
		t.Errorf("Chat = %v", err)
	}
	if _, err := grpc_health_v1.NewHealthClient(conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("health Check = %v, want PERMISSION_DENIED", err)
	}
}

// TestExpired lets a caller's certificate end while its connections live.
func TestExpired(t *testing.T) {
	for _, protos := range [][]string{{"h2"}, {"http/1.1"}} {
		t.Run(protos[0], func(t *testing.T) {
			c := &clock{}
			d := open(t, map[string]*channel{"chat": hello()}, func(g *gateway.Config) { g.Now = c.now })
			config, ends := d.visitor(protos...)
			connections, client := counted(config), d.clientOf(config)
			steps := []struct {
				left        time.Duration // of the certificate's life
				status      int
				connections int32 // that were made in all
			}{
				{29 * time.Minute, 200, 1}, {29 * time.Minute, 200, 1}, {time.Minute, 200, 1}, {time.Minute, 200, 2}, {0, 401, 3},
			}
			for _, step := range steps {
				c.set(ends.Add(-step.left))
				resp, body := d.post(client, question)
				if resp.StatusCode != step.status || connections.Load() != step.connections {
					t.Errorf("POST %v before the end = %s over connection %d, want %d over %d", step.left, resp.Status, connections.Load(), step.status, step.connections)
				}
				if step.status == 401 && readError(t, body).Code != "expired" {
					t.Errorf("POST after the end: %s", body)
				}
			}
		})
	}
	c := &clock{}
	d := open(t, map[string]*channel{"chat": hello()}, func(g *gateway.Config) { g.Now = c.now })
	config, ends := d.visitor("h2")
	conn := d.dial(config)
	if _, _, _, err := chat(t.Context(), conn, ask()); err != nil {
		t.Fatal(err)
	}
	c.set(ends)
	if _, _, _, err := chat(t.Context(), conn, ask()); status.Code(err) != codes.Unauthenticated || !strings.Contains(err.Error(), "connect anew") {
		t.Errorf("Chat after the end = %v, want UNAUTHENTICATED", err)
	}
}

// TestExpiredInStream lets a caller's certificate end, and the grace after it, while it is being answered.
func TestExpiredInStream(t *testing.T) {
	const soon = 200 * time.Millisecond
	for _, protocol := range []string{"grpc", "http"} {
		t.Run(protocol, func(t *testing.T) {
			c := &clock{}
			endless := &channel{chunks: []backends.Chunk{{Text: "Hello, "}}, block: true}
			d := open(t, map[string]*channel{"chat": endless}, func(g *gateway.Config) { g.Now, g.Grace = c.now, soon })
			config, ends := d.visitor("h2")
			c.set(ends.Add(-5 * soon))
			if protocol == "grpc" {
				parts, _, _, err := chat(t.Context(), d.dial(config), ask())
				if len(parts) != 1 || status.Code(err) != codes.Unauthenticated {
					t.Errorf("Chat = %v, %v, want a part and UNAUTHENTICATED", parts, err)
				}
			} else {
				resp, body := d.post(d.clientOf(config), strings.TrimSuffix(question, "}")+`,"stream":true}`)
				events := strings.Split(strings.TrimSpace(body), "\n\n")
				if last := strings.TrimPrefix(events[len(events)-1], "data: "); resp.StatusCode != http.StatusOK || readError(t, last).Code != "expired" {
					t.Errorf("POST = %s: %s, want it to end with an error", resp.Status, body)
				}
			}
			if now := c.now(); now.Before(ends.Add(soon)) {
				t.Errorf("the answer was cut %v before the grace was over", ends.Add(soon).Sub(now))
			}
			d.stop()
		})
	}
	// What is not ours to answer ends too.
	c := &clock{}
	d := open(t, map[string]*channel{"chat": hello()}, func(g *gateway.Config) { g.Now, g.Grace = c.now, soon })
	watcher := d.source(d.agent, "/batch/job")
	ends, err := watcher.Expires()
	if err != nil {
		t.Fatal(err)
	}
	own, err := d.source(d.agent, "/gateway").Expires()
	if err != nil {
		t.Fatal(err)
	}
	if own.Before(ends) {
		ends = own
	}
	c.set(ends.Add(-5 * soon))
	watch, err := grpc_health_v1.NewHealthClient(d.conn("/batch/job")).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	for err == nil {
		_, err = watch.Recv()
	}
	if status.Code(err) != codes.Unauthenticated {
		t.Errorf("health Watch ended with %v, want UNAUTHENTICATED", err)
	}
	list := &reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}
	c.set(ends.Add(-5 * soon))
	reflection, err := reflectionpb.NewServerReflectionClient(d.conn("/batch/job")).ServerReflectionInfo(t.Context())
	for err == nil {
		if err = reflection.Send(list); err == nil || errors.Is(err, io.EOF) {
			_, err = reflection.Recv()
		}
	}
	if status.Code(err) != codes.Unauthenticated {
		t.Errorf("reflection ended with %v, want UNAUTHENTICATED", err)
	}
}

// TestNoResumption tries to come back to a session without showing a certificate again.
func TestNoResumption(t *testing.T) {
	d := open(t, map[string]*channel{"chat": hello()})
	for name, c := range map[string]struct {
		address string
		config  *tls.Config
	}{
		"grpc": {d.grpc, d.tls("/apps/demo", "h2")}, "http": {d.http, d.tls("/apps/demo", "h2")},
		"token grpc": {d.tokens.grpc, d.anonymous("h2")}, "token http": {d.tokens.http, d.anonymous("h2")},
	} {
		c.config.ClientSessionCache, c.config.SessionTicketsDisabled, c.config.ServerName = tls.NewLRUClientSessionCache(10), false, "localhost"
		for range 2 {
			conn, err := tls.Dial("tcp", c.address, c.config)
			if err != nil {
				t.Fatal(err)
			}
			// A ticket comes before the server's first bytes.
			if _, err := conn.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			if conn.ConnectionState().DidResume {
				t.Errorf("%s: a session was resumed", name)
			}
			conn.Close()
		}
		if _, ok := c.config.ClientSessionCache.Get("localhost"); ok {
			t.Errorf("%s: the server gave a ticket", name)
		}
	}
}

// TestLeave expects a client to connect anew before its certificate ends, without being refused in between.
func TestLeave(t *testing.T) {
	c := &clock{}
	d := open(t, map[string]*channel{"chat": hello()}, func(g *gateway.Config) { g.Now = c.now })
	config, ends := d.visitor("h2")
	connections := counted(config)
	c.set(ends.Add(-devworkload.DefaultLifetime / 6).Add(-time.Second)) // a second before a third of its life is left
	conn := d.dial(config)
	deadline := time.Now().Add(waitLimit)
	for connections.Load() < 2 && time.Now().Before(deadline) {
		if _, err := pb.NewInferenceClient(conn).ListModels(t.Context(), &pb.ListModelsRequest{}); err != nil {
			t.Fatalf("ListModels = %v", err)
		}
	}
	if connections.Load() < 2 {
		t.Error("the client did not connect anew")
	}
}
