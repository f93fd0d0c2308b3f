// Package keylesstest is a Sigstore instance for tests: a certificate authority with a certificate transparency log, a
// transparency log of each version, and a time authority, all with keys of their own and at times of the test's choice.
//
// What it issues is real: [Instance.TrustedRoot] and any Sigstore verifier accept it, with no network.
package keylesstest

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/digitorus/timestamp"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protodsse "github.com/sigstore/protobuf-specs/gen/pb-go/dsse"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/weighbridge/weighbridge/verifier/statement"
)

// Valid is how long a certificate is, as Fulcio issues them.
const Valid = 10 * time.Minute

// An Instance is one Sigstore instance, whose own keys and certificates are valid from 2000 to 2100.
type Instance struct {
	t  testing.TB
	v1 *ca.VirtualSigstore // its log of version 1 is ours

	root, intermediate, tsa       *x509.Certificate
	issuing, ctLog, rekor2, stamp *ecdsa.PrivateKey
}

// New makes an instance.
func New(t testing.TB) *Instance {
	t.Helper()
	v1, err := ca.NewVirtualSigstore()
	i := &Instance{t: t, v1: v1, issuing: newKey(t), ctLog: newKey(t), rekor2: newKey(t), stamp: newKey(t)}
	i.check(err)
	rootKey := newKey(t)
	authority := func(name string) *x509.Certificate {
		return &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true}
	}
	i.root = i.issue(authority("root"), nil, rootKey.Public(), rootKey)
	i.intermediate = i.issue(authority("intermediate"), i.root, i.issuing.Public(), rootKey)
	// RFC 3161 section 2.3: one purpose, and critical.
	purpose, err := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}})
	i.check(err)
	i.tsa = i.issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: "clock"}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: purpose}},
	}, i.root, i.stamp.Public(), rootKey)
	return i
}

// A Part is what a bundle can do without or can't.
type Part string

// The parts of an instance's answer.
const (
	SCT       Part = "SCT"
	Entry     Part = "entry"
	Promise   Part = "promise" // that a log of version 1 adds to its entry, with a time
	Timestamp Part = "timestamp"
)

// A Signing is how a payload is signed.
type Signing struct {
	Account statement.Account
	Key     *ecdsa.PrivateKey // nil: a new one
	At      time.Time         // when: the certificate is valid from a minute before on
	Rekor   int               // version of the log; 0: 1
	Plain   bool              // the log of version 1 has a hashedrekord, which knows of no envelope
	Without []Part
	Stamped time.Time                 // by the time authority; zero: At
	CA, CT  *Instance                 // who issues the certificate, and whose log promises it; nil: this one
	Change  func(*x509.Certificate)   // of what is issued
	Broken  func(*protobundle.Bundle) // of the bundle
}

func (s Signing) has(p Part) bool {
	for _, without := range s.Without {
		if p == without {
			return false
		}
	}
	return true
}

// Sign returns a bundle over the payload, as one line.
func (i *Instance) Sign(payload []byte, s Signing) []byte {
	i.t.Helper()
	key := s.Key
	if key == nil {
		key = newKey(i.t)
	}
	leaf := i.Issue(key.Public(), s)
	_, sum := signedHash(key, payload)
	signature, err := ecdsa.SignASN1(rand.Reader, key, sum)
	i.check(err)
	b := &protobundle.Bundle{
		MediaType: statement.MediaType,
		VerificationMaterial: &protobundle.VerificationMaterial{
			Content: &protobundle.VerificationMaterial_Certificate{Certificate: &protocommon.X509Certificate{RawBytes: leaf.Raw}},
		},
		Content: &protobundle.Bundle_DsseEnvelope{DsseEnvelope: &protodsse.Envelope{
			Payload: payload, PayloadType: statement.PayloadType, Signatures: []*protodsse.Signature{{Sig: signature}},
		}},
	}
	m := b.GetVerificationMaterial()
	if s.has(Entry) {
		m.TlogEntries = []*protorekor.TransparencyLogEntry{i.entry(key, leaf, payload, signature, s)}
	}
	if s.has(Timestamp) {
		at := s.Stamped
		if at.IsZero() {
			at = s.At
		}
		m.TimestampVerificationData = &protobundle.TimestampVerificationData{
			Rfc3161Timestamps: []*protocommon.RFC3161SignedTimestamp{{SignedTimestamp: i.Stamp(signature, at)}},
		}
	}
	if s.Broken != nil {
		s.Broken(b)
	}
	line, err := protojson.Marshal(b)
	i.check(err)
	return append(line, '\n')
}

// signedHash returns the hash of what is signed of a payload, and its name: it is as strong as the key's curve.
func signedHash(key *ecdsa.PrivateKey, payload []byte) (name string, sum []byte) {
	name, hash := "sha256", crypto.SHA256
	switch key.Curve {
	case elliptic.P384():
		name, hash = "sha384", crypto.SHA384
	case elliptic.P521():
		name, hash = "sha512", crypto.SHA512
	}
	h := hash.New()
	h.Write(dsse.PAE(statement.PayloadType, payload))
	return name, h.Sum(nil)
}

// Signed is Sign for what [statement.Parse] accepts.
func (i *Instance) Signed(payload []byte, s Signing) *statement.Signed {
	i.t.Helper()
	signed, err := statement.Parse(i.Sign(payload, s))
	i.check(err)
	return signed
}

