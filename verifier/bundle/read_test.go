package bundle_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/weighbridge/weighbridge/verifier/bundle"
	"github.com/weighbridge/weighbridge/verifier/statement"
)

// An archive is a bundle of weights and a statement about them, from its parts, for tests to break one.
type archive struct {
	layout           string
	model, statement ocispec.Manifest
	blobs            map[string]string // what stands under a hex digest, whatever it hashes to

	first     []byte               // what stands before all else
	index     func(*ocispec.Index) // breaks what lists the manifests
	manifests []string             // instead of those of model and statement
	listing   string               // instead of the index
	entries   func(*tar.Writer)    // adds to the end
}

// line is a statement that nobody signed, the same in every process.
var line = fmt.Sprintf(`{"mediaType":%q,"verificationMaterial":{"publicKey":{"hint":"00"}},"dsseEnvelope":{"payloadType":%q,"payload":%q,"signatures":[{"sig":"AAAA"}]}}`+"\n",
	statement.MediaType, statement.PayloadType, base64.StdEncoding.EncodeToString([]byte(
		`{"_type":"https://in-toto.io/Statement/v1","predicate":{},"predicateType":"https://example.com/v1","subject":[{"digest":{"sha256":"`+strings.Repeat("ab", 32)+`"},"name":""}]}`)))

// newArchive makes a good one.
func newArchive() *archive {
	a := &archive{layout: `{"imageLayoutVersion":"1.0.0"}`, blobs: map[string]string{}, index: func(*ocispec.Index) {}, entries: func(*tar.Writer) {}}
	empty := a.add(ocispec.MediaTypeEmptyJSON, "{}")
	weights := a.add("application/vnd.cncf.model.weight.v1.raw", "weights")
	weights.Annotations = map[string]string{"org.cncf.model.filepath": "chat.gguf"}
	a.model = ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, ArtifactType: "application/vnd.cncf.model.manifest.v1+json",
		Config: empty, Layers: []ocispec.Descriptor{weights}, Annotations: map[string]string{"io.weighbridge.weights.root": "sha256:00"},
	}
	a.statement = ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest, ArtifactType: statement.MediaType,
		Config: empty, Layers: []ocispec.Descriptor{a.add(statement.MediaType, line)},
	}
	return a
}

func (a *archive) add(mediaType, data string) ocispec.Descriptor {
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromString(data), Size: int64(len(data))}
	a.blobs[d.Digest.Encoded()] = data
	return d
}

// bytes packs the archive.
func (a *archive) bytes(t testing.TB) []byte {
	t.Helper()
	if a.manifests == nil {
		a.manifests = []string{marshal(t, a.model), marshal(t, a.statement)}
	}
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	for _, m := range a.manifests {
		index.Manifests = append(index.Manifests, a.add(ocispec.MediaTypeImageManifest, m))
	}
	a.index(&index)
	if a.listing == "" {
		a.listing = marshal(t, index)
	}
	file := bytes.NewBuffer(a.first)
	out := tar.NewWriter(file)
	put(out, "oci-layout", a.layout)
	put(out, "index.json", a.listing)
	for _, name := range slices.Sorted(maps.Keys(a.blobs)) {
		put(out, "blobs/sha256/"+name, a.blobs[name])
	}
	a.entries(out)
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

func marshal(t testing.TB, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// put adds a file, or nothing where its name can't stand in an archive.
func put(out *tar.Writer, name, data string) {
	if out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(data)), Mode: 0o644}) == nil {
		out.Write([]byte(data))
	}
}

