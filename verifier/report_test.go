package verifier_test

import (
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weighbridge/weighbridge/verifier"
	"github.com/weighbridge/weighbridge/verifier/oms"
)

func TestVerifyNamesRanges(t *testing.T) {
	dir := model(t)
	m := sign(t, dir, verifier.DigestOptions{Method: oms.MethodShards, ShardSize: 1000, IgnoreGit: true})
	write(t, dir, map[string]string{"weights.gguf": strings.Repeat("w", 1000) + "X" + strings.Repeat("w", 1499)})
	_, err := verifier.Verify(t.Context(), dir, m, verifier.Options{})
	var r *verifier.Refused
	if !errors.As(err, &r) || len(r.Problems) != 1 {
		t.Fatalf("Verify = %v, want one problem", err)
	}
	p := r.Problems[0]
	if p.File != "weights.gguf" || p.Shard != "weights.gguf:1000:2000" || p.Start != 1000 || p.End != 2000 || p.Expected == p.Actual {
		t.Errorf("problem is %+v", p)
	}
	for _, sum := range []string{p.Expected, p.Actual} {
		if !strings.HasPrefix(sum, "sha256:") || len(sum) != 7+64 {
			t.Errorf("digest is %q", sum)
		}
	}
}

// Whoever fetches a missing file again wants to know which one.
func TestVerifyNamesMissing(t *testing.T) {
	for _, o := range []verifier.DigestOptions{{IgnoreGit: true}, {Method: oms.MethodShards, ShardSize: 1000, IgnoreGit: true}} {
		dir := model(t)
		m := sign(t, dir, o)
		must(t, os.Remove(filepath.Join(dir, "config.json")), os.Remove(filepath.Join(dir, "weights.gguf")))
		_, err := verifier.Verify(t.Context(), dir, m, verifier.Options{})
		var r *verifier.Refused
		if !errors.As(err, &r) || len(r.Problems) != 2 {
			t.Fatalf("Verify = %v, want two problems", err)
		}
		for _, p := range r.Problems {
			f, _ := m.File(p.File)
			if whole := len(f.Parts) == 1; whole != (p.Expected == "sha256:"+hex.EncodeToString(f.Parts[0].Sum)) || p.Actual != "" {
				t.Errorf("%s in %d parts: %+v", p.File, len(f.Parts), p)
			}
		}
	}
}
