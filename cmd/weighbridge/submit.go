package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	controlv1 "github.com/weighbridge/weighbridge/proto/weighbridge/control/v1"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store"
)

func newSubmitCmd(s streams) *cobra.Command {
	var server string
	var dryRun, asJSON bool
	cmd := &cobra.Command{
		Use:   "submit STATEMENT... [--server ADDR]",
		Short: "Bring signed statements to a running gateway, or ask what they would change",
		Long: `Bring signed statements to a running gateway, as copying them into its statements directory does. Submitting
approves nothing: a statement counts for what the policy says of its signer. A policy.jsonl is submitted alone.

With --dry-run nothing is kept, and the answer says what each channel would serve.`,
		Example: "  weighbridge submit approval.json --server unix:./control.sock --dry-run",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var bundles [][]byte
			for _, path := range args {
				data, err := store.ReadFile(path, statement.MaxBundle)
				if err != nil {
					return fmt.Errorf("submit: %w", err)
				}
				all, err := statement.ParseLines(data)
				if err != nil {
					return refusedJSON(s.out, asJSON, map[string]any{}, refused(path, err))
				}
				for _, one := range all {
					bundles = append(bundles, one.Bundle())
				}
			}
			res, err := submitTo(cmd.Context(), server, bundles, dryRun)
			if err != nil {
				return refusedJSON(s.out, asJSON, map[string]any{}, err)
			}
			return tellSubmitted(s, res, dryRun, asJSON)
		},
	}
	cmd.Flags().StringVar(&server, "server", defaultControl(), "the gateway's control socket (or WEIGHBRIDGE_SERVER)")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "keep nothing, and say what would change")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

// submitTo sends bundles to a gateway. What the gateway refuses is a refusal here.
func submitTo(ctx context.Context, server string, bundles [][]byte, dryRun bool) (*controlv1.SubmitResponse, error) {
	conn, err := dialControl(server)
	if err != nil {
		return nil, fmt.Errorf("submit: %w", err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	res, err := controlv1.NewControlClient(conn).Submit(ctx, &controlv1.SubmitRequest{Bundles: bundles, DryRun: dryRun})
	switch status.Code(err) {
	case codes.OK:
		return res, nil
	case codes.InvalidArgument, codes.FailedPrecondition:
		return nil, refused("submit", errors.New(status.Convert(err).Message()))
	}
	return nil, withHint(fmt.Errorf("submit: %w", controlError(server, err)), controlHint)
}

// tellSubmitted prints what changes.
func tellSubmitted(s streams, res *controlv1.SubmitResponse, dryRun, asJSON bool) error {
	type changed struct {
		Before string `json:"before"`
		After  string `json:"after"`
		Why    string `json:"why"`
	}
	channels := map[string]changed{}
	for name, c := range res.GetChannels() {
		channels[name] = changed{c.GetBefore(), c.GetAfter(), c.GetWhy()}
	}
	if asJSON {
		return printJSON(s.out, map[string]any{"statements": res.GetStatements(), "dryRun": dryRun, "channels": channels, "notes": append([]string{}, res.GetNotes()...)})
	}
	for _, id := range distinct(res.GetStatements()) { // a policy is one, however many have signed it
		fmt.Fprintln(s.out, id)
	}
	for _, note := range res.GetNotes() {
		fmt.Fprintf(s.err, "weighbridge: %s\n", note)
	}
	would := "serves"
	if dryRun {
		would = "would serve"
	}
	for _, name := range slices.Sorted(maps.Keys(channels)) {
		c := channels[name]
		after := c.After
		if after == "" {
			after = "nothing"
		}
		switch {
		case c.Before == c.After && c.Why == "":
			fmt.Fprintf(s.err, "weighbridge: %s: nothing changes\n", name)
		case c.Why != "":
			fmt.Fprintf(s.err, "weighbridge: %s: %s %s (%s)\n", name, would, after, c.Why)
		default:
			fmt.Fprintf(s.err, "weighbridge: %s: %s %s\n", name, would, after)
		}
	}
	return nil
}
