package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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
	APIVersion string `yaml:"apiVersion"` // weighbridge/v1
	Kind       string `yaml:"kind"`       // Release
	Model      string `yaml:"model"`
	Version    string `yaml:"version"`
	Weights    struct {
		Path      string `yaml:"path"`
		Signature string `yaml:"signature"`
	} `yaml:"weights"`
	Runtime struct {
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
		Tools    []yaml.Node `yaml:"tools"`
		Adapters []yaml.Node `yaml:"adapters"`
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

type rangeFile struct {
	Default *float64 `yaml:"default"`
	Max     *float64 `yaml:"max"`
}

// loadedRelease is a release file with everything it names read, and its weights verified.
type loadedRelease struct {
	payload []byte
	weights *statement.Signed
}

// loadReleaseFile reads release.yaml, inlines the template and the weights' signature, and hashes every file of the
// weights: a release is about weights that are there, not about a signature someone once had.
func loadReleaseFile(ctx context.Context, path string) (*loadedRelease, error) {
	const what = "release create"
	var r releaseFile
	f, err := readYAML(path, "Release", &r)
	if err != nil {
		return nil, err
	}
	d := r.descriptor(f)
	weights, manifest, err := r.signature(f)
	if err != nil {
		return nil, err
	}
	if weights != nil {
		d.Weights = trust.Weights{Root: manifest.Root(), Statement: jsontext.Value(weights.Bundle())}
	}
	payload, err := trust.NewRelease(d)
	f.addAll(err)
	if err := f.err(what); err != nil {
		return nil, err
	}
	if err != nil {
		return nil, refused(what, err)
	}
	model, signature := f.resolve(r.Weights.Path), f.resolve(r.Weights.Signature)
	_, err = verifier.Verify(ctx, model, manifest, verifier.Options{Signature: signature})
	if no := new(verifier.Refused); errors.As(err, &no) {
		lines := []string{no.Reason}
		for _, p := range no.Problems {
			lines = append(lines, p.String())
		}
		err = refused(what, fmt.Errorf("weights %s are not as signed: %s", model, strings.Join(lines, "\n  ")))
		return nil, withHint(err, fmt.Sprintf("if these are the weights you mean, sign them: weighbridge model sign %s --signature %s --private-key KEY", model, signature))
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return &loadedRelease{payload, weights}, nil
}

// descriptor is the release without its weights; whatever is wrong is among the file's problems.
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
		},
		Warmup:     trust.Warmup{Prompt: r.Warmup.Prompt, Contains: r.Warmup.Contains},
		Provenance: trust.Provenance{Base: r.Provenance.Base, Data: r.Provenance.Data, Run: r.Provenance.Run},
	}
	// What stands in these is not even looked at: any of it is refused.
	if len(r.Behaviour.Tools) > 0 {
		d.Behaviour.Tools = make([]string, len(r.Behaviour.Tools))
	}
	if len(r.Behaviour.Adapters) > 0 {
		d.Behaviour.Adapters = []jsontext.Value{jsontext.Value(`{}`)}
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

// signature reads the weights' signature file. That it is not there ends the command with the next step; that it says
// nothing usable is one of the file's problems.
func (r *releaseFile) signature(f *yamlFile) (*statement.Signed, *oms.Manifest, error) {
	w := r.Weights
	if w.Path == "" {
		f.add("weights.path", "is required")
	}
	if w.Signature == "" {
		f.add("weights.signature", "is required")
	}
	if w.Path == "" || w.Signature == "" {
		return nil, nil, nil
	}
	path := f.resolve(w.Signature)
	data, err := store.ReadFile(path, statement.MaxBundle)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, withHint(fmt.Errorf("release create: the weights are not signed: %w", err),
			fmt.Sprintf("weighbridge model sign %s --signature %s --private-key KEY", f.resolve(w.Path), path))
	} else if err != nil {
		f.add("weights.signature", "%v", err)
		return nil, nil, nil
	}
	s, err := statement.Parse(data)
	if err != nil {
		f.add("weights.signature", "%v", err)
		return nil, nil, nil
	}
	m, err := oms.ParseManifest(s)
	if err != nil {
		f.add("weights.signature", "%v", err)
		return nil, nil, nil
	}
	return s, m, nil
}
