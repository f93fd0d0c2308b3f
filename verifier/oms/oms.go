// Package oms reads and writes OpenSSF Model Signing (OMS v1.0) manifests: which files weights consist of, and the
// digest of each file or shard.
//
// The one rule: a [Manifest] can't be wrong about itself. [ParseManifest] is the only way to get one, and whatever it
// accepts has clean, unique names below the model's directory, covers each file from its first byte to its last
// without gap or overlap, and hashes to the root that was signed. Whether the signature is anyone's is not its
// business (package statement), nor whether files on disk are the listed ones (package verifier).
//
// The package does no I/O and has no clock.
package oms

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/weighbridge/weighbridge/verifier/digest"
	"github.com/weighbridge/weighbridge/verifier/statement"
)

// PredicateType is the only predicate that is read or written. The layout before 1.0, with its digests in subject[],
// is refused: it names neither the hash nor what was left out.
const PredicateType = "https://model_signing/signature/v1.0"

// The ways to cut a model into resources (OMS v1.0 section 6.3).
const (
	MethodFiles  = "files"  // one digest per file
	MethodShards = "shards" // one digest per range of shard_size bytes; an empty file has none
)

// SingleFile is the name of the only file of a model that is a file and not a directory.
const SingleFile = "."

// GitPaths lie outside every signature when they are at the top of the model (OMS v1.0 section 6.2), unless listed.
var GitPaths = []string{".git", ".gitattributes", ".github", ".gitignore"}

// A Manifest lists the files of a model with their digests. It is immutable.
type Manifest struct {
	root      string
	files     []File
	byName    map[string]int
	ignored   map[string]bool
	ser       Serialization
	resources int
}

// A File is one listed file. Its parts are in order and cover it.
type File struct {
	Name  string // slash-separated, relative to the model's directory; SingleFile for a single-file model
	Parts []digest.Part
}

// A Resource is one entry of the manifest as it stands on the wire.
type Resource struct {
	Name      string // "weights.bin", or "weights.bin:0:1000000" for a shard
	Algorithm string
	Digest    string // lower-case hex
}

// Serialization says how the model was enumerated and cut.
type Serialization struct {
	Method        string // MethodFiles or MethodShards
	HashType      digest.Algorithm
	ShardSize     int64 // bytes; 0 with MethodFiles
	AllowSymlinks bool
	IgnorePaths   []string
}

// ParseManifest reads the manifest in a statement about weights. It does not look at the signature.
func ParseManifest(s *statement.Signed) (*Manifest, error) {
	if t := s.PredicateType(); t != PredicateType {
		return nil, fmt.Errorf("read manifest: predicate type is %q, want %q", t, PredicateType)
	}
	var w wirePredicate
	if err := statement.Unmarshal(s.Predicate(), &w); err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	ser, err := w.Serialization.parse()
	if err != nil {
		return nil, fmt.Errorf("read manifest: serialization: %w", err)
	}
	resources := make([]Resource, 0, min(len(w.Resources), MaxResources))
	for i, r := range w.Resources {
		if err := r.check(); err != nil {
			return nil, fmt.Errorf("read manifest: resource %d: %w", i+1, err)
		}
		resources = append(resources, Resource{r.Name, r.Algorithm, r.Digest})
	}
	m, err := newManifest(resources, ser)
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	name, signed := s.Subject()
	switch {
	case m.root != "sha256:"+signed:
		return nil, fmt.Errorf("read manifest: the resources hash to %s, but the subject says sha256:%s", m.root, signed)
	case name == "":
		// Section 6.5: whatever it is, it has one. It says nothing, and is compared with nothing.
		return nil, fmt.Errorf("read manifest: the subject has no name")
	}
	return m, nil
}

// NewPayload returns the statement to sign for a model, after checking that [ParseManifest] will accept it. Resources
// are put into the order of the specification.
func NewPayload(modelName string, resources []Resource, ser Serialization) ([]byte, error) {
	if modelName == "" {
		return nil, fmt.Errorf("make manifest: the model has no name")
	}
	sorted := inOrder(resources)
	m, err := newManifest(sorted, ser)
	if err != nil {
		return nil, fmt.Errorf("make manifest: %w", err)
	}
	payload, err := statement.New(PredicateType, modelName, strings.TrimPrefix(m.root, "sha256:"), newWire(sorted, ser))
	if err != nil {
		return nil, fmt.Errorf("make manifest: %w", err)
	}
	return payload, nil
}

// Root returns the root digest, "sha256:…", that [NewPayload] gives the same model.
func Root(resources []Resource, ser Serialization) (string, error) {
	m, err := newManifest(inOrder(resources), ser)
	if err != nil {
		return "", fmt.Errorf("make manifest: %w", err)
	}
	return m.root, nil
}

// inOrder sorts by the code points of the names (OMS v1.0 section 5.2.1), which is the order of their UTF-8 bytes.
func inOrder(resources []Resource) []Resource {
	return slices.SortedFunc(slices.Values(resources), func(a, b Resource) int { return strings.Compare(a.Name, b.Name) })
}

