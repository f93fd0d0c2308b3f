package keylesstest

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	ct "github.com/google/certificate-transparency-go"
	"github.com/google/certificate-transparency-go/tls"
	"github.com/google/certificate-transparency-go/x509util"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	rekortiles "github.com/sigstore/rekor-tiles/v2/pkg/generated/protobuf"
	rekornote "github.com/sigstore/rekor-tiles/v2/pkg/note"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	"github.com/sigstore/sigstore/pkg/signature"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/weighbridge/weighbridge/verifier/statement"
)

// origin names the logs in what they sign.
const origin = "rekor.example"

// promise is the certificate log's word that it will hold a certificate, as the extension of RFC 6962 section 3.3.
func (i *Instance) promise(c, issuer *x509.Certificate) pkix.Extension {
	i.t.Helper()
	sct := ct.SignedCertificateTimestamp{SCTVersion: ct.V1, Timestamp: uint64(c.NotBefore.UnixMilli())}
	copy(sct.LogID.KeyID[:], i.logID(i.ctLog.Public()))
	var issuerKey [32]byte
	copy(issuerKey[:], hashOf(issuer.RawSubjectPublicKeyInfo))
	input, err := ct.SerializeSCTSignatureInput(sct, ct.LogEntry{Leaf: ct.MerkleTreeLeaf{
		Version: ct.V1, LeafType: ct.TimestampedEntryLeafType,
		TimestampedEntry: &ct.TimestampedEntry{
			Timestamp: sct.Timestamp, EntryType: ct.PrecertLogEntryType,
			PrecertEntry: &ct.PreCert{IssuerKeyHash: issuerKey, TBSCertificate: c.RawTBSCertificate},
		},
	}})
	i.check(err)
	signed, err := ecdsa.SignASN1(rand.Reader, i.ctLog, hashOf(input))
	i.check(err)
	sct.Signature = ct.DigitallySigned{
		Algorithm: tls.SignatureAndHashAlgorithm{Hash: tls.SHA256, Signature: tls.ECDSA}, Signature: signed,
	}
	list, err := x509util.MarshalSCTsIntoSCTList([]*ct.SignedCertificateTimestamp{&sct})
	i.check(err)
	encoded, err := tls.Marshal(*list)
	i.check(err)
	value, err := asn1.Marshal(encoded)
	i.check(err)
	return pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}, Value: value}
}

// entry logs a signature.
func (i *Instance) entry(key *ecdsa.PrivateKey, leaf *x509.Certificate, payload, sig []byte, s Signing) *protorekor.TransparencyLogEntry {
	i.t.Helper()
	switch {
	case s.Rekor == 2:
		return i.entry2(leaf, payload, sig)
	case s.Plain:
		return i.plainEntry(key, leaf, payload, sig, s)
	}
	envelope := &dsse.Envelope{
		PayloadType: statement.PayloadType, Payload: base64.StdEncoding.EncodeToString(payload),
		Signatures: []dsse.Signature{{Sig: base64.StdEncoding.EncodeToString(sig)}},
	}
	logged, err := i.v1.GenerateTlogEntry(leaf, envelope, sig, s.At.Unix(), true)
	i.check(err)
	e := logged.TransparencyLogEntry()
	e.KindVersion = &protorekor.KindVersion{Kind: "dsse", Version: "0.0.1"}
	if s.has(Promise) {
		e.InclusionPromise = &protorekor.InclusionPromise{SignedEntryTimestamp: i.promiseEntry(e.GetCanonicalizedBody(), s.At)}
	}
	return e
}

