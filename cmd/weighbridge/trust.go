package main

import (
	"bytes"
	"cmp"
	"crypto"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

func newTrustCmd(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "trust",
		Short:   "Sign and inspect the trust policy",
		Example: "  weighbridge trust sign POLICY.yaml --key alice.key --key bob.key --out policy.jsonl",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newTrustSignCmd(s), newTrustShowCmd(s), newTrustLintCmd(s))
	return cmd
}

// trustSign are the flags of trust sign.
type trustSign struct {
	policy   string
	keys     []string
	password string
	out      string
	json     bool
}

func newTrustSignCmd(s streams) *cobra.Command {
	var o trustSign
	cmd := &cobra.Command{
		Use:   "sign POLICY.yaml|policy.jsonl --key ROOT.key [--key ...] --out policy.jsonl",
		Short: "Sign a policy, with every key that it relies on inlined",
		Long: `Sign a policy as one bundle per signer, a line each, over identical bytes. From POLICY.yaml every key is
read and inlined first, and a policy that can't work is refused. Signing a policy.jsonl appends to it
the signatures of further signers, who need not share a machine.`,
		Example: `  weighbridge trust sign POLICY.yaml --key alice.key --out policy.jsonl
  weighbridge trust sign policy.jsonl --key bob.key`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			o.policy = args[0]
			return refusedJSON(s.out, o.json, map[string]any{}, o.run(s))
		},
	}
	cmd.Flags().StringArrayVar(&o.keys, "key", nil, "private key of a root signer; may be repeated (required)")
	cmd.Flags().StringVar(&o.password, "password", "", "file that holds the password of an encrypted private key")
	cmd.Flags().StringVar(&o.out, "out", "", "file to write (default for a .jsonl: that file)")
	cmd.Flags().BoolVar(&o.json, "json", false, "print one JSON document")
	return cmd
}

func (o trustSign) run(s streams) error {
	if len(o.keys) == 0 {
		return errors.New("trust sign: --key is required")
	}
	signers := make([]*statement.Signer, len(o.keys))
	public := make([]crypto.PublicKey, len(o.keys))
	for i, path := range o.keys {
		key, err := readSigningKey(path, o.password)
		if err != nil {
			return fmt.Errorf("trust sign: %w", err)
		}
		if signers[i], err = statement.NewKeySigner(key); err != nil {
			return fmt.Errorf("trust sign: %s: %w", path, err)
		}
		public[i] = key.Public()
	}
	payload, bundles, err := o.load(s, public)
	if err != nil {
		return err
	}
	for i, signer := range signers {
		signed := func(b *statement.Signed) bool { return b.VerifyKey(public[i]) == nil }
		if slices.ContainsFunc(bundles, signed) {
			fmt.Fprintf(s.err, "weighbridge: %s has signed this policy already; nothing to add\n", o.keys[i])
			continue
		}
		bundle, err := signer.Sign(payload)
		if err != nil {
			return fmt.Errorf("trust sign: %w", err)
		}
		one, err := statement.Parse(bundle)
		if err != nil {
			return fmt.Errorf("trust sign: %w", err)
		}
		bundles = append(bundles, one)
	}
	policy, err := trust.ParsePolicy(bundles[0], nil)
	if err != nil {
		return refused("trust sign", err)
	}
	var lines bytes.Buffer
	for _, b := range bundles {
		lines.Write(b.Bundle())
	}
	if err := store.WriteFile(o.out, lines.Bytes(), 0o644); err != nil {
		return fmt.Errorf("trust sign: %w", err)
	}
	o.warnUnfindable(s, policy, public)
	if o.json {
		return printJSON(s.out, map[string]any{"version": policy.Version(), "digest": policy.Digest(), "signatures": len(bundles), "file": o.out})
	}
	_, err = fmt.Fprintf(s.out, "policy version %d %s: %d signatures\n", policy.Version(), policy.Digest(), len(bundles))
	return err
}

