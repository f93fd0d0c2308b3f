package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

// TestCosign reads what cosign signed with a key. testdata/cosign/README says how.
func TestCosign(t *testing.T) {
	w := trusttest.New(t)
	w.Key("other")
	model := filepath.Join(w.Dir, "model")
	for _, name := range []string{"signme-1", "signme-2"} {
		if err := os.MkdirAll(model, 0o755); err != nil {
			t.Fatal(err)
		}
		writeTestFile(t, filepath.Join(model, name), name)
	}
	key, other := "testdata/cosign/cosign.pub", filepath.Join(w.Keys, "other.pub")
	for _, tt := range []struct {
		bundle, model, key string
		status             int
		stderr             string
	}{
		{"statement.sig", model, key, exitDone, ""},
		{"stamped.sig", model, key, exitDone, ""},
		{"logged.sig", model, key, exitDone, ""},
		{"statement.sig", model, other, exitRefused, "names another key"},
		{"stamped.sig", model, other, exitRefused, "names another key"},
		{"logged.sig", model, other, exitRefused, "names another key"},
		{"statement.sig", filepath.Join(model, "signme-1"), key, exitRefused, "lists 2 files"},
		{"predicate.sig", model, key, exitRefused, "https://in-toto.io/Statement/v0.1"},
		{"approval.sig", model, key, exitRefused, "predicate type"},
		{"blob.sig", filepath.Join(model, "signme-1"), key, exitRefused, "messageSignature"},
		{"old.sig", filepath.Join(model, "signme-1"), key, exitRefused, "base64Signature"},
	} {
		status, _, stderr := runModel(t, "model", "verify", tt.model, "--signature", "testdata/cosign/"+tt.bundle, "--public-key", tt.key)
		if status != tt.status || !strings.Contains(stderr, tt.stderr) {
			t.Errorf("verify %s by %s: status %d, want %d with %q: %s", tt.bundle, filepath.Base(tt.key), status, tt.status, tt.stderr, stderr)
		}
	}
}

// TestCosignStatement: what cosign signs is byte for byte the statement that it was given, so that ours keep their ids.
func TestCosignStatement(t *testing.T) {
	data, err := os.ReadFile("testdata/cosign/approval.sig")
	if err != nil {
		t.Fatal(err)
	}
	signed, err := statement.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	pub, err := os.ReadFile("testdata/cosign/cosign.pub")
	if err != nil {
		t.Fatal(err)
	}
	key, err := statement.ParsePublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	if err := signed.VerifyKey(key); err != nil {
		t.Errorf("VerifyKey = %v", err)
	}
	if err := signed.VerifyKey(trusttest.New(t).Key("other").Public()); !errors.Is(err, statement.ErrSignature) {
		t.Errorf("VerifyKey by another key = %v, want %v", err, statement.ErrSignature)
	}
	want, err := trust.NewApproval(statement.ID("sha256:"+strings.Repeat("ab", 32)), trust.Approval{})
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(signed.Payload(), want) {
		t.Errorf("signed %s, want %s", signed.Payload(), want)
	}
}
