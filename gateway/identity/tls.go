package identity

import (
	"crypto/tls"
	"errors"

	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
)

// ServerTLS requires a client SVID of a trust domain that the source has authorities for. Any such client passes: who
// may do what is decided for each request. Protos are what ALPN offers, "h2" for gRPC.
func (s *Source) ServerTLS(protos ...string) *tls.Config {
	return harden(tlsconfig.MTLSServerConfig(s, s, tlsconfig.AuthorizeAny()), protos)
}

// TokenTLS asks for no certificate: who calls, each request shows by a JWT-SVID. It presents our SVID, or what is in files
// for clients that know no SPIFFE.
func (s *Source) TokenTLS(own *CertificateFiles, protos ...string) *tls.Config {
	c := tlsconfig.TLSServerConfig(s)
	if own != nil {
		c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return own.newest(s.log) }
	}
	return harden(c, protos)
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
		if verify == nil {
			return nil // there is no certificate to verify
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
