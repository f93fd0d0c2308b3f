// Package sigstore holds the public instances of Sigstore as files: production, which is sigstore.dev, and staging, where
// its makers try things out.
//
// The one rule: no instance is trusted for being here. Commands trust the files that are named to them, and these may be
// named, by --trusted-root and --signing-config, once they are held against what the instance itself publishes. They are
// those that sigstore-python 4.5.1 carries (sigstore/_store, Apache License 2.0), unchanged; an instance that changes its
// keys since needs newer ones. README says where those are.
package sigstore

import "embed"

// Files are the directories of the instances, production and staging, with trusted_root.json and signing_config.json each.
//
//go:embed production staging
var Files embed.FS
