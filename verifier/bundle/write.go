package bundle

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/weighbridge/weighbridge/verifier"
	"github.com/weighbridge/weighbridge/verifier/oms"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// Contents are what [Write] packs.
type Contents struct {
	Policies   [][]*statement.Signed // each with its bundles, oldest version first
	Statements []*statement.Signed
	Weights    []Weights
}

// Weights are the files of a model and their signature.
type Weights struct {
	Path      string // a file or a directory
	Signature *statement.Signed
	Name      string // of the model, for people
}

// Write packs contents. It checks the weights first, and again while it writes them: a bundle is not made of what its
// receivers would refuse.
func Write(ctx context.Context, to io.Writer, c Contents) error {
	w := &writer{subjects: map[string]ocispec.Descriptor{}}
	for _, weights := range c.Weights {
		if err := w.model(ctx, weights); err != nil {
			return fmt.Errorf("bundle weights %s: %w", weights.Path, err)
		}
	}
	releases := map[string]string{} // id of a release to the root of its weights
	for _, s := range c.Statements {
		if s.PredicateType() == trust.ReleaseType {
			_, root := s.Subject()
			releases[s.ID().Hex()] = root
		}
	}
	for _, s := range inOrder(c.Statements) {
		_, about := s.Subject()
		subject, known := w.subjects[about]
		if !known {
			subject, known = w.subjects[releases[about]]
		}
		if !known {
			subject = ocispec.Descriptor{}
		}
		if err := w.artifact(statementArtifact, s.Bundle(), subject); err != nil {
			return err
		}
	}
	for _, policy := range c.Policies {
		var lines bytes.Buffer
		for _, s := range policy {
			lines.Write(s.Bundle())
		}
		if err := w.artifact(policyArtifact, lines.Bytes(), ocispec.Descriptor{}); err != nil {
			return err
		}
	}
	return w.flush(ctx, to)
}

// writer gathers what goes into the archive: everything small, then the files of weights.
type writer struct {
	small    map[digest.Digest][]byte
	order    []digest.Digest
	files    []weightFile
	index    ocispec.Index
	subjects map[string]ocispec.Descriptor // by hex root
}

type weightFile struct {
	path string
	ocispec.Descriptor
}

// add keeps a small blob, once.
func (w *writer) add(mediaType string, data []byte) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	if w.small == nil {
		w.small = map[digest.Digest][]byte{}
	}
	if _, there := w.small[d.Digest]; !there {
		w.small[d.Digest] = data
		w.order = append(w.order, d.Digest)
	}
	return d
}

// manifest keeps a manifest and lists it in the index.
func (w *writer) manifest(m ocispec.Manifest) (ocispec.Descriptor, error) {
	m.Versioned, m.MediaType = specs.Versioned{SchemaVersion: 2}, ocispec.MediaTypeImageManifest
	data, err := json.Marshal(m, json.Deterministic(true))
	if err != nil {
		return ocispec.Descriptor{}, fmt.Errorf("write manifest: %w", err)
	}
	d := w.add(ocispec.MediaTypeImageManifest, data)
	d.ArtifactType = m.ArtifactType
	if !slices.ContainsFunc(w.index.Manifests, func(have ocispec.Descriptor) bool { return have.Digest == d.Digest }) {
		w.index.Manifests = append(w.index.Manifests, d)
	}
	return d, nil
}

// artifact keeps one blob under a manifest of its own, which refers to a subject if it has one (image-spec, guidelines
// for artifact usage).
func (w *writer) artifact(kind string, data []byte, subject ocispec.Descriptor) error {
	m := ocispec.Manifest{
		ArtifactType: kind,
		Config:       w.add(ocispec.MediaTypeEmptyJSON, []byte("{}")),
		Layers:       []ocispec.Descriptor{w.add(kind, data)},
	}
	if subject.Digest != "" {
		m.Subject = &subject
	}
	_, err := w.manifest(m)
	return err
}

