package client

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"

	"github.com/weighbridge/weighbridge/gateway/identity"
)

const (
	// dialTimeout is how long a gateway may take to be reached.
	dialTimeout = 10 * time.Second
	// idleTimeout closes connections without requests before the gateway does.
	idleTimeout = time.Minute
)

// A Transport asks a gateway over HTTP, for an http.Client and whatever takes one. A connection is of the SVID that it was
// made with: requests go over one of the newest. Its methods may be called concurrently.
type Transport struct {
	identity  *identity.Source
	authorize tlsconfig.Authorizer

	mu        sync.Mutex
	leaf      []byte // of the SVID of transport
	transport *http.Transport
}

// NewTransport returns one for an identity that stays open, and servers that authorize accepts ([Options.Authorize]).
func NewTransport(us *identity.Source, authorize tlsconfig.Authorizer) *Transport {
	return &Transport{identity: us, authorize: authorize}
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	transport, err := t.current()
	if r.URL.Scheme != "https" {
		err = fmt.Errorf("%s: only https has servers show who they are", r.URL.Redacted())
	}
	if err != nil {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, err
	}
	return transport.RoundTrip(r)
}

func (t *Transport) current() (*http.Transport, error) {
	svid, err := t.identity.GetX509SVID()
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if leaf := svid.Certificates[0].Raw; !bytes.Equal(leaf, t.leaf) {
		if t.transport != nil {
			t.transport.CloseIdleConnections() // answers in flight go on, and idle connections end by their time
		}
		t.leaf, t.transport = leaf, &http.Transport{
			DialContext:       (&net.Dialer{Timeout: dialTimeout}).DialContext,
			TLSClientConfig:   t.identity.ClientTLS(t.authorize, "h2", "http/1.1"),
			ForceAttemptHTTP2: true, TLSHandshakeTimeout: dialTimeout, IdleConnTimeout: idleTimeout,
			DisableCompression: true, // a proxy passes on what was asked for, as it is
		}
	}
	return t.transport, nil
}

// CloseIdleConnections is for the end, as http.Client's is.
func (t *Transport) CloseIdleConnections() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.transport != nil {
		t.transport.CloseIdleConnections()
	}
}
