// Package identity is who we are and who our peers are, by SPIFFE SVIDs.
//
// The one rule: a peer is who the verified certificate of this very TLS connection says, by its one SPIFFE ID. A header
// names a caller in two places only: on listeners that take JWT-SVIDs and ask for no certificate, and where the connection is
// a configured proxy's, which says who its own peer is. Nothing about a peer is remembered between handshakes, and
// [Source.Identify] decides all of it, for each request.
//
// An identity comes from the SPIFFE Workload API, from files, or from an embedded development Workload API. The last
// two are Workload API servers inside this process, so that all three go through the same client code of go-spiffe
// and what is tested with one holds for the others.
package identity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/weighbridge/weighbridge/gateway/identity/devworkload"
)

// HintGateway marks the identity that is meant for the gateway among several.
const HintGateway = "gateway"

// The identities of a development trust domain.
const (
	developmentGateway = "/gateway"
	developmentCaller  = "/apps/demo"
)

// Config says where the identity comes from: at most one of WorkloadAPI, Files and Development. None means the
// Workload API at SPIFFE_ENDPOINT_SOCKET.
type Config struct {
	WorkloadAPI string       // address: unix:///path or tcp://ip:port
	Files       *Files       // for sites without a Workload API
	Development *Development // for a developer's machine

	Proxies []spiffeid.ID // peers that speak for others, by the header x-forwarded-client-cert
	Tokens  bool          // whether JWT-SVIDs are taken: then the keys that sign them are watched too

	ID   spiffeid.ID   // which SVID to take if there are several; if it is not there, none is taken
	Hint string        // without ID, the hint of the SVID to prefer; else the first is taken
	Wait time.Duration // how long to wait for the first SVID; 0: DefaultWait
	Log  *slog.Logger  // nil: nowhere
}

// Files are the certificate chain with the leaf first and its key, both PEM, and the authorities of its trust domain:
// PEM, or a SPIFFE bundle (JSON), which also has the keys that sign JWT-SVIDs. They are read again when they change; files
// that don't belong together leave the old ones in force.
type Files struct {
	SVID, Key, Bundle string

	Bundles map[string]string // of federated trust domains, by their names
}

// Development asks for an authority of our own, for the trust domain. This process takes spiffe://TD/gateway, and
// whoever of the same user opens Socket is given spiffe://TD/apps/demo.
type Development struct {
	TrustDomain string
	Socket      string // path of the unix socket for callers; empty: none
}

// DevelopmentIDs are the identities of a development trust domain, the callers' first: that is the one that a client
// takes if it does not choose. The gateway chooses by its hint.
func DevelopmentIDs(td spiffeid.TrustDomain) (caller, gateway devworkload.Identity, err error) {
	caller.ID, err = spiffeid.FromPath(td, developmentCaller)
	if err != nil {
		return caller, gateway, err
	}
	gateway.ID, err = spiffeid.FromPath(td, developmentGateway)
	gateway.Hint = HintGateway
	return caller, gateway, err
}

// A Source is an identity that stays fresh. It always answers with the newest SVID and bundle: don't keep either. While
// nothing answers where it comes from, the last SVID goes on serving until it ends ([Source.Check]).
type Source struct {
	x509    *workloadapi.X509Source
	jwt     *workloadapi.JWTSource // nil without Config.Tokens
	proxies map[spiffeid.ID]bool
	domain  spiffeid.TrustDomain
	files   *fileSource // nil if the identity is not from files
	log     *slog.Logger
	trouble *agentLog
	close   func() error
}

// Open waits until there is an identity, up to Config.Wait or the end of ctx.
func Open(ctx context.Context, c Config) (*Source, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Wait == 0 {
		c.Wait = DefaultWait
	}
	s := &Source{log: c.Log, trouble: &agentLog{log: c.Log}, proxies: map[spiffeid.ID]bool{}}
	for _, id := range c.Proxies {
		s.proxies[id] = true
	}
	origin, options, err := s.provide(c)
	if err == nil {
		c.Log.Info("waiting for an identity", "from", origin, "most", c.Wait)
		err = s.watch(ctx, c, options)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("identity from %s: %w", origin, err), s.Close())
	}
	return s, nil
}

// provide starts what serves the identity, if that is ours to do, and says how to reach it.
func (s *Source) provide(c Config) (origin string, _ []workloadapi.ClientOption, err error) {
	given := 0
	for _, set := range []bool{c.WorkloadAPI != "", c.Files != nil, c.Development != nil} {
		if set {
			given++
		}
	}
	switch {
	case given > 1:
		return "configuration", nil, errors.New("give one of workloadAPI, files and development")
	case c.Files != nil:
		s.files, err = openFiles(*c.Files, s.log)
		if err != nil {
			return "files", nil, err
		}
		s.close = s.files.Close
		return "files", s.files.server.ClientOptions(), nil
	case c.Development != nil:
		options, err := s.develop(*c.Development)
		return "development", options, err
	}
	addr := c.WorkloadAPI
	if addr == "" {
		var ok bool
		if addr, ok = workloadapi.GetDefaultAddress(); !ok {
			return "the Workload API", nil, fmt.Errorf("no address: set %s, or configure files or development", workloadapi.SocketEnv)
		}
	}
	if err := workloadapi.ValidateAddress(addr); err != nil {
		return "the Workload API", nil, fmt.Errorf("address %q: %w (want unix:///path or tcp://ip:port)", addr, err)
	}
	return addr, []workloadapi.ClientOption{workloadapi.WithAddr(addr)}, nil
}

