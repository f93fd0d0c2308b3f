package identity_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/weighbridge/weighbridge/gateway/identity"
	"github.com/weighbridge/weighbridge/gateway/identity/devworkload"
	"github.com/weighbridge/weighbridge/gateway/identity/workload"
)

var (
	domain  = spiffeid.RequireTrustDomainFromString("bank.example")
	gateway = devworkload.Identity{ID: spiffeid.RequireFromString("spiffe://bank.example/gateway"), Hint: identity.HintGateway}
	caller  = devworkload.Identity{ID: spiffeid.RequireFromString("spiffe://bank.example/apps/demo")}
)

func newAgent(t *testing.T, td spiffeid.TrustDomain) *devworkload.Agent {
	t.Helper()
	agent, err := devworkload.Open(devworkload.Config{TrustDomain: td})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { agent.Close() })
	return agent
}

// socketDir is short: the name of a socket is.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "wb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func open(t *testing.T, c identity.Config) *identity.Source {
	t.Helper()
	s, err := identity.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
	})
	return s
}

// events is a log whose messages a test can wait for.
type events struct {
	slog.Handler
	seen chan string
}

func newEvents() *events { return &events{slog.DiscardHandler, make(chan string, 100)} }

func (e *events) Enabled(context.Context, slog.Level) bool { return true }
func (e *events) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool { text += " " + a.String(); return true })
	e.seen <- text
	return nil
}

func (e *events) await(t *testing.T, part string) {
	t.Helper()
	for {
		select {
		case text := <-e.seen:
			if strings.Contains(text, part) {
				return
			}
		case <-t.Context().Done():
			t.Fatalf("no log line with %q", part)
		}
	}
}

