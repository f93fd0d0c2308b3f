package catalog_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/gateway/catalog"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store"
	"github.com/weighbridge/weighbridge/verifier/store/crashtest"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

// A withdrawal whose last step to the disk failed is in the floor already, and is saved again until it is durable.
func TestWithdrawalIsSavedAgain(t *testing.T) {
	s := newWorld(t)
	s.backend = newStage().backend
	s.policy = s.SignPolicy(func(d *trust.Document) {
		d.Roles["revoker"] = trust.Role{Members: []string{trusttest.Bob}}
		rules := d.Channels["chat"]
		rules.Withdraw = &trust.Rule{Role: "revoker"}
		d.Channels["chat"] = rules
	})
	disk, after := crashtest.Mount(t), crashtest.Mount(t)
	if err := store.CreateState(disk.Path()); err != nil {
		t.Fatal(err)
	}
	state, err := store.OpenState(disk.Path())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { state.Close() })
	s.state = state
	start := s.now()
	s.now = func() time.Time { return start }
	s.start(gib)
	s.until("the time is kept", func(catalog.Status) bool { return state.Floor().TimeHighWater.Equal(start) })

	want := trust.Withdrawn{Channel: "chat", Release: statement.ID("sha256:" + strings.Repeat("1", 64))}
	durable := func() bool {
		after.Load(disk.Image(crashtest.PowerLost))
		floor, err := store.ReadFloor(filepath.Join(after.Path(), "floor.json"))
		if err != nil {
			t.Fatal(err)
		}
		return slices.Contains(floor.Withdrawn, want)
	}
	const syncsDirectory = 12 // of the floor, after its file is made, written, given its mode, synced and renamed, as that of the statement was before
	disk.Arm(crashtest.Fault{At: syncsDirectory, Errno: unix.EIO, Rest: true})
	s.Withdraw(trusttest.Bob, want.Release)
	s.until("the withdrawal in the floor", func(catalog.Status) bool { return slices.Contains(state.Floor().Withdrawn, want) })
	if !disk.Struck() || durable() {
		t.Fatalf("the directory's sync failed: %t, and the withdrawal is durable: %t", disk.Struck(), durable())
	}
	disk.Heal()
	if err := s.cat.Update(t.Context(), s.inputs()); err != nil { // which has it decide again
		t.Fatal(err)
	}
	s.until("the withdrawal is durable", func(catalog.Status) bool { return durable() })
}