// entry is a file in an archive, as something that [tar.Writer] would not write.
func entry(name, data string, flag byte) []byte {
	var file bytes.Buffer
	out := tar.NewWriter(&file)
	put(out, name, data)
	out.Flush()
	header := file.Bytes()[:min(512, file.Len())]
	if len(header) == 0 {
		return nil
	}
	header[156] = flag
	copy(header[148:156], strings.Repeat(" ", 8)) // as which it counts in the checksum
	var sum int
	for _, c := range header {
		sum += int(c)
	}
	copy(header[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return file.Bytes()
}

// checkOpen opens an archive, which it writes to path, and wants of it what holds for whatever anybody made one of: it is malformed, or its
// statements are well-formed and its weights lie in it.
func checkOpen(t testing.TB, path string, data []byte) error {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Open(path)
	if err != nil {
		if !errors.Is(err, bundle.ErrMalformed) {
			t.Errorf("Open = %v, want %v", err, bundle.ErrMalformed)
		}
		return err
	}
	defer b.Close()
	for _, s := range slices.Concat(append(b.Policies, b.Statements)...) {
		if _, err := statement.Parse(s.Bundle()); err != nil {
			t.Errorf("Open returns a statement that is none: %v", err)
		}
	}
	spans, err := b.Spans()
	if err != nil {
		t.Errorf("Open returns weights that are not in it: %v", err)
	}
	for _, s := range spans {
		if start, size := s[0], s[1]; start < 0 || size < 0 || start > int64(len(data))-size {
			t.Errorf("%d bytes of weights from %d on, and the archive has %d", size, start, len(data))
		}
	}
	return nil
}

// An alteration is one thing changed in a good archive.
type alteration struct {
	name  string
	edit  func(*archive)
	after func([]byte) []byte // once it is packed
	want  string              // why it is refused, "" if it is read
}

func (alt alteration) apply() *archive {
	a := newArchive()
	if alt.edit != nil {
		alt.edit(a)
	}
	return a
}

var altered = []alteration{
	{name: "whole"},
	{name: "a manifest's digest has no colon", edit: listed(func(d *ocispec.Descriptor) { d.Digest = "sha256" }), want: "no SHA-256 digest"},
	{name: "a manifest's digest is empty", edit: listed(func(d *ocispec.Descriptor) { d.Digest = "" }), want: "no SHA-256 digest"},
	{name: "a manifest is missing", edit: listed(func(d *ocispec.Descriptor) { d.Digest = digest.FromString("none") }), want: "is not in it"},
	{name: "a manifest's size is another", edit: listed(func(d *ocispec.Descriptor) { d.Size++ }), want: "bytes, want"},
	{name: "a manifest of another kind", edit: listed(func(d *ocispec.Descriptor) { d.MediaType, d.Digest = ocispec.MediaTypeImageIndex, "sha256" })},
	{name: "a statement's digest has no colon", edit: said(func(d *ocispec.Descriptor) { d.Digest = digest.Digest(d.Digest.Encoded()) }), want: "no SHA-256 digest"},
	{name: "a statement's digest is empty", edit: said(func(d *ocispec.Descriptor) { d.Digest = "" }), want: "no SHA-256 digest"},
	{name: "a statement's digest is in capitals", edit: said(func(d *ocispec.Descriptor) { d.Digest = digest.Digest("sha256:" + strings.ToUpper(d.Digest.Encoded())) }), want: "no SHA-256 digest"},
	{name: "a statement's digest is SHA-512", edit: func(a *archive) {
		a.statement.Layers[0].Digest = sha512Of(a.blobs[a.statement.Layers[0].Digest.Encoded()])
	}, want: "no SHA-256 digest"},
	{name: "a statement is missing", edit: said(func(d *ocispec.Descriptor) { d.Digest = digest.FromString("none") }), want: "is not in it"},
	{name: "a statement's size is another", edit: said(func(d *ocispec.Descriptor) { d.Size-- }), want: "bytes, want"},
	{name: "a statement was changed", edit: func(a *archive) {
		sum := a.statement.Layers[0].Digest.Encoded()
		a.blobs[sum] = strings.Replace(a.blobs[sum], "{", " ", 1)
	}, want: "it was changed on its way"},
	{name: "a statement is none", edit: func(a *archive) { a.statement.Layers[0] = a.add(statement.MediaType, "{}") }, want: "mediaType"},
	{name: "two statements under one manifest", edit: func(a *archive) { a.statement.Layers = append(a.statement.Layers, a.statement.Layers[0]) }, want: "2 layers, want 1"},
	{name: "no statement under a manifest", edit: func(a *archive) { a.statement.Layers = nil }, want: "0 layers, want 1"},
	{name: "a policy", edit: func(a *archive) { a.statement.ArtifactType = "application/vnd.weighbridge.policy.v1+jsonl" }},
	{name: "something else under a manifest", edit: func(a *archive) { a.statement.ArtifactType, a.statement.Layers[0].Digest = "text/plain", "sha256" }},
	{name: "a file's digest has no colon", edit: laden(func(d *ocispec.Descriptor) { d.Digest = digest.Digest(d.Digest.Encoded()) }), want: "no SHA-256 digest"},
	{name: "a file's digest is empty", edit: laden(func(d *ocispec.Descriptor) { d.Digest = "" }), want: "no SHA-256 digest"},
	{name: "a file's digest is SHA-512", edit: laden(func(d *ocispec.Descriptor) { d.Digest = sha512Of("weights") }), want: "no SHA-256 digest"},
	{name: "a file is named by its digest under another algorithm", edit: laden(func(d *ocispec.Descriptor) { d.Digest = digest.Digest("sha3:" + d.Digest.Encoded()) }), want: "no SHA-256 digest"},
	{name: "a file is missing", edit: laden(func(d *ocispec.Descriptor) { d.Digest = digest.FromString("none") }), want: "is not in it"},
	{name: "a file's size is another", edit: laden(func(d *ocispec.Descriptor) { d.Size++ }), want: "bytes, want"},
	{name: "a file's size is below zero", edit: laden(func(d *ocispec.Descriptor) { d.Size = -1 }), want: "bytes, want"},
	{name: "a file has no name", edit: laden(func(d *ocispec.Descriptor) { d.Annotations = nil }), want: "has no name"},
	{name: "a file was changed, which its reader finds", edit: func(a *archive) { a.blobs[a.model.Layers[0].Digest.Encoded()] = "Weights" }},
	{name: "no layout", edit: func(a *archive) { a.layout = "" }, want: "no oci-layout"},
	{name: "a layout of another version", edit: func(a *archive) { a.layout = `{"imageLayoutVersion":"2.0.0"}` }, want: "no oci-layout of version 1.0.0"},
	{name: "an index that stands in it twice", edit: extra("index.json", "{}"), want: "stands in it twice"},
	{name: "a blob that stands in it twice", edit: extra("blobs/sha256/"+digest.FromString("{}").Encoded(), "{}"), want: "stands in it twice"},
	{name: "a file elsewhere", edit: extra("../../etc/passwd", ""), want: "no part of an OCI image layout"},
	{name: "a blob of another algorithm", edit: extra("blobs/sha512/"+sha512Of("").Encoded(), ""), want: "no part of an OCI image layout"},
	{name: "a link", edit: func(a *archive) {
		a.entries = func(out *tar.Writer) {
			out.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "blobs/sha256/" + strings.Repeat("0", 64), Linkname: "/etc/passwd"})
		}
	}, want: "not a plain file"},
	{name: "a directory", edit: func(a *archive) {
		a.entries = func(out *tar.Writer) { out.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "blobs/"}) }
	}},
	{name: "a file whose bytes do not lie there, but in holes", edit: func(a *archive) {
		a.first = slices.Concat(entry("holes", holes, tar.TypeXHeader), entry("blobs/sha256/"+strings.Repeat("0", 64), "1\n0\n0\n"+strings.Repeat("\x00", 506), tar.TypeReg))
		a.model.Layers = append(a.model.Layers, ocispec.Descriptor{
			Digest: digest.Digest("sha256:" + strings.Repeat("0", 64)), Size: 9999999, Annotations: map[string]string{"org.cncf.model.filepath": "holes.gguf"},
		})
	}, want: "not a plain file"},
	{name: "a file's name leads elsewhere, and is only looked up", edit: laden(func(d *ocispec.Descriptor) { d.Annotations["org.cncf.model.filepath"] = "../../x" })},
	{name: "nothing", after: func([]byte) []byte { return nil }, want: "no oci-layout"},
	{name: "cut in its last file", after: func(data []byte) []byte { return data[:len(data)-1024-511] }, want: "EOF"},
	{name: "cut in its first header", after: func(data []byte) []byte { return data[:100] }, want: "EOF"},
}

