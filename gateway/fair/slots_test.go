package fair_test

import (
	"errors"
	"testing"

	"github.com/weighbridge/weighbridge/gateway/fair"
)

// take has a caller take slots until it is refused, and returns what gives them back.
func take(t *testing.T, s *fair.Slots, caller string) (leaves []func()) {
	t.Helper()
	for {
		leave, err := s.Enter(caller)
		if err != nil {
			if no := new(fair.RefusedError); !errors.As(err, &no) || no.Retry <= 0 || no.Late {
				t.Fatalf("Enter(%s) = %v, want a RefusedError that says when to come back", caller, err)
			}
			return leaves
		}
		leaves = append(leaves, leave)
	}
}

func TestSlots(t *testing.T) {
	s := fair.NewSlots(60)
	loud := take(t, s, "loud")
	if len(loud) != 30 {
		t.Errorf("a caller alone gets %d of 60 slots, want 30", len(loud))
	}
	second := take(t, s, "second")
	if len(second) != 15 {
		t.Errorf("the next gets %d, want 15", len(second))
	}
	// As slots come free, the two get level.
	for _, leave := range loud {
		leave()
	}
	again := take(t, s, "loud")
	if len(again) != 23 {
		t.Errorf("the first gets %d again, want 23 of the 45 that are free", len(again))
	}
	for _, leave := range append(second, again...) {
		leave()
	}
	if n := len(take(t, s, "loud")); n != 30 {
		t.Errorf("with all slots free a caller gets %d, want 30", n)
	}
}

// TestSlotsLast lets in whoever has none, down to the last slot.
func TestSlotsLast(t *testing.T) {
	s := fair.NewSlots(3)
	for _, caller := range []string{"a", "b", "c"} {
		if _, err := s.Enter(caller); err != nil {
			t.Errorf("Enter(%s) = %v, want a slot of 3", caller, err)
		}
	}
	if _, err := s.Enter("d"); err == nil {
		t.Error("Enter(d) = nil, want it refused: no slot is left")
	}
}