// TestOpen takes the same identity from all three sources, and lets each meet a caller.
func TestOpen(t *testing.T) {
	dir := socketDir(t)
	agent := newAgent(t, domain)
	socket := filepath.Join(dir, "agent.sock")
	if err := agent.Serve(socket, caller, gateway); err != nil {
		t.Fatal(err)
	}
	if err := agent.Write(dir, gateway); err != nil {
		t.Fatal(err)
	}
	files := devworkload.FilesDir(dir, gateway)
	devSocket := filepath.Join(dir, "dev.sock")

	tests := []struct {
		name   string
		config identity.Config
		env    string // SPIFFE_ENDPOINT_SOCKET of the gateway
		caller string // the socket of the caller
	}{
		{"workload API", identity.Config{WorkloadAPI: "unix://" + socket, Hint: identity.HintGateway}, "", socket},
		{"environment", identity.Config{Hint: identity.HintGateway}, "unix://" + socket, socket},
		{"files", identity.Config{Files: &identity.Files{
			SVID: filepath.Join(files, devworkload.SVIDFile), Key: filepath.Join(files, devworkload.KeyFile),
			Bundle: filepath.Join(files, devworkload.BundleFile),
		}}, "", socket},
		{"development", identity.Config{Development: &identity.Development{TrustDomain: "bank.example", Socket: devSocket}}, "", devSocket},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("SPIFFE_ENDPOINT_SOCKET", tt.env)
			us := open(t, tt.config)
			if id, err := us.ID(); err != nil || id != gateway.ID {
				t.Errorf("ID() = %s, %v, want %s", id, err, gateway.ID)
			}
			if us.TrustDomain() != domain {
				t.Errorf("TrustDomain() = %s, want %s", us.TrustDomain(), domain)
			}
			them := open(t, identity.Config{WorkloadAPI: "unix://" + tt.caller})
			peer, err := handshake(t, us.ServerTLS("h2"), them.ClientTLS(tlsconfig.AuthorizeID(gateway.ID), "h2"))
			if err != nil || peer != caller.ID {
				t.Errorf("peer = %s, %v, want %s", peer, err, caller.ID)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := socketDir(t)
	agent := newAgent(t, domain)
	socket := filepath.Join(dir, "agent.sock")
	if err := agent.Serve(socket, caller, gateway); err != nil {
		t.Fatal(err)
	}
	if err := agent.Write(dir, gateway, caller); err != nil {
		t.Fatal(err)
	}
	stranger := newAgent(t, spiffeid.RequireTrustDomainFromString("evil.example"))
	other := devworkload.Identity{ID: spiffeid.RequireFromString("spiffe://evil.example/gateway")}
	if err := stranger.Write(filepath.Join(dir, "evil"), other); err != nil {
		t.Fatal(err)
	}
	silent, err := workload.Listen(filepath.Join(dir, "silent.sock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })

	own := func(file string) string { return filepath.Join(devworkload.FilesDir(dir, gateway), file) }
	good := identity.Files{SVID: own("svid.pem"), Key: own("key.pem"), Bundle: own("bundle.pem")}
	files := func(change func(*identity.Files)) identity.Config {
		f := good
		change(&f)
		return identity.Config{Files: &f}
	}
	tests := []struct {
		name   string
		config identity.Config
		want   string
	}{
		{"two sources", identity.Config{WorkloadAPI: "unix://" + socket, Files: &good}, "give one of"},
		{"no source", identity.Config{}, "SPIFFE_ENDPOINT_SOCKET"},
		{"address without scheme", identity.Config{WorkloadAPI: socket}, "want unix:///path"},
		{"nobody there", identity.Config{WorkloadAPI: "unix://" + dir + "/none.sock"}, "no SVID after"},
		{"no identity issued", identity.Config{WorkloadAPI: "unix://" + dir + "/silent.sock"}, "no identity issued"},
		{"other ID", identity.Config{WorkloadAPI: "unix://" + socket, ID: other.ID}, "there is only [" + caller.ID.String() + " " + gateway.ID.String() + "]"},
		{"no svid", files(func(f *identity.Files) { f.SVID = "" }), "svid: is required"},
		{"missing key", files(func(f *identity.Files) { f.Key = own("none.pem") }), "key: open"},
		{"key of another", files(func(f *identity.Files) { f.Key = filepath.Join(devworkload.FilesDir(dir, caller), "key.pem") }), "match"},
		{"bundle of another", files(func(f *identity.Files) {
			f.Bundle = filepath.Join(devworkload.FilesDir(filepath.Join(dir, "evil"), other), "bundle.pem")
		}), "does not verify"},
		{"bundle without certificates", files(func(f *identity.Files) { f.Bundle = f.Key }), "bundle"},
		{"directory", files(func(f *identity.Files) { f.SVID = dir }), "svid: read"},
		{"federated bundle is missing", files(func(f *identity.Files) { f.Bundles = map[string]string{"evil.example": own("none.pem")} }), "bundles.evil.example: open"},
		{"federated bundle of no trust domain", files(func(f *identity.Files) { f.Bundles = map[string]string{"Evil": f.Bundle} }), "bundles"},
		{"federated bundle of our own trust domain", files(func(f *identity.Files) { f.Bundles = map[string]string{"bank.example": f.Bundle} }), "own trust domain"},
		{"federated bundle without certificates", files(func(f *identity.Files) { f.Bundles = map[string]string{"evil.example": f.Key} }), "bundles.evil.example"},
		{"tokens without keys", func() identity.Config { c := files(func(*identity.Files) {}); c.Tokens = true; return c }(), "there is no key for those of bank.example"},
		{"no trust domain", identity.Config{Development: &identity.Development{}}, "trust domain"},
	}
	t.Setenv("SPIFFE_ENDPOINT_SOCKET", "x")
	os.Unsetenv("SPIFFE_ENDPOINT_SOCKET") // for the test; Setenv puts it back
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.config.Wait = 100 * time.Millisecond
			s, err := identity.Open(t.Context(), tt.config)
			if err == nil || s != nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Open = %v, %v, want an error with %q", s, err, tt.want)
			}
		})
	}
}

// TestOpenWaitsForIdentity starts before the agent knows the workload, as happens with SPIRE.
func TestOpenWaitsForIdentity(t *testing.T) {
	socket := filepath.Join(socketDir(t), "agent.sock")
	server, err := workload.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	log := newEvents()
	opened := make(chan error, 1)
	go func() {
		s, err := identity.Open(t.Context(), identity.Config{WorkloadAPI: "unix://" + socket, Log: slog.New(log)})
		if err == nil {
			err = s.Close()
		}
		opened <- err
	}()
	log.await(t, "no identity issued")
	agent := newAgent(t, domain)
	svid, err := agent.Issue(caller)
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Set(workload.Issued{SVIDs: []*x509svid.SVID{svid}, Bundle: agent.Bundle()}); err != nil {
		t.Fatal(err)
	}
	if err := <-opened; err != nil {
		t.Errorf("Open = %v, want the identity once it is issued", err)
	}
}