// holes says that a file consists of nothing else (GNU tar, sparse format 1.0).
const holes = "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n31 GNU.sparse.realsize=9999999\n"

// listed changes what the index says of the first manifest.
func listed(edit func(*ocispec.Descriptor)) func(*archive) {
	return func(a *archive) { a.index = func(i *ocispec.Index) { edit(&i.Manifests[0]) } }
}

// said changes what a manifest says of the statement.
func said(edit func(*ocispec.Descriptor)) func(*archive) {
	return func(a *archive) { edit(&a.statement.Layers[0]) }
}

// laden changes what a manifest says of the file of weights.
func laden(edit func(*ocispec.Descriptor)) func(*archive) {
	return func(a *archive) { edit(&a.model.Layers[0]) }
}

func extra(name, data string) func(*archive) {
	return func(a *archive) { a.entries = func(out *tar.Writer) { put(out, name, data) } }
}

func sha512Of(data string) digest.Digest {
	sum := sha512.Sum512([]byte(data))
	return digest.NewDigestFromEncoded(digest.SHA512, hex.EncodeToString(sum[:]))
}

func TestOpen(t *testing.T) {
	for _, tt := range altered {
		t.Run(tt.name, func(t *testing.T) {
			data := tt.apply().bytes(t)
			if tt.after != nil {
				data = tt.after(data)
			}
			err := checkOpen(t, filepath.Join(t.TempDir(), "bundle.tar"), data)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Open = %v, want %q", err, tt.want)
			}
		})
	}
}

