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
