package gateway_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	ollama "github.com/ollama/ollama/api"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/gateway/proxy"
)

// proxied starts a proxy as an app, for the server of an address, and returns a base URL and what stops it.
func (d *door) proxied(path, server, listen string, change ...func(*proxy.Config)) (address string, stop func() error) {
	d.t.Helper()
	c := proxy.Config{Server: server, Identity: d.source(d.agent, path), Authorize: tlsconfig.AuthorizeMemberOf(spiffeid.RequireTrustDomainFromString(domain))}
	for _, f := range change {
		f(&c)
	}
	p, err := proxy.New(c)
	if err != nil {
		d.t.Fatal(err)
	}
	l, err := proxy.Listen(d.t.Context(), listen)
	if err != nil {
		d.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- p.Serve(ctx, l) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-served
	})
	d.t.Cleanup(func() {
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		if err := stop(); err != nil {
			d.t.Errorf("Serve = %v", err)
		}
	})
	return l.Addr().String(), stop
}

const anyPort = "127.0.0.1:0"

// TestProxy asks through a proxy with curl, which knows nothing of SVIDs.
func TestProxy(t *testing.T) {
	d := open(t, map[string]*channel{"chat": hello()})
	address, _ := d.proxied("/apps/demo", d.http, anyPort)
	sock := filepath.Join(d.dir, "proxy.sock")
	d.proxied("/apps/demo", d.http, "unix:"+sock)
	if info, err := os.Stat(sock); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket = %v, %v, want mode 0600", info, err)
	}
	stranger, _ := d.proxied("/batch/job", d.http, anyPort)
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"whole", []string{"http://" + address + "/v1/chat/completions"}, `"content":"Hello, world."`},
		{"key of an SDK", []string{"-H", "Authorization: Bearer none", "http://" + address + "/v1/chat/completions"}, `"content":"Hello, world."`},
		{"socket", []string{"--unix-socket", sock, "http://anything/v1/chat/completions"}, `"content":"Hello, world."`},
		{"no rule", []string{"http://" + stranger + "/v1/chat/completions"}, `"message":"permission denied"`},
		{"rebound name", []string{"-H", "Host: evil.example", "http://" + address + "/v1/chat/completions"}, `ask localhost`},
	} {
		out, err := exec.CommandContext(t.Context(), "curl", append([]string{"-sS", "--json", question}, tt.args...)...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), tt.want) {
			t.Errorf("%s: curl = %v, %s, want %s", tt.name, err, out, tt.want)
		}
	}
}

// TestProxyStreams: pieces come through when they are there, and who leaves ends the runtime's work.
func TestProxyStreams(t *testing.T) {
	ch := &channel{chunks: []backends.Chunk{{Text: "Hello, "}}, block: true}
	d := open(t, map[string]*channel{"chat": ch})
	address, _ := d.proxied("/apps/demo", d.http, anyPort)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/v1/chat/completions", strings.NewReader(strings.TrimSuffix(question, "}")+`,"stream":true}`))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	found := false
	for lines := bufio.NewScanner(resp.Body); !found && lines.Scan(); { // the runtime has not ended
		found = strings.Contains(lines.Text(), "Hello")
	}
	if !found || resp.Header.Get("Weighbridge-Release") != release {
		t.Errorf("first piece = %v of %v", found, resp.Header)
	}
	cancel()
	eventually(t, "the end of the runtime's work", func() bool {
		ch.mu.Lock()
		defer ch.mu.Unlock()
		return len(ch.ended) == 1 && errors.Is(ch.ended[0], context.Canceled)
	})
}

