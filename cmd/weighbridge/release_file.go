package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/verifier"
	"github.com/weighbridge/weighbridge/verifier/oms"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// maxTemplateFile is above what a release may hold, so that the release says what is wrong with it.
const maxTemplateFile = 4 << 20

// releaseFile is release.yaml.
type releaseFile struct {
	APIVersion string     `yaml:"apiVersion"` // weighbridge/v1
	Kind       string     `yaml:"kind"`       // Release
	Model      string     `yaml:"model"`
	Version    string     `yaml:"version"`
	Weights    signedFile `yaml:"weights"`
	Runtime    struct {
		Kind  string               `yaml:"kind"`
		Args  map[string]yaml.Node `yaml:"args"`
		Build string               `yaml:"build"` // sha256:… of the binary
	} `yaml:"runtime"`
	Behaviour struct {
		SystemPrompt string `yaml:"systemPrompt"`
		ChatTemplate string `yaml:"chatTemplate"` // a file, whose text is inlined
		Sampling     struct {
			Temperature *rangeFile `yaml:"temperature"`
			TopP        *rangeFile `yaml:"topP"`
		} `yaml:"sampling"`
		Output struct {
			MaxTokens whole `yaml:"maxTokens"`
		} `yaml:"output"`
		Tools    []string      `yaml:"tools"`
		Adapters []adapterFile `yaml:"adapters"`
	} `yaml:"behaviour"`
	Warmup struct {
		Prompt   string `yaml:"prompt"`
		Contains string `yaml:"contains"`
	} `yaml:"warmup"`
	Provenance struct {
		Base string `yaml:"base"`
		Data string `yaml:"data"`
		Run  string `yaml:"run"`
	} `yaml:"provenance"`
}

// signedFile says where weights, or an adapter, and their signature are.
type signedFile struct {
	Path      string `yaml:"path"`
	Signature string `yaml:"signature"`
}

type adapterFile struct {
	signedFile `yaml:",inline"`
	Base       string   `yaml:"base"`  // root of the weights that it was made for, to be held against the release's
	Scale      *float64 `yaml:"scale"` // 1 if absent
}

type rangeFile struct {
	Default *float64 `yaml:"default"`
	Max     *float64 `yaml:"max"`
}

// loadedRelease is a release file with everything it names read, and its weights and adapters verified.
type loadedRelease struct {
	payload []byte
	signed  []*signedWeights
}

// signedWeights are the release's weights, or an adapter, as their signature describes them.
type signedWeights struct {
	kind            string // weights, adapter
	path, signature string
	statement       *statement.Signed
	manifest        *oms.Manifest
}

func (w *signedWeights) String() string { return w.kind + " " + w.path }

// loadReleaseFile reads release.yaml, inlines the template and the signatures of the weights and adapters, and hashes
// every file of them: a release is about weights that are there, not about a signature someone once had.
func loadReleaseFile(ctx context.Context, path string) (*loadedRelease, error) {
	const what = "release create"
	var r releaseFile
	f, err := readYAML(path, "Release", &r)
	if err != nil {
		return nil, err
	}
	d := r.descriptor(f)
	var all []*signedWeights
	weights, err := r.Weights.read(f, "weights", "weights")
	if err != nil {
		return nil, err
	}
	if weights != nil {
		d.Weights = trust.Weights{Root: weights.manifest.Root(), Statement: jsontext.Value(weights.statement.Bundle())}
		all = append(all, weights)
	}
	for i, file := range r.Behaviour.Adapters {
		adapter, err := file.read(f, fmt.Sprintf("behaviour.adapters[%d]", i), "adapter")
		if err != nil {
			return nil, err
		}
		a := trust.Adapter{Base: cmp.Or(file.Base, d.Weights.Root), Scale: 1}
		if file.Scale != nil {
			a.Scale = *file.Scale
		}
		if adapter != nil {
			a.Root, a.Statement = adapter.manifest.Root(), jsontext.Value(adapter.statement.Bundle())
			all = append(all, adapter)
		}
		d.Behaviour.Adapters = append(d.Behaviour.Adapters, a)
	}
	payload, err := trust.NewRelease(d)
	f.addAll(err)
	if err := f.err(what); err != nil {
		return nil, err
	}
	if err != nil {
		return nil, refused(what, err)
	}
	for _, one := range all {
		if err := one.verify(ctx, what); err != nil {
			return nil, err
		}
	}
	return &loadedRelease{payload, all}, nil
}