func (s *Source) develop(d Development) ([]workloadapi.ClientOption, error) {
	td, err := spiffeid.TrustDomainFromString(d.TrustDomain)
	if err != nil {
		return nil, fmt.Errorf("trust domain %q: %w", d.TrustDomain, err)
	}
	caller, gateway, err := DevelopmentIDs(td)
	if err != nil {
		return nil, err
	}
	agent, err := devworkload.Open(devworkload.Config{TrustDomain: td, Log: s.log})
	if err != nil {
		return nil, err
	}
	s.close = agent.Close
	if d.Socket != "" {
		socket, err := filepath.Abs(d.Socket)
		if err != nil {
			return nil, err
		}
		if err := agent.Serve(socket, caller); err != nil {
			return nil, err
		}
		s.log.Info("development identities are offered", "socket", "unix://"+socket, "caller", caller.ID)
	}
	own, err := agent.InProcess(gateway)
	if err != nil {
		return nil, err
	}
	return own.ClientOptions(), nil
}

// watch subscribes to the Workload API and waits for the first SVID that will do.
func (s *Source) watch(ctx context.Context, c Config, options []workloadapi.ClientOption) error {
	ctx, cancel := context.WithTimeout(ctx, c.Wait)
	defer cancel()
	pick := &picker{id: c.ID, hint: c.Hint, log: s.log, picked: s.trouble.over}
	options = slices.Clip(append(options, workloadapi.WithBackoffStrategy(backoff{}), workloadapi.WithDialOptions(reconnect)))
	x509, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(append(options, workloadapi.WithLogger(s.trouble))...), workloadapi.WithDefaultX509SVIDPicker(pick.pick))
	if err != nil {
		return late("no SVID", c.Wait, s.trouble, err)
	}
	s.x509 = x509
	s.closeBefore(x509.Close)
	if c.Tokens {
		trouble := &agentLog{log: s.log}
		jwt, err := workloadapi.NewJWTSource(ctx, workloadapi.WithClientOptions(append(options, workloadapi.WithLogger(trouble))...))
		if err != nil {
			return late("no keys of JWT-SVIDs", c.Wait, trouble, err)
		}
		s.jwt = jwt
		s.closeBefore(jwt.Close)
	}
	// The agent may know some identities of a workload before others.
	for {
		svid, err := x509.GetX509SVID()
		if err == nil {
			s.domain = svid.ID.TrustDomain()
			return s.hasKeys()
		}
		if x509.WaitUntilUpdated(ctx) != nil {
			return fmt.Errorf("no SVID for %s after %v: there is only %s", c.ID, c.Wait, pick.offered())
		}
	}
}

// hasKeys makes sure that the JWT-SVIDs of our own trust domain can be verified, if they are taken at all.
func (s *Source) hasKeys() error {
	if s.jwt == nil {
		return nil
	}
	keys, err := s.jwt.GetJWTBundleForTrustDomain(s.domain)
	if err != nil || keys.Empty() {
		return fmt.Errorf("JWT-SVIDs are to be taken, and there is no key for those of %s (a bundle in a PEM file has none: give one in SPIFFE's format)", s.domain)
	}
	return nil
}

// late says what was waited for in vain, and why by the last answer that is known.
func late(what string, wait time.Duration, trouble *agentLog, err error) error {
	if last, _ := trouble.last(); last != "" {
		return fmt.Errorf("%s after %v: %s", what, wait, last)
	}
	return fmt.Errorf("%s after %v: %w", what, wait, err)
}

// closeBefore adds what is to be closed before all the rest.
func (s *Source) closeBefore(first func() error) {
	then := s.close
	s.close = func() error {
		err := first()
		if then != nil {
			err = errors.Join(err, then())
		}
		return err
	}
}

// Close stops watching, and whatever was started for it.
func (s *Source) Close() error {
	if s.close == nil {
		return nil
	}
	return s.close()
}

// GetX509SVID returns the newest SVID, unless it has ended: a handshake with it would fail for reasons that are harder to
// read. It implements x509svid.Source.
func (s *Source) GetX509SVID() (*x509svid.SVID, error) {
	if err := s.Check(time.Now()); err != nil {
		return nil, err
	}
	return s.x509.GetX509SVID()
}

// GetX509BundleForTrustDomain returns the newest authorities of a trust domain. It implements x509bundle.Source.
func (s *Source) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	return s.x509.GetX509BundleForTrustDomain(td)
}

// ID returns who we are now.
func (s *Source) ID() (spiffeid.ID, error) {
	svid, err := s.x509.GetX509SVID()
	if err != nil {
		return spiffeid.ID{}, err
	}
	return svid.ID, nil
}

// Expires returns when the newest SVID ends. The source gets another one before, unless something is wrong.
func (s *Source) Expires() (time.Time, error) {
	svid, err := s.x509.GetX509SVID()
	if err != nil {
		return time.Time{}, err
	}
	return svid.Certificates[0].NotAfter, nil
}

// TrustDomain returns the trust domain of the SVID that the source was opened with.
func (s *Source) TrustDomain() spiffeid.TrustDomain { return s.domain }

// Reload reads the files again at once. An error leaves the old identity in force. Other sources need no telling.
func (s *Source) Reload() error {
	if s.files == nil {
		return nil
	}
	return s.files.Reload()
}
