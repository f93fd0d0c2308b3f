package store_test

import (
	"context"
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

// TestStatementsOutliveTheirDirectory: a directory that can't be read now keeps nothing of the others from being read, and
// what it held counts still.
func TestStatementsOutliveTheirDirectory(t *testing.T) {
	w := trusttest.New(t)
	first, second := filepath.Join(w.Dir, "first"), filepath.Join(w.Dir, "second")
	for _, dir := range []string{first, second} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	put := func(dir, who string) {
		t.Helper()
		payload, err := trust.NewApproval(statement.ID("sha256:"+strings.Repeat("0", 64)), trust.Approval{Ticket: who})
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, who+".json"), string(w.Sign(who, payload).Bundle()))
	}
	put(first, "alice")
	put(second, "bob")
	var files store.Statements
	dirs := []string{first, second}
	if set, _, err := files.Read(dirs); err != nil || len(set) != 2 {
		t.Fatalf("Read = %d statements, %v, want 2", len(set), err)
	}
	if err := os.Rename(second, second+" away"); err != nil {
		t.Fatal(err)
	}
	put(first, "carol")
	if set, _, err := files.Read(dirs); err == nil || len(set) != 3 {
		t.Errorf("Read without the second = %d statements, %v, want 3 and an error", len(set), err)
	}
	if set, _, err := store.ReadStatements(dirs); err == nil || set != nil {
		t.Errorf("ReadStatements without the second = %d statements, %v, want an error alone", len(set), err)
	}
	if err := os.Rename(second+" away", second); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(second, "bob.json")); err != nil {
		t.Fatal(err)
	}
	if set, _, err := files.Read(dirs); err != nil || len(set) != 2 {
		t.Errorf("Read with the second back, and a file gone = %d statements, %v, want 2", len(set), err)
	}
}

// TestWatchStatementsInNoise: somebody who writes all the time does not keep a change from being seen.
func TestWatchStatementsInNoise(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	changed := make(chan struct{}, 1)
	wait := store.WatchStatements(ctx, []string{dir}, func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	noise := make(chan struct{})
	go func() {
		defer close(noise)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ctx.Err() == nil; n++ {
			_ = os.WriteFile(filepath.Join(dir, ".noise"), []byte{byte(n)}, 0o600)
			<-tick.C
		}
	}()
	begun := time.Now()
	<-changed
	<-changed
	if took := time.Since(begun); took > 5*time.Second { // 10 s is when everything is looked at anyhow
		t.Errorf("two changes were seen after %v", took)
	}
	cancel()
	<-noise
	wait()
}
