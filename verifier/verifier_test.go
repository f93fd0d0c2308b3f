package verifier_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/verifier"
	"github.com/weighbridge/weighbridge/verifier/digest"
	"github.com/weighbridge/weighbridge/verifier/oms"
	"github.com/weighbridge/weighbridge/verifier/seal"
	"github.com/weighbridge/weighbridge/verifier/statement"
)

var signer = func() *statement.Signer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	s, err := statement.NewKeySigner(key)
	if err != nil {
		panic(err)
	}
	return s
}()

// sign lists the model at path and returns its manifest, as a verifier gets it.
func sign(t testing.TB, path string, o verifier.DigestOptions) *oms.Manifest {
	t.Helper()
	l, err := verifier.Digest(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := l.Payload()
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	s, err := statement.Parse(bundle)
	if err != nil {
		t.Fatal(err)
	}
	m, err := oms.ParseManifest(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// write makes files below dir; a name that ends in a slash is an empty directory.
func write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(path, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// model is the tree that each row below changes.
func model(t testing.TB) string {
	dir := filepath.Join(t.TempDir(), "model")
	write(t, dir, map[string]string{
		"weights.gguf": strings.Repeat("w", 2500), "config.json": "{}", "tokenizer/deep/vocab.txt": "a b c",
		"notes.txt": "to do", ".git/HEAD": "ref", ".gitignore": "*.tmp", "cache/x.tmp": "x", "empty/": "",
	})
	return dir
}

// problems returns the files and reasons of a refusal, "" if there was none, and fails on any other error.
func problems(t testing.TB, err error) string {
	t.Helper()
	var r *verifier.Refused
	if err == nil {
		return ""
	}
	if !errors.As(err, &r) {
		t.Fatalf("could not look: %v", err)
	}
	var all []string
	for _, p := range r.Problems {
		all = append(all, p.File+" "+p.Why)
	}
	return strings.Join(all, "; ")
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestVerify(t *testing.T) {
	const limit = 1 << 20
	small := verifier.DigestOptions{Method: oms.MethodShards, ShardSize: 1000, IgnoreGit: true, IgnorePaths: []string{"cache", "notes.txt"}}
	whole := verifier.DigestOptions{IgnoreGit: true, IgnorePaths: []string{"cache", "notes.txt"}}
	at := func(dir, name string) string { return filepath.Join(dir, name) }
	put := func(name, content string) func(*testing.T, string) {
		return func(t *testing.T, dir string) { write(t, dir, map[string]string{name: content}) }
	}
	tests := []struct {
		name   string
		o      verifier.DigestOptions
		change func(t *testing.T, dir string)
		want   string
	}{
		{"as signed", whole, put("config.json", "{}"), ""},
		{"as signed in shards", small, put("config.json", "{}"), ""},
		{"ignored file changed", whole, put("cache/x.tmp", "y"), ""},
		{"ignored file added", whole, put("cache/y.tmp", "y"), ""},
		{"git file added at the top", whole, put(".gitattributes", "x"), ""},
		{"empty directory added", whole, put("more/", ""), ""},

		{"one bit flipped", whole, put("config.json", "{|"), "config.json was altered"},
		{"one byte appended", whole, put("config.json", "{}\n"), "config.json was altered"},
		{"truncated", whole, put("config.json", "{"), "config.json was altered"},
		{"emptied", whole, put("config.json", ""), "config.json was altered"},
		{"removed", whole, func(t *testing.T, dir string) { must(t, os.Remove(at(dir, "config.json"))) }, "config.json is missing"},
		{"directory removed", whole, func(t *testing.T, dir string) { must(t, os.RemoveAll(at(dir, "tokenizer"))) }, "tokenizer/deep/vocab.txt is missing"},
		{"renamed", whole, func(t *testing.T, dir string) { must(t, os.Rename(at(dir, "config.json"), at(dir, "Config.json"))) },
			"Config.json is not listed in the signature; config.json is missing"},
		{"file added", whole, put("model.py", "x"), "model.py is not listed in the signature"},
		{"empty file added", whole, put("x.bin", ""), "x.bin is not listed in the signature"},
		{"file added deep down", whole, put("tokenizer/deep/er/x", "x"), "tokenizer/deep/er/x is not listed in the signature"},
		{"git file added below the top", whole, put("tokenizer/.gitignore", "x"), "tokenizer/.gitignore is not listed in the signature"},
		{"name like a git file", whole, put(".gitmodules", "x"), ".gitmodules is not listed in the signature"},
		{"code added where the signer ignores", whole, put("cache/deep/model.py", "x"),
			"cache/deep/model.py is left out of the signature by its ignore_paths, but a runtime could load it"},
		{"file became a directory", whole, func(t *testing.T, dir string) {
			must(t, os.Remove(at(dir, "config.json")), os.Mkdir(at(dir, "config.json"), 0o755))
		}, "config.json is not a regular file"},
		{"directory became a file", whole, func(t *testing.T, dir string) {
			must(t, os.RemoveAll(at(dir, "tokenizer")), os.WriteFile(at(dir, "tokenizer"), nil, 0o644))
		}, "tokenizer is not listed in the signature; tokenizer/deep/vocab.txt is missing"},
		{"file became a pipe", whole, func(t *testing.T, dir string) {
			must(t, os.Remove(at(dir, "config.json")), unix.Mkfifo(at(dir, "config.json"), 0o644))
		}, "config.json is not a regular file"},
		{"pipe added", whole, func(t *testing.T, dir string) { must(t, unix.Mkfifo(at(dir, "p"), 0o644)) }, "p is not a regular file"},
		{"file became a link to the same bytes", whole, func(t *testing.T, dir string) {
			must(t, os.Rename(at(dir, "config.json"), at(dir, "cache/c")), os.Symlink("cache/c", at(dir, "config.json")))
		}, "config.json is a symbolic link, or behind one"},
		{"directory became a link to the same files", whole, func(t *testing.T, dir string) {
			must(t, os.Rename(at(dir, "tokenizer"), dir+"-t"), os.Symlink("../model-t", at(dir, "tokenizer")))
		}, "tokenizer is a symbolic link, which the signer did not allow; tokenizer/deep/vocab.txt is a symbolic link, or behind one"},
		{"link added", whole, func(t *testing.T, dir string) { must(t, os.Symlink("/etc/passwd", at(dir, "l"))) },
			"l is a symbolic link, which the signer did not allow"},
		{"name that is not UTF-8 added", whole, put("\xff.bin", "x"), `"\xff.bin" is not listed in the signature`},
		{"everything at once", whole, func(t *testing.T, dir string) {
			must(t, os.Remove(at(dir, "config.json")))
			write(t, dir, map[string]string{"weights.gguf": "w", "extra": "x", "tokenizer/deep/vocab.txt": ""})
		}, "config.json is missing; extra is not listed in the signature; tokenizer/deep/vocab.txt was altered; weights.gguf was altered"},

		{"two shards flipped", small, put("weights.gguf", "W"+strings.Repeat("w", 2498)+"W"), "weights.gguf was altered; weights.gguf was altered"},
		{"last shard cut short", small, put("weights.gguf", strings.Repeat("w", 2499)), "weights.gguf ends at byte 2499, inside this shard"},
		{"last shard cut off", small, put("weights.gguf", strings.Repeat("w", 2000)), "weights.gguf ends before this shard"},
		{"bytes behind the last shard", small, put("weights.gguf", strings.Repeat("w", 2501)), "weights.gguf holds bytes behind the last listed shard"},
		{"empty code added to shards", small, put("__init__.py", ""), "__init__.py is not listed in the signature"},
		{"empty unknown file added to shards", small, put("x", ""), "x is not listed in the signature"},
		{"empty weights added to shards", small, put("x.bin", ""), ""},
		{"weights added to shards", small, put("x.bin", "x"), "x.bin is not listed in the signature"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := model(t)
			m := sign(t, dir, tt.o)
			tt.change(t, dir)
			report, err := verifier.Verify(t.Context(), dir, m, verifier.Options{})
			if got := problems(t, err); got != tt.want {
				t.Errorf("Verify: %s\nwant: %s", got, tt.want)
			}
			if err == nil && (report.Root != m.Root() || report.Files != 3 || report.Bytes != 2507) {
				t.Errorf("Verify = %+v", report)
			}
			w, err := verifier.Admit(t.Context(), seal.NewPool(limit), dir, m, seal.Options{})
			if got := problems(t, err); (got == "") != (tt.want == "") {
				t.Errorf("Admit: %s\nwant: %s", got, tt.want)
			}
			if w.Valid() != (tt.want == "") {
				t.Errorf("Admit returned valid weights: %v", w.Valid())
			}
			must(t, w.Close())
		})
	}
}

// What the caller allows, and only that, is let pass.
func TestVerifyOptions(t *testing.T) {
	dir := model(t)
	m := sign(t, dir, verifier.DigestOptions{IgnoreGit: true})
	sig := filepath.Join(dir, "sub", "my.sig")
	write(t, dir, map[string]string{"extra.py": "x", "more/x.json": "x", "sub/my.sig": "{}", ".github/x.py": "x"})
	tests := []struct {
		name string
		o    verifier.Options
		want string
	}{
		{"nothing", verifier.Options{}, "extra.py more/x.json sub/my.sig"},
		{"signature", verifier.Options{Signature: sig}, "extra.py more/x.json"},
		{"paths", verifier.Options{IgnorePaths: []string{"extra.py", "more"}}, "sub/my.sig"},
		{"paths that only look alike", verifier.Options{IgnorePaths: []string{"extra", "mor", "ore", "x.json"}}, "extra.py more/x.json sub/my.sig"},
		{"a listed file is verified all the same", verifier.Options{IgnoreUnsigned: true, IgnorePaths: []string{"config.json"}}, ""},
		{"unsigned files", verifier.Options{IgnoreUnsigned: true}, ""},
		{"git files count", verifier.Options{IncludeGit: true, Signature: sig}, ".github/x.py extra.py more/x.json"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := verifier.Verify(t.Context(), dir, m, tt.o)
			var names []string
			var r *verifier.Refused
			if errors.As(err, &r) {
				for _, p := range r.Problems {
					names = append(names, p.File)
				}
			} else if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(names, " "); got != tt.want {
				t.Errorf("problems with %q, want %q", got, tt.want)
			}
		})
	}
	write(t, dir, map[string]string{"config.json": "altered"})
	for _, o := range []verifier.Options{{IgnoreUnsigned: true}, {IgnoreUnsigned: true, IgnorePaths: []string{"config.json"}}} {
		if _, err := verifier.Verify(t.Context(), dir, m, o); problems(t, err) != "config.json was altered" {
			t.Errorf("Verify with %+v = %v: an altered file that is listed must be refused", o, err)
		}
	}
}

func TestVerifySingleFile(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"w.gguf": "weights", "w.gguf.sig": "{}", "other": "x"})
	path := filepath.Join(dir, "w.gguf")
	for _, o := range []verifier.DigestOptions{{}, {Method: oms.MethodShards, ShardSize: 3}, {Algorithm: digest.BLAKE3}} {
		m := sign(t, path, o)
		if _, err := verifier.Verify(t.Context(), path, m, verifier.Options{}); err != nil {
			t.Errorf("Verify(%+v) = %v", o, err)
		}
		w, err := verifier.Admit(t.Context(), seal.NewPool(7), path, m, seal.Options{})
		if err != nil || !slices.Equal(w.Names(), []string{"."}) {
			t.Errorf("Admit(%+v) = %v", o, err)
		}
		must(t, w.Close())
		if _, err := verifier.Verify(t.Context(), dir, m, verifier.Options{}); problems(t, err) == "" {
			t.Errorf("the signature of a file verifies a directory")
		}
	}
	m := sign(t, path, verifier.DigestOptions{})
	write(t, dir, map[string]string{"w.gguf": "Weights"})
	if _, err := verifier.Verify(t.Context(), path, m, verifier.Options{}); problems(t, err) != "w.gguf was altered" {
		t.Errorf("Verify of an altered file = %v", err)
	}
	must(t, os.Symlink("w.gguf", filepath.Join(dir, "link.gguf")))
	if _, err := verifier.Verify(t.Context(), filepath.Join(dir, "link.gguf"), m, verifier.Options{}); problems(t, err) != "link.gguf is a symbolic link, or behind one" {
		t.Errorf("Verify of a link = %v", err)
	}
	if _, err := verifier.Verify(t.Context(), path, sign(t, model(t), verifier.DigestOptions{}), verifier.Options{}); !strings.Contains(problems(t, err), "is one file, but the signature lists") {
		t.Errorf("Verify of a file against a directory's signature = %v", err)
	}
}

func TestVerifyCouldNotLook(t *testing.T) {
	dir := model(t)
	m := sign(t, dir, verifier.DigestOptions{})
	var r *verifier.Refused
	if _, err := verifier.Verify(t.Context(), filepath.Join(dir, "nowhere"), m, verifier.Options{}); err == nil || errors.As(err, &r) {
		t.Errorf("Verify of a model that is not there = %v, want no verdict", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := verifier.Verify(ctx, dir, m, verifier.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Verify after cancel = %v", err)
	}
	deep := filepath.Join(dir, strings.Repeat("d/", verifier.MaxDepth+1))
	must(t, os.MkdirAll(deep, 0o755))
	if _, err := verifier.Verify(t.Context(), dir, m, verifier.Options{}); err == nil {
		t.Error("Verify walks without end")
	}
}

func TestAdmitLimit(t *testing.T) {
	dir := model(t)
	m := sign(t, dir, verifier.DigestOptions{IgnoreGit: true, IgnorePaths: []string{"cache", "notes.txt"}})
	if _, err := verifier.Admit(t.Context(), seal.NewPool(2506), dir, m, seal.Options{}); err == nil {
		t.Error("Admit takes more memory than allowed")
	}
	write(t, dir, map[string]string{"model.sig": "{}"}) // a signature at its conventional place is no stranger
	w, err := verifier.Admit(t.Context(), seal.NewPool(2507), dir, m, seal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	must(t, w.Close())
}

func TestProgress(t *testing.T) {
	dir := model(t)
	for name, hash := range map[string]func(tell func(int64)) error{
		"Digest": func(tell func(int64)) error {
			_, err := verifier.Digest(t.Context(), dir, verifier.DigestOptions{Progress: tell})
			return err
		},
		"Verify": func(tell func(int64)) error {
			_, err := verifier.Verify(t.Context(), dir, sign(t, dir, verifier.DigestOptions{}), verifier.Options{Progress: tell})
			return err
		},
	} {
		var told atomic.Int64
		if err := hash(func(n int64) { told.Add(n) }); err != nil || told.Load() != 2521 {
			t.Errorf("%s told of %d bytes, %v, want all 2521", name, told.Load(), err)
		}
	}
}

func TestWithin(t *testing.T) {
	dir := model(t)
	must(t, os.Symlink(dir, dir+"-link"))
	t.Chdir(filepath.Dir(dir))
	tests := []struct{ root, path, want string }{
		{dir, dir + "/a/b", "a/b"},
		{dir, "model/a", "a"},
		{"model", dir + "-link/cache/x", "cache/x"},
		{"model-link", "model/./cache/../a", "a"},
		{dir, dir, ""},
		{dir, "elsewhere", ""},
		{dir, dir + "2/a", ""},
		{dir, "model/../a", ""},
	}
	for _, tt := range tests {
		if rel, ok := verifier.Within(tt.root, tt.path); ok != (tt.want != "") || ok && rel != tt.want {
			t.Errorf("Within(%s, %s) = %q, %v, want %q", tt.root, tt.path, rel, ok, tt.want)
		}
	}
}

func ExampleProblem() {
	fmt.Println(verifier.Problem{File: "w.gguf", Shard: "w.gguf:0:8", End: 8, Expected: "sha256:00", Actual: "sha256:11", Why: "was altered"})
	fmt.Println(verifier.Problem{File: "a\nb", Why: "is missing"})
	// Output:
	// w.gguf: was altered: bytes 0 to 8 (shard w.gguf:0:8): expected sha256:00, actual sha256:11
	// "a\nb": is missing
}
