package keyless_test

import (
	"bytes"
	"testing"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/weighbridge/weighbridge/verifier/keyless"
	"github.com/weighbridge/weighbridge/verifier/keyless/keylesstest"
	"github.com/weighbridge/weighbridge/verifier/statement"
)

// FuzzEntry puts anything in place of a log entry: whatever anyone can write into a bundle verifies only if it is what
// the log holds, and ends nothing but the verification.
func FuzzEntry(f *testing.F) {
	instance := keylesstest.New(f)
	v, err := keyless.New(instance.TrustedRoot())
	if err != nil {
		f.Fatal(err)
	}
	text := []byte(`{"_type":"https://in-toto.io/Statement/v1","predicate":{},"predicateType":"https://example.com/v1","subject":[{"digest":{"sha256":"abababababababababababababababababababababababababababababababab"},"name":""}]}`)
	var bundles []*protobundle.Bundle
	for _, s := range []keylesstest.Signing{signing(nil), version2(), signing(func(s *keylesstest.Signing) { s.Plain = true })} {
		s.Broken = func(b *protobundle.Bundle) { bundles = append(bundles, b) }
		instance.Sign(text, s)
	}
	for _, b := range bundles {
		e := b.GetVerificationMaterial().GetTlogEntries()[0]
		f.Add(e.GetCanonicalizedBody(), e.GetKindVersion().GetKind(), e.GetKindVersion().GetVersion(), e.GetInclusionProof().GetCheckpoint().GetEnvelope(), e.GetInclusionPromise().GetSignedEntryTimestamp())
	}
	f.Add([]byte(`{"apiVersion":"0.0.1","kind":"dsse","spec":{"envelopeHash":null,"payloadHash":null,"signatures":[]}}`), "dsse", "0.0.1", "", []byte{})
	f.Add([]byte(`{"apiVersion":"0.0.2","kind":"intoto","spec":{"content":{"envelope":{"payloadType":"","signatures":[]}}}}`), "intoto", "0.0.2", "\n\n\n\n", []byte{})
	f.Fuzz(func(t *testing.T, body []byte, kind, version, checkpoint string, promise []byte) {
		for _, whole := range bundles {
			held := whole.GetVerificationMaterial().GetTlogEntries()[0].GetCanonicalizedBody()
			b := proto.CloneOf(whole)
			e := b.GetVerificationMaterial().GetTlogEntries()[0]
			e.CanonicalizedBody, e.KindVersion = body, &protorekor.KindVersion{Kind: kind, Version: version}
			e.InclusionProof.Checkpoint = &protorekor.Checkpoint{Envelope: checkpoint}
			if e.GetInclusionPromise() != nil {
				e.InclusionPromise = &protorekor.InclusionPromise{SignedEntryTimestamp: promise}
			}
			line, err := protojson.Marshal(b)
			if err != nil {
				return // not UTF-8
			}
			signed, err := statement.Parse(line)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := v.Verify(signed, carol); err == nil && !bytes.Equal(body, held) {
				t.Errorf("verifies with the entry %q, and the log holds %q", body, held)
			}
		}
	})
}
