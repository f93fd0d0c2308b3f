package ollama

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"syscall"
)

// An Address is where an Ollama listens that others started. The zero Address is nowhere; [ParseAddress] makes others.
type Address struct{ scheme, host, socket string }

// errPlain is why prompts are not sent over a network as they are.
var errPlain = errors.New("plain http is for this machine only: use https://, or http:// with 127.0.0.1, [::1] or localhost")

// ParseAddress reads http://HOST:PORT on this machine, https://HOST anywhere, or unix:PATH.
func ParseAddress(text string) (Address, error) {
	if path, ok := strings.CutPrefix(text, "unix:"); ok {
		if !filepath.IsAbs(path) {
			return Address{}, fmt.Errorf("%q is not unix: and an absolute path", text)
		}
		return Address{scheme: "unix", socket: path}, nil
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return Address{}, errors.New("is not http://HOST:PORT, https://HOST or unix:PATH") // it may hold a password
	case *u != url.URL{Scheme: u.Scheme, Host: u.Host}:
		return Address{}, errors.New("holds more than a host: no user, path, query or fragment")
	case u.Scheme == "http" && u.Port() == "":
		return Address{}, fmt.Errorf("%q has no port; Ollama's own is 11434", text)
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return Address{}, fmt.Errorf("%q: %w", text, errPlain)
	}
	return Address{scheme: u.Scheme, host: u.Host}, nil
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// Local reports whether nothing leaves this machine on the way there.
func (a Address) Local() bool { return a.scheme == "http" || a.scheme == "unix" }

// String returns what [ParseAddress] read.
func (a Address) String() string {
	if a.scheme == "unix" {
		return "unix:" + a.socket
	}
	return a.scheme + "://" + a.host
}

// client returns a client that connects to the address and nowhere else.
func (a Address) client(model string) *client {
	base := &url.URL{Scheme: a.scheme, Host: a.host}
	dialer := &net.Dialer{Timeout: dialTimeout}
	transport := &http.Transport{DialContext: dialer.DialContext, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13}} // and no proxy
	switch a.scheme {
	case "http":
		dialer.Control = onlyLoopback
	case "unix":
		base = &url.URL{Scheme: "http", Host: "localhost"} // a name that Ollama takes for its own
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", a.socket)
		}
	}
	return newClient(base, transport, model)
}

// onlyLoopback keeps a connection in the clear on this machine, whatever its host's name is resolved to.
func onlyLoopback(_, address string, _ syscall.RawConn) error {
	if to, err := netip.ParseAddrPort(address); err != nil || !to.Addr().IsLoopback() {
		return fmt.Errorf("%s: %w", address, errPlain)
	}
	return nil
}
