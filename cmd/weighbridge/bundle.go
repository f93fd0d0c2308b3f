package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/weighbridge/weighbridge/verifier"
	"github.com/weighbridge/weighbridge/verifier/bundle"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

func newBundleCmd(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bundle",
		Short: "Carry releases to a site without a network, in one file",
		Long: `Carry releases to a site without a network, in one file: weights, statements and policies in an OCI image layout.
The file proves nothing and need not be guarded: what is in it counts as if it had come by any other road.`,
		Example: `  weighbridge bundle export --config gateway.yaml --out chat.tar --channel chat
  weighbridge bundle import chat.tar --config gateway.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newBundleExportCmd(s), newBundleImportCmd(s))
	return cmd
}

func newBundleExportCmd(s streams) *cobra.Command {
	var config, out string
	var channels []string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "export --config GATEWAY.yaml --out FILE [--channel C]...",
		Short: "Write what channels serve, and all that it rests on, into one file",
		Long: `Write what channels serve, and all that it rests on, into one file: weights, releases, evaluations, approvals,
publications, every withdrawal, and every policy that was accepted here, so that a site some versions behind can follow.
The configuration says where they lie; the gateway may run meanwhile.`,
		Example: "  weighbridge bundle export --config gateway.yaml --out chat.tar --channel chat",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			told, err := export(cmd.Context(), config, out, channels)
			if err != nil {
				return refusedJSON(s.out, asJSON, map[string]any{}, bundleError("bundle export", err))
			}
			if asJSON {
				return printJSON(s.out, told)
			}
			fmt.Fprintf(s.out, "%s: %d statements, %d policies, weights of %d models, %d bytes\n", out, told.Statements, told.Policies, told.Weights, told.Bytes)
			return nil
		},
	}
	cmd.Flags().StringVar(&config, "config", "", "the gateway's configuration (required)")
	cmd.Flags().StringVar(&out, "out", "", "file to write (required)")
	cmd.Flags().StringArrayVar(&channels, "channel", nil, "channel to export; may be repeated (default: every channel of the configuration)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	cobra.CheckErr(errors.Join(cmd.MarkFlagRequired("config"), cmd.MarkFlagRequired("out")))
	return cmd
}

// bundleError makes an answer of what is one: a bundle or weights that are not what they should be.
func bundleError(what string, err error) error {
	bad := new(verifier.Refused)
	switch {
	case errors.Is(err, bundle.ErrMalformed):
		return withHint(refused(what, err), "bring the file again")
	case errors.As(err, &bad):
		return refused(what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// exported is what bundle export tells.
type exported struct {
	File       string         `json:"file"`
	Bytes      int64          `json:"bytes"`
	Statements int            `json:"statements"`
	Policies   int            `json:"policies"`
	Weights    int            `json:"weights"`
	Releases   []statement.ID `json:"releases"`
}

func export(ctx context.Context, config, out string, channels []string) (told exported, err error) {
	in, err := readSite(config)
	if err != nil {
		return told, err
	}
	if in.policy == nil {
		return told, fmt.Errorf("%s: there is no trust policy", in.cfg.Trust.Policy)
	}
	var c bundle.Contents
	if c.Policies, err = in.policies(); err != nil {
		return told, err
	}
	if len(channels) == 0 {
		for name := range in.cfg.Channels {
			channels = append(channels, name)
		}
		slices.Sort(channels)
	}
	decision := in.decide(in.policy, nil)
	for _, name := range channels {
		d := decision.Channels[name]
		if d.Serve == "" {
			return told, refusedChannel(name, d)
		}
		if err := in.pack(&c, name, d); err != nil {
			return told, err
		}
		told.Releases = append(told.Releases, d.Serve)
	}
	told.File, told.Statements, told.Policies, told.Weights = out, len(c.Statements), len(c.Policies), len(c.Weights)
	told.Bytes, err = writeBundle(ctx, out, c)
	return told, err
}

// policies returns every policy that was accepted here and is kept, and the one in force.
func (in *site) policies() (all [][]*statement.Signed, err error) {
	for version := int64(1); version <= in.floor.PolicyVersion; version++ {
		data, err := store.AcceptedPolicy(in.cfg.Trust.State, trust.Floor{PolicyVersion: version})
		if errors.Is(err, fs.ErrNotExist) {
			continue // accepted by a site that was new then
		} else if err != nil {
			return nil, err
		}
		bundles, err := statement.ParseLines(data)
		if err != nil {
			return nil, err
		}
		all = append(all, bundles)
	}
	if in.policy.Version() > in.floor.PolicyVersion {
		bundles, err := readPolicyBundles(in.cfg.Trust.Policy)
		if err != nil {
			return nil, err
		}
		all = append(all, bundles)
	}
	return all, nil
}

// pack adds what a channel serves and rests on.
func (in *site) pack(c *bundle.Contents, channel string, d trust.Channel) error {
	add := func(s *statement.Signed) {
		if !slices.ContainsFunc(c.Statements, func(have *statement.Signed) bool { return string(have.Bundle()) == string(s.Bundle()) }) {
			c.Statements = append(c.Statements, s)
		}
	}
	for _, s := range in.set {
		_, about := s.Subject()
		switch s.PredicateType() {
		case trust.WithdrawalType:
			add(s)
		case trust.ReleaseType:
			if s.ID() == d.Serve {
				add(s)
			}
		case trust.EvaluationType, trust.ApprovalType:
			if about == d.Serve.Hex() {
				add(s)
			}
		case trust.PublicationType:
			if _, p, err := trust.ParsePublication(s); err == nil && p.Channel == channel && about == d.Serve.Hex() {
				add(s)
			}
		}
	}
	for _, w := range weightsOf(d.Release) {
		path, err := in.findWeights(w)
		if err != nil {
			return fmt.Errorf("%s: %w", channel, err)
		}
		c.Weights = append(c.Weights, bundle.Weights{Path: path, Signature: w, Name: d.Release.Model})
	}
	return nil
}

// weightsOf returns the signatures of all that a release loads.
func weightsOf(r *trust.Release) []*statement.Signed {
	all := []*statement.Signed{r.WeightsStatement()}
	for _, a := range r.Adapters() {
		all = append(all, a.Statement)
	}
	return all
}

// findWeights returns where a copy of signed weights lies. Whether it is good is for who reads it.
func (in *site) findWeights(signature *statement.Signed) (string, error) {
	_, root := signature.Subject()
	found, err := store.FindWeights(in.cfg.Weights, "sha256:"+root)
	if err != nil {
		return "", err
	}
	return found[0], nil
}

// writeBundle writes the file whole or not at all, and durably.
func writeBundle(ctx context.Context, out string, c bundle.Contents) (size int64, err error) {
	f, err := os.CreateTemp(filepath.Dir(out), "."+filepath.Base(out)+".*")
	if err != nil {
		return 0, err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	err = bundle.Write(ctx, f, c)
	if info, serr := f.Stat(); serr == nil {
		size = info.Size()
	}
	if err := errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return 0, err
	}
	if err := os.Rename(f.Name(), out); err != nil {
		return 0, err
	}
	return size, store.SyncDir(os.Open(filepath.Dir(out)))
}
