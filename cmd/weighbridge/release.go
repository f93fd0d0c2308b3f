package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

func newReleaseCmd(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "release",
		Short:   "Create, evaluate, approve, publish and withdraw releases: one signed statement per command",
		Example: "  weighbridge release create -f release.yaml --key trainer.key --statements statements",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newReleaseCreateCmd(s), newReleaseEvaluateCmd(s), newReleaseApproveCmd(s), newReleasePublishCmd(s),
		newReleaseRollbackCmd(s), newReleaseWithdrawCmd(s), newReleaseShowCmd(s), newReleaseDiffCmd(s))
	return cmd
}

func newReleaseCreateCmd(s streams) *cobra.Command {
	var o signFlags
	var file string
	cmd := &cobra.Command{
		Use:   "create -f release.yaml --key K (--out FILE | --statements DIR)",
		Short: "Sign a release of signed weights; prints its id",
		Long: `Sign a release: weights, runtime and behaviour as release.yaml describes them. Every file of the weights and of
the adapters is hashed against its signature first, and the signatures and the chat template become part of the
release. A field that this version can't enforce is refused. Prints the release id, and nothing else, on standard output.`,
		Example: "  weighbridge release create -f release.yaml --key trainer.key --statements statements",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			const what = "release create"
			if file == "" {
				return fmt.Errorf("%s: -f is required", what)
			}
			signer, err := o.signer(s, what)
			if err != nil {
				return err
			}
			release, err := loadReleaseFile(cmd.Context(), file)
			if err != nil {
				return err
			}
			for _, w := range release.signed {
				if key, ok := signer.(*statement.Signer); ok && w.statement.VerifyKey(key.Public()) != nil {
					fmt.Fprintf(s.err, "weighbridge: another key signed %s; a channel serves this release only if its policy gives that key to an identity of its weights rule\n", w)
				}
			}
			return o.sign(s, what, "release", signer, release.payload)
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "release file (required)")
	o.add(s, cmd)
	return cmd
}

func newReleaseApproveCmd(s streams) *cobra.Command {
	var o signFlags
	var channels []string
	var expires, ticket string
	cmd := &cobra.Command{
		Use:   "approve RELEASE --key K [--channel C]... [--expires TIME|90d] (--out FILE | --statements DIR)",
		Short: "Sign that a release may be served; prints the approval's id",
		Long: `Sign that a release may be served on the named channels, or on every channel if none is named.
RELEASE is a statement file or a release id.`,
		Example: "  weighbridge release approve release.json --key alice.key --channel chat --expires 90d --statements statements",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			const what = "release approve"
			signer, err := o.signer(s, what)
			if err != nil {
				return err
			}
			until, err := parseExpiry(expires, time.Now())
			if err != nil {
				return fmt.Errorf("%s: --expires: %w", what, err)
			}
			id, release, err := findRelease(what, args[0], o.statements)
			if err != nil {
				return err
			}
			payload, err := trust.NewApproval(id, trust.Approval{Channels: channels, Expires: until, Ticket: ticket})
			if err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			tellRelease(s.err, "approves", id, release)
			if len(channels) == 0 {
				fmt.Fprintln(s.err, "weighbridge: without --channel this approval covers all channels")
			}
			return o.sign(s, what, "approval", signer, payload)
		},
	}
	cmd.Flags().StringArrayVar(&channels, "channel", nil, "channel it may be served on; may be repeated (default: every channel)")
	cmd.Flags().StringVar(&expires, "expires", "", "a time, or a term from now such as 90d")
	cmd.Flags().StringVar(&ticket, "ticket", "", "reference to where the approval was discussed")
	o.add(s, cmd)
	return cmd
}

// tellRelease says what is being signed, so that nobody signs a bare number unknowingly.
func tellRelease(w io.Writer, does string, id statement.ID, r *trust.Release) {
	if r == nil {
		fmt.Fprintf(w, "weighbridge: %s: %s (not read: only its id was given)\n", does, id)
		return
	}
	fmt.Fprintf(w, "weighbridge: %s: %s %s, weights %s\n", does, r.Model, r.Version, r.Weights.Root)
	for _, a := range r.Adapters() {
		fmt.Fprintf(w, "weighbridge: with adapter %s, scale %v\n", a.Root, a.Scale)
	}
	if fields := r.Unenforceable(); len(fields) > 0 {
		fmt.Fprintf(w, "weighbridge: this version can't enforce %s of it and would not serve it\n", strings.Join(fields, ", "))
	}
}