// Issue makes a certificate for a key, with the promise of the certificate log (RFC 6962) in it.
func (i *Instance) Issue(pub crypto.PublicKey, s Signing) *x509.Certificate {
	i.t.Helper()
	issuer, err := asn1.Marshal(s.Account.Issuer)
	i.check(err)
	by, log := cmp.Or(s.CA, i), cmp.Or(s.CT, i)
	c := &x509.Certificate{
		NotBefore: s.At.Add(-time.Minute), NotAfter: s.At.Add(-time.Minute + Valid),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}, Value: issuer}},
	}
	if strings.Contains(s.Account.Subject, "://") {
		uri, err := url.Parse(s.Account.Subject)
		i.check(err)
		c.URIs = []*url.URL{uri}
	} else {
		c.EmailAddresses = []string{s.Account.Subject}
	}
	if s.Change != nil {
		s.Change(c)
	}
	if s.has(SCT) {
		// The log promises the certificate as it is without its promise.
		before := i.issue(c, by.intermediate, pub, by.issuing)
		c.ExtraExtensions = append(c.ExtraExtensions, log.promise(before, by.intermediate))
	}
	return i.issue(c, by.intermediate, pub, by.issuing)
}

func (i *Instance) issue(c, parent *x509.Certificate, pub crypto.PublicKey, by *ecdsa.PrivateKey) *x509.Certificate {
	i.t.Helper()
	if c.SerialNumber == nil {
		var err error
		c.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62))
		i.check(err)
	}
	if c.NotBefore.IsZero() {
		c.NotBefore, c.NotAfter = start, end
	}
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, pub, by)
	i.check(err)
	made, err := x509.ParseCertificate(der)
	i.check(err)
	return made
}

var start, end = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)

// Stamp returns the time authority's word that a signature was there at a time.
func (i *Instance) Stamp(signature []byte, at time.Time) []byte {
	i.t.Helper()
	response, err := i.stampOf(crypto.SHA256, hashOf(signature), nil, at)
	i.check(err)
	return response
}

func (i *Instance) stampOf(hash crypto.Hash, sum []byte, nonce *big.Int, at time.Time) ([]byte, error) {
	ts := timestamp.Timestamp{
		HashAlgorithm: hash, HashedMessage: sum, Time: at, Nonce: nonce,
		SerialNumber: big.NewInt(3), Policy: asn1.ObjectIdentifier{1, 2, 3}, AddTSACertificate: true,
	}
	return ts.CreateResponseWithOpts(i.tsa, i.stamp, crypto.SHA256)
}

// Authorities returns the certificates that lead from what the instance issues to its root.
func (i *Instance) Authorities() []*x509.Certificate {
	return []*x509.Certificate{i.intermediate, i.root}
}

// TrustedRoot returns the JSON by which the instance is trusted.
func (i *Instance) TrustedRoot() []byte {
	i.t.Helper()
	material, err := root.NewTrustedRoot(root.TrustedRootMediaType01,
		[]root.CertificateAuthority{&root.FulcioCertificateAuthority{
			Root: i.root, Intermediates: []*x509.Certificate{i.intermediate}, ValidityPeriodStart: start, ValidityPeriodEnd: end, URI: "https://fulcio.example",
		}},
		i.logs("https://ct.example", i.ctLog.Public()),
		[]root.TimestampingAuthority{&root.SigstoreTimestampingAuthority{
			Root: i.root, Leaf: i.tsa, ValidityPeriodStart: start, ValidityPeriodEnd: end, URI: "https://clock.example",
		}},
		i.logs("https://"+origin, i.rekor1(), i.rekor2.Public()))
	i.check(err)
	data, err := material.MarshalJSON()
	i.check(err)
	return data
}

// TrustConfig returns the JSON of a trust configuration: the trusted root, and a signing config such as Serve's in one; nil
// leaves it out.
func (i *Instance) TrustConfig(signingConfig []byte) []byte {
	i.t.Helper()
	data, err := json.Marshal(struct {
		MediaType     string          `json:"mediaType"`
		TrustedRoot   json.RawMessage `json:"trustedRoot"`
		SigningConfig json.RawMessage `json:"signingConfig,omitempty"`
	}{"application/vnd.dev.sigstore.clienttrustconfig.v0.1+json", i.TrustedRoot(), signingConfig})
	i.check(err)
	return data
}

// logs describes the logs of some keys at one address.
func (i *Instance) logs(address string, keys ...crypto.PublicKey) map[string]*root.TransparencyLog {
	i.t.Helper()
	all := map[string]*root.TransparencyLog{}
	for _, pub := range keys {
		id := i.logID(pub)
		all[fmt.Sprintf("%x", id)] = &root.TransparencyLog{
			BaseURL: address, ID: id, ValidityPeriodStart: start, ValidityPeriodEnd: end,
			HashFunc: crypto.SHA256, SignatureHashFunc: crypto.SHA256, PublicKey: pub,
		}
	}
	return all
}

// logID names a log: the SHA-256 of its key (RFC 6962 section 3.2).
func (i *Instance) logID(pub crypto.PublicKey) []byte {
	i.t.Helper()
	der, err := x509.MarshalPKIXPublicKey(pub)
	i.check(err)
	return hashOf(der)
}

func (i *Instance) check(err error) {
	i.t.Helper()
	if err != nil {
		i.t.Fatalf("keylesstest: %v", err)
	}
}

func hashOf(data ...[]byte) []byte {
	sum := sha256.Sum256(bytes.Join(data, nil))
	return sum[:]
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("keylesstest: %v", err)
	}
	return key
}
