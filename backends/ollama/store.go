package ollama

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/weighbridge/weighbridge/backends/process"
	"github.com/weighbridge/weighbridge/verifier/seal"
)

// Names in a launch's directory.
const (
	modelsDir    = "models"
	manifestName = modelsDir + "/manifests/registry.ollama.ai/library/" + modelName + "/latest"
	blobPrefix   = modelsDir + "/blobs/sha256-"
	// keyName is looked for and, as long as no other server is asked for anything, never read. Without it Ollama would
	// make one, and it may not write.
	keyName = ".ollama/id_ed25519"

	execName = "ollama" // its executable, which starts its runner by this path
)

// modelName is the only model that there is.
const modelName = "model"

// Kinds of blobs.
const (
	mediaPrefix    = "application/vnd.ollama.image."
	mediaModel     = mediaPrefix + "model"
	mediaAdapter   = mediaPrefix + "adapter"
	mediaTemplate  = mediaPrefix + "template"
	mediaParams    = mediaPrefix + "params"
	mediaConfig    = "application/vnd.docker.container.image.v1+json"
	mediaManifest  = "application/vnd.docker.distribution.manifest.v2+json"
	manifestSchema = 2
)

// A blob is one content of a store, as a manifest names it.
type blob struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
}

type manifest struct {
	SchemaVersion int    `json:"schemaVersion"`
	MediaType     string `json:"mediaType"`
	Config        blob   `json:"config"`
	Layers        []blob `json:"layers"`
}

// config is what Ollama would otherwise learn of a model when it makes one. It names no family: for some Ollama has
// templates and parsers of its own, which would go before the release's.
type config struct {
	ModelFormat  string `json:"model_format"`
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	RootFS       struct {
		Type string `json:"type"`
	} `json:"rootfs"`
}

// A store is the files of one launch, in the order in which the runtime inherits them, and the names that link to them.
type store struct {
	files []*os.File
	links map[string]int
}

func (s *store) close() {
	for _, f := range s.files {
		f.Close() // nothing to lose: they are read-only
	}
}

func (s *store) add(f *os.File, name string) {
	s.links[name] = len(s.files)
	s.files = append(s.files, f)
}

// addBytes adds a small content of this package's own making.
func (s *store) addBytes(media string, data []byte) (blob, error) {
	sum := sha256.Sum256(data)
	b := blob{MediaType: media, Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: int64(len(data))}
	f, err := seal.Bytes(path.Base(media), data)
	if err != nil {
		return b, err
	}
	s.add(f, blobPrefix+hex.EncodeToString(sum[:]))
	return b, nil
}

// addWeights adds the only GGUF file of weights, under a name that is the digest of all that was signed: Ollama takes
// names for digests, and looks at neither.
func (s *store) addWeights(media string, w *seal.Weights, name string) (blob, error) {
	f, err := w.Dup(name) // which looks at the seals again
	if err != nil {
		return blob{}, fmt.Errorf("%w: %w", process.ErrPermanent, err)
	}
	sum := sha256.Sum256([]byte(media + " " + w.Root()))
	s.add(f, blobPrefix+hex.EncodeToString(sum[:]))
	info, err := f.Stat()
	if err != nil {
		return blob{}, fmt.Errorf("look at weights: %w", err)
	}
	return blob{MediaType: media, Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: info.Size()}, nil
}

// store makes what a launch shows to Ollama. Also after an error it is to be closed.
func (p *parts) store() (*store, error) {
	s := &store{links: map[string]int{}}
	m := manifest{SchemaVersion: manifestSchema, MediaType: mediaManifest}
	layer := func(b blob, err error) error {
		m.Layers = append(m.Layers, b)
		return err
	}
	c := config{ModelFormat: "gguf", Architecture: "amd64", OS: "linux"}
	c.RootFS.Type = "layers"
	configJSON, err := json.Marshal(c)
	if err != nil {
		return s, err
	}
	params, err := json.Marshal(parameters(p.args), json.Deterministic(true))
	if err != nil {
		return s, err
	}
	if m.Config, err = s.addBytes(mediaConfig, configJSON); err != nil {
		return s, err
	}
	err = layer(s.addWeights(mediaModel, p.weights, p.name))
	for _, a := range p.adapters {
		err = errors.Join(err, layer(s.addWeights(mediaAdapter, a.weights, a.name)))
	}
	err = errors.Join(err, layer(s.addBytes(mediaTemplate, []byte(p.template))), layer(s.addBytes(mediaParams, params)))
	if err != nil {
		return s, err
	}
	manifestJSON, err := json.Marshal(m)
	if err != nil {
		return s, err
	}
	f, err := seal.Bytes("manifest", manifestJSON)
	if err != nil {
		return s, err
	}
	s.links[keyName] = len(s.files)
	s.add(f, manifestName)
	return s, nil
}

// convert is what to do with weights of another kind.
const convert = "convert to GGUF, and sign and release the result"

// magic begins each GGUF file.
const magic = "GGUF"

// ggufFile picks the only GGUF file of weights, which may hold others that are shown to nobody.
func ggufFile(w *seal.Weights) (string, error) {
	names := w.Names()
	var found []string
	for _, n := range names {
		if strings.HasSuffix(n, ".gguf") {
			found = append(found, n)
		}
	}
	if len(names) == 1 {
		found = names
	}
	if len(found) == 0 {
		return "", fmt.Errorf("no GGUF file among the %d files of the weights, and no others are taken here: %s", len(names), convert)
	}
	if len(found) != 1 {
		return "", fmt.Errorf("%d GGUF files among the %d of the weights; Ollama takes exactly one: join the parts of a split model, and sign and release the result", len(found), len(names))
	}
	f, err := w.Dup(found[0])
	if err != nil {
		return "", err
	}
	defer f.Close()
	head := make([]byte, len(magic))
	if _, err := io.ReadFull(io.NewSectionReader(f, 0, int64(len(head))), head); err != nil || string(head) != magic {
		return "", fmt.Errorf("%s is no GGUF file, and no others are taken here: %s", found[0], convert)
	}
	return found[0], nil
}
