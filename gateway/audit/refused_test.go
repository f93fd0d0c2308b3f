package audit_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/gateway/audit"
	"github.com/weighbridge/weighbridge/verifier/store/crashtest"
)

// records returns all records of a log that verifies.
func records(t *testing.T, dir string) []audit.Record {
	t.Helper()
	whys(t, dir)
	var all []audit.Record
	_, _, err := audit.Read(dir, 0, func(_ int64, entry []byte) error {
		r, err := audit.ParseRecord(entry)
		all = append(all, r)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// refusals writes records of refused callers as they are compared.
func refusals(t *testing.T, dir string) string {
	t.Helper()
	var all []string
	for _, r := range records(t, dir) {
		if r.Kind == audit.KindRefusedCallers {
			all = append(all, fmt.Sprintf("%s %q %s %s %d", r.Time.Format("04:05"), strings.TrimPrefix(r.Caller, "spiffe://bank.example/"), r.Channel, r.Rule, r.Count))
		}
	}
	return strings.Join(all, ", ")
}

// TestRefusedCallers: one record for each caller and minute.
func TestRefusedCallers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "audit")
	create(t, dir)
	synctest.Test(t, func(t *testing.T) {
		l := open(t, dir)
		const a, b = "spiffe://bank.example/a", "spiffe://bank.example/b"
		l.RefusedCaller(b, "chat", "access")
		time.Sleep(59 * time.Second)
		l.RefusedCaller(a, "chat", "access")
		l.RefusedCaller(a, "chat", "access")
		if got := refusals(t, dir); got != "" {
			t.Errorf("before the minute is over: %s", got)
		}
		time.Sleep(2 * time.Second)
		want := `00:59 "a" chat access 2, 00:00 "b" chat access 1`
		if got := refusals(t, dir); got != want {
			t.Errorf("after a minute: %s, want %s", got, want)
		}
		time.Sleep(10 * time.Minute)
		l.RefusedCaller(a, "chat", "access")
		l.RefusedCaller(a, "embed", "access")
		l.RefusedCaller(a, "chat", "quota")
		l.RefusedCaller(b, "what should I do about\x1b my debts?", strings.Repeat("x", 1<<20))
		l.RefusedCaller(strings.Repeat("x", 1<<20), "chat", "access")
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		want += `, 11:01 "" chat access 1, 11:01 "a"   3, 11:01 "b"   1`
		if got := refusals(t, dir); got != want {
			t.Errorf("after Close: %s, want %s", got, want)
		}
		l.RefusedCaller(a, "chat", "access")
	})
}

// TestManyRefusedCallers: who makes up identities can't fill memory or log.
func TestManyRefusedCallers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "audit")
	create(t, dir)
	l := open(t, dir)
	for n := range 3 * audit.MaxRefused {
		l.RefusedCaller(fmt.Sprint("spiffe://bank.example/", n), "chat", "access")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	all := records(t, dir)
	if len(all) != audit.MaxRefused+1 || all[0].Caller != "" || all[0].Count != 2*audit.MaxRefused {
		t.Errorf("%d records, the first %+v, want all callers but %d together", len(all), all[0], audit.MaxRefused)
	}
}

// TestRefusedWhileBroken: while the disk is broken refusals are counted on, and take nobody's place.
func TestRefusedWhileBroken(t *testing.T) {
	disk, _ := started(t)
	synctest.Test(t, func(t *testing.T) {
		l := open(t, disk.Path())
		disk.Arm(crashtest.Fault{At: 1, Errno: unix.EIO, Rest: true})
		l.Note(withdrawal(before))
		for range 10 {
			l.RefusedCaller("spiffe://bank.example/a", "chat", "access")
			time.Sleep(time.Minute)
		}
		if s := l.Status(); s.Queued != 1 {
			t.Errorf("Status = %+v, want the withdrawal alone queued", s)
		}
		disk.Heal()
		time.Sleep(5 * time.Second)
		if got, want := refusals(t, disk.Path()), `00:00 "a" chat access 10`; got != want {
			t.Errorf("refusals = %s, want %s", got, want)
		}
	})
}
