package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// ErrNoPeer means that a connection carries no verified SPIFFE ID. Refuse it.
var ErrNoPeer = errors.New("connection has no SPIFFE ID")

// ServerTLS requires a client SVID of a trust domain that the source has authorities for. Any such client passes: who
// may do what is decided for each request. Protos are what ALPN offers, "h2" for gRPC.
func (s *Source) ServerTLS(protos ...string) *tls.Config {
	return harden(tlsconfig.MTLSServerConfig(s, s, tlsconfig.AuthorizeAny()), protos)
}

// ClientTLS presents our SVID, and talks only to a server that authorize accepts.
func (s *Source) ClientTLS(authorize tlsconfig.Authorizer, protos ...string) *tls.Config {
	return harden(tlsconfig.MTLSClientConfig(s, s, authorize), protos)
}

// harden adds what go-spiffe leaves open. Its check of the peer sits in VerifyPeerCertificate, which Go does not call
// when a session is resumed: it moves to VerifyConnection, which is always called, and sessions are not resumed at all,
// so that each connection shows a certificate that is valid now.
func harden(c *tls.Config, protos []string) *tls.Config {
	verify := c.VerifyPeerCertificate
	c.VerifyPeerCertificate = nil
	c.VerifyConnection = func(state tls.ConnectionState) error {
		if state.DidResume {
			return errors.New("session was resumed")
		}
		raw := make([][]byte, len(state.PeerCertificates))
		for i, cert := range state.PeerCertificates {
			raw[i] = cert.Raw
		}
		return verify(raw, nil)
	}
	c.MinVersion = tls.VersionTLS13
	c.SessionTicketsDisabled = true
	c.NextProtos = protos
	return c
}

// Peer returns who is at the other end of a connection that [Source.ServerTLS] accepted.
func Peer(state *tls.ConnectionState) (spiffeid.ID, error) {
	if state == nil || !state.HandshakeComplete || len(state.PeerCertificates) == 0 {
		return spiffeid.ID{}, ErrNoPeer
	}
	id, err := idOf(state.PeerCertificates[0])
	if err != nil {
		return spiffeid.ID{}, fmt.Errorf("%w: %w", ErrNoPeer, err)
	}
	return id, nil
}

// PeerFromContext returns who calls the gRPC method that ctx belongs to.
func PeerFromContext(ctx context.Context) (spiffeid.ID, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return spiffeid.ID{}, ErrNoPeer
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return spiffeid.ID{}, ErrNoPeer
	}
	return Peer(&info.State)
}

// idOf insists on exactly one URI SAN.
func idOf(leaf *x509.Certificate) (spiffeid.ID, error) { return x509svid.IDFromCert(leaf) }
