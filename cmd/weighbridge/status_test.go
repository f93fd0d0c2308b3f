package main

import (
	"strings"
	"testing"
	"time"
)

// TestStatusHints: what ends within 30 days is told, each with what to do; what ends later is not.
func TestStatusHints(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	soon, later := now.Add(expiresSoon), now.Add(expiresSoon+time.Second)
	tests := []struct {
		name string
		ends map[string][]endStatus
		want string
	}{
		{"later", map[string][]endStatus{"chat": {{"policy", later, ""}, {"publication", later, ""}, {"approval", later, "bob"}}}, ""},
		{"the policy, of two channels", map[string][]endStatus{"chat": {{"policy", soon, ""}}, "embed": {{"policy", soon, ""}}},
			"the policy ends on 2026-07-01T12:00:00Z: sign the next version before"},
		{"a publication", map[string][]endStatus{"chat": {{"policy", later, ""}, {"publication", soon, ""}}},
			"chat: its publication ends on 2026-07-01T12:00:00Z: publish the release again before"},
		{"an evaluation", map[string][]endStatus{"chat": {{"evaluation", soon, "evalbot"}}},
			"chat: the evaluation by evalbot is too old on 2026-07-01T12:00:00Z: evaluate the release again before"},
		{"an approval", map[string][]endStatus{"chat": {{"approval", soon, "bob"}}},
			"chat: the approval by bob ends on 2026-07-01T12:00:00Z, and too few are left then: approve the release again before"},
		{"an approval on each of two channels", map[string][]endStatus{"chat": {{"approval", soon, "bob"}}, "embed": {{"approval", soon, "bob"}}},
			"chat: the approval by bob ends on 2026-07-01T12:00:00Z, and too few are left then: approve the release again before\n" +
				"embed: the approval by bob ends on 2026-07-01T12:00:00Z, and too few are left then: approve the release again before"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			channels := map[string]channelStatus{}
			for name, ends := range tt.ends {
				channels[name] = channelStatus{Ends: ends}
			}
			if got := strings.Join(endHints(channels, now), "\n"); got != tt.want {
				t.Errorf("hints:\n%s\nwant:\n%s", got, tt.want)
			}
		})
	}
}

// TestStatusPrintsHints: the table for people ends with them.
func TestStatusPrintsHints(t *testing.T) {
	channels := map[string]channelStatus{"chat": {Ends: []endStatus{{"publication", time.Now().Add(time.Hour), ""}}}}
	var out strings.Builder
	if err := printStatus(streams{out: &out}, gatewayStatus{Channels: channels}, false); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "\nhint: chat: its publication ends on ") {
		t.Errorf("status prints no hint:\n%s", out.String())
	}
}
