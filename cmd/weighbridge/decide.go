package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// decideFlags are the inputs of the decision; the commands that ask about it share them.
type decideFlags struct {
	policy     string
	roots      []string
	threshold  int
	statements []string
	floor      string
	at         string
	server     string
}

func (o *decideFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.policy, "policy", "", "signed policy (required without --server)")
	f.StringArrayVar(&o.roots, "root", nil, "pinned root keys: PEM files or key ids (required without --server)")
	f.IntVar(&o.threshold, "root-threshold", 0, "how many of the root keys must have signed (default: all given)")
	f.StringArrayVar(&o.statements, "statements", nil, "statements directory; may be repeated (required without --server)")
	f.StringVar(&o.floor, "floor", "", "floor file of a gateway's state (default: nothing was accepted before)")
	f.StringVar(&o.at, "at", atNow, "time to decide at: now, which is the gateway's with --server, or RFC 3339")
	// No default, and none from the environment: without the flag nothing is dialled.
	f.StringVar(&o.server, "server", "", "control socket of a gateway to take policy, floor, statements and time from")
}

// atNow is --at for the time at which it is asked.
const atNow = "now"

// bothWays says where the inputs can come from.
const bothWays = "name files by --policy, --root and --statements, or a running gateway by --server unix:PATH"

// moreRoots takes what follows the first key of --root, as in --root alice.pub bob.pub.
func (o *decideFlags) moreRoots(args []string) error {
	if len(args) > 0 && len(o.roots) == 0 {
		return fmt.Errorf("unexpected argument %q", args[0])
	}
	o.roots = append(o.roots, args...)
	return nil
}

// decided is a decision and what it was made with.
type decided struct {
	trust.Decision
	policy *trust.Policy
	bad    []store.Problem
}

// inputs are what a decision is made of.
type inputs struct {
	policy *trust.Policy
	floor  trust.Floor
	set    []*statement.Signed
	bad    []store.Problem // what lies among the statements and is none
	now    time.Time
}

func (in inputs) decide(p *trust.Policy) trust.Decision {
	return trust.Decide(p, in.set, in.now, in.floor)
}

// decide reads the inputs and decides.
func (o *decideFlags) decide(ctx context.Context, s streams, what string) (decided, error) {
	in, err := o.read(ctx, s, what)
	if err != nil {
		return decided{}, err
	}
	return decided{in.decide(in.policy), in.policy, in.bad}, nil
}

// read reads the inputs. Files in the statements directory that are no statements are reported and change nothing else.
func (o *decideFlags) read(ctx context.Context, s streams, what string) (inputs, error) {
	if o.server != "" {
		return o.ask(ctx, s, what, true)
	}
	in, err := o.accept(ctx, s, what)
	if err != nil {
		return in, err
	}
	if len(o.statements) == 0 {
		return in, withHint(fmt.Errorf("%s: --statements is required", what), bothWays)
	}
	if in.set, in.bad, err = store.ReadStatements(o.statements); err != nil {
		return in, fmt.Errorf("%s: %w", what, err)
	}
	for _, problem := range in.bad {
		fmt.Fprintf(s.err, "weighbridge: %s: %v (skipped)\n", printable(problem.File), problem.Err)
	}
	if o.floor != "" { // beside a floor lie the withdrawals that it counts
		kept, err := store.KeptWithdrawals(filepath.Dir(o.floor))
		if err != nil {
			return in, fmt.Errorf("%s: %w", what, err)
		}
		in.set = append(in.set, kept...)
	}
	return in, nil
}

// accept reads all but the statements.
func (o *decideFlags) accept(ctx context.Context, s streams, what string) (in inputs, err error) {
	if o.server != "" {
		return o.ask(ctx, s, what, false)
	}
	if o.policy == "" || len(o.roots) == 0 {
		return in, withHint(fmt.Errorf("%s: --policy and --root are required", what), bothWays)
	}
	if in.now, err = parseTime(o.at); err != nil {
		return in, fmt.Errorf("%s: --at: %w", what, err)
	}
	anchor, err := o.anchor()
	if err != nil {
		return in, fmt.Errorf("%s: %w", what, err)
	}
	var last *trust.Policy
	if o.floor != "" {
		if in.floor, err = store.ReadFloor(o.floor); err != nil {
			return in, fmt.Errorf("%s: %w", what, err)
		}
		// Beside a floor lies the policy it accepted, whose root must have signed a later one.
		kept := func() ([]byte, error) { return store.AcceptedPolicy(filepath.Dir(o.floor), in.floor) }
		if last, err = acceptedPolicy(nil, kept); err != nil {
			return in, fmt.Errorf("%s: %w", what, err)
		}
	}
	bundles, err := readPolicyBundles(o.policy)
	if err != nil {
		return in, err
	}
	if in.policy, err = anchor.Accept(bundles, &in.floor, last); err != nil {
		return in, refused(o.policy, err)
	}
	return in, nil
}

func (o *decideFlags) anchor() (trust.Anchor, error) {
	a := trust.Anchor{Threshold: o.threshold, Keyless: newKeyless}
	for _, root := range o.roots {
		if strings.HasPrefix(root, "sha256:") {
			id, err := statement.ParseKeyID(root)
			if err != nil {
				return a, err
			}
			a.Keys = append(a.Keys, id)
			continue
		}
		pub, err := readPublicHalf(root, "")
		if err != nil {
			return a, err
		}
		id, err := statement.KeyIDOf(pub)
		if err != nil {
			return a, err
		}
		a.Keys, a.Public = append(a.Keys, id), append(a.Public, pub)
	}
	if a.Threshold == 0 {
		a.Threshold = len(slices.Compact(slices.Sorted(slices.Values(a.Keys))))
	}
	return a, nil
}

