package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	controlv1 "github.com/weighbridge/weighbridge/proto/weighbridge/control/v1"
)

const (
	// controlTimeout is for a question to a gateway on this machine.
	controlTimeout = 10 * time.Second
	// pollEvery is how often --wait asks.
	pollEvery = 200 * time.Millisecond
)

// channelStatus is a channel in `status --json`.
type channelStatus struct {
	Release     string `json:"release"`
	Weights     string `json:"weights"`
	Level       string `json:"level"`
	Sandbox     string `json:"sandbox"`
	Epoch       int64  `json:"epoch"`
	Publication string `json:"publication"`
	State       string `json:"state"`
	Since       string `json:"since"`
	Inflight    int64  `json:"inflight"`
	Error       string `json:"error"`
	Fallback    bool   `json:"fallback"`
}

func newStatusCmd(s streams) *cobra.Command {
	var server string
	var asJSON bool
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Say what each channel serves, and why it does not",
		Long: `Say what each channel serves, and why it does not.

With --wait it first waits until every channel is ready; if one is not by then, the exit status is 1.`,
		Example: `  weighbridge status --server unix:./control.sock --json
  weighbridge status --wait 60s`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			channels, err := awaitStatus(cmd.Context(), server, wait)
			if err != nil {
				return withHint(fmt.Errorf("status: %w", err), "is the gateway running, and is --server (or WEIGHBRIDGE_SERVER) its listen.control?")
			}
			if err := printStatus(s, channels, asJSON); err != nil {
				return err
			}
			if wait > 0 && !allReady(channels) {
				return refused("status", fmt.Errorf("not every channel is ready after %s", wait))
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&server, "server", defaultControl(), "the gateway's control socket (or WEIGHBRIDGE_SERVER)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	cmd.Flags().DurationVar(&wait, "wait", 0, "wait so long for every channel to be ready")
	return cmd
}

// printStatus writes the table for people, or the document for scripts.
func printStatus(s streams, channels map[string]channelStatus, asJSON bool) error {
	if asJSON {
		return printJSON(s.out, map[string]any{"channels": channels})
	}
	w := tabwriter.NewWriter(s.out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "CHANNEL\tSTATE\tRELEASE\tEPOCH\tLEVEL\tSANDBOX\tSINCE\tINFLIGHT\tERROR")
	for _, name := range slices.Sorted(maps.Keys(channels)) {
		ch := channels[name]
		fmt.Fprintf(w, "%s\t%s\t%.19s\t%d\t%s\t%s\t%s\t%d\t%s\n",
			name, ch.State, cmp.Or(ch.Release, "-"), ch.Epoch, cmp.Or(ch.Level, "-"), cmp.Or(ch.Sandbox, "-"), ch.Since, ch.Inflight, cmp.Or(ch.Error, "-"))
	}
	return w.Flush()
}

func allReady(channels map[string]channelStatus) bool {
	for _, ch := range channels {
		if ch.State != "ready" {
			return false
		}
	}
	return len(channels) > 0
}

func defaultControl() string { return cmp.Or(os.Getenv("WEIGHBRIDGE_SERVER"), "unix:./control.sock") }

// awaitStatus asks until every channel is ready or wait is over, and returns the last answer, or why there is none.
func awaitStatus(ctx context.Context, server string, wait time.Duration) (map[string]channelStatus, error) {
	late := time.NewTimer(wait)
	defer late.Stop()
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	for {
		channels, err := askStatus(ctx, server)
		if wait == 0 || (err == nil && allReady(channels)) {
			return channels, err
		}
		select {
		case <-poll.C:
		case <-late.C:
			return channels, err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func askStatus(ctx context.Context, server string) (map[string]channelStatus, error) {
	if !strings.HasPrefix(server, "unix:") {
		return nil, fmt.Errorf("%q: this version reaches a control API on unix:PATH only", server)
	}
	conn, err := grpc.NewClient(server, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	res, err := controlv1.NewControlClient(conn).Status(ctx, &controlv1.StatusRequest{})
	if err != nil {
		return nil, fmt.Errorf("server %s: %s", server, plain(status.Convert(err).Message()))
	}
	channels := map[string]channelStatus{}
	for name, ch := range res.GetChannels() {
		channels[name] = channelStatus{
			Release: ch.GetRelease(), Weights: ch.GetWeights(), Level: ch.GetLevel(), Sandbox: ch.GetSandbox(),
			Epoch: ch.GetEpoch(), Publication: ch.GetPublication(),
			State: strings.ToLower(strings.TrimPrefix(ch.GetState().String(), "STATE_")),
			Since: ch.GetSince().AsTime().Format(time.RFC3339), Inflight: ch.GetInflight(),
			Error: ch.GetError(), Fallback: ch.GetFallback(),
		}
	}
	return channels, nil
}
