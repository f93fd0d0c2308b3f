// Package oms reads and writes OpenSSF Model Signing v1.0 manifests.
//
// The one rule: a [Manifest] parsed here is well-formed and unambiguous, or it is
// refused. Every name is a clean relative path that occurs once, shards cover their
// file without gap or overlap, and the root digest is recomputed in listed order.
package oms