// TestProxyCutOff: an answer that the gateway cuts off does not look whole.
func TestProxyCutOff(t *testing.T) {
	d := open(t, map[string]*channel{"chat": hello()})
	upstream := d.upstream(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	address, _ := d.proxied("/apps/demo", upstream, anyPort)
	resp, err := http.Get("http://" + address + "/v1/models")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err == nil || string(body) != "half" {
		t.Errorf("body = %q, %v, want half of it and an error", body, err)
	}
}

// upstream is an HTTP server with the gateway's identity, and returns its address.
func (d *door) upstream(handler http.HandlerFunc) string {
	d.t.Helper()
	s := &http.Server{Handler: handler, TLSConfig: d.source(d.agent, "/gateway").ServerTLS("h2", "http/1.1"), ErrorLog: log.New(io.Discard, "", 0)}
	l := listen(d.t)
	ended := make(chan error, 1)
	go func() { ended <- s.ServeTLS(l, "", "") }()
	d.t.Cleanup(func() {
		s.Close()
		<-ended
	})
	return l.Addr().String()
}

// TestProxyHeaders: nothing that says who calls reaches the gateway, and nothing that is for one hop alone.
func TestProxyHeaders(t *testing.T) {
	d := open(t, map[string]*channel{"chat": hello()})
	var got http.Header
	var host string
	upstream := d.upstream(func(_ http.ResponseWriter, r *http.Request) { got, host = r.Header.Clone(), r.Host })
	address, _ := d.proxied("/apps/demo", upstream, anyPort)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/v1/models?x=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	dropped := []string{
		"Authorization", "X-Api-Key", "Api-Key", "Cookie", "Proxy-Authorization", "X-Forwarded-Client-Cert", "X-Forwarded-For", "X-Forwarded-Host",
		"Forwarded", "Connection", "Keep-Alive", "Upgrade", "Te", "X-Hop",
	}
	for _, name := range dropped {
		req.Header.Set(name, "secret")
	}
	req.Header.Set("Connection", "X-Hop, Upgrade")
	req.Header.Set("Upgrade", "websocket")
	for _, name := range []string{"X-Request-Id", "Weighbridge-Receipt", "Traceparent"} {
		req.Header.Set(name, "kept")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	for _, name := range dropped {
		if v := got.Values(name); len(v) > 0 {
			t.Errorf("the gateway got %s: %v", name, v)
		}
	}
	for _, name := range []string{"X-Request-Id", "Weighbridge-Receipt", "Traceparent"} {
		if got.Get(name) != "kept" {
			t.Errorf("the gateway got no %s", name)
		}
	}
	if host != upstream {
		t.Errorf("Host = %q, want %q", host, upstream)
	}
}

// TestProxyRefusesPages: web pages reach nothing, whatever name they come by.
func TestProxyRefusesPages(t *testing.T) {
	d := open(t, map[string]*channel{"chat": hello()})
	address, _ := d.proxied("/apps/demo", d.http, anyPort, func(c *proxy.Config) { c.Origins = []string{"https://tool.example"} })
	for _, tt := range []struct {
		host, origin string
		status       int
	}{
		{"localhost", "", http.StatusOK},
		{"LOCALHOST:11434", "", http.StatusOK},
		{"127.0.0.1:1", "", http.StatusOK},
		{"[::1]:1", "", http.StatusOK},
		{"[::1]", "", http.StatusOK},
		{"evil.example", "", http.StatusForbidden},
		{"evil.example:11434", "", http.StatusForbidden},
		{"localhost.evil.example", "", http.StatusForbidden},
		{"192.0.2.1", "", http.StatusForbidden},
		{"localhost", "http://localhost:3000", http.StatusOK},
		{"localhost", "https://127.0.0.1", http.StatusOK},
		{"localhost", "http://[::1]:3000", http.StatusOK},
		{"localhost", "https://tool.example", http.StatusOK},
		{"localhost", "https://evil.example", http.StatusForbidden},
		{"localhost", "https://localhost.evil.example", http.StatusForbidden},
		{"localhost", "null", http.StatusForbidden},
		{"localhost", "file://localhost", http.StatusForbidden},
		{"localhost", "", http.StatusOK},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/v1/models", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = tt.host
		if tt.origin != "" {
			req.Header.Set("Origin", tt.origin)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		want := map[bool]string{true: tt.origin}[tt.status == http.StatusOK]
		if resp.StatusCode != tt.status || resp.Header.Get("Access-Control-Allow-Origin") != want {
			t.Errorf("Host %q, Origin %q = %s, allowed %q", tt.host, tt.origin, resp.Status, resp.Header.Get("Access-Control-Allow-Origin"))
		}
	}
}

// TestProxyUnreachable: without a gateway, or with another one than expected, there is an error that clients can read.
func TestProxyUnreachable(t *testing.T) {
	d := open(t, map[string]*channel{"chat": hello()})
	closed := listen(t)
	closed.Close()
	nobody, _ := d.proxied("/apps/demo", closed.Addr().String(), anyPort)
	other, _ := d.proxied("/apps/demo", d.http, anyPort, func(c *proxy.Config) {
		c.Authorize = tlsconfig.AuthorizeID(spiffeid.RequireFromString("spiffe://bank.example/other"))
	})
	for at, want := range map[string]string{
		"http://" + nobody + "/v1/models": "connection refused",
		"http://" + other + "/v1/models":  "unexpected ID",
	} {
		resp, err := http.Get(at)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var body struct {
			Error struct{ Message, Code string } `json:"error"`
		}
		err = json.NewDecoder(resp.Body).Decode(&body)
		if resp.StatusCode != http.StatusBadGateway || err != nil || body.Error.Code != "gateway_unreachable" || !strings.Contains(body.Error.Message, want) {
			t.Errorf("GET %s = %s, %v, %v, want 502 with %q", at, resp.Status, body, err, want)
		}
	}
	var told ollama.StatusError
	_, err := ollama.NewClient(&url.URL{Scheme: "http", Host: nobody}, http.DefaultClient).List(t.Context())
	if !errors.As(err, &told) || told.StatusCode != http.StatusBadGateway || !strings.Contains(told.ErrorMessage, "connection refused") {
		t.Errorf("Ollama's client gets %#v, want 502 with the reason", err)
	}
}

// TestProxyRenews: after a renewal the gateway sees the new SVID, without a restart.
func TestProxyRenews(t *testing.T) {
	d := open(t, map[string]*channel{"chat": hello()})
	serials := make(chan string, 1)
	upstream := d.upstream(func(_ http.ResponseWriter, r *http.Request) {
		serials <- r.TLS.PeerCertificates[0].SerialNumber.String()
	})
	us := d.source(d.agent, "/apps/demo")
	address, _ := d.proxied("/apps/demo", upstream, anyPort, func(c *proxy.Config) { c.Identity = us })
	ask := func() string {
		t.Helper()
		resp, err := http.Get("http://" + address + "/v1/models")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Fatal(resp.Status)
		}
		return <-serials
	}
	first := ask()
	if again := ask(); again != first {
		t.Errorf("the SVID is %s, and then %s", first, again)
	}
	if err := d.agent.Rotate(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the renewal", func() bool {
		svid, err := us.GetX509SVID()
		return err == nil && svid.Certificates[0].SerialNumber.String() != first
	})
	if renewed := ask(); renewed == first {
		t.Error("the gateway still sees the old SVID")
	}
}

// TestProxyListens on this machine alone.
func TestProxyListens(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", "[::]:0", ":0"} {
		if l, err := proxy.Listen(t.Context(), address); !errors.Is(err, proxy.ErrRemote) {
			t.Errorf("Listen(%q) = %v, %v, want ErrRemote", address, l, err)
		}
	}
	l, err := proxy.ListenUnsafeRemote(t.Context(), "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if _, err := proxy.New(proxy.Config{Server: "gateway"}); err == nil || !strings.Contains(err.Error(), "server") || !strings.Contains(err.Error(), "Identity") || !strings.Contains(err.Error(), "Authorize") {
		t.Errorf("New = %v, want it to name what is missing", err)
	}
}
