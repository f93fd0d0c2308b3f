package gateway_test

import (
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/weighbridge/weighbridge/gateway"
	"github.com/weighbridge/weighbridge/gateway/identity"
	"github.com/weighbridge/weighbridge/gateway/identity/devworkload"
	"github.com/weighbridge/weighbridge/gateway/identity/workload"
)

var rotation = flag.Duration("rotation", 10*time.Second, "how long the day of TestRotation takes")

// A fleet is callers that ask all the time, over connections that they keep.
type fleet struct {
	d       *door
	sources []*identity.Source
	asked   atomic.Int64
	made    atomic.Int64 // connections
	stop    chan struct{}
	asking  sync.WaitGroup
}

// run asks until the end, and reports each failure.
func (f *fleet) run(name string, ask func() error) {
	f.asking.Go(func() {
		for {
			select {
			case <-f.stop:
				return
			case <-time.After(time.Millisecond):
			}
			if err := ask(); err != nil {
				f.d.t.Errorf("%s: request %d: %v", name, f.asked.Load(), err)
			}
			f.asked.Add(1)
		}
	})
}

// config is that of a client whose connections are counted.
func (f *fleet) config(path string, protos ...string) *tls.Config {
	s := f.d.source(f.d.agent, path)
	f.sources = append(f.sources, s)
	c := s.ClientTLS(tlsconfig.AuthorizeID(spiffeid.RequireFromString("spiffe://"+domain+"/gateway")), protos...)
	verify := c.VerifyConnection
	c.VerifyConnection = func(state tls.ConnectionState) error {
		f.made.Add(1)
		return verify(state)
	}
	return c
}

