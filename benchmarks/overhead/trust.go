package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/weighbridge/weighbridge/benchmarks/site"
)

// Files of a trust, in PEM.
const (
	certFile = "cert.pem"
	keyFile  = "key.pem"
)

// A trust is how the peers and their callers know each other: by one certificate that both show, of the kind of key that
// SVIDs have. How many certificates a handshake looks at does not matter: connections stay open.
type trust struct {
	dir  string // in the site
	conf *tls.Config
}

func (w *world) newTrust() (*trust, error) {
	t := &trust{dir: "trust"}
	if err := os.Mkdir(w.Path(t.dir), 0o755); err != nil {
		return nil, fmt.Errorf("make certificates of the peers: %w", err)
	}
	if err := writeTrust(w.Path(t.dir)); err != nil {
		return nil, fmt.Errorf("make certificates of the peers: %w", err)
	}
	own, ca, err := readTrust(w.Path(t.dir))
	if err != nil {
		return nil, err
	}
	t.conf = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{own}, RootCAs: ca}
	return t, nil
}

func writeTrust(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"}, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(0, 0, 7),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, certFile), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), 0o600),
		os.WriteFile(filepath.Join(dir, keyFile), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600),
	)
}

func readTrust(dir string) (tls.Certificate, *x509.CertPool, error) {
	own, err := tls.LoadX509KeyPair(filepath.Join(dir, certFile), filepath.Join(dir, keyFile))
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("read certificate of a peer: %w", err)
	}
	ca := x509.NewCertPool()
	ca.AddCert(own.Leaf)
	return own, ca, nil
}

// caller asks a peer.
func (t *trust) caller(address net.Addr) *site.Caller {
	return site.NewCaller("https://"+address.String(), &http.Transport{TLSClientConfig: t.conf.Clone()})
}