func newReleasePublishCmd(s streams) *cobra.Command {
	var o signFlags
	var channel, epoch, expires, canary string
	cmd := &cobra.Command{
		Use:   "publish RELEASE --channel C --epoch N|next --key K [--expires T] (--out FILE | --statements DIR)",
		Short: "Sign that a channel now serves a release; prints the publication's id",
		Long: `Sign that a channel now serves a release. The epoch must be above the one the channel serves; "next" is one
above the highest in the statements directory. RELEASE is a statement file or a release id.`,
		Example: "  weighbridge release publish release.json --channel chat --epoch next --key shipper.key --statements statements",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			const what = "release publish"
			if canary != "" {
				return refused(what, errors.New("this version has no canaries; --canary is not in it yet"))
			}
			if channel == "" || epoch == "" {
				return fmt.Errorf("%s: --channel and --epoch are required", what)
			}
			signer, err := o.signer(s, what)
			if err != nil {
				return err
			}
			until, err := parseExpiry(expires, time.Now())
			if err != nil {
				return fmt.Errorf("%s: --expires: %w", what, err)
			}
			id, release, err := findRelease(what, args[0], o.statements)
			if err != nil {
				return err
			}
			publication, err := o.follow(channel, epoch)
			if err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			publication.Expires = until
			payload, err := trust.NewPublication(id, publication)
			if err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			tellRelease(s.err, fmt.Sprintf("publishes on %s at epoch %d", channel, publication.Epoch), id, release)
			return o.sign(s, what, "publication", signer, payload)
		},
	}
	cmd.Flags().StringVar(&channel, "channel", "", "channel to publish on (required)")
	cmd.Flags().StringVar(&epoch, "epoch", "", "epoch: a number, or next (required)")
	cmd.Flags().StringVar(&expires, "expires", "", "a time, or a term from now such as 90d")
	cmd.Flags().StringVar(&canary, "canary", "", "share of callers (not in this version)")
	o.add(s, cmd)
	o.addPolicy(cmd)
	return cmd
}

// follow makes a publication at the given epoch. Where there is a statements directory the publication names the one
// it follows.
func (o *signFlags) follow(channel, epoch string) (trust.Publication, error) {
	next := trust.Publication{Channel: channel}
	before, err := o.published(channel)
	if err != nil {
		return next, err
	}
	switch {
	case epoch != "next":
		n, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil || n < 1 {
			return next, fmt.Errorf("--epoch %q is neither next nor a number from 1", epoch)
		}
		next.Epoch = n
	case o.statements == "":
		return next, withHint(errors.New("--epoch next needs --statements DIR to see which epochs there are"), "give the epoch as a number")
	case len(before) == 0:
		next.Epoch = 1
	default:
		next.Epoch = before[len(before)-1].epoch + 1
	}
	for _, b := range before {
		if b.epoch < next.Epoch {
			next.Previous = b.id
		}
	}
	return next, nil
}

// published is a publication as found, unverified.
type published struct {
	epoch   int64
	id      statement.ID
	release statement.ID
}

// nobodys returns the statements that were signed by nobody who may publish on a channel, by the policy that was named.
// Without one nothing is known of who signed what. Who has retired, or is compromised, is not nobody: what they published
// before may have been accepted, and then nothing below it is.
func (o *signFlags) nobodys(channel string, set []*statement.Signed) (map[statement.ID]bool, error) {
	if o.policy == "" {
		return map[statement.ID]bool{}, nil
	}
	bundles, err := readPolicyBundles(o.policy)
	if err != nil {
		return nil, err
	}
	p, err := trust.ParsePolicy(bundles[0], newKeyless)
	if err != nil {
		return nil, err
	}
	all, counts := map[statement.ID]bool{}, map[statement.ID]bool{}
	for _, r := range trust.Decide(p, set, time.Now(), trust.Floor{}).Channels[channel].Reasons {
		switch r.Rule {
		case trust.RuleSignature, trust.RuleUnknownIdentity, trust.RuleUnknownPredicate:
			all[r.Statement] = true
		case trust.RuleRole:
			all[r.Statement] = all[r.Statement] || !r.Counted
			counts[r.Statement] = counts[r.Statement] || r.Counted
		default:
			counts[r.Statement] = true // whoever signed it may, and it is something else that keeps it back
		}
	}
	maps.DeleteFunc(all, func(id statement.ID, _ bool) bool { return counts[id] })
	return all, nil
}

// published returns the publications of a channel that lie in the statements directory, in the order of their epochs. One
// too far above those below it is not believed, nor any after it: a forged epoch of a thousand million would lead its
// reader to sign one above it, which no gateway accepts.
func (o *signFlags) published(channel string) ([]published, error) {
	if o.statements == "" || !isDir(o.statements) {
		return nil, nil
	}
	set, _, err := store.ReadStatements([]string{o.statements})
	if err != nil {
		return nil, err
	}
	nobodys, err := o.nobodys(channel, set)
	if err != nil {
		return nil, err
	}
	var all []published
	for _, one := range set {
		if release, p, err := trust.ParsePublication(one); err == nil && p.Channel == channel && !nobodys[one.ID()] {
			all = append(all, published{p.Epoch, one.ID(), release})
		}
	}
	slices.SortFunc(all, func(a, b published) int {
		return cmp.Or(cmp.Compare(a.epoch, b.epoch), cmp.Compare(a.id, b.id))
	})
	for i := 1; i < len(all); i++ {
		if all[i].epoch-all[i-1].epoch > trust.MaxEpochJump {
			return all[:i], nil
		}
	}
	return all, nil
}
