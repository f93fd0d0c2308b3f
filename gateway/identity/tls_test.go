package identity_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/weighbridge/weighbridge/gateway/identity"
	"github.com/weighbridge/weighbridge/gateway/identity/devworkload"
)

// TestServerTLSRefuses breaks one thing of a client at a time.
func TestServerTLSRefuses(t *testing.T) {
	agent := newAgent(t, domain)
	stranger := newAgent(t, spiffeid.RequireTrustDomainFromString("evil.example"))
	socket := filepath.Join(socketDir(t), "agent.sock")
	if err := agent.Serve(socket, gateway); err != nil {
		t.Fatal(err)
	}
	server := open(t, identity.Config{WorkloadAPI: "unix://" + socket}).ServerTLS("h2")

	issue := func(a *devworkload.Agent, id string) *tls.Certificate {
		svid, err := a.Issue(devworkload.Identity{ID: spiffeid.RequireFromString(id)})
		if err != nil {
			t.Fatal(err)
		}
		return &tls.Certificate{Certificate: [][]byte{svid.Certificates[0].Raw}, PrivateKey: svid.PrivateKey}
	}
	valid := func() *tls.Config {
		return &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}, Certificates: []tls.Certificate{*issue(agent, "spiffe://bank.example/apps/demo")}}
	}
	tests := []struct {
		name   string
		change func(*tls.Config)
		ok     bool
	}{
		{"valid", func(*tls.Config) {}, true},
		{"no certificate", func(c *tls.Config) { c.Certificates = nil }, false},
		{"stranger", func(c *tls.Config) { c.Certificates[0] = *issue(stranger, "spiffe://evil.example/apps/demo") }, false},
		{"stranger who claims our domain", func(c *tls.Config) { c.Certificates[0] = *forged(t, "spiffe://bank.example/apps/demo") }, false},
		{"two identities", func(c *tls.Config) {
			c.Certificates[0] = *forged(t, "spiffe://bank.example/apps/demo", "spiffe://bank.example/apps/other")
		}, false},
		{"no identity", func(c *tls.Config) { c.Certificates[0] = *forged(t) }, false},
		{"TLS 1.2", func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, false},
		{"other protocol", func(c *tls.Config) { c.NextProtos = []string{"spdy"} }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			client := valid()
			tt.change(client)
			id, err := handshake(t, server, client)
			if tt.ok != (err == nil) {
				t.Errorf("handshake = %s, %v, want ok %v", id, err, tt.ok)
			}
		})
	}
	if !server.SessionTicketsDisabled || server.VerifyConnection == nil {
		t.Error("sessions can be resumed without a check of the peer")
	}
}

// forged is a certificate that signs for itself.
func forged(t *testing.T, ids ...string) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature}
	for _, id := range ids {
		u, err := url.Parse(id)
		if err != nil {
			t.Fatal(err)
		}
		template.URIs = append(template.URIs, u)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestPeer holds the reading of a connection to exactly one identity.
func TestPeer(t *testing.T) {
	parse := func(c *tls.Certificate) []*x509.Certificate {
		leaf, err := x509.ParseCertificate(c.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return []*x509.Certificate{leaf}
	}
	tests := []struct {
		name  string
		state *tls.ConnectionState
		ok    bool
	}{
		{"one", &tls.ConnectionState{HandshakeComplete: true, PeerCertificates: parse(forged(t, "spiffe://bank.example/a"))}, true},
		{"no TLS", nil, false},
		{"no certificate", &tls.ConnectionState{HandshakeComplete: true}, false},
		{"handshake not done", &tls.ConnectionState{PeerCertificates: parse(forged(t, "spiffe://bank.example/a"))}, false},
		{"none", &tls.ConnectionState{HandshakeComplete: true, PeerCertificates: parse(forged(t))}, false},
		{"two", &tls.ConnectionState{HandshakeComplete: true, PeerCertificates: parse(forged(t, "spiffe://bank.example/a", "spiffe://bank.example/b"))}, false},
		{"other scheme", &tls.ConnectionState{HandshakeComplete: true, PeerCertificates: parse(forged(t, "https://bank.example/a"))}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			peer, err := identity.Peer(tt.state)
			if tt.ok != (err == nil) || (!tt.ok && !errors.Is(err, identity.ErrNoPeer)) {
				t.Errorf("Peer = %v, %v, want ok %v", peer, err, tt.ok)
			}
		})
	}
}

// handshake connects a client to a server and returns who the server thinks it talks to.
func handshake(t *testing.T, server, client *tls.Config) (id spiffeid.ID, err error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	type verdict struct {
		id  spiffeid.ID
		err error
	}
	done := make(chan verdict, 1)
	go func() {
		raw, err := l.Accept()
		if err != nil {
			done <- verdict{err: err}
			return
		}
		defer raw.Close()
		conn := tls.Server(raw, server)
		if err := conn.HandshakeContext(t.Context()); err != nil {
			done <- verdict{err: err}
			return
		}
		state := conn.ConnectionState()
		peer, err := identity.Peer(&state)
		done <- verdict{peer.ID, err}
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	clientErr := tls.Client(raw, client).HandshakeContext(t.Context())
	if clientErr != nil {
		raw.Close()
	}
	v := <-done
	return v.id, errors.Join(v.err, clientErr)
}