// TestOpenBounds goes up to each bound, with spaces, and one byte beyond.
func TestOpenBounds(t *testing.T) {
	for name, tt := range map[string]struct {
		most  int
		setUp func(t *testing.T, a *archive, size int)
	}{
		"statement": {statement.MaxBundle, func(_ *testing.T, a *archive, size int) {
			a.statement.Layers[0] = a.add(statement.MediaType, padded(line, size))
		}},
		"manifest": {bundle.MaxManifest, func(t *testing.T, a *archive, size int) {
			a.manifests = []string{padded(marshal(t, a.model), size)}
		}},
		"index": {bundle.MaxManifest, func(t *testing.T, a *archive, size int) {
			a.listing = padded(marshal(t, ocispec.Index{}), size)
		}},
	} {
		for size, want := range map[int]string{tt.most: "", tt.most + 1: "too many"} {
			t.Run(fmt.Sprintf("%s/%d", name, size), func(t *testing.T) {
				a := newArchive()
				tt.setUp(t, a, size)
				err := checkOpen(t, filepath.Join(t.TempDir(), "bundle.tar"), a.bytes(t))
				if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
					t.Errorf("Open = %v, want %q", err, want)
				}
			})
		}
	}
}

// TestReserve: there is a bound on the sum too, which would take long to fill.
func TestReserve(t *testing.T) {
	if err := bundle.Reserve(bundle.MaxSmall-1, 1); err != nil {
		t.Errorf("Reserve up to the bound = %v", err)
	}
	if err := bundle.Reserve(bundle.MaxSmall, 1); !errors.Is(err, bundle.ErrMalformed) {
		t.Errorf("Reserve beyond the bound = %v, want %v", err, bundle.ErrMalformed)
	}
}

// padded makes JSON longer without making it other.
func padded(text string, size int) string { return text + strings.Repeat(" ", size-len(text)) }