func newDecideCmd(s streams) *cobra.Command {
	var o decideFlags
	var channels []string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "decide {--policy policy.jsonl --root KEY.pub… --statements DIR | --server ADDR [--root KEY.pub…]}",
		Short: "Say which release each channel may serve",
		Long: `Say which release each channel may serve. The decision is pure and offline: the same policy, statements,
time and floor give the same answer here, in a pipeline and in every gateway. Exit status 1 if a channel
given by --channel, or else any channel of the policy, serves nothing.

With --server a running gateway is asked for these inputs, and not for its answer: statements prove themselves, here
as there. With --root the policy does too; without it, it is the gateway's word. WEIGHBRIDGE_SERVER is not looked at.`,
		Example: `  weighbridge decide --policy policy.jsonl --root alice.pub --root bob.pub --statements statements --json
  weighbridge decide --server unix:./control.sock --root alice.pub --root bob.pub`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.moreRoots(args); err != nil {
				return fmt.Errorf("decide: %w", err)
			}
			d, err := o.decide(cmd.Context(), s, "decide")
			if err != nil {
				return o.refusedPolicy(s, asJSON, channels, err)
			}
			if len(channels) == 0 {
				channels = d.policy.Channels()
			}
			shown := d.only(channels)
			if asJSON {
				if err := printJSON(s.out, shown); err != nil {
					return err
				}
			}
			return tellDecision(s, shown, asJSON)
		},
	}
	o.add(cmd)
	cmd.Flags().StringArrayVar(&channels, "channel", nil, "channel to decide for; may be repeated (default: every channel of the policy)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

// only returns the decision for some channels. One that the policy does not name serves nothing.
func (d decided) only(channels []string) trust.Decision {
	out := trust.Decision{Channels: map[string]trust.Channel{}}
	for _, name := range channels {
		c, known := d.Channels[name]
		for _, problem := range d.bad {
			if known && errors.Is(problem.Err, statement.ErrMalformed) {
				c.Reasons = append(c.Reasons, malformed(problem))
			}
		}
		out.Channels[name] = c
	}
	return out
}

// tellDecision prints a line for each channel that serves, and an error with hints for each that does not.
func tellDecision(s streams, d trust.Decision, quiet bool) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(d.Channels)) {
		c := d.Channels[name]
		if c.Serve != "" {
			if !quiet {
				fmt.Fprintf(s.out, "%s: serves %s %s, release %s, epoch %d\n", name, c.Release.Model, c.Release.Version, c.Serve, c.Epoch)
			}
			for _, p := range c.Pending {
				fmt.Fprintf(s.err, "weighbridge: %s: epoch %d is pending: %s\n", name, p.Epoch, texts(p.Missing))
			}
			switch {
			case c.Fallback:
				fmt.Fprintf(s.err, "weighbridge: %s: an older release serves, what is newer no longer counts: %s\n", name, texts(c.Missing))
			case len(c.Missing) > 0:
				fmt.Fprintf(s.err, "weighbridge: %s: served in mode warn: %s\n", name, texts(c.Missing))
			}
			continue
		}
		errs = append(errs, refusedChannel(name, c))
	}
	return errors.Join(errs...)
}

// refusedChannel is the error of a channel that serves nothing, with a hint for each statement that did not count for
// a reason someone may not know of, and for who could supply what is missing.
func refusedChannel(name string, c trust.Channel) error {
	const maxHints = 8
	why := errors.New("the policy names no such channel")
	if len(c.Missing) > 0 {
		why = errors.New(texts(c.Missing))
	} else if len(c.Reasons) > 0 {
		why = errors.New(c.Reasons[0].Why)
	}
	err := refused(name, why)
	var hints []string
	for _, r := range c.Reasons {
		if r.Counted || r.Kind == "policy" || r.Why == why.Error() || strings.Contains(r.Why, "is pending") {
			continue
		}
		if r.Identity == "" {
			hints = append(hints, fmt.Sprintf("statement %.19s…: %s", r.Statement, r.Why))
		} else {
			hints = append(hints, r.Why)
		}
	}
	for _, m := range c.Missing {
		if len(m.CouldSupply) > 0 {
			hints = append(hints, fmt.Sprintf("could still act as %s: %s", m.Role, strings.Join(m.CouldSupply, ", ")))
		}
	}
	hints = distinct(hints)
	if len(hints) > maxHints {
		more := len(hints) - maxHints + 1
		hints = append(hints[:maxHints-1], fmt.Sprintf("%d more: weighbridge explain %s", more, name))
	}
	// report prints the outermost hint first.
	for _, hint := range slices.Backward(hints) {
		err = withHint(err, hint)
	}
	return err
}

func distinct(all []string) []string {
	var once []string
	for _, s := range all {
		if !slices.Contains(once, s) {
			once = append(once, s)
		}
	}
	return once
}

func texts(missing []trust.Missing) string {
	all := make([]string, len(missing))
	for i, m := range missing {
		all[i] = m.String()
	}
	return strings.Join(all, "; ")
}

// expiryNote says when a policy ends, for people.
func expiryNote(p *trust.Policy) string { return p.Expires().Format(time.RFC3339) }
