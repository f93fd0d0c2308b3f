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

	"github.com/dustin/go-humanize"
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
	// controlHint is the next step when no gateway answers.
	controlHint = "is the gateway running, and is --server (or WEIGHBRIDGE_SERVER) its listen.control?"
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
	Warm        string `json:"warm"`     // the release that served before, if it is kept running
	Waiting     int64  `json:"waiting"`  // requests, for a release that has no room beside the one before it
	Draining    int64  `json:"draining"` // releases that finish their last requests

	Load *loadStatus `json:"load,omitzero"` // what is being brought up
	Ends []endStatus `json:"ends,omitzero"` // of what the decision to serve the release rests on

	Runtimes []runtimeStatus `json:"runtimes,omitzero"` // of watch there are none
}

// runtimeStatus is a runtime that is there for a channel, and what it takes.
type runtimeStatus struct {
	Release    string   `json:"release"`
	Role       string   `json:"role"` // serves, warm or drains
	Kind       string   `json:"kind"`
	State      string   `json:"state"`
	PID        int64    `json:"pid"`
	Processes  int64    `json:"processes"`
	Restarts   int64    `json:"restarts"`
	Build      string   `json:"build"`
	CPUSeconds float64  `json:"cpuSeconds"`
	Memory     int64    `json:"memory"`  // bytes, without the sealed weights
	Missing    []string `json:"missing"` // of the sandbox, and what that leaves open
}

// String says it on one line.
func (r runtimeStatus) String() string {
	if r.PID == 0 && r.State == "ready" {
		return fmt.Sprintf("%s %s (%s, not started here), looked for again %d times", r.Kind, r.Role, r.State, r.Restarts)
	}
	return fmt.Sprintf("%s %s (%s, process %d): %s of memory beside the weights, %.0f s of processor time, restarted %d times",
		r.Kind, r.Role, r.State, r.PID, humanize.IBytes(uint64(r.Memory)), r.CPUSeconds, r.Restarts)
}

// endStatus is when something stops counting.
type endStatus struct {
	Kind     string    `json:"kind"` // policy, publication, evaluation or approval
	At       time.Time `json:"at"`
	Identity string    `json:"identity,omitzero"` // whose evaluation or approval it is; without it there are too few
}

// String says it with what to do.
func (e endStatus) String() string {
	on := "ends on " + e.At.Format(time.RFC3339)
	switch e.Kind {
	case "policy":
		return "the policy " + on + ": sign the next version before"
	case "publication":
		return "its publication " + on + ": publish the release again before"
	case "evaluation":
		return "the evaluation by " + e.Identity + " is too old on " + e.At.Format(time.RFC3339) + ": evaluate the release again before"
	}
	return "the " + e.Kind + " by " + e.Identity + " " + on + ", and too few are left then: approve the release again before"
}

// endHints are a line for each thing that ends soon; the policy, which is all channels', has one.
func endHints(channels map[string]channelStatus, now time.Time) []string {
	var hints []string
	for _, name := range slices.Sorted(maps.Keys(channels)) {
		for _, end := range channels[name].Ends {
			switch {
			case end.At.Sub(now) > expiresSoon:
			case end.Kind == "policy":
				hints = append(hints, end.String())
			default:
				hints = append(hints, name+": "+end.String())
			}
		}
	}
	return distinct(hints)
}

// loadStatus is how far a release has come.
type loadStatus struct {
	Release     string  `json:"release"`
	Phase       string  `json:"phase"` // read, start, warm-up or record
	Bytes       int64   `json:"bytes"`
	Total       int64   `json:"total"`
	Rate        float64 `json:"rate"` // bytes a second
	SecondsLeft float64 `json:"secondsLeft"`
}

// String says it on one line, with a bar.
func (l loadStatus) String() string {
	doing := map[string]string{
		"read": "reading the weights", "start": "starting the runtime", "warm-up": "asking the first question", "record": "recording the switch",
	}[l.Phase]
	if l.Phase == "read" && l.Total > 0 {
		doing = bar(l.Bytes, l.Total, l.Rate)
	}
	return fmt.Sprintf("%.19s: %s", l.Release, doing)
}

// memoryStatus is the memory for weights in `status --json`.
type memoryStatus struct {
	Limit     int64    `json:"limit"` // bytes
	InUse     int64    `json:"inUse"`
	Warm      int64    `json:"warm"`
	HugePages bool     `json:"hugePages"`
	Swap      bool     `json:"swap"`
	Hints     []string `json:"hints"`
}

