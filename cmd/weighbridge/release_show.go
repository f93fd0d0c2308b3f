package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weighbridge/weighbridge/verifier/oms"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

func newReleaseShowCmd(s streams) *cobra.Command {
	var statements string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show RELEASE",
		Short: "Print what a release says; its signature is not verified",
		Long: `Print what a release says: weights, adapters, runtime, behaviour. Who signed it, and whether that counts, is a
question of policy: see weighbridge explain. RELEASE is a statement file, or a release id with --statements.`,
		Example: "  weighbridge release show release.json",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			id, release, err := findRelease("release show", args[0], statements)
			if err != nil {
				return refusedJSON(s.out, asJSON, map[string]any{}, err)
			}
			if release == nil {
				return withHint(fmt.Errorf("release show: %w", errors.New("no statement with the id "+string(id))), "name the directory to look in by --statements")
			}
			if asJSON {
				return printJSON(s.out, shownRelease(release))
			}
			return printRelease(s.out, release)
		},
	}
	cmd.Flags().StringVar(&statements, "statements", "", "statements directory to look in")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

// shownWeights are weights by their files, and shownAdapter an adapter: nobody reads bundles.
type shownWeights struct {
	Root      string       `json:"root"`
	Statement statement.ID `json:"statement"`
	Files     []string     `json:"files"`
}

type shownAdapter struct {
	shownWeights
	Base  string  `json:"base"`
	Scale float64 `json:"scale"`
}

type shownBehaviour struct {
	trust.Behaviour
	Adapters []shownAdapter `json:"adapters"`
}

// shownRelease is the JSON of release show: the release, with its weights and adapters by their files.
func shownRelease(r *trust.Release) any {
	behaviour := shownBehaviour{r.Behaviour, []shownAdapter{}}
	for i, a := range r.Adapters() {
		files := shownWeights{a.Root, a.Statement.ID(), fileNames(a.Manifest)}
		behaviour.Adapters = append(behaviour.Adapters, shownAdapter{files, r.Behaviour.Adapters[i].Base, a.Scale})
	}
	return struct {
		Release       statement.ID     `json:"release"`
		Model         string           `json:"model"`
		Version       string           `json:"version"`
		Weights       shownWeights     `json:"weights"`
		Runtime       trust.Runtime    `json:"runtime"`
		Behaviour     shownBehaviour   `json:"behaviour"`
		Warmup        trust.Warmup     `json:"warmup"`
		Provenance    trust.Provenance `json:"provenance"`
		Unenforceable []string         `json:"unenforceable"`
	}{r.ID, r.Model, r.Version, shownWeights{r.Weights.Root, r.WeightsStatement().ID(), fileNames(r.Manifest())}, r.Runtime, behaviour, r.Warmup, r.Provenance, r.Unenforceable()}
}

func fileNames(m *oms.Manifest) []string {
	names := []string{}
	for _, f := range m.Files() {
		names = append(names, f.Name)
	}
	return names
}

func printRelease(out io.Writer, r *trust.Release) error {
	var b strings.Builder
	line := func(key, format string, args ...any) {
		fmt.Fprintf(&b, "%-14s %s\n", key, fmt.Sprintf(format, args...))
	}
	line("release", "%s", r.ID)
	line("model", "%s %s", r.Model, r.Version)
	line("weights", "%s", r.Weights.Root)
	for _, name := range fileNames(r.Manifest()) {
		line("", "%q", name)
	}
	for _, a := range r.Adapters() {
		line("adapter", "%s, scale %v", a.Root, a.Scale)
		for _, name := range fileNames(a.Manifest) {
			line("", "%q", name)
		}
	}
	line("runtime", "%s", r.Runtime.Kind)
	for _, name := range slices.Sorted(maps.Keys(r.Runtime.Args)) {
		line("", "%s = %q", name, r.Runtime.Args[name])
	}
	line("build", "%s", cmp.Or(r.Runtime.Build, "any"))
	line("system prompt", "%q", r.Behaviour.SystemPrompt)
	if r.Behaviour.ChatTemplate == "" {
		line("chat template", "the one in the weights")
	} else {
		line("chat template", "%d bytes", len(r.Behaviour.ChatTemplate))
	}
	sampler := func(name string, of *trust.Range) {
		if of == nil {
			line(name, "the runtime's default")
			return
		}
		line(name, "%v, at most %v", of.Default, of.Max)
	}
	sampler("temperature", r.Behaviour.Sampling.Temperature)
	sampler("top-p", r.Behaviour.Sampling.TopP)
	line("max tokens", "%d", r.Behaviour.Output.MaxTokens)
	if r.Warmup.Prompt != "" {
		line("warm-up", "%q, answer contains %q", r.Warmup.Prompt, r.Warmup.Contains)
	}
	for _, of := range [][2]string{{"base", r.Provenance.Base}, {"data", r.Provenance.Data}, {"run", r.Provenance.Run}} {
		if of[1] != "" {
			line(of[0], "%q", of[1])
		}
	}
	if fields := r.Unenforceable(); len(fields) > 0 {
		line("not served", "this version can't enforce %s", strings.Join(fields, ", "))
	}
	_, err := io.WriteString(out, b.String())
	return err
}
