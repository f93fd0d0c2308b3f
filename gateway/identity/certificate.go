package identity

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// CertificateFiles are the PEM files of a certificate that something else keeps fresh. Make it with [OpenCertificate].
type CertificateFiles struct {
	certificate, key string

	mu     sync.Mutex
	looked time.Time
	last   [2][]byte // what was read last, good or bad
	pair   *tls.Certificate
}

// OpenCertificate reads the files, and fails if they don't belong together. They are looked at again every few seconds while
// there are handshakes; later troubles leave what was read before in force.
func OpenCertificate(certificate, key string) (*CertificateFiles, error) {
	f := &CertificateFiles{certificate: certificate, key: key}
	if err := f.read(); err != nil {
		return nil, err
	}
	f.looked = time.Now()
	return f, nil
}

func (f *CertificateFiles) newest(log *slog.Logger) (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); now.Sub(f.looked) > filesInterval {
		f.looked = now
		if err := f.read(); err != nil {
			log.Warn("certificate files were not taken, the old certificate stays", "err", err)
		}
	}
	return f.pair, nil
}

// read takes the files over if they have changed and belong together.
func (f *CertificateFiles) read() error {
	cert, certErr := readFile(f.certificate)
	key, keyErr := readFile(f.key)
	if err := errors.Join(certErr, keyErr); err != nil {
		return err
	}
	if bytes.Equal(cert, f.last[0]) && bytes.Equal(key, f.last[1]) {
		return nil
	}
	f.last = [2][]byte{cert, key}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("certificate %s, key %s: %w", f.certificate, f.key, err)
	}
	f.pair = &pair
	return nil
}