// load returns the payload to sign and the bundles over it that are there already: those of the given policy.jsonl, or
// those in the output file if it holds this very policy.
func (o *trustSign) load(s streams, public []crypto.PublicKey) (payload []byte, bundles []*statement.Signed, err error) {
	if strings.HasSuffix(o.policy, ".jsonl") {
		if o.out == "" {
			o.out = o.policy
		}
		if bundles, err = readPolicyBundles(o.policy); err != nil {
			return nil, nil, err
		}
		return bundles[0].Payload(), bundles, nil
	}
	if o.out == "" {
		return nil, nil, errors.New("trust sign: --out is required")
	}
	doc, err := loadPolicyFile(o.policy, "trust sign", public)
	if err != nil {
		return nil, nil, err
	}
	if payload, err = trust.NewPolicy(doc); err != nil {
		return nil, nil, refused("trust sign", err)
	}
	old, err := readPolicyBundles(o.out)
	if errors.Is(err, fs.ErrNotExist) {
		return payload, nil, nil
	} else if err != nil {
		return nil, nil, withHint(err, "it is not a signed policy; choose another --out")
	}
	if !bytes.Equal(old[0].Payload(), payload) {
		fmt.Fprintf(s.err, "weighbridge: %s held another policy, %s; replaced\n", o.out, old[0].ID())
		return payload, nil, nil
	}
	return payload, old, nil
}

// warnUnfindable tells a signer whose key is not in the policy that a site which pins only its id can't check it.
func (o trustSign) warnUnfindable(s streams, policy *trust.Policy, public []crypto.PublicKey) {
	for i, pub := range public {
		id, err := statement.KeyIDOf(pub)
		text, terr := trust.PublicPEM(pub)
		if err != nil || terr != nil || policy.IdentityOf(id) != "" || slices.Contains(policy.Document().RootKeys, text) {
			continue
		}
		fmt.Fprintf(s.err, "hint: %s is no key of this policy: a site that pins only its id can't check it; name it in POLICY.yaml or sign with all root keys at once\n", o.keys[i])
	}
}

// readPolicyBundles reads a signed policy: bundles over one payload that is a policy.
func readPolicyBundles(path string) ([]*statement.Signed, error) {
	data, err := store.ReadFile(path, statement.MaxBundle)
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	return policyBundles(path, data)
}

// policyBundles reads a signed policy that came from somewhere.
func policyBundles(from string, data []byte) ([]*statement.Signed, error) {
	bundles, err := statement.ParseLines(data)
	if err != nil {
		return nil, refused(from, err)
	}
	for _, b := range bundles[1:] {
		if b.ID() != bundles[0].ID() {
			return nil, refused(from, errors.New("its lines are over different policies"))
		}
	}
	if _, err := trust.ParsePolicy(bundles[0], nil); err != nil {
		return nil, refused(from, err)
	}
	return bundles, nil
}

// shownPolicy is what trust show and trust lint know about a policy, signed or not.
type shownPolicy struct {
	trust.Document
	Digest  statement.ID // "" of a POLICY.yaml
	Signers []string     // identities or key ids whose signatures verify
}

func loadPolicy(path, what string) (shownPolicy, error) {
	if !strings.HasSuffix(path, ".jsonl") && !strings.HasSuffix(path, ".json") {
		doc, err := loadPolicyFile(path, what, nil)
		return shownPolicy{Document: doc}, err
	}
	bundles, err := readPolicyBundles(path)
	if err != nil {
		return shownPolicy{}, err
	}
	policy, err := trust.ParsePolicy(bundles[0], nil)
	if err != nil {
		return shownPolicy{}, refused(what, err)
	}
	doc := policy.Document()
	shown := shownPolicy{Document: doc, Digest: policy.Digest()}
	keys := slices.Clone(doc.RootKeys)
	for _, identity := range doc.Identities {
		keys = append(keys, identity.Keys...)
	}
	for _, text := range keys {
		pub, err := statement.ParsePublicKey([]byte(text))
		if err != nil {
			return shownPolicy{}, fmt.Errorf("%s: %w", what, err)
		}
		id, err := statement.KeyIDOf(pub)
		if err != nil {
			return shownPolicy{}, fmt.Errorf("%s: %w", what, err)
		}
		if slices.ContainsFunc(bundles, func(b *statement.Signed) bool { return b.VerifyKey(pub) == nil }) {
			shown.Signers = append(shown.Signers, strings.TrimSpace(policy.IdentityOf(id)+" "+string(id)))
		}
	}
	slices.Sort(shown.Signers)
	return shown, nil
}