// gatewayStatus is `status --json`.
type gatewayStatus struct {
	Channels map[string]channelStatus `json:"channels"`
	Memory   memoryStatus             `json:"memory"`
	Problems []string                 `json:"problems"` // that are no channel's
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
			gateway, err := awaitStatus(cmd.Context(), server, wait)
			if err != nil {
				return withHint(fmt.Errorf("status: %w", err), controlHint)
			}
			if err := printStatus(s, gateway, asJSON); err != nil {
				return err
			}
			if wait > 0 && !allReady(gateway.Channels) {
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
func printStatus(s streams, g gatewayStatus, asJSON bool) error {
	if asJSON {
		return printJSON(s.out, g)
	}
	w := tabwriter.NewWriter(s.out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "CHANNEL\tSTATE\tRELEASE\tEPOCH\tLEVEL\tSANDBOX\tSINCE\tINFLIGHT\tERROR")
	for _, name := range slices.Sorted(maps.Keys(g.Channels)) {
		ch := g.Channels[name]
		fmt.Fprintf(w, "%s\t%s\t%.19s\t%d\t%s\t%s\t%s\t%d\t%s\n",
			name, ch.State, cmp.Or(ch.Release, "-"), ch.Epoch, cmp.Or(ch.Level, "-"), cmp.Or(ch.Sandbox, "-"), ch.Since, ch.Inflight, cmp.Or(ch.Error, "-"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(g.Channels)) {
		if l := g.Channels[name].Load; l != nil {
			fmt.Fprintf(s.out, "%s loads %s\n", name, l)
		}
		for _, r := range g.Channels[name].Runtimes {
			fmt.Fprintf(s.out, "%s: %s\n", name, r)
			for _, missing := range r.Missing {
				fmt.Fprintf(s.out, "%s: its sandbox: %s\n", name, missing)
			}
		}
		if warm := g.Channels[name].Warm; warm != "" {
			fmt.Fprintf(s.out, "%s keeps %.19s warm: going back to it takes a moment\n", name, warm)
		}
		if waiting := g.Channels[name].Waiting; waiting > 0 {
			fmt.Fprintf(s.out, "%s has no memory for two releases at once: %d requests wait\n", name, waiting)
		}
	}
	m := g.Memory
	fmt.Fprintf(s.out, "memory for weights: %s of %s in use, %s warm\n", humanize.IBytes(uint64(m.InUse)), humanize.IBytes(uint64(m.Limit)), humanize.IBytes(uint64(m.Warm)))
	for _, problem := range g.Problems {
		if _, err := fmt.Fprintf(s.out, "problem: %s\n", problem); err != nil {
			return err
		}
	}
	for _, hint := range append(endHints(g.Channels, time.Now()), m.Hints...) {
		fmt.Fprintf(s.out, "hint: %s\n", hint)
	}
	return nil
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
func awaitStatus(ctx context.Context, server string, wait time.Duration) (gatewayStatus, error) {
	late := time.NewTimer(wait)
	defer late.Stop()
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	for {
		g, err := askStatus(ctx, server)
		if wait == 0 || (err == nil && allReady(g.Channels)) {
			return g, err
		}
		select {
		case <-poll.C:
		case <-late.C:
			return g, err
		case <-ctx.Done():
			return gatewayStatus{}, ctx.Err()
		}
	}
}

func askStatus(ctx context.Context, server string) (gatewayStatus, error) {
	conn, err := dialControl(server)
	if err != nil {
		return gatewayStatus{}, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	res, err := controlv1.NewControlClient(conn).Status(ctx, &controlv1.StatusRequest{})
	if err != nil {
		return gatewayStatus{}, controlError(server, err)
	}
	m := res.GetMemory()
	g := gatewayStatus{
		Channels: map[string]channelStatus{},
		Memory: memoryStatus{
			Limit: m.GetLimit(), InUse: m.GetInUse(), Warm: m.GetWarm(),
			HugePages: m.GetHugePages(), Swap: m.GetSwap(), Hints: append([]string{}, m.GetHints()...),
		},
	}
	g.Problems = append([]string{}, res.GetProblems()...)
	for name, ch := range res.GetChannels() {
		g.Channels[name] = statusOf(ch)
	}
	return g, nil
}

func dialControl(server string) (*grpc.ClientConn, error) {
	if !strings.HasPrefix(server, "unix:") {
		return nil, fmt.Errorf("%q: this version reaches a control API on unix:PATH only", server)
	}
	return grpc.NewClient(server, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

func controlError(server string, err error) error {
	return fmt.Errorf("server %s: %s", server, plain(status.Convert(err).Message()))
}

func statusOf(ch *controlv1.Channel) channelStatus {
	s := channelStatus{
		Release: ch.GetRelease(), Weights: ch.GetWeights(), Level: ch.GetLevel(), Sandbox: ch.GetSandbox(),
		Epoch: ch.GetEpoch(), Publication: ch.GetPublication(),
		State: strings.ToLower(strings.TrimPrefix(ch.GetState().String(), "STATE_")),
		Since: ch.GetSince().AsTime().Format(time.RFC3339), Inflight: ch.GetInflight(),
		Error: ch.GetError(), Fallback: ch.GetFallback(), Warm: ch.GetWarm(), Waiting: ch.GetWaiting(), Draining: ch.GetDraining(),
	}
	for _, end := range ch.GetEnds() {
		s.Ends = append(s.Ends, endStatus{end.GetKind(), end.GetTime().AsTime(), end.GetIdentity()})
	}
	for _, r := range ch.GetRuntimes() {
		s.Runtimes = append(s.Runtimes, runtimeStatus{
			r.GetRelease(), r.GetRole(), r.GetKind(), r.GetState(), r.GetPid(), r.GetProcesses(), r.GetRestarts(), r.GetBuild(),
			r.GetCpuSeconds(), r.GetMemory(), append([]string{}, r.GetMissing()...),
		})
	}
	if l := ch.GetLoad(); l != nil {
		s.Load = &loadStatus{l.GetRelease(), l.GetPhase(), l.GetBytes(), l.GetTotal(), l.GetRate(), l.GetSecondsLeft()}
	}
	return s
}
