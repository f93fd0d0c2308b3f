package store_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
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

// TestFloorRests: what a release rests on is kept with its trusted time, where it has one, and read without.
func TestFloorRests(t *testing.T) {
	id := statement.ID("sha256:" + strings.Repeat("0", 64))
	text := func(counted, rests string) string {
		return `{"format":2,"policyVersion":1,"policyDigest":"` + string(id) + `","timeHighWater":"2026-06-01T12:00:00Z","withdrawn":[],"channels":{` +
			`"chat":{"epoch":1,"publication":"` + string(id) + `","served":["` + string(id) + `"],"counted":[` + counted + `],"rests":[` + rests + `]}}}`
	}
	act := `{"statement":"` + string(id) + `","identity":"alice"}`
	timed := func(at string) string { return strings.Replace(act, "}", `,"at":"`+at+`"}`, 1) }
	for _, tt := range []struct {
		name, text string
		at         time.Time // of what it rests on
		want       string    // error
	}{
		{name: "with a time", text: text(act, timed("2026-06-01T11:00:00Z")), at: time.Date(2026, 6, 1, 11, 0, 0, 0, time.UTC)},
		{name: "without", text: text(act, act)},
		{name: "a time of no year", text: text(act, timed("1969-06-01T11:00:00Z")), want: "channels.chat.rests[0].at"},
		{name: "no statement", text: text(act, strings.Replace(act, "sha256:", "sha256", 1)), want: "channels.chat.rests[0].statement"},
		{name: "a time of what counted", text: text(timed("2026-06-01T11:00:00Z"), act), want: "at"},
		{name: "no statement that counted", text: text(strings.Replace(act, "sha256:", "sha256", 1), act), want: "channels.chat.counted[0].statement"},
	} {
		floor, err := store.ParseFloor([]byte(tt.text))
		if tt.want != "" {
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: ParseFloor = %v, want an error of %s", tt.name, err, tt.want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: ParseFloor = %v", tt.name, err)
			continue
		}
		want := []trust.TimedAct{{Act: trust.Act{Statement: id, Identity: "alice"}, At: tt.at}}
		if got := floor.Channels["chat"].Rests; !slices.Equal(got, want) {
			t.Errorf("%s: rests on %v, want %v", tt.name, got, want)
		}
		floor.Heard = time.Time{}
		if again, err := store.FormatFloor(floor); err != nil || !bytes.Equal(bytes.TrimSpace(again), []byte(tt.text)) {
			t.Errorf("%s: written again it is %s, %v, want %s", tt.name, again, err, tt.text)
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
