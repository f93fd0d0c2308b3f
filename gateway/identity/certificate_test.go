package identity_test

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"

	"github.com/weighbridge/weighbridge/gateway/identity"
	"github.com/weighbridge/weighbridge/gateway/identity/devworkload"
)

// TestCertificateFiles presents what is in files, and keeps it while they don't belong together.
func TestCertificateFiles(t *testing.T) {
	dir := t.TempDir()
	agent := newAgent(t, domain)
	if err := agent.Write(dir, caller, gateway); err != nil {
		t.Fatal(err)
	}
	own := func(id devworkload.Identity, file string) string {
		return filepath.Join(devworkload.FilesDir(dir, id), file)
	}
	if _, err := identity.OpenCertificate(own(caller, "svid.pem"), own(gateway, "key.pem")); err == nil {
		t.Error("OpenCertificate with the key of another = nil, want an error")
	}
	if _, err := identity.OpenCertificate(own(caller, "svid.pem"), own(caller, "none.pem")); err == nil {
		t.Error("OpenCertificate without a key = nil, want an error")
	}
	files, err := identity.OpenCertificate(own(caller, "svid.pem"), own(caller, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	s := newSite(t, nil)
	server := s.source.TokenTLS(files, "h2")
	shown := func() (serial string) {
		client := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}, VerifyConnection: func(c tls.ConnectionState) error {
			serial = c.PeerCertificates[0].SerialNumber.String()
			return nil
		}}
		handshake(t, server, client) // it reports that the client has no identity, and it has none
		return serial
	}
	in := func(file string) string {
		pair, err := tls.LoadX509KeyPair(own(caller, file), own(caller, "key.pem"))
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(pair.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return leaf.SerialNumber.String()
	}
	first := in("svid.pem")
	if got := shown(); got != first {
		t.Errorf("the server shows %s, want %s", got, first)
	}
	good, err := os.ReadFile(own(caller, "svid.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(own(caller, "svid.pem"), good[:len(good)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	files.LookAgain()
	if got := shown(); got != first {
		t.Errorf("after half a file the server shows %s, want %s as before", got, first)
	}
	if err := agent.Rotate(); err != nil {
		t.Fatal(err)
	}
	files.LookAgain()
	if got := shown(); got != in("svid.pem") || got == first {
		t.Errorf("after a renewal the server shows %s, want %s", got, in("svid.pem"))
	}
}