// plainEntry logs a signature as what signs some bytes: those that an envelope's signature is over.
func (i *Instance) plainEntry(key *ecdsa.PrivateKey, leaf *x509.Certificate, payload, sig []byte, s Signing) *protorekor.TransparencyLogEntry {
	i.t.Helper()
	type object = map[string]any
	name, sum := signedHash(key, payload)
	text, err := json.Marshal(object{"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": object{
		"data":      object{"hash": object{"algorithm": name, "value": hex.EncodeToString(sum)}},
		"signature": object{"content": sig, "publicKey": object{"content": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw})}},
	}})
	i.check(err)
	body := jsontext.Value(text)
	i.check(body.Canonicalize())
	proof, err := i.v1.GetInclusionProof(body)
	i.check(err)
	root, err := hex.DecodeString(*proof.RootHash)
	i.check(err)
	e := &protorekor.TransparencyLogEntry{
		LogId:             &protocommon.LogId{KeyId: i.logID(i.rekor1())},
		KindVersion:       &protorekor.KindVersion{Kind: "hashedrekord", Version: "0.0.1"},
		IntegratedTime:    s.At.Unix(),
		CanonicalizedBody: body,
		InclusionProof: &protorekor.InclusionProof{
			LogIndex: *proof.LogIndex, TreeSize: *proof.TreeSize, RootHash: root, Checkpoint: &protorekor.Checkpoint{Envelope: *proof.Checkpoint},
		},
	}
	for _, text := range proof.Hashes {
		hash, err := hex.DecodeString(text)
		i.check(err)
		e.InclusionProof.Hashes = append(e.InclusionProof.Hashes, hash)
	}
	if s.has(Promise) {
		e.InclusionPromise = &protorekor.InclusionPromise{SignedEntryTimestamp: i.promiseEntry(body, s.At)}
	}
	return e
}

// promiseEntry is a log's word, of version 1, that it has an entry since a time.
func (i *Instance) promiseEntry(body []byte, at time.Time) []byte {
	i.t.Helper()
	set, err := i.v1.RekorSignPayload(tlog.RekorPayload{
		Body: base64.StdEncoding.EncodeToString(body), IntegratedTime: at.Unix(), LogID: fmt.Sprintf("%x", i.logID(i.rekor1())),
	})
	i.check(err)
	return set
}

func (i *Instance) rekor1() crypto.PublicKey {
	for _, log := range i.v1.RekorLogs() {
		return log.PublicKey
	}
	panic("keylesstest: internal error: no log")
}

// entry2 logs a signature in a log of version 2, which holds just this: a hashedrekord over what was signed.
func (i *Instance) entry2(leaf *x509.Certificate, payload, sig []byte) *protorekor.TransparencyLogEntry {
	i.t.Helper()
	return i.log2(hashOf(dsse.PAE(statement.PayloadType, payload)), &rekortiles.Signature{
		Content: sig,
		Verifier: &rekortiles.Verifier{
			KeyDetails: protocommon.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256,
			Verifier:   &rekortiles.Verifier_X509Certificate{X509Certificate: &protocommon.X509Certificate{RawBytes: leaf.Raw}},
		},
	})
}

func (i *Instance) log2(digest []byte, sig *rekortiles.Signature) *protorekor.TransparencyLogEntry {
	i.t.Helper()
	text, err := protojson.Marshal(&rekortiles.Entry{
		Kind: "hashedrekord", ApiVersion: "0.0.2",
		Spec: &rekortiles.Spec{Spec: &rekortiles.Spec_HashedRekordV002{HashedRekordV002: &rekortiles.HashedRekordLogEntryV002{
			Signature: sig, Data: &protocommon.HashOutput{Algorithm: protocommon.HashAlgorithm_SHA2_256, Digest: digest},
		}}},
	})
	i.check(err)
	body := jsontext.Value(text)
	i.check(body.Canonicalize())
	root := hashOf([]byte{0}, body) // of a tree of one leaf (RFC 6962 section 2.1)
	return &protorekor.TransparencyLogEntry{
		LogId:             &protocommon.LogId{KeyId: i.logID(i.rekor2.Public())},
		KindVersion:       &protorekor.KindVersion{Kind: "hashedrekord", Version: "0.0.2"},
		CanonicalizedBody: body,
		InclusionProof: &protorekor.InclusionProof{
			TreeSize: 1, RootHash: root, Checkpoint: &protorekor.Checkpoint{Envelope: i.checkpoint(root)},
		},
	}
}

// checkpoint is what a log of version 2 signs: its name, its size and its root (C2SP tlog-checkpoint).
func (i *Instance) checkpoint(root []byte) string {
	i.t.Helper()
	key, err := signature.LoadECDSASignerVerifier(i.rekor2, crypto.SHA256)
	i.check(err)
	signer, err := rekornote.NewNoteSigner(context.Background(), origin, key)
	i.check(err)
	text, err := note.Sign(&note.Note{Text: fmt.Sprintf("%s\n1\n%s\n", origin, base64.StdEncoding.EncodeToString(root))}, signer)
	i.check(err)
	return string(text)
}