// model keeps the manifest of weights, by ModelPack, and remembers their files.
func (w *writer) model(ctx context.Context, weights Weights) error {
	m, err := oms.ParseManifest(weights.Signature)
	if err != nil {
		return err
	}
	root := strings.TrimPrefix(m.Root(), "sha256:")
	if _, there := w.subjects[root]; there {
		return nil
	}
	if _, err := verifier.Verify(ctx, weights.Path, m, verifier.Options{IgnoreUnsigned: true}); err != nil {
		return err
	}
	var layers []ocispec.Descriptor
	var ids []digest.Digest
	for _, f := range m.Files() {
		path := weights.Path
		if f.Name != oms.SingleFile {
			path = filepath.Join(weights.Path, filepath.FromSlash(f.Name))
		}
		d, err := describe(ctx, path)
		if err != nil {
			return err
		}
		d.MediaType, d.Annotations = modelWeights, map[string]string{filepathAnnotation: f.Name}
		layers, ids = append(layers, d), append(ids, d.Digest)
		w.files = append(w.files, weightFile{path, d})
	}
	config, err := json.Marshal(map[string]any{
		"descriptor": map[string]any{"name": weights.Name},
		"modelfs":    map[string]any{"type": "layers", "diffIds": ids},
		"config":     map[string]any{},
	}, json.Deterministic(true))
	if err != nil {
		return err
	}
	w.subjects[root], err = w.manifest(ocispec.Manifest{
		ArtifactType: modelArtifact,
		Config:       w.add(modelConfig, config),
		Layers:       layers,
		Annotations:  map[string]string{rootAnnotation: m.Root()},
	})
	return err
}

// describe hashes a file.
func describe(ctx context.Context, path string) (ocispec.Descriptor, error) {
	f, err := os.Open(path)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, until(ctx, f))
	return ocispec.Descriptor{Digest: digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(h.Sum(nil))), Size: n}, err
}

// reader is a function that reads.
type reader func(p []byte) (int, error)

func (r reader) Read(p []byte) (int, error) { return r(p) }

// until reads r until ctx ends.
func until(ctx context.Context, r io.Reader) io.Reader {
	return reader(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return r.Read(p)
	})
}

func (w *writer) flush(ctx context.Context, to io.Writer) error {
	w.index.Versioned, w.index.MediaType = specs.Versioned{SchemaVersion: 2}, ocispec.MediaTypeImageIndex
	if w.index.Manifests == nil {
		return errors.New("bundle: there is nothing to put into it")
	}
	index, err := json.Marshal(w.index, json.Deterministic(true))
	if err != nil {
		return fmt.Errorf("write index: %w", err)
	}
	out := tar.NewWriter(to)
	put := func(name string, data []byte) error {
		return errors.Join(entry(out, name, int64(len(data))), write(out, data))
	}
	if err := errors.Join(put(layoutName, []byte(`{"imageLayoutVersion":"1.0.0"}`)), put(indexName, index)); err != nil {
		return err
	}
	for _, d := range w.order {
		if err := put(blobPrefix+d.Encoded(), w.small[d]); err != nil {
			return err
		}
	}
	written := map[digest.Digest]bool{}
	for _, f := range w.files {
		if _, small := w.small[f.Digest]; small || written[f.Digest] {
			continue // one blob, however many names it has
		}
		written[f.Digest] = true
		if err := copyFile(ctx, out, f); err != nil {
			return fmt.Errorf("bundle %s: %w", f.path, err)
		}
	}
	return out.Close()
}

func write(to io.Writer, data []byte) error {
	_, err := to.Write(data)
	return err
}

func entry(out *tar.Writer, name string, size int64) error {
	return out.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: name, Size: size, Mode: int64(fs.FileMode(0o644)), ModTime: time.Unix(0, 0), Format: tar.FormatPAX,
	})
}

// copyFile writes a file that must be the one that was described.
func copyFile(ctx context.Context, out *tar.Writer, f weightFile) error {
	in, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := entry(out, blobPrefix+f.Digest.Encoded(), f.Size); err != nil {
		return err
	}
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(out, h), until(ctx, io.LimitReader(in, f.Size))); err != nil {
		return err
	}
	if hex.EncodeToString(h.Sum(nil)) != f.Digest.Encoded() {
		return errors.New("it changed while it was read")
	}
	return nil
}
