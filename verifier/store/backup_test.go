package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

// What was backed up comes back, but never behind what is there.
func TestBackup(t *testing.T) {
	w := trusttest.New(t)
	policy := w.SignPolicy(nil)
	bundles, err := os.ReadFile(w.PolicyFile)
	if err != nil {
		t.Fatal(err)
	}
	dir, file := filepath.Join(t.TempDir(), "state"), filepath.Join(t.TempDir(), "backup.json")
	if err := store.CreateState(dir); err != nil {
		t.Fatal(err)
	}
	state, err := store.OpenState(dir)
	if err != nil {
		t.Fatal(err)
	}
	raise := func(epoch int64) {
		t.Helper()
		id := statement.ID("sha256:" + strings.Repeat("1", 64))
		err := state.Raise(func(f trust.Floor) trust.Floor {
			return f.Accept("chat", trust.Channel{Serve: id, Epoch: epoch, Publication: id}, policy, time.Now())
		})
		if err := errors.Join(err, state.KeepPolicy(policy.Version(), bundles)); err != nil {
			t.Fatal(err)
		}
	}
	raise(5)
	if err := store.Backup(dir, file); err != nil { // while it is in use
		t.Fatal(err)
	}
	want := state.Floor()
	if err := store.Restore(file, dir); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("Restore over a state in use = %v, want an error", err)
	}
	raise(6)
	state.Close()
	if err := store.Restore(file, dir); !errors.Is(err, store.ErrOlder) {
		t.Errorf("Restore over a newer state = %v, want %v", err, store.ErrOlder)
	}

	fresh := filepath.Join(t.TempDir(), "fresh")
	for range 2 { // the second time over itself
		if err := store.Restore(file, fresh); err != nil {
			t.Fatal(err)
		}
	}
	restored, err := store.OpenState(fresh)
	if err != nil {
		t.Fatal(err)
	}
	defer restored.Close()
	kept, err := restored.Policy()
	if got := restored.Floor(); !got.Covers(want) || !want.Covers(got) || err != nil || string(kept) != string(bundles) {
		t.Errorf("restored floor %+v with a policy of %d bytes (%v), want %+v", got, len(kept), err, want)
	}

	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"a later format":                  {`"format":2`, `"format":3`},
		"an unknown name":                 {`"policy":`, `"more":1,"policy":`},
		"a later floor":                   {`"floor":{"format":2`, `"floor":{"format":3`},
		"a floor that contradicts itself": {`"epoch":5`, `"epoch":-5`},
		"another policy":                  {string(policy.Digest()), "sha256:" + strings.Repeat("0", 64)},
	} {
		bad := filepath.Join(t.TempDir(), "bad.json")
		if err := os.WriteFile(bad, []byte(strings.ReplaceAll(string(data), change[0], change[1])), 0o600); err != nil {
			t.Fatal(err)
		}
		into := filepath.Join(t.TempDir(), "into")
		if err := store.Restore(bad, into); err == nil {
			t.Errorf("%s is restored", name)
		}
		if _, err := store.OpenState(into); !errors.Is(err, store.ErrNoState) {
			t.Errorf("%s left a state: %v", name, err)
		}
	}
}

// A state of a later version is refused by name.
func TestLaterFormat(t *testing.T) {
	dir := t.TempDir()
	for _, text := range []string{`{"format":3}`, `{"format":3,"more":{}}`} {
		if err := os.WriteFile(filepath.Join(dir, "floor.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := store.OpenState(dir); !errors.Is(err, store.ErrLaterFormat) {
			t.Errorf("OpenState of %s = %v, want %v", text, err, store.ErrLaterFormat)
		}
	}
}

// TestFloorOfFormatOne: a floor of a version that knew no leases begins one when it was last saved.
func TestFloorOfFormatOne(t *testing.T) {
	floor, err := store.ParseFloor([]byte(`{"format":1,"policyVersion":1,"policyDigest":"sha256:` + strings.Repeat("0", 64) + `","timeHighWater":"2026-06-01T12:00:00Z","withdrawn":[],"channels":{}}`))
	if err != nil || floor.Heard.IsZero() || !floor.Heard.Equal(floor.TimeHighWater) {
		t.Errorf("ParseFloor = %+v, %v, want heard at the high-water mark", floor, err)
	}
}
