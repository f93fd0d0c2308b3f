package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/weighbridge/weighbridge/configs"
	"github.com/weighbridge/weighbridge/gateway/access"
)

func newAccessCmd(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "access",
		Short:   "Explain the access rules of a configuration",
		Example: "  weighbridge access test --as spiffe://dev.example/apps/demo --channel chat",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newAccessTestCmd(s))
	return cmd
}

// accessFlags are the act that is asked about.
type accessFlags struct {
	config, caller, channel, method, at string
	request                             access.Request
}

func newAccessTestCmd(s streams) *cobra.Command {
	var o accessFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "test --as SPIFFE-ID --channel CHANNEL [--method METHOD] [--config FILE]",
		Short: "Say whether a caller may do something on a channel, by which rules, and why not by the others",
		Long: `Say whether a caller may do something on a channel: what each rule that names the caller says of it, and within
which limits it allows it. What the caller has used of these is known to the running gateway alone. A condition on the
request is asked of the request that --api, --stream, --tools and --max-tokens describe.`,
		Example: `  weighbridge access test --as spiffe://dev.example/apps/demo --channel chat
  weighbridge access test --as spiffe://dev.example/apps/demo --channel chat --method embed --at 2030-01-05T03:00:00Z --json`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			const what = "access test"
			act, err := o.act()
			if err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			cfg, err := configs.Load(o.config)
			if err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			policy, err := access.Parse(cfg.Access)
			if err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			no := policy.Check(act)
			if asJSON {
				err = printJSON(s.out, accessJSON(act, cfg.Access, policy.Explain(act), no))
			} else {
				tellAccess(s, act, cfg.Access, policy.Explain(act))
			}
			if err != nil || no == nil {
				return err
			}
			no = refused(what, no)
			if _, known := cfg.Channels[act.Channel]; !known {
				no = withHint(no, fmt.Sprintf("%s has no channel %q", o.config, act.Channel))
			}
			return no
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.caller, "as", "", "the caller's SPIFFE ID (required)")
	f.StringVar(&o.channel, "channel", "", "the channel (required)")
	f.StringVar(&o.method, "method", access.MethodChat, "what the caller wants to do: "+strings.Join(access.Methods(), ", "))
	f.StringVar(&o.config, "config", "gateway.yaml", "the gateway's configuration")
	f.StringVar(&o.at, "at", atNow, "when: now, or RFC 3339")
	f.StringVar(&o.request.API, "api", "openai", "the API by which the request comes")
	f.BoolVar(&o.request.Stream, "stream", false, "the answer is wanted in pieces")
	f.BoolVar(&o.request.Tools, "tools", false, "the request brings tools")
	f.Int64Var(&o.request.MaxTokens, "max-tokens", 0, "how long the answer may be; 0 if the request does not say")
	f.BoolVar(&asJSON, "json", false, "print one JSON document")
	cobra.CheckErr(cmd.MarkFlagRequired("as"))
	cobra.CheckErr(cmd.MarkFlagRequired("channel"))
	return cmd
}

func (o *accessFlags) act() (access.Act, error) {
	caller, err := spiffeid.FromString(o.caller)
	if err != nil {
		return access.Act{}, fmt.Errorf("--as: %w", err)
	}
	at, err := parseTime(o.at)
	if err != nil {
		return access.Act{}, fmt.Errorf("--at: %w", err)
	}
	if !slices.Contains(access.Methods(), o.method) {
		return access.Act{}, fmt.Errorf("--method: %q is not one of %s", o.method, strings.Join(access.Methods(), ", "))
	}
	if o.request.MaxTokens < 0 {
		return access.Act{}, fmt.Errorf("--max-tokens: %d is below 0", o.request.MaxTokens)
	}
	return access.Act{Caller: caller, Channel: o.channel, Method: o.method, Time: at, Request: o.request}, nil
}

// ruleJSON is what one rule says.
type ruleJSON struct {
	Rule     int      `json:"rule"`
	Caller   string   `json:"caller"`
	Channels []string `json:"channels"`
	Methods  []string `json:"methods"`
	When     string   `json:"when,omitzero"`
	Matches  bool     `json:"matches"`
	Allows   bool     `json:"allows"`
	Why      string   `json:"why,omitzero"`
	Limits   []string `json:"limits"`
}

func accessJSON(act access.Act, rules []access.Rule, verdicts []access.Verdict, no error) map[string]any {
	all := []ruleJSON{}
	for _, v := range verdicts {
		r := rules[v.Rule]
		all = append(all, ruleJSON{v.Rule, r.Caller, r.Channels, r.Methods, r.When, v.Matches, v.Why == "", v.Why, append([]string{}, v.Limits...)})
	}
	doc := map[string]any{
		"caller": act.Caller.String(), "channel": act.Channel, "method": act.Method, "at": act.Time.UTC().Format(time.RFC3339), "allowed": no == nil, "rules": all,
	}
	if no != nil {
		doc["error"] = no.Error()
	}
	return doc
}

func tellAccess(s streams, act access.Act, rules []access.Rule, verdicts []access.Verdict) {
	var by []string
	others := 0
	for _, v := range verdicts {
		switch name := fmt.Sprintf("access[%d]", v.Rule); {
		case !v.Matches:
			others++
		case v.Why != "":
			fmt.Fprintf(s.out, "%s %s: does not allow it: %s\n", name, rules[v.Rule].Caller, v.Why)
		case len(v.Limits) == 0:
			fmt.Fprintf(s.out, "%s %s: allows it, without limits\n", name, rules[v.Rule].Caller)
			by = append(by, name)
		default:
			fmt.Fprintf(s.out, "%s %s: allows it, within %s\n", name, rules[v.Rule].Caller, strings.Join(v.Limits, ", "))
			by = append(by, name)
		}
	}
	if others > 0 {
		fmt.Fprintf(s.out, "%d of %d rules name other callers\n", others, len(rules))
	}
	if len(by) > 0 {
		fmt.Fprintf(s.out, "%s may %s on channel %s, by %s\n", act.Caller, act.Method, act.Channel, strings.Join(by, " or else "))
	}
}
