package proxy

import (
	"bytes"
	"net"
	"net/http"
	"sync"

	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"

	"github.com/weighbridge/weighbridge/gateway/identity"
)

// outward asks the gateway. A connection is of the SVID that it was made with: requests go over one of the newest.
type outward struct {
	identity  *identity.Source
	authorize tlsconfig.Authorizer

	mu        sync.Mutex
	leaf      []byte // of the SVID of transport
	transport *http.Transport
}

// RoundTrip implements http.RoundTripper.
func (o *outward) RoundTrip(r *http.Request) (*http.Response, error) {
	transport, err := o.current()
	if err != nil {
		return nil, err
	}
	return transport.RoundTrip(r)
}

func (o *outward) current() (*http.Transport, error) {
	svid, err := o.identity.GetX509SVID()
	if err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if leaf := svid.Certificates[0].Raw; !bytes.Equal(leaf, o.leaf) {
		if o.transport != nil {
			o.transport.CloseIdleConnections() // answers in flight go on, and idle connections end by their time
		}
		o.leaf, o.transport = leaf, &http.Transport{
			DialContext:       (&net.Dialer{Timeout: dialTimeout}).DialContext,
			TLSClientConfig:   o.identity.ClientTLS(o.authorize, "h2", "http/1.1"),
			ForceAttemptHTTP2: true, TLSHandshakeTimeout: dialTimeout, IdleConnTimeout: idleTimeout,
			DisableCompression: true, // what was asked for is passed on as it is
		}
	}
	return o.transport, nil
}

func (o *outward) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.transport != nil {
		o.transport.CloseIdleConnections()
	}
}
