package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weighbridge/weighbridge/verifier/trust"
)

// expiresSoon is how long before its end a policy is reported: long enough to gather the root signers.
const expiresSoon = 30 * 24 * time.Hour

func newTrustLintCmd(s streams) *cobra.Command {
	var asJSON bool
	var at string
	cmd := &cobra.Command{
		Use:   "lint POLICY",
		Short: "Report what is legal in a policy but likely a mistake",
		Long: `Report what is legal in a policy but likely a mistake: it expires soon, one identity is in roles that a
channel separates, a role has fewer active members than a rule needs, the root is one key. Exit status 1
if there is any finding.`,
		Example: "  weighbridge trust lint POLICY.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			now, err := parseTime(at)
			if err != nil {
				return fmt.Errorf("trust lint: --at: %w", err)
			}
			p, err := loadPolicy(args[0], "trust lint")
			if err != nil {
				return refusedJSON(s.out, asJSON, map[string]any{"findings": []string{}}, err)
			}
			findings := lint(p.Document, now)
			if asJSON {
				if err := printJSON(s.out, map[string]any{"findings": findings}); err != nil {
					return err
				}
			} else {
				for _, finding := range findings {
					fmt.Fprintln(s.out, finding)
				}
			}
			if len(findings) > 0 {
				return refused("trust lint", fmt.Errorf("%d findings", len(findings)))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	cmd.Flags().StringVar(&at, "at", "now", "time to judge expiry at: now or RFC 3339")
	return cmd
}

// lint returns what is likely a mistake in a policy that was checked, each as "KEY: WHY".
func lint(d trust.Document, now time.Time) []string {
	found := []string{}
	say := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	switch left := d.Expires.Sub(now); {
	case left <= 0:
		say("expires: the policy expired on %s", d.Expires.Format(time.RFC3339))
	case left <= expiresSoon:
		say("expires: the policy ends in %d days, on %s", int(left.Hours()/24), d.Expires.Format(time.RFC3339))
	}
	switch root, ok := d.Roles["root"]; {
	case !ok:
		say("roles.root: there is no role root, so no one can sign the next policy")
	case root.Threshold <= 1:
		say("roles.root.threshold: any one root member can replace the whole policy")
	}
	for _, name := range slices.Sorted(maps.Keys(d.Channels)) {
		lintChannel(d, name, say)
	}
	for _, name := range slices.Sorted(maps.Keys(d.Identities)) {
		in := func(role string) bool { return slices.Contains(d.Roles[role].Members, name) }
		if !slices.ContainsFunc(slices.Collect(maps.Keys(d.Roles)), in) {
			say("identities.%s: is in no role", name)
		}
	}
	return found
}

func lintChannel(d trust.Document, name string, say func(string, ...any)) {
	c := d.Channels[name]
	path := "channels." + name
	for i, first := range c.Separate {
		for _, second := range c.Separate[i+1:] {
			for _, who := range d.Roles[first].Members {
				if slices.Contains(d.Roles[second].Members, who) {
					say("%s.separate: %s is both %s and %s", path, who, first, second)
				}
			}
		}
	}
	for _, r := range []struct {
		key  string
		rule *trust.Rule
	}{
		{"require.release", &c.Require.Release}, {"require.weights", c.Require.Weights},
		{"require.evaluation", c.Require.Evaluation}, {"require.approval", c.Require.Approval},
		{"publish", &c.Publish}, {"rollback", c.Rollback}, {"withdraw", c.Withdraw},
	} {
		if r.rule == nil {
			continue
		}
		role := d.Roles[r.rule.Role]
		active := slices.DeleteFunc(slices.Clone(role.Members), func(who string) bool { return !d.Identities[who].State.Active() })
		if need := max(1, r.rule.Count, role.Threshold); len(active) < need {
			say("%s.%s: needs %d of role %s, which has %d active members", path, r.key, need, r.rule.Role, len(active))
		}
	}
}

// parseTime reads "now" or an RFC 3339 time.
func parseTime(s string) (time.Time, error) {
	if s == "now" || s == "" {
		return time.Now(), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is neither now nor a time such as 2030-01-01T00:00:00Z", s)
	}
	return t, nil
}

// parseExpiry reads a time, or a term from now such as 90d. Empty is no expiry.
func parseExpiry(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if term, err := trust.ParseAge(s); err == nil {
		return now.UTC().Add(term).Truncate(time.Second), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	switch {
	case err != nil:
		return time.Time{}, fmt.Errorf("%q is neither a term such as 90d nor a time such as 2030-01-01T00:00:00Z", s)
	case !t.After(now):
		return time.Time{}, errors.New(strings.TrimSpace(s + " is past"))
	}
	return t.UTC(), nil
}
