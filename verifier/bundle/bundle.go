// Package bundle carries releases to a site without a network, in one file: weights, statements and policies in an OCI
// image layout (image-spec v1.1) in a tar archive, with the media types of the CNCF ModelPack specification.
//
// The one rule: a bundle proves nothing. Names and annotations in it only say where to look; blobs are checked against
// the digests that name them, weights against the manifest that a release signed, and what a statement or a policy is
// worth is decided as if it had come by any other road. So whoever carries the file can lose it or spoil it, no more.
//
//	err := bundle.Write(ctx, file, bundle.Contents{…})
//
//	b, err := bundle.Open(path)    // reads what is small, and hashes it
//	defer b.Close()
//	err = b.PutWeights(ctx, dir, signature)   // for each release that may serve
//	err = b.PutStatements(dir)                // makes them visible, so it comes last
package bundle

import (
	"errors"
	"slices"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// Names in an archive and in its manifests.
const (
	layoutName = "oci-layout"
	indexName  = "index.json"
	blobPrefix = "blobs/sha256/"

	modelArtifact     = "application/vnd.cncf.model.manifest.v1+json"
	modelConfig       = "application/vnd.cncf.model.config.v1+json"
	modelWeights      = "application/vnd.cncf.model.weight.v1.raw"
	statementArtifact = statement.MediaType
	policyArtifact    = "application/vnd.weighbridge.policy.v1+jsonl"

	filepathAnnotation = "org.cncf.model.filepath"
	rootAnnotation     = "io.weighbridge.weights.root"
)

// ErrMalformed means that a file is no bundle, or was changed on its way: get it again.
var ErrMalformed = errors.New("malformed bundle")

// order is the order in which statements become visible: what allows comes before what changes what serves, and what
// takes away comes first of all.
var order = []string{
	trust.WithdrawalType, trust.ReleaseType, trust.EvaluationType, trust.ApprovalType, trust.PublicationType,
}

// inOrder sorts statements by [order], and by id: two bundles with the same contents are the same.
func inOrder(set []*statement.Signed) []*statement.Signed {
	rank := func(s *statement.Signed) int {
		if at := slices.Index(order, s.PredicateType()); at >= 0 {
			return at
		}
		return len(order)
	}
	return slices.SortedFunc(slices.Values(set), func(a, b *statement.Signed) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return slices.Compare(a.Bundle(), b.Bundle())
	})
}
