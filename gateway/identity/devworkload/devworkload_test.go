package devworkload_test

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	pb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/weighbridge/weighbridge/gateway/identity/devworkload"
)

var (
	domain = spiffeid.RequireTrustDomainFromString("bank.example")
	demo   = devworkload.Identity{ID: spiffeid.RequireFromString("spiffe://bank.example/apps/demo")}
)

func newAgent(t *testing.T) *devworkload.Agent {
	t.Helper()
	agent, err := devworkload.Open(devworkload.Config{TrustDomain: domain})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { agent.Close() })
	return agent
}

func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "wb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "dev.sock")
}

func TestServe(t *testing.T) {
	socket := socketPath(t)
	other := devworkload.Identity{ID: spiffeid.RequireFromString("spiffe://bank.example/apps/other"), Hint: "other"}
	if err := newAgent(t).Serve(socket, demo, other); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket has mode %v, %v, want 0600", info.Mode(), err)
	}
	if entries, err := os.ReadDir(filepath.Dir(socket)); err != nil || len(entries) != 1 {
		t.Errorf("beside the socket lie %v, %v, want nothing", entries, err)
	}
	client, err := workloadapi.New(t.Context(), workloadapi.WithAddr("unix://"+socket))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	got, err := client.FetchX509Context(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(got.SVIDs) != 2 || got.DefaultSVID().ID != demo.ID || got.SVIDs[1].Hint != "other" {
		t.Errorf("SVIDs = %v, want %s first and then the other", got.SVIDs, demo.ID)
	}
	bundles, err := client.FetchX509Bundles(t.Context())
	if err != nil || !bundles.Has(domain) {
		t.Errorf("FetchX509Bundles = %v, %v, want those of %s", bundles, err, domain)
	}
}

// TestServeNeedsHeader asks without the header that keeps confused deputies out.
func TestServeNeedsHeader(t *testing.T) {
	socket := socketPath(t)
	if err := newAgent(t).Serve(socket, demo); err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for value, want := range map[string]codes.Code{"true": codes.OK, "false": codes.InvalidArgument, "": codes.InvalidArgument} {
		ctx := t.Context()
		if value != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "workload.spiffe.io", value)
		}
		stream, err := pb.NewSpiffeWorkloadAPIClient(conn).FetchX509SVID(ctx, &pb.X509SVIDRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != want {
			t.Errorf("with header %q: %v, want %v", value, err, want)
		}
	}
}

func TestServeRefuses(t *testing.T) {
	agent := newAgent(t)
	file := socketPath(t)
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	taken := socketPath(t)
	if err := newAgent(t).Serve(taken, demo); err != nil {
		t.Fatal(err)
	}
	foreign := devworkload.Identity{ID: spiffeid.RequireFromString("spiffe://evil.example/a")}
	rootID := devworkload.Identity{ID: domain.ID()}
	tests := []struct {
		name   string
		socket string
		ids    []devworkload.Identity
		want   string
	}{
		{"file in the way", file, []devworkload.Identity{demo}, "is not a socket"},
		{"served by another", taken, []devworkload.Identity{demo}, "served by another"},
		{"no directory", filepath.Join(filepath.Dir(file), "none", "dev.sock"), []devworkload.Identity{demo}, "no such file"},
		{"long path", "/tmp/" + strings.Repeat("x", 100), []devworkload.Identity{demo}, "shorter"},
		{"other trust domain", socketPath(t), []devworkload.Identity{foreign}, "not an ID of trust domain"},
		{"no path", socketPath(t), []devworkload.Identity{rootID}, "not an ID of trust domain"},
		{"nothing", socketPath(t), nil, "none to hand out"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := agent.Serve(tt.socket, tt.ids...)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Serve(%s) = %v, want an error with %q", tt.socket, err, tt.want)
			}
		})
	}
}

// TestServeReplacesStaleSocket starts where an agent that was killed left its socket.
func TestServeReplacesStaleSocket(t *testing.T) {
	socket := socketPath(t)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if err := newAgent(t).Serve(socket, demo); err != nil {
		t.Errorf("Serve = %v, want it to replace a socket that nobody serves", err)
	}
}

// TestWrite reads the files as curl would.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	agent := newAgent(t)
	if err := agent.Write(dir, demo); err != nil {
		t.Fatal(err)
	}
	load := func() *x509.Certificate {
		own := filepath.Join(dir, "apps", "demo")
		pair, err := tls.LoadX509KeyPair(filepath.Join(own, "svid.pem"), filepath.Join(own, "key.pem"))
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		pem, err := os.ReadFile(filepath.Join(own, "bundle.pem"))
		if err != nil || !roots.AppendCertsFromPEM(pem) {
			t.Fatalf("bundle.pem: %v", err)
		}
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "localhost"}); err != nil {
			t.Errorf("Verify = %v, want a certificate for localhost", err)
		}
		info, err := os.Stat(filepath.Join(own, "key.pem"))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("key.pem has mode %v, %v, want 0600", info.Mode(), err)
		}
		return pair.Leaf
	}
	first := load()
	if err := agent.Rotate(); err != nil {
		t.Fatal(err)
	}
	if load().SerialNumber.Cmp(first.SerialNumber) == 0 {
		t.Error("the files were not renewed")
	}
}

func TestOpenRefuses(t *testing.T) {
	for name, c := range map[string]devworkload.Config{
		"no trust domain": {},
		"short lifetime":  {TrustDomain: domain, Lifetime: 1},
	} {
		if a, err := devworkload.Open(c); err == nil {
			a.Close()
			t.Errorf("%s: Open = nil, want an error", name)
		}
	}
}
