package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

func newWhoCanCmd(s streams) *cobra.Command {
	var o decideFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "who-can CHANNEL {--policy policy.jsonl --root KEY.pub… | --server ADDR [--root KEY.pub…]}",
		Short: "Say who could change what a channel serves",
		Long: `Say who could change what a channel serves: for each act the role that may do it, how many of its members it
takes, and which they are. An act that nobody may do is not listed.`,
		Example: `  weighbridge who-can chat --policy policy.jsonl --root alice.pub --root bob.pub
  weighbridge who-can chat --server unix:./control.sock`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			const what = "who-can"
			if err := o.moreRoots(args[1:]); err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			in, err := o.accept(cmd.Context(), s, what)
			if err != nil {
				return refusedJSON(s.out, asJSON, map[string]any{"acts": []any{}}, err)
			}
			powers := in.policy.WhoCan(args[0])
			if powers == nil {
				return refusedJSON(s.out, asJSON, map[string]any{"acts": []any{}}, refused(what, fmt.Errorf("the policy names no channel %q", args[0])))
			}
			if asJSON {
				return printJSON(s.out, map[string]any{"channel": args[0], "acts": powers})
			}
			for _, p := range powers {
				fmt.Fprintf(s.out, "%-18s %d of role %s: %s\n", p.Act, p.Need, p.Role, strings.Join(p.Identities, ", "))
			}
			return nil
		},
	}
	o.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

// An impact is what one channel would serve without an identity.
type impact struct {
	Serves  *statement.ID   `json:"serves"`
	Without *statement.ID   `json:"without"`
	Frozen  bool            `json:"frozen"`
	Missing []trust.Missing `json:"missing"`
}

func newImpactCmd(s streams) *cobra.Command {
	var o decideFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "impact IDENTITY {--policy policy.jsonl --root KEY.pub… --statements DIR | --server ADDR [--root KEY.pub…]}",
		Short: "Say what would stop if nothing counted that an identity signed",
		Long: `Say what would stop if nothing counted any more that an identity has signed: for each channel what it serves
now, what it would serve then, and what would be missing. Exit status 1 if any channel would serve something else.`,
		Example: `  weighbridge impact alice --policy policy.jsonl --root alice.pub --root bob.pub --statements statements
  weighbridge impact alice --server unix:./control.sock`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			const what = "impact"
			if err := o.moreRoots(args[1:]); err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			refuse := func(err error) error {
				return refusedJSON(s.out, asJSON, map[string]any{"channels": map[string]any{}}, err)
			}
			in, err := o.read(cmd.Context(), s, what)
			if err != nil {
				return refuse(err)
			}
			without := in.policy.Without(args[0])
			if without == nil {
				return refuse(refused(what, fmt.Errorf("the policy knows no identity %q", args[0])))
			}
			now, then := in.decide(in.policy), in.decide(without)
			all, changed := map[string]impact{}, 0
			for name, c := range now.Channels {
				after := then.Channels[name]
				all[name] = impact{release(c.Serve), release(after.Serve), after.Frozen != "", after.Missing}
				if c.Serve != after.Serve {
					changed++
				}
			}
			if asJSON {
				err = printJSON(s.out, map[string]any{"identity": args[0], "channels": all})
			} else {
				tellImpact(s, all)
			}
			if err == nil && changed > 0 {
				err = refused(what, fmt.Errorf("without %s %d of %d channels would serve something else", args[0], changed, len(all)))
			}
			return err
		},
	}
	o.add(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

func release(id statement.ID) *statement.ID {
	if id == "" {
		return nil
	}
	return &id
}

func tellImpact(s streams, all map[string]impact) {
	say := func(id *statement.ID) string {
		if id == nil {
			return "nothing"
		}
		return string(*id)
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		i := all[name]
		switch before, after := say(i.Serves), say(i.Without); {
		case before == after:
			fmt.Fprintf(s.out, "%s: goes on to serve %s\n", name, before)
		case i.Frozen:
			fmt.Fprintf(s.out, "%s: %s may go on where it serves, frozen: %s\n", name, before, texts(i.Missing))
		case len(i.Missing) > 0:
			fmt.Fprintf(s.out, "%s: would serve %s in place of %s: %s\n", name, after, before, texts(i.Missing))
		default:
			fmt.Fprintf(s.out, "%s: would serve %s in place of %s\n", name, after, before)
		}
	}
}

func newReleaseDiffCmd(s streams) *cobra.Command {
	var statements string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "diff A B",
		Short: "Say everything that changes between two releases",
		Long: `Say everything that changes between two releases: weights and adapters file by file, tokenizer and template, runtime,
behaviour, provenance. A and B are statement files, or release ids with --statements.`,
		Example: "  weighbridge release diff old.json new.json",
		Args:    cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			const what = "release diff"
			var both [2]*trust.Release
			for i, arg := range args {
				id, r, err := findRelease(what, arg, statements)
				if err != nil {
					return refusedJSON(s.out, asJSON, map[string]any{}, err)
				}
				if r == nil {
					return withHint(fmt.Errorf("%s: %w", what, errors.New("no statement with the id "+string(id))), "name the directory to look in by --statements")
				}
				both[i] = r
			}
			changes, err := trust.Diff(both[0], both[1])
			if err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			if asJSON {
				return printJSON(s.out, map[string]any{"from": both[0].ID, "to": both[1].ID, "changes": changes})
			}
			for _, c := range changes {
				fmt.Fprintf(s.out, "%s\n", c.Path)
				for _, side := range [][2]string{{"-", c.From}, {"+", c.To}} {
					if side[1] != "" {
						fmt.Fprintf(s.out, "  %s %s\n", side[0], side[1])
					}
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&statements, "statements", "", "statements directory to look in")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}
