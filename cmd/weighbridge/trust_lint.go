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

// expiresSoon is how long before its end something is reported: long enough to gather those who must sign again.
const expiresSoon = 30 * 24 * time.Hour

func newTrustLintCmd(s streams) *cobra.Command {
	var asJSON bool
	var at, statements, floor string
	cmd := &cobra.Command{
		Use:   "lint POLICY",
		Short: "Report what is legal in a policy but likely a mistake",
		Long: `Report what is legal in a policy but likely a mistake: it expires soon, one identity is in roles that a
channel separates or should separate, one alone can change what is served, a role has fewer active members than
a rule needs, a channel asks for little, the root is one key, a gateway has other roles.

With --statements also what these show: identities, roles and keys that nobody uses, and approvals, evaluations
and publications of what would be served that end soon. Roles that only withdraw, roll back or sign policies are
for emergencies, and never reported as unused. Exit status 1 if there is any finding.`,
		Example: `  weighbridge trust lint POLICY.yaml
  weighbridge trust lint policy.jsonl --statements statements --floor state/floor.json`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			const what = "trust lint"
			now, err := parseTime(at)
			if err != nil {
				return fmt.Errorf("%s: --at: %w", what, err)
			}
			if floor != "" && statements == "" {
				return fmt.Errorf("%s: --floor says what was accepted of --statements, which is missing", what)
			}
			p, err := loadPolicy(args[0], what)
			if err != nil {
				return refusedJSON(s.out, asJSON, map[string]any{"findings": []string{}}, err)
			}
			l := linter{Document: p.Document, now: now, found: []string{}}
			l.policy()
			if statements != "" {
				u, err := readUsage(s, p, now, statements, floor)
				if err != nil {
					return fmt.Errorf("%s: %w", what, err)
				}
				l.usage(u)
			}
			return l.tell(s, asJSON, what)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	cmd.Flags().StringVar(&at, "at", "now", "time to judge expiry at: now or RFC 3339")
	cmd.Flags().StringVar(&statements, "statements", "", "statements directory, to hold the policy against")
	cmd.Flags().StringVar(&floor, "floor", "", "floor file of a gateway's state (default: nothing was accepted before)")
	return cmd
}

// A linter gathers what is likely a mistake in a policy that was checked, each as "KEY: WHY".
type linter struct {
	trust.Document
	now   time.Time
	found []string
}

func (l *linter) say(format string, args ...any) {
	l.found = append(l.found, fmt.Sprintf(format, args...))
}

func (l *linter) tell(s streams, asJSON bool, what string) error {
	if asJSON {
		if err := printJSON(s.out, map[string]any{"findings": l.found}); err != nil {
			return err
		}
	} else {
		for _, finding := range l.found {
			fmt.Fprintln(s.out, finding)
		}
	}
	if len(l.found) > 0 {
		return refused(what, fmt.Errorf("%d findings", len(l.found)))
	}
	return nil
}

// policy looks at the policy alone.
func (l *linter) policy() {
	switch left := l.Expires.Sub(l.now); {
	case left <= 0:
		l.say("expires: the policy expired on %s; sign the next version", l.Expires.Format(time.RFC3339))
	case left <= expiresSoon:
		l.say("expires: the policy ends %s; sign the next version before", l.in(l.Expires))
	}
	l.root()
	l.gateways()
	for _, name := range slices.Sorted(maps.Keys(l.Channels)) {
		l.channel(name)
	}
	for _, name := range slices.Sorted(maps.Keys(l.Identities)) {
		if len(l.rolesOf(name)) == 0 {
			l.say("identities.%s: is in no role; give it one, or leave it out", name)
		}
	}
}

func (l *linter) root() {
	root, ok := l.Roles[rootRole]
	switch active := l.active(rootRole); {
	case !ok:
		l.say("roles.root: there is no role root, so no one can sign the next policy but the keys that sites pin")
		return
	case root.Threshold <= 1:
		l.say("roles.root.threshold: any one root member can replace the whole policy; ask for two")
	case len(active) < root.Threshold:
		l.say("roles.root: needs %d, and has %d active members, so no one can sign the next policy", root.Threshold, len(active))
	}
	for _, who := range root.Members {
		if state := l.Identities[who].State; !state.Active() {
			l.say("roles.root.members: %s is %s, so can't sign the next policy; leave it out", who, state)
		}
	}
}

// gateways looks at who signs receipts. A gateway's key lies on a host that answers callers: who takes that over must not be
// able to approve, too.
func (l *linter) gateways() {
	for _, who := range l.Roles[trust.GatewayRole].Members {
		others := slices.DeleteFunc(l.rolesOf(who), func(role string) bool { return role == trust.GatewayRole })
		if len(others) > 0 {
			l.say("roles.gateway.members: %s is in %s as well; give each gateway an identity of its own, for its key is on a host that callers reach", who, strings.Join(others, ", "))
		}
		if state := l.Identities[who].State; !state.Active() {
			l.say("roles.gateway.members: %s is %s, so its receipts do not count; callers who keep them need the policy before", who, state)
		}
	}
}

// in says how soon something ends, and when.
func (l *linter) in(end time.Time) string {
	return fmt.Sprintf("in %d days, on %s", int(end.Sub(l.now).Hours()/24), end.Format(time.RFC3339))
}

// rolesOf returns the roles of an identity, sorted.
func (l *linter) rolesOf(who string) []string {
	var in []string
	for _, role := range slices.Sorted(maps.Keys(l.Roles)) {
		if slices.Contains(l.Roles[role].Members, who) {
			in = append(in, role)
		}
	}
	return in
}

// active returns the members of a role whose new statements count.
func (l *linter) active(role string) []string {
	return slices.DeleteFunc(slices.Clone(l.Roles[role].Members), func(who string) bool { return !l.Identities[who].State.Active() })
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