func TestOpenPicks(t *testing.T) {
	socket := filepath.Join(socketDir(t), "agent.sock")
	if err := newAgent(t, domain).Serve(socket, caller, gateway); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		id   spiffeid.ID
		hint string
		want spiffeid.ID
	}{
		{"first", spiffeid.ID{}, "", caller.ID},
		{"hint", spiffeid.ID{}, identity.HintGateway, gateway.ID},
		{"hint that is not there", spiffeid.ID{}, "other", caller.ID},
		{"ID", gateway.ID, "", gateway.ID},
		{"ID before hint", caller.ID, identity.HintGateway, caller.ID},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, identity.Config{WorkloadAPI: "unix://" + socket, ID: tt.id, Hint: tt.hint})
			if id, err := s.ID(); err != nil || id != tt.want {
				t.Errorf("ID() = %s, %v, want %s", id, err, tt.want)
			}
		})
	}
}

// TestRotation expects a server to show its new certificate without being told.
func TestRotation(t *testing.T) {
	socket := filepath.Join(socketDir(t), "agent.sock")
	agent := newAgent(t, domain)
	if err := agent.Serve(socket, caller); err != nil {
		t.Fatal(err)
	}
	log := newEvents()
	s := open(t, identity.Config{WorkloadAPI: "unix://" + socket, Log: slog.New(log)})
	log.await(t, "identity updated")
	config := s.ServerTLS("h2")
	before, err := config.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Rotate(); err != nil {
		t.Fatal(err)
	}
	log.await(t, "identity updated")
	// The source takes the SVID just after the picker chose it.
	for {
		after, err := config.GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		if after.Leaf.SerialNumber.Cmp(before.Leaf.SerialNumber) != 0 {
			return
		}
		if t.Context().Err() != nil {
			t.Fatal("the old certificate is still shown")
		}
	}
}

// TestFilesReload replaces the files of a running identity by good and bad ones.
func TestFilesReload(t *testing.T) {
	dir := t.TempDir()
	agent := newAgent(t, domain)
	if err := agent.Write(dir, gateway); err != nil {
		t.Fatal(err)
	}
	own := devworkload.FilesDir(dir, gateway)
	log := newEvents()
	s := open(t, identity.Config{Log: slog.New(log), Files: &identity.Files{
		SVID: filepath.Join(own, "svid.pem"), Key: filepath.Join(own, "key.pem"), Bundle: filepath.Join(own, "bundle.pem"),
	}})
	serial := func() string {
		svid, err := s.GetX509SVID()
		if err != nil {
			t.Fatal(err)
		}
		return svid.Certificates[0].SerialNumber.String()
	}
	log.await(t, "identity updated")
	svid, err := s.GetX509SVID()
	if err != nil {
		t.Fatal(err)
	}
	if end, err := s.Expires(); err != nil || end != svid.Certificates[0].NotAfter || !end.After(time.Now()) {
		t.Errorf("Expires = %v, %v, want %v", end, err, svid.Certificates[0].NotAfter)
	}
	old := serial()
	if err := agent.Rotate(); err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(); err != nil {
		t.Fatalf("Reload = %v", err)
	}
	log.await(t, "identity updated")
	for serial() == old && t.Context().Err() == nil {
	}
	rotated := serial()
	for _, file := range []string{"svid.pem", "key.pem", "bundle.pem"} {
		path := filepath.Join(own, file)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, good[:len(good)/2], 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.Reload(); err == nil {
			t.Errorf("Reload with half of %s = nil, want an error", file)
		}
		if got := serial(); got != rotated {
			t.Errorf("after half of %s the serial is %s, want %s as before", file, got, rotated)
		}
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Reload(); err != nil {
		t.Errorf("Reload = %v, want nil with good files again", err)
	}
}
