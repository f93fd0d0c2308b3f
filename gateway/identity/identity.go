// Package identity is who we are and who our peers are, by SPIFFE X.509-SVIDs.
//
// The one rule: a peer is who the verified certificate of this very TLS connection says, by its one SPIFFE ID. No
// header names a caller (x-forwarded-client-cert and its like are never read), and nothing about a peer is remembered
// between handshakes.
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
	"sync"
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

// A Source is an identity that stays fresh. It always answers with the newest SVID and bundle: don't keep either.
type Source struct {
	x509   *workloadapi.X509Source
	domain spiffeid.TrustDomain
	files  *fileSource // nil if the identity is not from files
	log    *slog.Logger
	close  func() error
}

// Open waits until there is an identity, up to Config.Wait or the end of ctx.
func Open(ctx context.Context, c Config) (*Source, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Wait == 0 {
		c.Wait = DefaultWait
	}
	s := &Source{log: c.Log}
	origin, options, err := s.provide(c)
	if err == nil {
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
	trouble := &agentLog{log: s.log}
	pick := &picker{id: c.ID, hint: c.Hint, log: s.log}
	options = append(options, workloadapi.WithLogger(trouble), workloadapi.WithBackoffStrategy(backoff{}))
	x509, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(options...), workloadapi.WithDefaultX509SVIDPicker(pick.pick))
	if err != nil {
		if last := trouble.last(); last != "" {
			return fmt.Errorf("no SVID after %v: %s", c.Wait, last)
		}
		return fmt.Errorf("no SVID after %v: %w", c.Wait, err)
	}
	stop := s.close
	s.x509, s.close = x509, func() error {
		err := x509.Close()
		if stop != nil {
			err = errors.Join(err, stop())
		}
		return err
	}
	// The agent may know some identities of a workload before others.
	for {
		svid, err := x509.GetX509SVID()
		if err == nil {
			s.domain = svid.ID.TrustDomain()
			return nil
		}
		if x509.WaitUntilUpdated(ctx) != nil {
			return fmt.Errorf("no SVID for %s after %v: there is only %s", c.ID, c.Wait, pick.offered())
		}
	}
}

// Close stops watching, and whatever was started for it.
func (s *Source) Close() error {
	if s.close == nil {
		return nil
	}
	return s.close()
}

// GetX509SVID returns the newest SVID. It implements x509svid.Source.
func (s *Source) GetX509SVID() (*x509svid.SVID, error) { return s.x509.GetX509SVID() }

// GetX509BundleForTrustDomain returns the newest authorities of a trust domain. It implements x509bundle.Source.
func (s *Source) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	return s.x509.GetX509BundleForTrustDomain(td)
}

// ID returns who we are now.
func (s *Source) ID() (spiffeid.ID, error) {
	svid, err := s.GetX509SVID()
	if err != nil {
		return spiffeid.ID{}, err
	}
	return svid.ID, nil
}

// Expires returns when the newest SVID ends. The source gets another one before, unless something is wrong.
func (s *Source) Expires() (time.Time, error) {
	svid, err := s.GetX509SVID()
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

// picker chooses among the SVIDs of a workload; go-spiffe calls it at each update.
type picker struct {
	id   spiffeid.ID
	hint string
	log  *slog.Logger

	mu   sync.Mutex
	seen []string
}

func (p *picker) pick(svids []*x509svid.SVID) (picked *x509svid.SVID) {
	var seen []string
	for _, svid := range svids {
		seen = append(seen, svid.ID.String())
		switch {
		case picked != nil:
		case !p.id.IsZero() && svid.ID == p.id, p.id.IsZero() && p.hint != "" && svid.Hint == p.hint:
			picked = svid
		}
	}
	if picked == nil && p.id.IsZero() && len(svids) > 0 {
		picked = svids[0]
	}
	p.mu.Lock()
	p.seen = seen
	p.mu.Unlock()
	if picked == nil {
		p.log.Warn("no usable SVID in the last update", "wanted", p.id, "offered", seen)
		return nil
	}
	p.log.Info("identity updated", "id", picked.ID, "serial", picked.Certificates[0].SerialNumber, "expires", picked.Certificates[0].NotAfter)
	return picked
}

func (p *picker) offered() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen
}
