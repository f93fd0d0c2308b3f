package verifier_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weighbridge/weighbridge/verifier"
	"github.com/weighbridge/weighbridge/verifier/dio"
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

// TestVerifyPastCache: a model that was just written lies in the page cache; it is read from the device for who asks for that.
func TestVerifyPastCache(t *testing.T) {
	const size = 4 << 20
	dir := t.TempDir()
	write(t, dir, map[string]string{"weights.gguf": strings.Repeat("w", size)})
	m := sign(t, dir, verifier.DigestOptions{})
	f, err := os.Open(filepath.Join(dir, "weights.gguf"))
	must(t, err)
	defer f.Close()
	d, err := dio.New(f)
	must(t, err)
	defer d.Close()
	if !d.Direct() {
		t.Skip("this file system has no direct reads")
	}
	fromDevice := func() (n int64) {
		t.Helper()
		data, err := os.ReadFile("/proc/self/io")
		if err != nil {
			t.Skipf("this kernel does not count what is read: %v", err)
		}
		_, rest, _ := strings.Cut(string(data), "\nread_bytes: ")
		_, err = fmt.Sscan(rest, &n)
		must(t, err)
		return n
	}
	for _, past := range []bool{false, true} {
		before := fromDevice()
		_, err := verifier.Verify(t.Context(), dir, m, verifier.Options{PastCache: past})
		must(t, err)
		if read := fromDevice() - before; (read >= size) != past {
			t.Errorf("past the cache %v: %d of %d bytes came from the device", past, read, size)
		}
	}
}
