package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	controlv1 "github.com/weighbridge/weighbridge/proto/weighbridge/control/v1"
)

func TestBar(t *testing.T) {
	tests := []struct {
		done, total int64
		rate        float64
		want        string
	}{
		{0, 4e9, 0, "[                    ] 0 %  0.0 of 4.0 GB, 0.00 GB/s"},
		{1e9, 4e9, 1.5e9, "[=====               ] 25 %  1.0 of 4.0 GB, 1.50 GB/s, 2 s left"},
		{4e9, 4e9, 1e9, "[====================] 100 %  4.0 of 4.0 GB, 1.00 GB/s, 0 s left"},
	}
	for _, tt := range tests {
		if got := bar(tt.done, tt.total, tt.rate); got != tt.want {
			t.Errorf("bar(%d, %d, %g) = %q, want %q", tt.done, tt.total, tt.rate, got, tt.want)
		}
	}
}

// Progress is one line that moves on a terminal, and a line each elsewhere; whatever follows begins a line of its own.
func TestWatcher(t *testing.T) {
	loading := &controlv1.Channel{State: controlv1.State_STATE_LOADING, Load: &controlv1.Load{Release: "sha256:r", Phase: "read", Bytes: 1e9, Total: 4e9, Rate: 1e9}}
	ready := &controlv1.Channel{State: controlv1.State_STATE_READY, Release: "sha256:r", Level: "sealed"}
	at := timestamppb.New(time.Unix(0, 0))
	for _, terminal := range []bool{false, true} {
		var out bytes.Buffer
		w := watcher{out: &out, terminal: terminal}
		for _, ch := range []*controlv1.Channel{loading, loading, ready} {
			if err := w.show(&controlv1.WatchResponse{Time: at, Name: "chat", Channel: ch}); err != nil {
				t.Fatal(err)
			}
		}
		lines := 3
		if terminal {
			lines = 1
		}
		text := out.String()
		if strings.Count(text, "\n") != lines || !strings.Contains(text, "25 %") || !strings.HasSuffix(text, "1970-01-01T00:00:00.000Z chat ready sha256:r level sealed\n") {
			t.Errorf("on a terminal (%v) it wrote %q, want %d lines", terminal, text, lines)
		}
	}
}
