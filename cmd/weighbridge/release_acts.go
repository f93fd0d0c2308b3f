package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// testsFile is the file of release evaluate --tests.
type testsFile struct {
	APIVersion string   `yaml:"apiVersion"` // weighbridge/v1
	Kind       string   `yaml:"kind"`       // Tests
	Passed     []string `yaml:"passed"`
	Warned     []string `yaml:"warned"`
	Failed     []string `yaml:"failed"`
}

func newReleaseEvaluateCmd(s streams) *cobra.Command {
	var o signFlags
	var result, tests, finished, url string
	cmd := &cobra.Command{
		Use:   "evaluate RELEASE --result passed|failed [--tests FILE] --key K (--out FILE | --statements DIR)",
		Short: "Sign how a release did in tests; prints the evaluation's id",
		Long: `Sign that a release passed or failed tests (an in-toto test result). Its age counts from when the tests ended,
which is now unless --finished-on says otherwise. A later failure cancels what passed before it.

--tests names the tests: a YAML file with apiVersion, kind: Tests, and the lists passed, warned and failed.
RELEASE is a statement file or a release id.`,
		Example: "  weighbridge release evaluate release.json --result passed --tests tests.yaml --key evalbot.key --statements statements",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			const what = "release evaluate"
			word, known := map[string]string{"passed": trust.Passed, "failed": trust.Failed}[result]
			if !known {
				return fmt.Errorf("%s: --result is required: passed or failed", what)
			}
			signer, err := o.signer(s, what)
			if err != nil {
				return err
			}
			at, err := parseTime(finished)
			if err != nil {
				return fmt.Errorf("%s: --finished-on: %w", what, err)
			}
			e := trust.Evaluation{Result: word, FinishedOn: at.Truncate(time.Second), URL: url}
			if tests != "" {
				var named testsFile
				f, err := readYAML(tests, "Tests", &named)
				if err == nil {
					err = f.err(what)
				}
				if err != nil {
					return err
				}
				e.PassedTests, e.WarnedTests, e.FailedTests = named.Passed, named.Warned, named.Failed
			}
			id, release, err := findRelease(what, args[0], o.statements)
			if err != nil {
				return err
			}
			payload, err := trust.NewEvaluation(id, e)
			if err != nil {
				return refused(what, err)
			}
			tellRelease(s.err, "says that tests "+result, id, release)
			return o.sign(s, what, "evaluation", signer, payload)
		},
	}
	f := cmd.Flags()
	f.StringVar(&result, "result", "", "passed or failed (required)")
	f.StringVar(&tests, "tests", "", "file that names the tests")
	f.StringVar(&finished, "finished-on", "now", "when the tests ended: now or RFC 3339")
	f.StringVar(&url, "url", "", "where the full results are")
	o.add(s, cmd)
	return cmd
}

func newReleaseRollbackCmd(s streams) *cobra.Command {
	var o signFlags
	var channel, to, epoch, expires, reason string
	cmd := &cobra.Command{
		Use:   "rollback --channel C --to RELEASE|previous --epoch N|next --reason R --key K (--out FILE | --statements DIR)",
		Short: "Sign that a channel goes back to a release it served before; prints the publication's id",
		Long: `Sign that a channel goes back to a release that it served before. It is an act of the rollback role, at a new
epoch, and needs everything that a publication needs but for the age of evaluations. "previous" is the release of
the publication before the highest one in the statements directory.`,
		Example: "  weighbridge release rollback --channel chat --to previous --epoch next --reason 'it rambles' --key night.key --statements statements",
		Args:    cobra.NoArgs,
		RunE: func(_ *cobra.Command, _ []string) error {
			const what = "release rollback"
			if channel == "" || to == "" || epoch == "" || reason == "" {
				return fmt.Errorf("%s: --channel, --to, --epoch and --reason are required", what)
			}
			signer, err := o.signer(s, what)
			if err != nil {
				return err
			}
			until, err := parseExpiry(expires, time.Now())
			if err != nil {
				return fmt.Errorf("%s: --expires: %w", what, err)
			}
			if to == "previous" {
				before, err := o.previous(channel)
				if err != nil {
					return refused(what, err)
				}
				o.hintUnverified(s, "the release before")
				to = string(before)
			}
			id, release, err := findRelease(what, to, o.statements)
			if err != nil {
				return err
			}
			p, err := o.follow(channel, epoch)
			if err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			p.Expires, p.Rollback, p.Reason = until, true, reason
			payload, err := trust.NewPublication(id, p)
			if err != nil {
				return refused(what, err)
			}
			tellRelease(s.err, fmt.Sprintf("rolls %s back at epoch %d", channel, p.Epoch), id, release)
			return o.sign(s, what, "publication", signer, payload)
		},
	}
	f := cmd.Flags()
	f.StringVar(&channel, "channel", "", "channel to roll back (required)")
	f.StringVar(&to, "to", "", "release to go back to: a statement file, an id, or previous (required)")
	f.StringVar(&epoch, "epoch", "", "epoch: a number, or next (required)")
	f.StringVar(&reason, "reason", "", "why (required)")
	f.StringVar(&expires, "expires", "", "a time, or a term from now such as 90d")
	o.add(s, cmd)
	o.addPolicy(cmd)
	return cmd
}

// previous is the release before the one that the highest publication of a channel names.
func (o *signFlags) previous(channel string) (statement.ID, error) {
	all, err := o.published(channel)
	if err != nil {
		return "", err
	}
	for i := len(all) - 2; i >= 0; i-- {
		if all[i].release != all[len(all)-1].release {
			return all[i].release, nil
		}
	}
	return "", withHint(fmt.Errorf("the statements name no release that %s served before", channel), "give --to a release, or --statements a directory with the channel's publications")
}

func newReleaseWithdrawCmd(s streams) *cobra.Command {
	var o signFlags
	var weights, reason string
	cmd := &cobra.Command{
		Use:   "withdraw RELEASE|--weights ROOT --reason R --key K (--out FILE | --statements DIR)",
		Short: "Sign that a release, or weights wherever they are used, must stop; prints the withdrawal's id",
		Long: `Sign that a release, or weights wherever they are used, must stop. It can't be taken back: a gateway that has
heard of it remembers it for ever. RELEASE is a statement file or a release id, ROOT the root digest of weights.`,
		Example: "  weighbridge release withdraw release.json --reason 'it leaks' --key warden.key --statements statements",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			const what = "release withdraw"
			if (len(args) == 1) == (weights != "") {
				return fmt.Errorf("%s: one of RELEASE and --weights is required", what)
			}
			if strings.TrimSpace(reason) == "" {
				return fmt.Errorf("%s: --reason is required", what)
			}
			signer, err := o.signer(s, what)
			if err != nil {
				return err
			}
			w := trust.Withdrawal{Of: trust.OfWeights, Reason: reason}
			target, err := statement.ParseID(weights)
			if len(args) == 1 {
				var release *trust.Release
				w.Of = trust.OfRelease
				if target, release, err = findRelease(what, args[0], o.statements); err != nil {
					return err
				}
				tellRelease(s.err, "withdraws for ever", target, release)
			} else if err != nil {
				return fmt.Errorf("%s: --weights: %w", what, err)
			}
			payload, err := trust.NewWithdrawal(target, w)
			if err != nil {
				return refused(what, err)
			}
			return o.sign(s, what, "withdrawal", signer, payload)
		},
	}
	cmd.Flags().StringVar(&weights, "weights", "", "root digest of weights, sha256:…")
	cmd.Flags().StringVar(&reason, "reason", "", "why (required)")
	o.add(s, cmd)
	return cmd
}