// get fails unless there is a whole answer.
func (f *fleet) get(c *http.Client, address, token string) error {
	req, err := http.NewRequest(http.MethodPost, "https://"+address+"/v1/chat/completions", strings.NewReader(question))
	if err != nil {
		return err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return err
}

// agree waits until every source has taken over what the agent hands out now.
func (f *fleet) agree(reissued bool) {
	f.d.t.Helper()
	newest := f.d.agent.Bundle().X509Authorities()
	eventually(f.d.t, "agreement", func() bool {
		for _, s := range f.sources {
			bundle, err := s.GetX509BundleForTrustDomain(spiffeid.RequireTrustDomainFromString(domain))
			if err != nil || len(bundle.X509Authorities()) != len(newest) || !bundle.HasX509Authority(newest[len(newest)-1]) {
				return false
			}
			svid, err := s.GetX509SVID()
			if err != nil || reissued && svid.Certificates[0].CheckSignatureFrom(newest[len(newest)-1]) != nil {
				return false
			}
		}
		return true
	})
}

// TestRotation lives through a day of a SPIRE server with SVIDs of an hour: each is renewed 48 times, and the authority that
// signs them is replaced in turn. Not one request fails.
func TestRotation(t *testing.T) {
	const renewals, authorities = 48, 4
	lifetime := max(2*time.Second, *rotation/5) // so that each connection is renewed several times
	agent, err := devworkload.Open(devworkload.Config{TrustDomain: spiffeid.RequireTrustDomainFromString(domain), Lifetime: lifetime})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { agent.Close() })
	d := openWith(t, agent, map[string]*channel{"chat": hello()})
	f := &fleet{d: d, stop: make(chan struct{}), sources: []*identity.Source{d.us}}
	for _, path := range []string{"/apps/a", "/apps/b"} {
		for _, proto := range []string{"h2", "http/1.1"} {
			client := d.clientOf(f.config(path, proto))
			f.run(path+" over "+proto, func() error { return f.get(client, d.http, "") })
		}
		conn := d.dial(f.config(path, "h2"))
		f.run(path+" over gRPC", func() error { _, _, _, err := chat(t.Context(), conn, ask()); return err })
	}
	d.source(agent, "/apps/c")
	api, err := workloadapi.New(t.Context(), workloadapi.WithAddr("unix://"+filepath.Join(d.dir, domain+"-apps-c")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { api.Close() })
	anonymous := d.anonymous("h2")
	anonymous.VerifyPeerCertificate = tlsconfig.VerifyPeerCertificate(d.us, tlsconfig.AuthorizeAny())
	byToken := d.clientOf(anonymous)
	f.run("/apps/c by token", func() error {
		svid, err := api.FetchJWTSVID(t.Context(), jwtsvid.Params{Audience: "spiffe://" + domain + "/gateway"})
		if err != nil {
			return err
		}
		return f.get(byToken, d.tokens.http, svid.Marshal())
	})

	tick := time.NewTicker(*rotation / renewals)
	defer tick.Stop()
	for n := range renewals {
		act, reissued := agent.Rotate, false
		switch n % (renewals / authorities) {
		case 3:
			act = agent.PrepareAuthority
		case 5:
			act, reissued = agent.ActivateAuthority, true
		case 9:
			act, reissued = agent.RetireAuthorities, true
		}
		if err := act(); err != nil {
			t.Fatal(err)
		}
		f.agree(reissued)
		<-tick.C
	}
	close(f.stop)
	f.asking.Wait()
	t.Logf("%d requests over %d connections, %d renewals and %d authorities in %v", f.asked.Load(), f.made.Load(), renewals, authorities, *rotation)
	if f.made.Load() < int64(2*len(f.sources)) {
		t.Errorf("%d clients made %d connections: none was renewed", len(f.sources)-1, f.made.Load())
	}
}

// TestNoWorkloadAPI loses the Workload API for the life of an SVID: serving goes on until its end, stops, and comes back.
func TestNoWorkloadAPI(t *testing.T) {
	td := spiffeid.RequireTrustDomainFromString(domain)
	us := devworkload.Identity{ID: spiffeid.RequireFromPath(td, "/gateway")}
	short, err := devworkload.Open(devworkload.Config{TrustDomain: td, Lifetime: 3 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { short.Close() })
	long := newAgent(t, domain) // of the callers, and of the gateway in the end
	var socket string
	all := short.Bundle()
	all.AddX509Authority(long.Bundle().X509Authorities()[0])
	serve := func(agent *devworkload.Agent) *workload.Server {
		api, err := workload.Listen(socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { api.Close() })
		svid, err := agent.Issue(us)
		if err != nil {
			t.Fatal(err)
		}
		if err := api.Set(workload.Issued{SVIDs: []*x509svid.SVID{svid}, Bundle: all}); err != nil {
			t.Fatal(err)
		}
		return api
	}
	var source *identity.Source
	d := openWith(t, long, map[string]*channel{"chat": hello()}, func(c *gateway.Config) {
		socket = filepath.Join(t.TempDir(), "api.sock")
		api := serve(short)
		source, err = identity.Open(t.Context(), identity.Config{WorkloadAPI: "unix://" + socket})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { source.Close() })
		api.Close()
		c.Identity = source
	})
	caller := d.source(long, "/apps/demo")
	config := caller.ClientTLS(tlsconfig.AuthorizeAny(), "h2")
	trusting := tlsconfig.VerifyPeerCertificate(all, tlsconfig.AuthorizeID(us.ID))
	config.VerifyConnection = func(state tls.ConnectionState) error {
		return trusting([][]byte{state.PeerCertificates[0].Raw}, nil)
	}
	kept, conn := d.clientOf(config.Clone()), d.dial(config.Clone())
	ends, err := source.Expires()
	if err != nil {
		t.Fatal(err)
	}
	var watches []grpc.ServerStreamingClient[grpc_health_v1.HealthCheckResponse]
	for _, service := range []string{"readiness", "chat"} {
		health, err := grpc_health_v1.NewHealthClient(conn).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: service})
		if err != nil {
			t.Fatal(err)
		}
		watches = append(watches, health)
	}
	ready := func(want grpc_health_v1.HealthCheckResponse_ServingStatus) {
		t.Helper()
		for _, health := range watches {
			for {
				m, err := health.Recv()
				if err != nil {
					t.Fatalf("health Watch = %v, want %v", err, want)
				}
				if m.GetStatus() == want {
					break
				}
			}
		}
	}
	ready(grpc_health_v1.HealthCheckResponse_SERVING)
	f := &fleet{d: d}
	round := func() (fresh, old, rpc error) {
		once := &http.Transport{TLSClientConfig: config.Clone(), ForceAttemptHTTP2: true, DisableKeepAlives: true}
		_, _, _, rpc = chat(t.Context(), conn, ask())
		return f.get(&http.Client{Transport: once}, d.http, ""), f.get(kept, d.http, ""), rpc
	}
	served := 0
	for ; time.Until(ends) > 500*time.Millisecond; served++ {
		if err := errors.Join(round()); err != nil {
			t.Fatalf("%v before the end: %v", time.Until(ends), err)
		}
	}
	eventually(t, "the end", func() bool { return time.Now().After(ends) })
	fresh, old, rpc := round()
	if fresh == nil {
		t.Error("a new connection was made after the end")
	}
	if old == nil || !strings.Contains(old.Error(), "no_identity") || status.Code(rpc) != codes.Unavailable {
		t.Errorf("after the end kept connections answer %v and %v, want 503 and UNAVAILABLE", old, rpc)
	}
	if got := source.Problem(time.Now()); !strings.Contains(got, "ended on "+ends.UTC().Format(time.RFC3339)) || !strings.Contains(got, "since ") {
		t.Errorf("Problem = %q, want since when and why", got)
	}
	ready(grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	for _, line := range []string{"callers are refused", "TLS handshake error"} {
		said := slices.ContainsFunc(strings.Split(d.log.String(), "\n"), func(s string) bool {
			return strings.Contains(s, line) && strings.Contains(s, "there is no valid SVID of our own")
		})
		if !said {
			t.Errorf("the log has no %q that says why:\n%s", line, d.log)
		}
	}
	serve(long)
	eventually(t, "the return", func() bool { return errors.Join(round()) == nil })
	ready(grpc_health_v1.HealthCheckResponse_SERVING)
	if got := source.Problem(time.Now()); got != "" {
		t.Errorf("Problem after the return = %q, want none", got)
	}
	t.Logf("%d rounds of requests without a Workload API", served)
}
