package gateway_test

import (
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
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
	large := &grpc_health_v1.HealthCheckRequest{Service: strings.Repeat("x", 5<<20)}
	if _, err := health.Check(t.Context(), large); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a large question without a token = %v, want UNAUTHENTICATED: it is not to be read", err)
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
