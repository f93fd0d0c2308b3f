package timestamp_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"testing"
	"time"

	rfc3161 "github.com/digitorus/timestamp"

	"github.com/weighbridge/weighbridge/verifier/timestamp"
)

var (
	noon = time.Now().UTC().Truncate(time.Second) // responses also carry the real time, which must be the authority's
	day  = 24 * time.Hour

	timeStamping = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 8}
	codeSigning  = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 3, 3}
)

// An authority is a certificate with its key.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// issue makes a certificate under parent, self-signed if parent is nil.
func issue(t *testing.T, name string, parent *authority, change func(*x509.Certificate)) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(int64(len(name))), Subject: pkix.Name{CommonName: name},
		NotBefore: noon.Add(-day), NotAfter: noon.Add(day), BasicConstraintsValid: true,
	}
	change(c)
	issuer := &authority{c, key}
	if parent != nil {
		issuer = parent
	}
	der, err := x509.CreateCertificate(rand.Reader, c, issuer.cert, key.Public(), issuer.key)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{made, key}
}

func ca(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign }

// purpose sets one extended key usage, critical or not: RFC 3161 section 2.3 wants it critical.
func purpose(oid asn1.ObjectIdentifier, critical bool) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.KeyUsage = x509.KeyUsageDigitalSignature
		value, err := asn1.Marshal([]asn1.ObjectIdentifier{oid})
		if err != nil {
			panic(err)
		}
		c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: critical, Value: value}}
	}
}

// stamp puts a time on data.
func (a *authority) stamp(t *testing.T, data string, at time.Time, hash crypto.Hash, embed bool) []byte {
	t.Helper()
	h := hash.New()
	h.Write([]byte(data))
	ts := rfc3161.Timestamp{
		HashAlgorithm: hash, HashedMessage: h.Sum(nil), Time: at, SerialNumber: big.NewInt(7),
		Policy: asn1.ObjectIdentifier{1, 2, 3}, AddTSACertificate: embed,
	}
	response, err := ts.CreateResponseWithOpts(a.cert, a.key, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	return response
}

func TestVerify(t *testing.T) {
	root := issue(t, "root", nil, ca)
	other := issue(t, "root", nil, ca)
	tsa := issue(t, "tsa", root, purpose(timeStamping, true))
	lax := issue(t, "lax tsa", root, purpose(timeStamping, false))
	signer := issue(t, "code signer", root, purpose(codeSigning, true))
	both := issue(t, "ca and tsa", root, func(c *x509.Certificate) { purpose(timeStamping, true)(c); c.IsCA = true })

	good := tsa.stamp(t, "signature", noon, crypto.SHA256, true)
	later := tsa.stamp(t, "signature", noon.Add(time.Hour), crypto.SHA384, true)
	trusted := []*x509.Certificate{root.cert}
	tests := []struct {
		name      string
		responses [][]byte
		trusted   []*x509.Certificate
		want      time.Time // zero: refused
	}{
		{"stamped", [][]byte{good}, trusted, noon},
		{"the earliest counts", [][]byte{later, good}, trusted, noon},
		{"one that is worth nothing beside a good one", [][]byte{[]byte("junk"), later}, trusted, noon.Add(time.Hour)},
		{"authority's certificate held by the verifier", [][]byte{tsa.stamp(t, "signature", noon, crypto.SHA256, false)}, []*x509.Certificate{lax.cert, tsa.cert, root.cert}, noon},

		{"none", nil, trusted, time.Time{}},
		{"empty", [][]byte{{}}, trusted, time.Time{}},
		{"junk", [][]byte{[]byte("junk")}, trusted, time.Time{}},
		{"cut short", [][]byte{good[:len(good)-1]}, trusted, time.Time{}},
		{"over another signature", [][]byte{tsa.stamp(t, "Signature", noon, crypto.SHA256, true)}, trusted, time.Time{}},
		{"by a stranger", [][]byte{good}, []*x509.Certificate{other.cert}, time.Time{}},
		{"no root is trusted", [][]byte{good}, []*x509.Certificate{tsa.cert}, time.Time{}},
		{"nothing is trusted", [][]byte{good}, nil, time.Time{}},
		{"no certificate", [][]byte{tsa.stamp(t, "signature", noon, crypto.SHA256, false)}, trusted, time.Time{}},
		{"before the authority was valid", [][]byte{tsa.stamp(t, "signature", noon.Add(-2*day), crypto.SHA256, true)}, trusted, time.Time{}},
		{"after the authority expired", [][]byte{tsa.stamp(t, "signature", noon.Add(2*day), crypto.SHA256, true)}, trusted, time.Time{}},
		{"purpose not critical", [][]byte{lax.stamp(t, "signature", noon, crypto.SHA256, true)}, trusted, time.Time{}},
		{"another purpose", [][]byte{signer.stamp(t, "signature", noon, crypto.SHA256, true)}, trusted, time.Time{}},
		{"stamped by a CA", [][]byte{both.stamp(t, "signature", noon, crypto.SHA256, true)}, trusted, time.Time{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			at, err := timestamp.Verify(tt.responses, []byte("signature"), tt.trusted)
			if !at.Equal(tt.want) {
				t.Errorf("Verify = %v, %v, want %v", at, err, tt.want)
			}
			if refused := errors.Is(err, timestamp.ErrNoTime); refused != tt.want.IsZero() {
				t.Errorf("Verify = %v, want ErrNoTime: %v", err, tt.want.IsZero())
			}
		})
	}
}