// verify hashes the files against their signature.
func (w *signedWeights) verify(ctx context.Context, what string) error {
	_, err := verifier.Verify(ctx, w.path, w.manifest, verifier.Options{Signature: w.signature})
	if no := new(verifier.Refused); errors.As(err, &no) {
		lines := []string{no.Reason}
		for _, p := range no.Problems {
			lines = append(lines, p.String())
		}
		err = refused(what, fmt.Errorf("%s: not as signed: %s", w, strings.Join(lines, "\n  ")))
		return withHint(err, fmt.Sprintf("if this is what you mean, sign it: weighbridge model sign %s --signature %s --private-key KEY", w.path, w.signature))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// descriptor is the release without its weights and adapters; whatever is wrong is among the file's problems.
func (r *releaseFile) descriptor(f *yamlFile) trust.Descriptor {
	d := trust.Descriptor{
		Model:   r.Model,
		Version: r.Version,
		Runtime: trust.Runtime{Kind: r.Runtime.Kind, Args: map[string]string{}, Build: r.Runtime.Build},
		Behaviour: trust.Behaviour{
			SystemPrompt: r.Behaviour.SystemPrompt,
			ChatTemplate: r.template(f),
			Sampling: trust.Sampling{
				Temperature: r.Behaviour.Sampling.Temperature.read(f, "behaviour.sampling.temperature"),
				TopP:        r.Behaviour.Sampling.TopP.read(f, "behaviour.sampling.topP"),
			},
			Output: trust.Output{MaxTokens: int(r.Behaviour.Output.MaxTokens)},
			Tools:  slices.Sorted(slices.Values(r.Behaviour.Tools)),
		},
		Warmup:     trust.Warmup{Prompt: r.Warmup.Prompt, Contains: r.Warmup.Contains},
		Provenance: trust.Provenance{Base: r.Provenance.Base, Data: r.Provenance.Data, Run: r.Provenance.Run},
	}
	for name, node := range r.Runtime.Args {
		if node.Kind != yaml.ScalarNode || node.Tag == "!!null" {
			f.add("runtime.args."+name, "is not a number, a word or a truth value")
			continue
		}
		d.Runtime.Args[name] = node.Value
	}
	return d
}

func (r *releaseFile) template(f *yamlFile) string {
	if r.Behaviour.ChatTemplate == "" {
		return ""
	}
	text, err := store.ReadFile(f.resolve(r.Behaviour.ChatTemplate), maxTemplateFile)
	if err != nil {
		f.add("behaviour.chatTemplate", "%v", err)
	} else if len(text) == 0 {
		f.add("behaviour.chatTemplate", "%s is empty", r.Behaviour.ChatTemplate)
	}
	return string(text)
}

func (r *rangeFile) read(f *yamlFile, path string) *trust.Range {
	if r == nil {
		return nil
	}
	if r.Default == nil || r.Max == nil {
		f.add(path, "needs both default and max")
		return nil
	}
	return &trust.Range{Default: *r.Default, Max: *r.Max}
}

// read reads the signature file of weights, or of an adapter, at a key of the file. That it is not there ends the command
// with the next step; that it says nothing usable is one of the file's problems, and nil.
func (w signedFile) read(f *yamlFile, key, kind string) (*signedWeights, error) {
	if w.Path == "" {
		f.add(key+".path", "is required")
	}
	if w.Signature == "" {
		f.add(key+".signature", "is required")
	}
	if w.Path == "" || w.Signature == "" {
		return nil, nil
	}
	read := &signedWeights{kind: kind, path: f.resolve(w.Path), signature: f.resolve(w.Signature)}
	data, err := store.ReadFile(read.signature, statement.MaxBundle)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, withHint(fmt.Errorf("release create: no signature of %s: %w", read, err),
			fmt.Sprintf("weighbridge model sign %s --signature %s --private-key KEY", read.path, read.signature))
	}
	if err == nil {
		read.statement, err = statement.Parse(data)
	}
	if err == nil {
		read.manifest, err = oms.ParseManifest(read.statement)
	}
	if err != nil {
		f.add(key+".signature", "%v", err)
		return nil, nil
	}
	return read, nil
}