func newTrustShowCmd(s streams) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "show POLICY",
		Short:   "Print a policy, signed or not, and whose signatures of it verify",
		Example: "  weighbridge trust show policy.jsonl",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			p, err := loadPolicy(args[0], "trust show")
			if err != nil {
				return refusedJSON(s.out, asJSON, map[string]any{}, err)
			}
			if asJSON {
				return printJSON(s.out, struct {
					Digest  statement.ID   `json:"digest"`
					Signers []string       `json:"signers"`
					Policy  trust.Document `json:"policy"`
				}{p.Digest, p.Signers, p.Document})
			}
			return p.print(s.out)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

func (p shownPolicy) print(out io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "policy version %d, expires %s\n", p.Version, p.Expires.Format(time.RFC3339))
	if p.Digest != "" {
		fmt.Fprintf(&b, "digest %s\n", p.Digest)
		fmt.Fprintf(&b, "signed by %s\n", cmp.Or(strings.Join(p.Signers, ", "), "no key of this policy"))
	}
	b.WriteString("identities\n")
	for _, name := range slices.Sorted(maps.Keys(p.Identities)) {
		identity := p.Identities[name]
		fmt.Fprintf(&b, "  %s (%s)\n", name, identity.State)
		for _, text := range identity.Keys {
			pub, err := statement.ParsePublicKey([]byte(text))
			if err != nil {
				return fmt.Errorf("trust show: %w", err)
			}
			id, err := statement.KeyIDOf(pub)
			if err != nil {
				return fmt.Errorf("trust show: %w", err)
			}
			fmt.Fprintf(&b, "    %s\n", id)
		}
		if name := cmp.Or(identity.Certificate, identity.SPIFFE); name != "" {
			fmt.Fprintf(&b, "    certificates of %s from %d trusted certificates\n", name, len(identity.Roots))
		}
		if s := identity.Sigstore; s != (trust.Sigstore{}) {
			fmt.Fprintf(&b, "    Sigstore account %s of %s by the trusted root %s\n", s.Subject, s.Issuer, s.TrustedRoot)
		}
	}
	if n := len(p.TimestampAuthorities); n > 0 {
		fmt.Fprintf(&b, "time by authorities under %d trusted certificates\n", n)
	}
	b.WriteString("roles\n")
	for _, name := range slices.Sorted(maps.Keys(p.Roles)) {
		role := p.Roles[name]
		fmt.Fprintf(&b, "  %s: %d of %s\n", name, max(1, role.Threshold), strings.Join(role.Members, ", "))
	}
	b.WriteString("channels\n")
	for _, name := range slices.Sorted(maps.Keys(p.Channels)) {
		p.printChannel(&b, name)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func (p shownPolicy) printChannel(b *strings.Builder, name string) {
	c := p.Channels[name]
	fmt.Fprintf(b, "  %s (%s, level %s, sandbox %s)\n", name, c.Mode, c.MinimumLevel, cmp.Or(c.MinimumSandbox, "any"))
	rule := func(what string, r *trust.Rule) {
		if r == nil {
			return
		}
		fmt.Fprintf(b, "    %s by %d %s", what, max(1, r.Count, p.Roles[r.Role].Threshold), r.Role)
		if r.MaxAge != "" {
			fmt.Fprintf(b, ", not older than %s", r.MaxAge)
		}
		b.WriteString("\n")
	}
	weights := c.Require.Weights
	if weights == nil {
		weights = &c.Require.Release
	}
	rule("weights", weights)
	rule("release", &c.Require.Release)
	rule("evaluation", c.Require.Evaluation)
	rule("approval", c.Require.Approval)
	rule("publication", &c.Publish)
	rule("rollback", c.Rollback)
	rule("withdrawal", c.Withdraw)
	if len(c.Separate) > 0 {
		fmt.Fprintf(b, "    separate: %s\n", strings.Join(c.Separate, ", "))
	}
}
