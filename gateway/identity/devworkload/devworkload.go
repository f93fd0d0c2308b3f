// Package devworkload is a SPIFFE Workload API for development: it stands in for SPIRE on a machine that has none.
//
// The one rule: its authority lives and dies with the process. Its key is kept in memory alone, so nothing outside can
// sign with it, and no identity it issued means anything after a restart. It attests nobody: whoever may open a socket
// is given that socket's identities. That is why it is for development.
package devworkload

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/weighbridge/weighbridge/gateway/identity/workload"
)

const (
	// DefaultLifetime is how long an SVID is valid; each is replaced when half of it is over.
	DefaultLifetime = time.Hour

	// tokenLifetime is that of a JWT-SVID, as SPIRE makes them: what is shown to others should not last.
	tokenLifetime = 5 * time.Minute

	// minLifetime leaves time to use an SVID before it is replaced.
	minLifetime = time.Second

	// authorityLifetime outlasts any development session.
	authorityLifetime = 365 * 24 * time.Hour

	// clockSkew is how far behind the clock of a peer may be; less for SVIDs that don't last.
	clockSkew = 30 * time.Second
)

// An Identity is what a workload is given: a SPIFFE ID, and a hint by which it may choose among several.
type Identity struct {
	ID   spiffeid.ID
	Hint string
}

// Config says what an [Agent] issues.
type Config struct {
	TrustDomain spiffeid.TrustDomain
	Lifetime    time.Duration // of an SVID; 0: DefaultLifetime
	Audience    string        // of the JWT-SVIDs that Write keeps in files; empty: it keeps none
	Log         *slog.Logger  // nil: nowhere
}

// An Agent issues the identities of one trust domain and keeps them fresh until it is closed.
type Agent struct {
	config      Config
	authorities atomic.Pointer[authorities]

	stop chan struct{}
	done chan struct{}

	mu        sync.Mutex
	sinks     []sink
	federated []*Agent // whose bundles are handed out too
}

// A sink is a place where some identities are handed out.
type sink struct {
	ids   []Identity
	put   func(workload.Issued) error
	close func() error
}

// Open makes a new authority and starts to keep its identities fresh.
func Open(c Config) (*Agent, error) {
	switch {
	case c.TrustDomain.IsZero():
		return nil, errors.New("development identities: trust domain: is required")
	case c.Lifetime == 0:
		c.Lifetime = DefaultLifetime
	case c.Lifetime < minLifetime:
		return nil, fmt.Errorf("development identities: lifetime %v is below %v", c.Lifetime, minLifetime)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	a := &Agent{config: c, stop: make(chan struct{}), done: make(chan struct{})}
	first, err := newAuthority(c.TrustDomain)
	if err != nil {
		return nil, fmt.Errorf("development authority: %w", err)
	}
	a.authorities.Store(&authorities{signs: first, all: []*authority{first}})
	go a.rotate()
	return a, nil
}

// Federate hands out the bundles of other agents beside this one's own from now on, as they are at each renewal.
func (a *Agent) Federate(with ...*Agent) error {
	a.mu.Lock()
	a.federated = append(a.federated, with...)
	a.mu.Unlock()
	return a.Rotate()
}

// Issue makes one SVID that nothing keeps fresh. It is valid for "localhost" too, so that tools that check host names
// (curl, grpcurl) reach a gateway on this machine.
func (a *Agent) Issue(id Identity) (*x509svid.SVID, error) {
	if !id.ID.MemberOf(a.config.TrustDomain) || id.ID.Path() == "" {
		return nil, fmt.Errorf("issue SVID: %q is not an ID of trust domain %s with a path", id.ID, a.config.TrustDomain)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("issue SVID %s: %w", id.ID, err)
	}
	now := time.Now()
	leaf, err := a.authorities.Load().signs.sign(&x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{Organization: []string{"Weighbridge development"}},
		URIs:                  []*url.URL{id.ID.URL()},
		DNSNames:              []string{"localhost"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		NotBefore:             now.Add(-min(clockSkew, a.config.Lifetime/10)),
		NotAfter:              now.Add(a.config.Lifetime),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, &key.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("issue SVID %s: %w", id.ID, err)
	}
	return &x509svid.SVID{ID: id.ID, Certificates: []*x509.Certificate{leaf}, PrivateKey: key, Hint: id.Hint}, nil
}

// Serve hands ids out, in this order, to whoever opens the unix socket.
func (a *Agent) Serve(socket string, ids ...Identity) error {
	s, err := workload.Listen(socket)
	if err != nil {
		return err
	}
	return a.add(sink{ids, s.Set, s.Close})
}

// InProcess returns a server that hands ids out inside this process. The agent closes it.
func (a *Agent) InProcess(ids ...Identity) (*workload.Server, error) {
	s := workload.InProcess()
	if err := a.add(sink{ids, s.Set, s.Close}); err != nil {
		return nil, err
	}
	return s, nil
}

// Write keeps svid.pem, key.pem and bundle.pem of each identity below dir, in a directory named by the path of its ID, and
// with Config.Audience token.jwt.
func (a *Agent) Write(dir string, ids ...Identity) error {
	put := func(i workload.Issued) error { return a.writeAll(dir, i) }
	return a.add(sink{ids, put, func() error { return nil }})
}

// add fills a sink and keeps it, or closes it.
func (a *Agent) add(s sink) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.fill(s); err != nil {
		return errors.Join(err, s.close())
	}
	a.sinks = append(a.sinks, s)
	return nil
}

func (a *Agent) fill(s sink) error {
	if len(s.ids) == 0 {
		return errors.New("development identities: none to hand out")
	}
	out := workload.Issued{Bundle: a.Bundle(), Token: a.Token}
	for _, other := range a.federated {
		out.Federated = append(out.Federated, other.Bundle())
	}
	for _, id := range s.ids {
		svid, err := a.Issue(id)
		if err != nil {
			return err
		}
		out.SVIDs = append(out.SVIDs, svid)
	}
	return s.put(out)
}

// Rotate replaces every SVID that is handed out, as happens by itself at half their lifetime.
func (a *Agent) Rotate() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var errs []error
	for _, s := range a.sinks {
		errs = append(errs, a.fill(s))
	}
	return errors.Join(errs...)
}

func (a *Agent) rotate() {
	defer close(a.done)
	renew := a.config.Lifetime
	if a.config.Audience != "" {
		renew = min(renew, tokenLifetime)
	}
	tick := time.NewTicker(renew / 2)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := a.Rotate(); err != nil {
				a.config.Log.Warn("development identities were not all renewed", "err", err)
			}
		case <-a.stop:
			return
		}
	}
}

// Close ends every stream and removes the sockets; written files stay.
func (a *Agent) Close() error {
	close(a.stop)
	<-a.done
	a.mu.Lock()
	defer a.mu.Unlock()
	var errs []error
	for _, s := range a.sinks {
		errs = append(errs, s.close())
	}
	a.sinks = nil
	return errors.Join(errs...)
}
