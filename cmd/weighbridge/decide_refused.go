package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// malformed is the reason of what lies among the statements and is none: it can't be taken for signed by anyone.
func malformed(p store.Problem) trust.Reason {
	rule := trust.RuleSignature
	if errors.Is(p.Err, statement.ErrUnknownField) {
		rule = trust.RuleUnknownField
	}
	return trust.Reason{Rule: rule, Statement: p.Statement, Why: fmt.Sprintf("%s: %v", printable(p.File), p.Err)}
}

// printable quotes a name that could show something else than it is.
func printable(name string) string {
	if strings.IndexFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) >= 0 || !utf8.ValidString(name) {
		return strconv.Quote(name)
	}
	return name
}

// refusedPolicy prints the one document of a --json command whose policy was refused: no channel serves, for that reason.
func (o *decideFlags) refusedPolicy(s streams, asJSON bool, channels []string, err error) error {
	shown := map[string]any{}
	if no := new(trust.PolicyRefusal); errors.As(err, &no) {
		if len(channels) == 0 {
			channels = channelsOf(o.policy)
		}
		for _, name := range channels {
			shown[name] = trust.Channel{Reasons: []trust.Reason{no.Reason()}}
		}
	}
	return refusedJSON(s.out, asJSON, map[string]any{"channels": shown}, err)
}

// channelsOf returns the channels that a policy names that nobody may rely on.
func channelsOf(path string) []string {
	bundles, err := readPolicyBundles(path)
	if err != nil {
		return nil
	}
	p, err := trust.ParsePolicy(bundles[0], nil)
	if err != nil {
		return nil
	}
	return p.Channels()
}
