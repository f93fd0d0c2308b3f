package verifier_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/weighbridge/weighbridge/verifier"
	"github.com/weighbridge/weighbridge/verifier/oms"
)

func TestVerifyLinks(t *testing.T) {
	outside := t.TempDir()
	write(t, outside, map[string]string{"w.bin": "outside", "dir/x.bin": "x", "evil/r.txt": "evil"})
	link := func(t *testing.T, target, name string) { t.Helper(); must(t, os.Symlink(target, name)) }
	linked := func(t *testing.T) string {
		dir := model(t)
		link(t, "weights.gguf", filepath.Join(dir, "model.gguf"))
		link(t, filepath.Join(outside, "w.bin"), filepath.Join(dir, "outside.bin"))
		link(t, "tokenizer", filepath.Join(dir, "linkdir"))
		link(t, filepath.Join(outside, "dir"), filepath.Join(dir, "outdir"))
		link(t, "..", filepath.Join(dir, "tokenizer", "up"))
		return dir
	}
	relink := func(name, target string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			must(t, os.Remove(filepath.Join(dir, name)))
			link(t, target, filepath.Join(dir, name))
		}
	}
	none := func(*testing.T, string) {}
	tests := []struct {
		name   string
		change func(t *testing.T, dir string)
		want   string
	}{
		{"as signed", none, ""},
		{"link to other bytes", relink("model.gguf", "config.json"), "model.gguf was altered"},
		{"link to nothing", relink("model.gguf", "nowhere"), "model.gguf is missing"},
		{"link to itself", relink("model.gguf", "model.gguf"), "model.gguf is a symbolic link, or behind one"},
		{"link to a directory", relink("model.gguf", "tokenizer"), "model.gguf is not a regular file"},
		{"directory link to files that are not signed", relink("linkdir", filepath.Join(outside, "evil")), "linkdir/r.txt is not listed in the signature"},
		{"directory link to ignored files", relink("linkdir", ".git"), "linkdir/HEAD is not listed in the signature"},
		{"directory link to nothing", relink("linkdir", "nowhere"), "linkdir is a broken symbolic link"},
		{"link with the same bytes added", func(t *testing.T, dir string) { link(t, "weights.gguf", filepath.Join(dir, "again.gguf")) }, ""},
		{"link out of the model added", func(t *testing.T, dir string) { link(t, filepath.Join(outside, "w.bin"), filepath.Join(dir, "l")) }, "l is not listed in the signature"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := linked(t)
			m := sign(t, dir, verifier.DigestOptions{IgnoreGit: true, AllowSymlinks: true})
			names := make([]string, 0, len(m.Files()))
			for _, f := range m.Files() {
				names = append(names, f.Name)
			}
			if want := "cache/x.tmp config.json model.gguf notes.txt outdir/x.bin outside.bin tokenizer/deep/vocab.txt weights.gguf"; strings.Join(names, " ") != want {
				t.Fatalf("signed %q, want %q", names, want)
			}
			tt.change(t, dir)
			_, err := verifier.Verify(t.Context(), dir, m, verifier.Options{AllowSymlinks: true})
			if got := problems(t, err); got != tt.want {
				t.Errorf("Verify: %s\nwant: %s", got, tt.want)
			}
			// Both the signer and the verifier must agree to links.
			if _, err := verifier.Verify(t.Context(), dir, m, verifier.Options{}); !strings.Contains(problems(t, err), "outside.bin is a symbolic link") {
				t.Errorf("Verify without AllowSymlinks = %v", err)
			}
		})
	}
	dir := model(t)
	m := sign(t, dir, verifier.DigestOptions{IgnoreGit: true})
	must(t, os.Rename(filepath.Join(dir, "config.json"), filepath.Join(dir, "cache", "c")))
	link(t, "cache/c", filepath.Join(dir, "config.json"))
	if _, err := verifier.Verify(t.Context(), dir, m, verifier.Options{AllowSymlinks: true, IgnorePaths: []string{"cache/c"}}); problems(t, err) != "config.json is a symbolic link, or behind one" {
		t.Errorf("Verify follows a link that the signer did not allow: %v", err)
	}
	if _, err := verifier.Digest(t.Context(), linked(t), verifier.DigestOptions{}); err == nil || !strings.Contains(err.Error(), "model.gguf: is a symbolic link") {
		t.Errorf("Digest follows links untold: %v", err)
	}
}

func TestDigestOptions(t *testing.T) {
	dir := model(t)
	write(t, dir, map[string]string{"model.sig": "{}", "cache/x.py": "x"})
	l, err := verifier.Digest(t.Context(), dir, verifier.DigestOptions{IgnoreGit: true, IgnorePaths: []string{"cache"}, Signature: filepath.Join(dir, "model.sig")})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"cache", "model.sig", ".git", ".gitattributes", ".github", ".gitignore"}; !slices.Equal(l.Serialization.IgnorePaths, want) {
		t.Errorf("ignored %q, want %q", l.Serialization.IgnorePaths, want)
	}
	if l.Name != "model" || l.Files != 4 || l.Bytes != 2512 || !slices.Equal(l.Loadable, []string{"cache/x.py"}) {
		t.Errorf("Digest = %+v", l)
	}
	for name, o := range map[string]verifier.DigestOptions{
		"unknown algorithm": {Algorithm: "md5"},
		"shards of nothing": {Method: oms.MethodShards},
		"too many shards":   {Method: oms.MethodShards, ShardSize: 1, IgnorePaths: nil},
	} {
		if name == "too many shards" {
			must(t, os.Truncate(filepath.Join(dir, "weights.gguf"), oms.MaxResources+1))
		}
		if _, err := verifier.Digest(t.Context(), dir, o); err == nil {
			t.Errorf("%s: Digest lists it", name)
		}
	}
	write(t, dir, map[string]string{"\xff": "x"})
	if _, err := verifier.Digest(t.Context(), dir, verifier.DigestOptions{}); err == nil {
		t.Error("Digest lists a name that is not UTF-8")
	}
}
