// Package proxy is a plain HTTP door on one's own machine, for tools that can't do mTLS.
//
// The one rule: whoever reaches the listener is answered as the proxy's own identity. So programs on this machine alone
// may reach it, and no web page through a browser: [Listen] listens on loopback or a private socket, and a request must
// name this machine in its Host, and in its Origin if it has one. What a request says of who calls goes no further.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"

	"github.com/weighbridge/weighbridge/gateway/client"
	"github.com/weighbridge/weighbridge/gateway/identity"
)

const (
	// headerTimeout bounds slow senders.
	headerTimeout = 10 * time.Second
	// idleTimeout closes connections without requests.
	idleTimeout = time.Minute
	// drainTimeout is how long a shutdown waits for answers in flight.
	drainTimeout = 30 * time.Second
)

// Config says what a proxy is made of. Server, Identity and Authorize are required.
type Config struct {
	Server    string               // HOST:PORT of the gateway's HTTP listener
	Identity  *identity.Source     // whose SVID the gateway sees
	Authorize tlsconfig.Authorizer // of the gateway's SPIFFE ID
	Origins   []string             // of web pages that may ask, beside those of this machine
	Log       *slog.Logger         // nil: nowhere
}

// A Proxy passes requests on. Make it with [New].
type Proxy struct {
	server  string
	origins []string
	log     *slog.Logger
	forward *httputil.ReverseProxy
	out     *client.Transport
}

// New returns a proxy that does not listen yet.
func New(c Config) (*Proxy, error) {
	var errs []error
	if _, _, err := net.SplitHostPort(c.Server); err != nil {
		errs = append(errs, fmt.Errorf("%q is no HOST:PORT of a server", c.Server))
	}
	if c.Identity == nil {
		errs = append(errs, errors.New("an Identity is required"))
	}
	if c.Authorize == nil {
		errs = append(errs, errors.New("an Authorize is required"))
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("proxy: %w", errors.Join(errs...))
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	p := &Proxy{server: c.Server, origins: c.Origins, log: c.Log, out: client.NewTransport(c.Identity, c.Authorize)}
	p.forward = &httputil.ReverseProxy{
		Rewrite:       p.rewrite,
		Transport:     p.out,
		FlushInterval: -1, // a piece of an answer is passed on when it is there
		ErrorHandler:  p.unreachable,
		ErrorLog:      slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug), // callers who leave
	}
	return p, nil
}

// Serve answers until ctx ends, and closes the listener. Answers in flight get a time to finish.
func (p *Proxy) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler: p, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, ErrorLog: slog.NewLogLogger(p.log.Handler(), slog.LevelInfo),
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
		defer cancel()
		if server.Shutdown(ctx) != nil {
			p.log.Warn("answers were cut off by the shutdown", "after", drainTimeout)
			_ = server.Close()
		}
	})
	err := server.Serve(l)
	if !stop() {
		<-stopped
	}
	p.out.CloseIdleConnections()
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP: %w", err)
	}
	return nil
}

// ServeHTTP implements http.Handler.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !p.hostIsOurs(r) {
		p.refuse(w, r, "this name is not of this machine: ask localhost")
		return
	}
	if origins := r.Header["Origin"]; len(origins) > 0 {
		if len(origins) > 1 || !p.originIsOurs(origins[0]) {
			p.refuse(w, r, "web pages of this origin may not ask: name it with --origin")
			return
		}
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", origins[0])
		h.Set("Vary", "Origin")
		if r.Method == http.MethodOptions {
			h.Set("Access-Control-Allow-Methods", "GET, POST")
			h.Set("Access-Control-Allow-Headers", r.Header.Get("Access-Control-Request-Headers"))
			w.WriteHeader(http.StatusNoContent)
			return
		}
	}
	p.forward.ServeHTTP(w, r)
}

// hostIsOurs tells a program that means this machine from a web page whose name was made to lead here.
func (p *Proxy) hostIsOurs(r *http.Request) bool {
	local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if local != nil && local.Network() == "unix" {
		return true // no name leads to it
	}
	host := hostOf(r.Host)
	if ip := net.ParseIP(host); ip != nil {
		// An address was not looked up. Another one than loopback is of a listener that was asked for.
		return ip.IsLoopback() || local != nil && !isLoopback(local)
	}
	return host == "localhost"
}

// originIsOurs reports whether a page comes from this machine, or from where we were told.
func (p *Proxy) originIsOurs(origin string) bool {
	if slices.Contains(p.origins, origin) {
		return true
	}
	u, err := url.Parse(origin)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
}

// hostOf is a Host without its port.
func hostOf(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return strings.ToLower(h)
	}
	return strings.ToLower(strings.Trim(host, "[]"))
}

// claims are what requests say of who calls. Our SVID says it, and secrets of callers are not the gateway's business.
var claims = []string{
	"Authorization", "X-Api-Key", "Api-Key", "X-Goog-Api-Key", "Cookie", "X-Forwarded-Client-Cert", "X-Real-Ip", "Via",
	"Origin", "Referer",
}

// rewrite makes the request to the gateway. What is for one hop alone, and X-Forwarded-*, is dropped before.
func (p *Proxy) rewrite(r *httputil.ProxyRequest) {
	r.SetURL(&url.URL{Scheme: "https", Host: p.server})
	for _, name := range claims {
		r.Out.Header.Del(name)
	}
	r.Out.Header.Del("Connection") // the library keeps these two for an upgrade, and there is nothing to upgrade to
	r.Out.Header.Del("Upgrade")
}

// unreachable tells the caller that there is no answer by the gateway.
func (p *Proxy) unreachable(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		return // nobody is there
	}
	p.log.Warn("the gateway can't be reached", "server", p.server, "err", err)
	p.problem(w, r, http.StatusBadGateway, "server_error", "gateway_unreachable", fmt.Sprintf("the gateway at %s can't be reached: %v", p.server, err))
}

func (p *Proxy) refuse(w http.ResponseWriter, r *http.Request, why string) {
	p.log.Warn("a request was refused", "why", why, "remote", r.RemoteAddr)
	p.problem(w, r, http.StatusForbidden, "permission_error", "permission_denied", why)
}

// problem writes an error as the API of its path does: Ollama's, or else OpenAI's, which others read, too.
func (p *Proxy) problem(w http.ResponseWriter, r *http.Request, status int, kind, code, message string) {
	var body any = map[string]any{"type": "error", "error": map[string]string{"message": message, "type": kind, "code": code}}
	if strings.HasPrefix(r.URL.Path, "/api/") {
		body = map[string]string{"error": message}
	}
	text, err := json.Marshal(body, json.Deterministic(true))
	if err != nil {
		panic(fmt.Sprintf("proxy: internal error: %v", err))
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // or nobody is there to read it
}
