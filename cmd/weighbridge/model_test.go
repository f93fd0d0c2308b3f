package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weighbridge/weighbridge/verifier/oms/omstest"
)

// runModel runs one command line in this process.
func runModel(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	status = run(args, streams{strings.NewReader(""), &out, &errs})
	return status, out.String(), errs.String()
}

// TestModelVerifyVectors runs the command on every shared vector, as a user would.
func TestModelVerifyVectors(t *testing.T) {
	dir, cases := omstest.Open(t, "../../verifier/oms/testdata")
	if len(cases) != 61 {
		t.Errorf("%d cases, want 61", len(cases))
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			args := []string{"model", "verify", "--json", filepath.Join(dir, c.Model), "--signature", filepath.Join(dir, c.Bundle)}
			if key, ok := c.How["public_key"]; ok {
				args = append(args, "--public_key", filepath.Join(dir, key)) // underscores, as model_signing's users write
			}
			if roots, ok := c.How["roots"]; ok {
				args = append(args, "--certificate_chain", filepath.Join(dir, roots))
			}
			if flags, ok := c.How["flags"]; ok {
				args = append(args, flags)
			}
			want := exitRefused
			if c.Accept {
				want = exitDone
			}
			status, stdout, stderr := runModel(t, args...)
			if status != want {
				t.Errorf("status %d, want %d (%s)\n%s", status, want, c.Note, stderr)
			}
			checkVerifyJSON(t, stdout, c.Accept)
		})
	}
}

// checkVerifyJSON checks the promises of verify --json that scripts rely on.
func checkVerifyJSON(t *testing.T, stdout string, accept bool) {
	t.Helper()
	var got struct {
		Verified *bool
		Root     string
		Signer   map[string]string
		Files    int
		Bytes    *int64
		Seconds  *float64
		Reason   string
		Problems *[]map[string]any
	}
	dec := json.NewDecoder(strings.NewReader(stdout))
	if err := dec.Decode(&got); err != nil || dec.More() {
		t.Fatalf("standard output is not one JSON document: %v\n%s", err, stdout)
	}
	if got.Verified == nil || *got.Verified != accept {
		t.Fatalf("verified is not %v:\n%s", accept, stdout)
	}
	if accept {
		if !strings.HasPrefix(got.Root, "sha256:") || got.Files == 0 || got.Bytes == nil || got.Seconds == nil || got.Signer["kind"] == "" || got.Signer["identity"] == "" {
			t.Errorf("a verified model lacks its report:\n%s", stdout)
		}
		return
	}
	if got.Reason == "" || got.Problems == nil {
		t.Fatalf("a refused model lacks its reason and problems:\n%s", stdout)
	}
	for _, p := range *got.Problems {
		for _, key := range []string{"file", "shard", "start", "end", "expected", "actual"} {
			if _, ok := p[key]; !ok {
				t.Errorf("problem lacks %q: %v", key, p)
			}
		}
	}
}
