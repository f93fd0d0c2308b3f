package trust_test

import (
	"testing"

	"github.com/weighbridge/weighbridge/verifier/trust"
)

func TestAcceptsLevel(t *testing.T) {
	tests := []struct {
		least, got string
		want       bool
	}{
		{"sealed", "sealed", true},
		{"sealed", "measured", false},
		{"measured", "sealed", true},
		{"measured", "verity", true},
		{"measured", "measured", true},
		{"measured", "attached", false},
		{"attached", "measured", true},
		{"", "sealed", false},
		{"unknown", "sealed", false},
		{"attached", "", false},
		{"attached", "unknown", false},
	}
	for _, tt := range tests {
		if got := (trust.Channel{Level: tt.least}).AcceptsLevel(tt.got); got != tt.want {
			t.Errorf("a channel that asks for %q accepts %q: %v, want %v", tt.least, tt.got, got, tt.want)
		}
	}
}

func TestAcceptsSandbox(t *testing.T) {
	tests := []struct {
		least, got string
		want       bool
	}{
		{"", "none", true},
		{"", "", true},
		{"partial", "full", true},
		{"partial", "partial", true},
		{"partial", "none", false},
		{"full", "full", true},
		{"full", "partial", false},
		{"full", "", false},
		{"unknown", "full", false},
	}
	for _, tt := range tests {
		if got := (trust.Channel{Sandbox: tt.least}).AcceptsSandbox(tt.got); got != tt.want {
			t.Errorf("a channel that asks for %q accepts %q: %v, want %v", tt.least, tt.got, got, tt.want)
		}
	}
}

func TestWeakestLevel(t *testing.T) {
	tests := []struct {
		of   []string
		want string
	}{
		{[]string{"sealed"}, "sealed"},
		{[]string{"sealed", "sealed"}, "sealed"},
		{[]string{"sealed", "measured"}, "measured"},
		{[]string{"measured", "sealed"}, "measured"},
		{[]string{"verity", "measured", "sealed"}, "measured"},
		{[]string{"measured", "unknown", "attached"}, "unknown"},
	}
	for _, tt := range tests {
		if got := trust.WeakestLevel(tt.of...); got != tt.want {
			t.Errorf("WeakestLevel(%q) = %q, want %q", tt.of, got, tt.want)
		}
	}
}
