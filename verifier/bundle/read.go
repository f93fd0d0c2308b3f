package bundle

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/weighbridge/weighbridge/verifier/statement"
)

// A Bundle is an open archive. All that is small was read and hashed; weights are read when they are put somewhere.
type Bundle struct {
	Policies   [][]*statement.Signed // each with its bundles, in no order
	Statements []*statement.Signed   // in the order in which they become visible

	file    *os.File
	blobs   map[string]span              // by hex digest
	small   int64                        // bytes read into memory so far
	weights map[string]map[string]string // hex digests, by the root that is claimed and the file's name: an index, no more
}

// A span is where a blob lies in the archive.
type span struct{ start, size int64 }

// Open reads an archive. Whatever is wrong with it is [ErrMalformed]; nothing is trusted but for its form.
func Open(path string) (_ *Bundle, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("open bundle %s: %w", path, err)
			f.Close()
		}
	}()
	b := &Bundle{file: f, blobs: map[string]span{}, weights: map[string]map[string]string{}}
	index, err := b.scan()
	if err != nil {
		return nil, err
	}
	for _, d := range index.Manifests {
		if err := b.manifest(d); err != nil {
			return nil, fmt.Errorf("manifest %.100q: %w", d.Digest, err)
		}
	}
	b.Statements = inOrder(b.Statements)
	return b, nil
}

// Close lets the archive go.
func (b *Bundle) Close() error { return b.file.Close() }

var blobForm = regexp.MustCompile(`^blobs/sha256/[0-9a-f]{64}$`)

// scan finds every blob, and reads the index.
func (b *Bundle) scan() (index ocispec.Index, err error) {
	var layout, listed []byte
	in := tar.NewReader(b.file)
	for entries := 0; ; entries++ {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		switch {
		case err != nil:
			return index, fmt.Errorf("%w: %w", ErrMalformed, err)
		case entries >= maxEntries:
			return index, fmt.Errorf("%w: more than %d entries", ErrMalformed, maxEntries)
		case h.Typeflag == tar.TypeDir:
			continue
		case h.Typeflag != tar.TypeReg || sparse(h):
			return index, fmt.Errorf("%w: %.200q is not a plain file", ErrMalformed, h.Name)
		}
		switch name := strings.TrimPrefix(h.Name, "./"); {
		case name == layoutName && layout == nil:
			layout, err = b.readEntry(in, h.Size)
		case name == indexName && listed == nil:
			listed, err = b.readEntry(in, h.Size)
		case blobForm.MatchString(name):
			err = b.locate(strings.TrimPrefix(name, blobPrefix), h.Size)
		default:
			err = fmt.Errorf("%w: %.200q is no part of an OCI image layout, or stands in it twice", ErrMalformed, h.Name)
		}
		if err != nil {
			return index, err
		}
	}
	var version ocispec.ImageLayout
	if err := decode(layout, &version); err != nil || version.Version != ocispec.ImageLayoutVersion {
		return index, fmt.Errorf("%w: no %s of version %s in it", ErrMalformed, layoutName, ocispec.ImageLayoutVersion)
	}
	if err := decode(listed, &index); err != nil {
		return index, fmt.Errorf("%s: %w", indexName, err)
	}
	return index, nil
}

