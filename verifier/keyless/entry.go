package keyless

import (
	"crypto"
	"crypto/ecdsa"
	"fmt"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/weighbridge/weighbridge/verifier/statement"
)

// checkKind wants an entry to be of the kind that it says: the library goes by what the log holds, others by what is said.
func checkKind(entry *protorekor.TransparencyLogEntry) error {
	var held struct {
		Kind    string `json:"kind"`
		Version string `json:"apiVersion"`
	}
	if err := json.Unmarshal(entry.GetCanonicalizedBody(), &held); err != nil {
		return fmt.Errorf("read log entry: %w", err)
	}
	if said := entry.GetKindVersion(); said.GetKind() != held.Kind || said.GetVersion() != held.Version {
		return fmt.Errorf("the log entry is a %.80q %.80q, and says that it is a %.80q %.80q", held.Kind, held.Version, said.GetKind(), said.GetVersion())
	}
	return nil
}

// hashes are those that go with the keys of certificates: the hash is as strong as the curve.
var hashes = map[int]struct {
	hash crypto.Hash
	id   protocommon.HashAlgorithm
	name string
}{
	256: {crypto.SHA256, protocommon.HashAlgorithm_SHA2_256, "sha256"},
	384: {crypto.SHA384, protocommon.HashAlgorithm_SHA2_384, "sha384"},
	521: {crypto.SHA512, protocommon.HashAlgorithm_SHA2_512, "sha512"},
}

// asMessage changes a bundle whose entries are hashedrekords of version 1, and returns how to name what was signed; nil for
// any other. A log may hold a statement like that, by the hash of what its signature is over (Sigstore's client
// specification allows it), but the library compares such an entry with a message signature alone. The two are one: the
// envelope's signature is the message's whose bytes are the envelope's pre-authentication encoding (DSSE section 2).
func asMessage(b *protobundle.Bundle, s *statement.Signed) verify.ArtifactPolicyOption {
	entries := b.GetVerificationMaterial().GetTlogEntries()
	plain := func(e *protorekor.TransparencyLogEntry) bool {
		return e.GetKindVersion().GetKind() == "hashedrekord" && e.GetKindVersion().GetVersion() == "0.0.1"
	}
	key, ok := s.Certificates()[0].PublicKey.(*ecdsa.PublicKey)
	if !ok || len(entries) == 0 || slices.ContainsFunc(entries, func(e *protorekor.TransparencyLogEntry) bool { return !plain(e) }) {
		return nil
	}
	with, ok := hashes[key.Curve.Params().BitSize]
	if !ok {
		return nil
	}
	h := with.hash.New()
	h.Write(dsse.PAE(statement.PayloadType, s.Payload()))
	sum := h.Sum(nil)
	b.Content = &protobundle.Bundle_MessageSignature{MessageSignature: &protocommon.MessageSignature{
		MessageDigest: &protocommon.HashOutput{Algorithm: with.id, Digest: sum}, Signature: s.Signature(),
	}}
	return verify.WithArtifactDigest(with.name, sum)
}
