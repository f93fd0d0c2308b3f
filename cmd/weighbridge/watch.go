package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	controlv1 "github.com/weighbridge/weighbridge/proto/weighbridge/control/v1"
)

// A watchEvent is a line of `watch --json`.
type watchEvent struct {
	Time    string        `json:"time"`
	Name    string        `json:"name"`
	Channel channelStatus `json:"channel"`
}

func newWatchCmd(s streams) *cobra.Command {
	var server string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "watch [CHANNEL...]",
		Short: "Follow what the channels serve and load",
		Long: `Follow what the channels serve and load, until interrupted or the gateway ends. Every change is a line; on a terminal
the progress of a load is one line that moves. With --json each event is one JSON document on a line.`,
		Example: "  weighbridge watch --server unix:./control.sock\n  weighbridge watch chat --json",
		RunE: func(cmd *cobra.Command, names []string) error {
			conn, err := dialControl(server)
			if err != nil {
				return fmt.Errorf("watch: %w", err)
			}
			defer conn.Close()
			stream, err := controlv1.NewControlClient(conn).Watch(cmd.Context(), &controlv1.WatchRequest{Channels: names})
			if err != nil {
				return fmt.Errorf("watch: %w", controlError(server, err))
			}
			w := watcher{out: s.out, json: asJSON}
			if f, ok := s.out.(*os.File); ok {
				w.terminal = term.IsTerminal(int(f.Fd()))
			}
			for {
				event, err := stream.Recv()
				switch {
				case errors.Is(err, io.EOF), cmd.Context().Err() != nil:
					return nil
				case err != nil:
					return withHint(fmt.Errorf("watch: %w", controlError(server, err)), controlHint)
				}
				if err := w.show(event); err != nil {
					return err
				}
			}
		},
	}
	cmd.Flags().StringVar(&server, "server", defaultControl(), "the gateway's control socket (or WEIGHBRIDGE_SERVER)")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document a line")
	return cmd
}

// A watcher writes events.
type watcher struct {
	out            io.Writer
	json, terminal bool
	moving         bool // the last line is progress, to be written over
}

func (w *watcher) show(event *controlv1.WatchResponse) error {
	e := watchEvent{event.GetTime().AsTime().Format("2006-01-02T15:04:05.000Z"), event.GetName(), statusOf(event.GetChannel())}
	if w.json {
		return json.NewEncoder(w.out).Encode(e)
	}
	line := fmt.Sprintf("%s %s %s %.19s level %s", e.Time, e.Name, e.Channel.State, cmp.Or(e.Channel.Release, "-"), cmp.Or(e.Channel.Level, "-"))
	if e.Channel.Error != "" {
		line += ": " + e.Channel.Error
	}
	if l := e.Channel.Load; l != nil {
		line = fmt.Sprintf("%s %s loads %s", e.Time, e.Name, l)
	}
	before, after := "", "\n"
	if w.moving {
		before = "\r\033[K"
	}
	if w.moving = w.terminal && e.Channel.Load != nil; w.moving {
		after = ""
	}
	_, err := fmt.Fprint(w.out, before, line, after)
	return err
}