// sparse reports whether an entry's bytes are not those that lie in the archive.
func sparse(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

func (b *Bundle) readEntry(in io.Reader, size int64) ([]byte, error) {
	if err := b.reserve(size, maxManifest); err != nil {
		return nil, err
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(in, data); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return data, nil
}

// reserve bounds what is read into memory.
func (b *Bundle) reserve(size, most int64) error {
	switch b.small += size; {
	case size > most:
		return fmt.Errorf("%w: %d bytes are too many here: at most %d", ErrMalformed, size, most)
	case b.small > maxSmall:
		return fmt.Errorf("%w: all that is no weights has more than %d bytes", ErrMalformed, maxSmall)
	}
	return nil
}

// locate notes where the entry's bytes lie: the archive's reader has read its header, and no more.
func (b *Bundle) locate(sum string, size int64) error {
	start, err := b.file.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if _, twice := b.blobs[sum]; twice {
		return fmt.Errorf("%w: blob %s stands in it twice", ErrMalformed, sum)
	}
	b.blobs[sum] = span{start, size}
	return nil
}

// decode reads JSON as OCI has it: unknown members are passed over, names twice are not.
func decode(data []byte, into any) error {
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return nil
}

// whole returns the hex digest of a described blob, and where it lies with all its bytes. Nothing is asked of a digest
// before it was checked: its methods panic on what is none.
func (b *Bundle) whole(d ocispec.Descriptor) (sum string, at span, err error) {
	if d.Digest.Validate() != nil || d.Digest.Algorithm() != digest.SHA256 {
		return "", span{}, fmt.Errorf("%w: %.100q is no SHA-256 digest", ErrMalformed, d.Digest)
	}
	sum = d.Digest.Encoded()
	at, there := b.blobs[sum]
	switch {
	case !there:
		return "", span{}, fmt.Errorf("%w: blob %s is not in it", ErrMalformed, sum)
	case at.size != d.Size:
		return "", span{}, fmt.Errorf("%w: blob %s has %d bytes, want %d", ErrMalformed, sum, at.size, d.Size)
	}
	return sum, at, nil
}

// blob reads a small blob, of so many bytes at most, and checks it against its name.
func (b *Bundle) blob(d ocispec.Descriptor, most int64) ([]byte, error) {
	sum, at, err := b.whole(d)
	if err != nil {
		return nil, err
	}
	if err := b.reserve(at.size, most); err != nil {
		return nil, err
	}
	data := make([]byte, at.size)
	if _, err := b.file.ReadAt(data, at.start); err != nil {
		return nil, fmt.Errorf("%w: blob %s: %w", ErrMalformed, sum, err)
	}
	if got := sha256.Sum256(data); hex.EncodeToString(got[:]) != sum {
		return nil, fmt.Errorf("%w: blob %s hashes to %x: it was changed on its way", ErrMalformed, sum, got)
	}
	return data, nil
}

// manifest reads one manifest and what it lists. Kinds that are not known are passed over: OCI lets others stand beside.
func (b *Bundle) manifest(d ocispec.Descriptor) error {
	if d.MediaType != ocispec.MediaTypeImageManifest {
		return nil
	}
	data, err := b.blob(d, maxManifest)
	if err != nil {
		return err
	}
	var m ocispec.Manifest
	if err := decode(data, &m); err != nil {
		return err
	}
	switch m.ArtifactType {
	case modelArtifact:
		return b.model(m)
	case statementArtifact, policyArtifact:
		if len(m.Layers) != 1 {
			return fmt.Errorf("%w: %d layers, want 1", ErrMalformed, len(m.Layers))
		}
		lines, err := b.blob(m.Layers[0], maxLayer)
		if err != nil {
			return err
		}
		set, err := statement.ParseLines(lines)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		if m.ArtifactType == policyArtifact {
			b.Policies = append(b.Policies, set)
		} else {
			b.Statements = append(b.Statements, set...)
		}
	}
	return nil
}

func (b *Bundle) model(m ocispec.Manifest) error {
	root := m.Annotations[rootAnnotation]
	if b.weights[root] == nil {
		b.weights[root] = map[string]string{}
	}
	for _, l := range m.Layers {
		name := l.Annotations[filepathAnnotation]
		sum, _, err := b.whole(l)
		switch {
		case err != nil:
			return fmt.Errorf("file %.200q of weights %.80q: %w", name, root, err)
		case name == "":
			return fmt.Errorf("%w: a file of weights %.80q has no name", ErrMalformed, root)
		}
		b.weights[root][name] = sum
	}
	return nil
}

// Holds reports whether there are weights of that root in the bundle, as far as it says.
func (b *Bundle) Holds(root string) bool { return len(b.weights[root]) > 0 }

// find returns where a file of weights lies.
func (b *Bundle) find(root, name string) (span, string, error) {
	sum, there := b.weights[root][name]
	if !there {
		return span{}, "", fmt.Errorf("%w: file %.200q of weights %s is not in it", ErrMalformed, name, root)
	}
	return b.blobs[sum], sum, nil
}

// sameBytes reports whether two bundles of statements are the same.
func sameBytes(a, b *statement.Signed) bool { return bytes.Equal(a.Bundle(), b.Bundle()) }
