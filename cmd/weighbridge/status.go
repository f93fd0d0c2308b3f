package main

import (
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

	controlv1 "github.com/weighbridge/weighbridge/proto/weighbridge/control/v1"
)

// controlTimeout is for a question to a gateway on this machine.
const controlTimeout = 10 * time.Second

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
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "Say what each channel serves, and why it does not",
		Example: "  weighbridge status --server unix:./control.sock --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			res, err := askStatus(cmd.Context(), server)
			if err != nil {
				return withHint(fmt.Errorf("status: %w", err), "is the gateway running, and is --server (or WEIGHBRIDGE_SERVER) its listen.control?")
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
			if asJSON {
				return printJSON(s.out, map[string]any{"channels": channels})
			}
			w := tabwriter.NewWriter(s.out, 0, 4, 2, ' ', 0)
			fmt.Fprintln(w, "CHANNEL\tSTATE\tRELEASE\tEPOCH\tLEVEL\tSANDBOX\tSINCE\tINFLIGHT\tERROR")
			for _, name := range slices.Sorted(maps.Keys(channels)) {
				ch := channels[name]
				fmt.Fprintf(w, "%s\t%s\t%.19s\t%d\t%s\t%s\t%s\t%d\t%s\n",
					name, ch.State, or(ch.Release, "-"), ch.Epoch, or(ch.Level, "-"), or(ch.Sandbox, "-"), ch.Since, ch.Inflight, or(ch.Error, "-"))
			}
			return w.Flush()
		},
	}
	cmd.Flags().StringVar(&server, "server", defaultControl(), "the gateway's control socket (or WEIGHBRIDGE_SERVER)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

func or(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}

func defaultControl() string { return or(os.Getenv("WEIGHBRIDGE_SERVER"), "unix:./control.sock") }

func askStatus(ctx context.Context, server string) (*controlv1.StatusResponse, error) {
	if !strings.HasPrefix(server, "unix:") {
		return nil, fmt.Errorf("%q: this version reaches a control API on unix:PATH only", server)
	}
	// gRPC's unix scheme wants no empty authority and takes relative paths as they are.
	conn, err := grpc.NewClient(server, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	return controlv1.NewControlClient(conn).Status(ctx, &controlv1.StatusRequest{})
}
