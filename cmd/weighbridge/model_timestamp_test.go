package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

// A leaf that has expired since still counts if a trusted authority stamped the signature while it was valid, and only then.
func TestModelVerifyTimestamp(t *testing.T) {
	ca := newTestCA(t, time.Now().Add(-time.Hour))
	w := trusttest.New(t)
	authority := w.NewTimeAuthority("time")
	root, stamp := w.Write("time-root.crt", authority.Root), authority.Stamp
	model, sig := newModel(t), filepath.Join(t.TempDir(), "model.sig")
	if status, _, stderr := runModel(t, "model", "sign", model, "--signature", sig, "--private-key", ca.file("leaf.key"),
		"--signing-certificate", ca.file("leaf.crt"), "--certificate-chain", ca.file("mid.crt")); status != exitDone {
		t.Fatal(stderr)
	}
	bundle, err := os.ReadFile(sig)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := statement.Parse(bundle)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name     string
		response []byte
		root     string
		status   int
	}{
		{"while it was valid", stamp(signed.Signature(), time.Now().Add(-2*time.Hour)), root, exitDone},
		{"after it expired", stamp(signed.Signature(), time.Now().Add(-time.Minute)), root, exitRefused},
		{"before it was valid", stamp(signed.Signature(), time.Now().Add(-72*time.Hour)), root, exitRefused},
		{"over other bytes", stamp(signed.Payload(), time.Now().Add(-2*time.Hour)), root, exitRefused},
		{"by a stranger", stamp(signed.Signature(), time.Now().Add(-2*time.Hour)), ca.file("root.crt"), exitRefused},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			stamped := filepath.Join(t.TempDir(), "stamped.sig")
			writeTestFile(t, stamped, string(trusttest.WithTimestamp(bundle, tt.response)))
			status, _, stderr := runModel(t, "model", "verify", model, "--signature", stamped, "--certificate-chain", ca.file("root.crt"),
				"--verification-time", "timestamp", "--timestamp-authority", tt.root)
			if status != tt.status {
				t.Errorf("status %d, want %d: %s", status, tt.status, stderr)
			}
			// The stamp itself changes nothing for who asks about now.
			if status, _, stderr := runModel(t, "model", "verify", model, "--signature", stamped, "--certificate-chain", ca.file("root.crt")); status != exitRefused || !strings.Contains(stderr, "expired") {
				t.Errorf("now: status %d: %s", status, stderr)
			}
		})
	}
}
