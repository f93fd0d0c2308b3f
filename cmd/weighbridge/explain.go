package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weighbridge/weighbridge/verifier/trust"
)

func newExplainCmd(s streams) *cobra.Command {
	var o decideFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "explain CHANNEL {--policy policy.jsonl --root KEY.pub… --statements DIR | --server ADDR [--root KEY.pub…]}",
		Short: "Show the decision for a channel as a tree: what counted, what did not, why",
		Long: `Show the decision for one channel as a tree: what counted, what did not, and why. The inputs are those of
weighbridge decide, and so is the exit status: 1 if the channel serves nothing.`,
		Example: `  weighbridge explain chat --policy policy.jsonl --root alice.pub --root bob.pub --statements statements
  weighbridge explain chat --server unix:./control.sock --root alice.pub --root bob.pub`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[0]
			if err := o.moreRoots(args[1:]); err != nil {
				return fmt.Errorf("explain: %w", err)
			}
			d, err := o.decide(cmd.Context(), s, "explain")
			if err != nil {
				return o.refusedPolicy(s, asJSON, []string{name}, err)
			}
			shown := d.only([]string{name})
			if asJSON {
				if err := printJSON(s.out, shown); err != nil {
					return err
				}
			} else if err := printTree(s.out, d.policy, name, shown.Channels[name]); err != nil {
				return err
			}
			if c := shown.Channels[name]; c.Serve == "" {
				return refusedChannel(name, c)
			}
			return nil
		},
	}
	o.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

// A branch is a line of the tree and the lines below it.
type branch struct {
	text string
	kids []branch
}

func printTree(w io.Writer, p *trust.Policy, name string, c trust.Channel) error {
	root := branch{text: name + ": serves nothing"}
	if c.Serve != "" {
		root.text = fmt.Sprintf("%s: serves %s %s at epoch %d", name, c.Release.Model, c.Release.Version, c.Epoch)
		root.kids = append(root.kids,
			branch{text: "release " + string(c.Serve)},
			branch{text: "weights " + c.Release.Weights.Root + ", level " + c.Level + " or stronger"})
	}
	root.kids = append(root.kids, branch{text: fmt.Sprintf("policy version %d, expires %s", p.Version(), expiryNote(p))})
	if len(c.Missing) > 0 {
		root.kids = append(root.kids, missingBranch("missing", c.Missing))
	}
	for _, pending := range c.Pending {
		root.kids = append(root.kids, missingBranch(fmt.Sprintf("pending: epoch %d, release %s", pending.Epoch, pending.Release), pending.Missing))
	}
	var elsewhere []branch
	groups := map[string]int{}
	for _, r := range c.Reasons {
		mark := "✗"
		if r.Counted {
			mark = "✓"
		}
		leaf := branch{text: fmt.Sprintf("%s %s: %s (%.19s…)", mark, r.Rule, r.Why, r.Statement)}
		if r.Rule == trust.RuleScope {
			elsewhere = append(elsewhere, leaf)
			continue
		}
		kind := cmp.Or(r.Kind, "other statement") + "s"
		if r.Kind == "weights" || r.Kind == "policy" {
			kind = r.Kind
		}
		at, known := groups[kind]
		if !known {
			at = len(root.kids)
			groups[kind] = at
			root.kids = append(root.kids, branch{text: kind})
		}
		root.kids[at].kids = append(root.kids[at].kids, leaf)
	}
	if len(elsewhere) > 0 {
		root.kids = append(root.kids, branch{"not about what is published here", elsewhere})
	}
	var b strings.Builder
	b.WriteString(root.text + "\n")
	root.write(&b, "")
	_, err := io.WriteString(w, b.String())
	return err
}

func missingBranch(text string, missing []trust.Missing) branch {
	out := branch{text: text}
	for _, m := range missing {
		line := m.String()
		if len(m.CouldSupply) > 0 {
			line += "; could still act as " + m.Role + ": " + strings.Join(m.CouldSupply, ", ")
		}
		out.kids = append(out.kids, branch{text: line})
	}
	return out
}

func (b branch) write(out *strings.Builder, indent string) {
	for i, kid := range b.kids {
		joint, below := "├─ ", "│  "
		if i == len(b.kids)-1 {
			joint, below = "└─ ", "   "
		}
		out.WriteString(indent + joint + kid.text + "\n")
		kid.write(out, indent+below)
	}
}
