package trusttest

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/digitorus/timestamp"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// A CA is a root that issues certificates to the keys of a world. It is valid from 2000 to 2100.
type CA struct {
	Root *x509.Certificate
	w    *World
	key  string
}

// NewCA makes a root with the key of a name.
func (w *World) NewCA(name string) *CA {
	w.t.Helper()
	ca := &CA{w: w, key: name}
	ca.Root = ca.issue(name, &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, KeyUsage: x509.KeyUsageCertSign})
	return ca
}

// Issue makes a certificate for code signing with the subject CN=NAME for the key of a name, as change wants it.
func (ca *CA) Issue(name string, change func(*x509.Certificate)) *x509.Certificate {
	ca.w.t.Helper()
	c := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	if change != nil {
		change(c)
	}
	return ca.issue(name, c)
}

func (ca *CA) issue(name string, c *x509.Certificate) *x509.Certificate {
	ca.w.t.Helper()
	c.BasicConstraintsValid = true
	var err error
	c.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62))
	ca.w.check(err)
	if c.NotBefore.IsZero() {
		c.NotBefore = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	if c.NotAfter.IsZero() {
		c.NotAfter = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	parent := ca.Root
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, ca.w.Key(name).Public(), ca.w.Key(ca.key))
	ca.w.check(err)
	made, err := x509.ParseCertificate(der)
	ca.w.check(err)
	return made
}

// Write puts certificates into a PEM file of the world and returns its path.
func (w *World) Write(file string, certificates ...*x509.Certificate) string {
	w.t.Helper()
	var text string
	for _, c := range certificates {
		text += trust.CertificatePEM(c.Raw)
	}
	path := filepath.Join(w.Dir, file)
	w.check(os.WriteFile(path, []byte(text), 0o644))
	return path
}

// SignUnder signs a payload with the key of a name under a certificate, with whatever leads to the root.
func (w *World) SignUnder(name string, payload []byte, chain ...*x509.Certificate) *statement.Signed {
	w.t.Helper()
	signer, err := statement.NewChainSigner(w.Key(name), chain)
	w.check(err)
	bundle, err := signer.Sign(payload)
	w.check(err)
	s, err := statement.Parse(bundle)
	w.check(err)
	return s
}

// A TimeAuthority stamps signatures with a time of the test's choice (RFC 3161).
type TimeAuthority struct {
	Root *x509.Certificate
	Time time.Time // that it says over HTTP; zero: now
	w    *World
	cert *x509.Certificate
}

// NewTimeAuthority makes an authority under a root of its own.
func (w *World) NewTimeAuthority(name string) *TimeAuthority {
	w.t.Helper()
	// RFC 3161 section 2.3: one purpose, and critical.
	purpose, err := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}})
	w.check(err)
	ca := w.NewCA(name + "-root")
	return &TimeAuthority{Root: ca.Root, w: w, cert: ca.Issue(name, func(c *x509.Certificate) {
		c.ExtKeyUsage = nil
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: purpose}}
	})}
}

// Stamp returns the authority's word that data was there at a time.
func (a *TimeAuthority) Stamp(data []byte, at time.Time) []byte {
	a.w.t.Helper()
	sum := sha256.Sum256(data)
	response, err := a.stamp(&timestamp.Timestamp{HashAlgorithm: crypto.SHA256, HashedMessage: sum[:], Time: at})
	a.w.check(err)
	return response
}

func (a *TimeAuthority) stamp(ts *timestamp.Timestamp) ([]byte, error) {
	ts.SerialNumber, ts.Policy, ts.AddTSACertificate = big.NewInt(3), asn1.ObjectIdentifier{1, 2, 3}, true
	return ts.CreateResponseWithOpts(a.cert, a.w.Key(a.cert.Subject.CommonName), crypto.SHA256)
}

// ServeHTTP answers requests as RFC 3161 section 3.4 has it, with the time that the test chose, or now.
func (a *TimeAuthority) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	req, err := timestamp.ParseRequest(query)
	if err != nil || r.Header.Get("Content-Type") != "application/timestamp-query" {
		http.Error(w, fmt.Sprintf("%s: %v", r.Header.Get("Content-Type"), err), http.StatusBadRequest)
		return
	}
	ts := &timestamp.Timestamp{HashAlgorithm: req.HashAlgorithm, HashedMessage: req.HashedMessage, Nonce: req.Nonce, Time: a.Time}
	if ts.Time.IsZero() {
		ts.Time = time.Now()
	}
	response, err := a.stamp(ts)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/timestamp-reply")
	_, _ = w.Write(response)
}

// Stamped returns the statement with the authority's word on when it was signed.
func (a *TimeAuthority) Stamped(s *statement.Signed, at time.Time) *statement.Signed {
	a.w.t.Helper()
	made, err := statement.Parse(WithTimestamp(s.Bundle(), a.Stamp(s.Signature(), at)))
	a.w.check(err)
	return made
}

// WithTimestamp puts an RFC 3161 response into a bundle that has none.
func WithTimestamp(bundle, response []byte) []byte {
	data := `"timestampVerificationData":{"rfc3161Timestamps":[{"signedTimestamp":"` + base64.StdEncoding.EncodeToString(response) + `"}]},"tlogEntries"`
	return bytes.Replace(bundle, []byte(`"tlogEntries"`), []byte(data), 1)
}
