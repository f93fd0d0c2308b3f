// Package audittest opens real audit logs for tests.
//
// The one rule: it is the log that a gateway writes, on the test's own disk. When the test is over the log is closed, and
// everything in it is verified.
package audittest

import (
	"crypto/ed25519"
	"path/filepath"
	"testing"

	"github.com/weighbridge/weighbridge/gateway/audit"
)

// Origin is that of the logs made here.
const Origin = "weighbridge/test"

// Open makes a log in a directory of the test and opens it.
func Open(t testing.TB) *audit.Log {
	t.Helper()
	return OpenAt(t, filepath.Join(t.TempDir(), "audit"))
}

// OpenAt makes a log in a directory and opens it.
func OpenAt(t testing.TB, dir string) *audit.Log {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return OpenAs(t, dir, key)
}

// OpenAs makes a log of the one who has the key, in a directory, and opens it.
func OpenAs(t testing.TB, dir string, key ed25519.PrivateKey) *audit.Log {
	t.Helper()
	c := audit.Config{Dir: dir, Origin: Origin, Key: key}
	if err := audit.Create(c); err != nil {
		t.Fatal(err)
	}
	log, err := audit.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := log.Close(); err != nil {
			t.Errorf("close audit log: %v", err)
		}
		who, err := audit.NewVerifier(key.Public(), Origin)
		if err == nil {
			_, err = audit.Verify(c.Dir, who, nil)
		}
		if err != nil {
			t.Errorf("audit log: %v", err)
		}
	})
	return log
}
