package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

var (
	// ErrNoPeer means that a connection carries no verified SPIFFE ID. Refuse it.
	ErrNoPeer = errors.New("connection has no SPIFFE ID")

	// ErrNoToken means that a request on a listener for JWT-SVIDs came without a valid one. Ask for one.
	ErrNoToken = errors.New("no valid JWT-SVID")

	// ErrTwoIdentities means that a JWT-SVID of one identity came over a connection of another. Refuse both.
	ErrTwoIdentities = errors.New("JWT-SVID and connection are of different identities")

	// ErrExpired means that what shows who calls has ended. The caller connects anew, with a newer one.
	ErrExpired = errors.New("the caller's SVID has expired")
)

// How a caller shows who it is.
const (
	ByX509  = "x509"  // by the certificate of its connection
	ByJWT   = "jwt"   // by a JWT-SVID in its request
	ByProxy = "proxy" // by what a proxy that is configured says about its own peer
)

// A Caller is who calls, and until when that is known.
type Caller struct {
	ID    spiffeid.ID
	By    string
	Proxy spiffeid.ID // who speaks for it; the zero ID: nobody
	Until time.Time   // when the first of the SVIDs that show it ends

	// Renew is when it should connect anew, so that its connection always has a certificate that lasts a while. Zero: never,
	// because each request brings what shows it.
	Renew time.Time
}

// A Request is what of a request says who calls.
type Request struct {
	Connection *tls.ConnectionState
	Shown      *Shown                // by the connection, as far as that was looked at; nil: not at all
	Token      bool                  // whether it came to a listener for JWT-SVIDs, which asks for no certificate
	Header     func(string) []string // all values of a header, by its name in lower case
	Now        time.Time

	// Itself says that a proxy may ask for itself: its own checks of our health.
	Itself bool
}

// Identify returns who calls. Its errors wrap [ErrNoPeer], [ErrNoToken], [ErrTwoIdentities], [ErrExpired] or [ErrEnded], and
// hold no token.
func (s *Source) Identify(r Request) (Caller, error) {
	if err := s.Check(r.Now); err != nil {
		return Caller{}, err
	}
	c, err := s.identify(r)
	if err == nil && !r.Now.Before(c.Until) {
		err = fmt.Errorf("caller %s: %w on %s", c.ID, ErrExpired, c.Until.UTC().Format(time.RFC3339))
	}
	return c, err
}

func (s *Source) identify(r Request) (Caller, error) {
	if r.Token {
		return s.bearer(r.Header(headerAuthorization), r.Now)
	}
	c, err := r.peer()
	if err != nil {
		return c, err
	}
	if forwarded := r.Header(headerForwarded); s.proxies[c.ID] && (!r.Itself || len(forwarded) > 0) {
		if c, err = s.forwarded(c, forwarded); err != nil {
			return c, err
		}
	}
	// The handshake has checked it, maybe long ago: a federation that has ended ends at once.
	if _, err := s.x509.GetX509BundleForTrustDomain(c.ID.TrustDomain()); err != nil {
		return c, fmt.Errorf("caller %s: %w: its trust domain is unknown", c.ID, ErrNoPeer)
	}
	return c, noOther(r.Header(headerAuthorization), c.ID)
}

// Shown keeps what the certificate of a connection says, which stays the same as long as that lasts. The zero value was not
// looked at yet. It may be used concurrently.
type Shown struct {
	once   sync.Once
	caller Caller
	err    error
}

func (r Request) peer() (Caller, error) {
	if r.Shown == nil {
		return Peer(r.Connection)
	}
	r.Shown.once.Do(func() { r.Shown.caller, r.Shown.err = Peer(r.Connection) })
	return r.Shown.caller, r.Shown.err
}

// Peer returns who is at the other end of a connection that [Source.ServerTLS] accepted.
func Peer(state *tls.ConnectionState) (Caller, error) {
	if state == nil || !state.HandshakeComplete || len(state.PeerCertificates) == 0 {
		return Caller{}, ErrNoPeer
	}
	leaf := state.PeerCertificates[0]
	id, err := idOf(leaf)
	if err != nil {
		return Caller{}, fmt.Errorf("%w: %w", ErrNoPeer, err)
	}
	return Caller{ID: id, By: ByX509, Until: leaf.NotAfter, Renew: renewal(leaf)}, nil
}

// renewal is when the peer has a newer certificate for sure, if it has any: agents replace them at half their life.
func renewal(leaf *x509.Certificate) time.Time {
	return leaf.NotAfter.Add(-min(leaf.NotAfter.Sub(leaf.NotBefore)/3, maxRenewal))
}

// idOf insists on exactly one URI SAN.
func idOf(leaf *x509.Certificate) (spiffeid.ID, error) { return x509svid.IDFromCert(leaf) }