// Root returns "sha256:" and the hex SHA-256 over the raw digests in listed order: the name of these weights.
func (m *Manifest) Root() string { return m.root }

// Files returns the listed files, sorted by name.
func (m *Manifest) Files() []File { return slices.Clone(m.files) }

// File returns the listed file of that name.
func (m *Manifest) File(name string) (File, bool) {
	i, ok := m.byName[name]
	if !ok {
		return File{}, false
	}
	return m.files[i], true
}

// Single returns the one file of a single-file model. Signers name it "." or by its base name, so a directory with one
// file at its top looks the same.
func (m *Manifest) Single() (File, bool) {
	if len(m.files) != 1 || strings.Contains(m.files[0].Name, "/") {
		return File{}, false
	}
	return m.files[0], true
}

// Ignores reports whether the signer left the path, or a directory above it, out of the signature. It never holds for
// a listed file.
func (m *Manifest) Ignores(name string) bool { return covered(m.ignored, name) }

// Algorithm returns the hash of the files or shards.
func (m *Manifest) Algorithm() digest.Algorithm { return m.ser.HashType }

// Method returns MethodFiles or MethodShards.
func (m *Manifest) Method() string { return m.ser.Method }

// ShardSize returns the size of a shard in bytes, 0 with MethodFiles.
func (m *Manifest) ShardSize() int64 { return m.ser.ShardSize }

// AllowSymlinks reports whether the signer followed symbolic links.
func (m *Manifest) AllowSymlinks() bool { return m.ser.AllowSymlinks }

// IgnorePaths returns the paths that the signer left out.
func (m *Manifest) IgnorePaths() []string { return slices.Clone(m.ser.IgnorePaths) }

// Resources returns the number of entries in the manifest.
func (m *Manifest) Resources() int { return m.resources }

// newManifest holds every check that makes a Manifest true, for reading and for writing.
func newManifest(resources []Resource, ser Serialization) (*Manifest, error) {
	switch {
	case len(resources) == 0:
		return nil, fmt.Errorf("no resource is listed, so nothing would be verified")
	case len(resources) > MaxResources:
		return nil, fmt.Errorf("%d resources, want at most %d", len(resources), MaxResources)
	}
	ignored, err := ser.check()
	if err != nil {
		return nil, fmt.Errorf("serialization: %w", err)
	}
	m := &Manifest{byName: map[string]int{}, ignored: ignored, ser: ser, resources: len(resources)}
	m.ser.IgnorePaths = slices.Clone(ser.IgnorePaths)
	root := sha256.New()
	parts := map[string][]digest.Part{}
	for i, r := range resources {
		name, part, err := r.parse(ser)
		if err != nil {
			return nil, fmt.Errorf("resource %d: %q: %w", i+1, r.Name, err)
		}
		root.Write(part.Sum)
		if ser.Method == MethodFiles && parts[name] != nil {
			return nil, fmt.Errorf("resource %d: %q is listed twice", i+1, r.Name)
		}
		parts[name] = append(parts[name], part)
	}
	m.root = "sha256:" + hex.EncodeToString(root.Sum(nil))
	for name, p := range parts {
		if err := m.checkFile(name, p, parts); err != nil {
			return nil, fmt.Errorf("file %q: %w", name, err)
		}
		m.files = append(m.files, File{name, p})
	}
	slices.SortFunc(m.files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	for i, f := range m.files {
		m.byName[f.Name] = i
	}
	return m, nil
}

// checkFile checks one file against all others, and orders its parts.
func (m *Manifest) checkFile(name string, parts []digest.Part, all map[string][]digest.Part) error {
	if name == SingleFile && len(all) > 1 {
		return fmt.Errorf("the name of a single-file model, but %d files are listed", len(all))
	}
	if covered(m.ignored, name) {
		// What is ignored is not looked at, what is listed must be: a signature that says both is no promise.
		return fmt.Errorf("both listed and in ignore_paths")
	}
	for dir := parent(name); dir != ""; dir = parent(dir) {
		if all[dir] != nil {
			return fmt.Errorf("lies in %q, which is listed as a file", dir)
		}
	}
	if m.ser.Method == MethodFiles {
		return nil
	}
	return checkShards(parts, m.ser.ShardSize)
}

// checkShards orders the shards of one file. They cover it without gap or overlap, each shard_size bytes long but for
// the last (OMS v1.0 section 6.3.2).
func checkShards(parts []digest.Part, size int64) error {
	slices.SortFunc(parts, func(a, b digest.Part) int {
		return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.End, b.End))
	})
	var at int64
	for i, p := range parts {
		switch {
		case p.Start != at:
			return fmt.Errorf("shard %q starts at byte %d, want %d: shards leave a gap or overlap", p.Name, p.Start, at)
		case p.End-p.Start > size, p.End-p.Start < size && i < len(parts)-1:
			return fmt.Errorf("shard %q has %d bytes, want %d", p.Name, p.End-p.Start, size)
		}
		at = p.End
	}
	return nil
}
