package main

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/weighbridge/weighbridge/gateway/identity"
	"github.com/weighbridge/weighbridge/gateway/identity/devworkload"
)

// bearer sends a JWT-SVID with each request, as the api_key of an OpenAI client is sent.
type bearer struct {
	http.RoundTripper
	token string
}

func (b *bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r.Header.Set("Authorization", "Bearer "+b.token)
	return b.RoundTripper.RoundTrip(r)
}

// TestServeTokens answers a client that knows no SPIFFE: a token, and a server certificate from files. Then the Workload API
// goes, and when the gateway's SVID has ended operators are told.
func TestServeTokens(t *testing.T) {
	g := newGateway(t)
	td := spiffeid.RequireTrustDomainFromString("test.example")
	agent, err := devworkload.Open(devworkload.Config{TrustDomain: td, Lifetime: 4 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	closed := sync.OnceValue(agent.Close)
	t.Cleanup(func() { closed() })
	us := devworkload.Identity{ID: spiffeid.RequireFromPath(td, "/gateway"), Hint: identity.HintGateway}
	if err := agent.Serve(filepath.Join(g.Dir, "api.sock"), us); err != nil {
		t.Fatal(err)
	}
	writeServerCertificate(t, g.Dir, td)
	g.changeConfig("listen: {", "listen: {jwt: {http: 127.0.0.1:0, tls: {certificate: tls.pem, key: tls-key.pem}}, ")
	g.changeConfig("development: {trustDomain: test.example, socket: ./spiffe.sock}", "workloadAPI: unix://"+filepath.Join(g.Dir, "api.sock"))
	g.start("--init-state")
	serves := g.await("release serves")["release"].(string)
	g.listens()["http"] = g.listens()["jwtHTTP"] // which is what is asked from here on

	pem, err := os.ReadFile(filepath.Join(g.Dir, "tls-roots.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	token, err := agent.Token(spiffeid.RequireFromPath(td, "/apps/demo"), []string{us.ID.String()})
	if err != nil {
		t.Fatal(err)
	}
	g.check(&http.Client{Transport: &bearer{transport, token}}, serves, "I am version A.")
	if status, body, _ := g.ask(&http.Client{Transport: &bearer{transport, "sk-123"}}); status != http.StatusUnauthorized {
		t.Errorf("answer with an API key = %d %s, want 401", status, body)
	}

	if err := closed(); err != nil {
		t.Fatal(err)
	}
	g.await("callers are refused")
	out, err := exec.CommandContext(t.Context(), "weighbridge", "status", "--server", "unix:"+filepath.Join(g.Dir, "control.sock")).Output()
	if err != nil || !strings.Contains(string(out), "problem: identity: there is no valid SVID of our own: that of spiffe://test.example/gateway ended on") {
		t.Errorf("status = %s, %v, want the end of the identity among the problems", out, err)
	}
	if status, body, _ := g.ask(&http.Client{Transport: &bearer{transport, token}}); status != http.StatusServiceUnavailable || !strings.Contains(body, "no_identity") {
		t.Errorf("answer without an identity = %d %s, want 503", status, body)
	}
}

// writeServerCertificate makes a certificate for 127.0.0.1 by an authority that is no trust domain's.
func writeServerCertificate(t *testing.T, dir string, td spiffeid.TrustDomain) {
	t.Helper()
	web, err := devworkload.Open(devworkload.Config{TrustDomain: td})
	if err != nil {
		t.Fatal(err)
	}
	defer web.Close()
	svid, err := web.Issue(devworkload.Identity{ID: spiffeid.RequireFromPath(td, "/web")})
	if err != nil {
		t.Fatal(err)
	}
	chain, key, err := svid.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	roots, err := web.Bundle().X509Bundle().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"tls.pem": chain, "tls-key.pem": key, "tls-roots.pem": roots} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// changeConfig replaces a part of the configuration.
func (g *gatewayProcess) changeConfig(old, replacement string) {
	g.t.Helper()
	data, err := os.ReadFile(g.config)
	if err != nil || !strings.Contains(string(data), old) {
		g.t.Fatalf("the configuration lacks %q: %v", old, err)
	}
	if err := os.WriteFile(g.config, []byte(strings.Replace(string(data), old, replacement, 1)), 0o600); err != nil {
		g.t.Fatal(err)
	}
}
