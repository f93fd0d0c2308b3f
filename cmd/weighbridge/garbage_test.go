package main

import (
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

func TestPercentOf(t *testing.T) {
	for live, want := range map[uint64]int{
		0: 3200, 1 << 20: 3200, 16 << 20: 200, 32 << 20: 100, 100 << 20: 32, 200 << 20: 16, 300 << 20: gcPercent, math.MaxUint64: gcPercent,
	} {
		if got := percentOf(live); got != want {
			t.Errorf("percentOf(%d) = %d, want %d", live, got, want)
		}
	}
}

// TestLeaveRoom has garbage collected, with much in use and with little, again and again.
func TestLeaveRoom(t *testing.T) {
	gogc := func() uint64 {
		percent := []metrics.Sample{{Name: "/gc/gogc:percent"}}
		metrics.Read(percent)
		return percent[0].Value.Uint64()
	}
	t.Setenv("GOGC", "77")
	debug.SetGCPercent(77)
	if leaveRoom(); gogc() != 77 {
		t.Errorf("with GOGC=77 garbage may be %d %%", gogc())
	}
	t.Setenv("GOGC", "")
	leaveRoom()
	for _, size := range []int{400 << 20, 0, 400 << 20} {
		held := make([]byte, size)
		allowed := func() uint64 {
			runtime.GC()
			return gogc()
		}
		late := time.Now().Add(patience)
		for little := size == 0; (allowed() > gcPercent) != little; { // what sets it runs beside us
			if time.Now().After(late) {
				t.Fatalf("with %d bytes in use, garbage may be %d %% of it", size, allowed())
			}
		}
		runtime.KeepAlive(held)
	}
}
