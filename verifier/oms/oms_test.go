package oms_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/verifier/digest"
	"github.com/weighbridge/weighbridge/verifier/oms"
	"github.com/weighbridge/weighbridge/verifier/oms/omstest"
	"github.com/weighbridge/weighbridge/verifier/statement"
)

// signer signs whatever it is given: what a manifest is worth must not depend on an honest signer.
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

// parse signs the predicate, with the root that its resources hash to, and parses the manifest.
func parse(t testing.TB, predicate, root string) (*oms.Manifest, error) {
	t.Helper()
	payload := fmt.Sprintf(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"m","digest":{"sha256":%q}}],`+
		`"predicateType":"https://model_signing/signature/v1.0","predicate":%s}`, root, predicate)
	bundle, err := signer.Sign([]byte(payload))
	if err != nil {
		return nil, err
	}
	s, err := statement.Parse(bundle)
	if err != nil {
		return nil, err
	}
	return oms.ParseManifest(s)
}

var (
	sumA = hex.EncodeToString(sum("a"))
	sumB = hex.EncodeToString(sum("b"))
)

func sum(s string) []byte { h := sha256.Sum256([]byte(s)); return h[:] }

// rootOf is the root over hex digests in listed order, computed apart from the code under test.
func rootOf(sums ...string) string {
	h := sha256.New()
	for _, s := range sums {
		raw, _ := hex.DecodeString(s)
		h.Write(raw)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// predicates that are right; each row of a table breaks one thing in one of them.
const (
	files = `{"resources":[{"name":"b.gguf","algorithm":"sha256","digest":"SUMA"},{"name":"a/c.json","algorithm":"sha256","digest":"SUMB"}],` +
		`"serialization":{"method":"files","hash_type":"sha256","allow_symlinks":false,"ignore_paths":[".git","model.sig"]}}`
	shards = `{"resources":[{"name":"w.bin:0:1000","algorithm":"sha256-sharded-1000","digest":"SUMA"},{"name":"w.bin:1000:1500","algorithm":"sha256","digest":"SUMB"}],` +
		`"serialization":{"method":"shards","hash_type":"sha256","shard_size":1000.0,"allow_symlinks":true}}`
)

func TestParseManifest(t *testing.T) {
	long := strings.Repeat("x", 256)
	tests := []struct {
		name     string
		base     string
		old, new string // what is replaced
		accept   bool
	}{
		{"files", files, "", "", true},
		{"names are sorted, the root is over the listed order", files, "", "", true},
		{"resource with a member of in-toto", files, `"name":"b.gguf",`, `"name":"b.gguf","mediaType":"x","annotations":{"a":1},`, true},
		{"backslash, newline, colon, spaces and other scripts", files, `b.gguf`, `b\\..\\c:0:5\n 模型 e\u0301`, true},
		{"names that start with dots", files, `b.gguf`, `...`, true},
		{"two names that differ in case", files, `a/c.json`, `B.gguf`, true},
		{"no ignore_paths", files, `,"ignore_paths":[".git","model.sig"]`, ``, true},
		{"empty ignore_paths", files, `[".git","model.sig"]`, `[]`, true},
		{"ignored path that only starts like a listed one", files, `"model.sig"`, `"b.ggu"`, true},
		{"name as deep as a model may be", files, `b.gguf`, strings.Repeat("x/", oms.MaxDepth-1) + "y", true},
		{"two forms of one name", files, `a/c.json`, "b.gg\u0075\u0308f", true},

		{"name empty", files, `b.gguf`, ``, false},
		{"name missing", files, `"name":"b.gguf",`, ``, false},
		{"name null", files, `"name":"b.gguf"`, `"name":null`, false},
		{"name absolute", files, `b.gguf`, `/b.gguf`, false},
		{"name leads out", files, `b.gguf`, `../b.gguf`, false},
		{"name leads out in the middle", files, `b.gguf`, `x/../../b.gguf`, false},
		{"name with ..", files, `b.gguf`, `x/../b.gguf`, false},
		{"name is ..", files, `b.gguf`, `..`, false},
		{"name with ./", files, `b.gguf`, `./b.gguf`, false},
		{"name with /./", files, `b.gguf`, `x/./b.gguf`, false},
		{"name with //", files, `b.gguf`, `x//b.gguf`, false},
		{"name with a trailing slash", files, `b.gguf`, `b.gguf/`, false},
		{"name with NUL", files, `b.gguf`, `b\u0000.gguf`, false},
		{"name of a single-file model beside others", files, `b.gguf`, `.`, false},
		{"name with a part too long", files, `b.gguf`, long, false},
		{"name too long", files, `b.gguf`, strings.Repeat(long[:250]+"/", 17) + "y", false},
		{"name too deep", files, `b.gguf`, strings.Repeat("x/", oms.MaxDepth) + "y", false},
		{"name with a lone surrogate", files, `b.gguf`, `\ud800`, false},
		{"name not UTF-8", files, `b.gguf`, "b\xff", false},
		{"name twice", files, `a/c.json`, `b.gguf`, false},
		{"name below a listed file", files, `a/c.json`, `b.gguf/c`, false},
		{"name far below a listed file", files, `a/c.json`, `b.gguf/c/d/e`, false},

		{"digest short", files, `SUMA`, sumA[:62], false},
		{"digest long", files, `SUMA`, sumA + "00", false},
		{"digest upper case", files, `SUMA`, strings.ToUpper(sumA), false},
		{"digest with a prefix", files, `SUMA`, "sha256:" + sumA, false},
		{"digest with a space", files, `SUMA`, sumA[:63] + " ", false},
		{"digest missing", files, `,"digest":"SUMA"`, ``, false},
		{"digest null", files, `"digest":"SUMA"`, `"digest":null`, false},
		{"algorithm missing", files, `"name":"b.gguf","algorithm":"sha256",`, `"name":"b.gguf",`, false},
		{"algorithm another", files, `"name":"b.gguf","algorithm":"sha256"`, `"name":"b.gguf","algorithm":"blake3"`, false},
		{"algorithm of shards", files, `"name":"b.gguf","algorithm":"sha256"`, `"name":"b.gguf","algorithm":"sha256-sharded-0"`, false},
		{"algorithm in upper case", files, `"name":"b.gguf","algorithm":"sha256"`, `"name":"b.gguf","algorithm":"SHA256"`, false},
		{"resources empty", files, files[strings.Index(files, "[")+1 : strings.Index(files, `],"ser`)], ``, false},
		{"resources null", files, files[strings.Index(files, "["):strings.Index(files, `,"ser`)], `null`, false},
		{"resources an object", files, files[strings.Index(files, "["):strings.Index(files, `,"ser`)], `{}`, false},
		{"resource null", files, `{"name":"a/c.json"`, `null,{"name":"a/c.json"`, false},
		{"resources missing", files, files[1 : strings.Index(files, `,"ser`)+1], ``, false},
		{"resources in another case", files, `"resources"`, `"Resources"`, false},

		{"hash_type missing", files, `"hash_type":"sha256",`, ``, false},
		{"hash_type unknown", files, `"hash_type":"sha256"`, `"hash_type":"md5"`, false},
		{"hash_type blake2", files, `"hash_type":"sha256"`, `"hash_type":"blake2"`, false},
		{"hash_type another than the resources'", files, `"hash_type":"sha256"`, `"hash_type":"blake3"`, false},
		{"method missing", files, `"method":"files",`, ``, false},
		{"method unknown", files, `"method":"files"`, `"method":"tensors"`, false},
		{"allow_symlinks missing", files, `"allow_symlinks":false,`, ``, false},
		{"allow_symlinks null", files, `"allow_symlinks":false`, `"allow_symlinks":null`, false},
		{"allow_symlinks a string", files, `"allow_symlinks":false`, `"allow_symlinks":"false"`, false},
		{"allow_symlinks a number", files, `"allow_symlinks":false`, `"allow_symlinks":0`, false},
		{"shard_size with files", files, `"method":"files"`, `"method":"files","shard_size":1000`, false},
		{"shard_size null with files", files, `"method":"files"`, `"method":"files","shard_size":null`, false},
		{"serialization missing", files, files[strings.Index(files, `,"serialization"`) : len(files)-1], ``, false},
		{"unknown member in serialization", files, `"method":"files"`, `"method":"files","x":1`, false},
		{"unknown member in predicate", files, `"serialization":`, `"x":1,"serialization":`, false},
		{"member twice in serialization", files, `"method":"files"`, `"method":"files","method":"files"`, false},
		{"member twice in a resource", files, `"name":"b.gguf"`, `"name":"a.gguf","name":"b.gguf"`, false},
		{"member of a resource again in another case", files, `"name":"b.gguf"`, `"name":"b.gguf","Name":"c.gguf"`, false},
		{"member of a resource again in a letter that folds", files, `"digest":"SUMA"`, `"digest":"SUMA","dige\u017ft":"SUMB"`, false},
		{"unknown member twice in a resource", files, `"name":"b.gguf"`, `"x":1,"x":1,"name":"b.gguf"`, false},

		{"ignore_paths null", files, `[".git","model.sig"]`, `null`, false},
		{"ignore_paths a string", files, `[".git","model.sig"]`, `"model.sig"`, false},
		{"ignore_paths with a null", files, `"model.sig"`, `null`, false},
		{"ignore_paths with a number", files, `"model.sig"`, `1`, false},
		{"ignored path empty", files, `"model.sig"`, `""`, false},
		{"ignored path is everything", files, `"model.sig"`, `"."`, false},
		{"ignored path absolute", files, `"model.sig"`, `"/x"`, false},
		{"ignored path leads out", files, `"model.sig"`, `"../x"`, false},
		{"ignored path with a glob", files, `"model.sig"`, `"*.sig"`, false},
		{"ignored paths that are not clean", files, `"model.sig"`, `"x/","./y","z//./w/"`, true},
		{"ignored path is everything, not clean", files, `"model.sig"`, `"./"`, false},
		{"ignored path leads out and back", files, `"model.sig"`, `"x/../y"`, false},
		{"ignored path is listed, not clean", files, `"model.sig"`, `"./b.gguf"`, false},
		{"ignored path is listed", files, `"model.sig"`, `"b.gguf"`, false},
		{"ignored path holds a listed one", files, `"model.sig"`, `"a"`, false},
		{"too many ignored paths", files, `"model.sig"`, `"x"` + strings.Repeat(`,"x"`, oms.MaxIgnorePaths), false},

		{"shards", shards, "", "", true},
		{"shard_size a whole number", shards, `1000.0`, `1000`, true},
		{"shard_size with an exponent", shards, `1000.0`, `1e3`, true},
		{"single file", strings.ReplaceAll(shards, "w.bin:", ".:"), "", "", true},
		{"file with colons", strings.ReplaceAll(shards, "w.bin:", "w:0:5:"), "", "", true},
		{"shard_size missing", shards, `"shard_size":1000.0,`, ``, false},
		{"shard_size null", shards, `1000.0`, `null`, false},
		{"shard_size zero", shards, `1000.0`, `0`, false},
		{"shard_size negative", shards, `1000.0`, `-1000`, false},
		{"shard_size with a fraction", shards, `1000.0`, `1000.5`, false},
		{"shard_size huge", shards, `1000.0`, `1e30`, false},
		{"shard_size no float64", shards, `1000.0`, `1e999`, false},
		{"shard_size a string", shards, `1000.0`, `"1000"`, false},
		{"shard_size another", shards, `1000.0`, `500`, false},
		{"shard_size larger than all but the last", shards, `1000.0`, `1200`, false},
		{"algorithm of another size", shards, `sha256-sharded-1000`, `sha256-sharded-2000`, false},
		{"algorithm with the literal", shards, `sha256-sharded-1000`, `sha256-sharded-1000.0`, false},
		{"algorithm of another hash", shards, `sha256-sharded-1000`, `blake3-sharded-1000`, false},
		{"gap", shards, `1000:1500`, `1100:1500`, false},
		{"overlap", shards, `1000:1500`, `900:1500`, false},
		{"first shard missing", shards, `"w.bin:0:1000"`, `"v.bin:0:1000"`, false},
		{"shard twice", shards, `w.bin:1000:1500`, `w.bin:0:1000`, false},
		{"same start, other end", shards, `w.bin:1000:1500`, `w.bin:0:500`, false},
		{"last shard too long", shards, `1000:1500`, `1000:2001`, false},
		{"empty shard", shards, `1000:1500`, `1000:1000`, false},
		{"shard backwards", shards, `1000:1500`, `1500:1000`, false},
		{"leading zero", shards, `1000:1500`, `01000:1500`, false},
		{"plus sign", shards, `1000:1500`, `+1000:1500`, false},
		{"minus sign", shards, `:0:1000`, `:-0:1000`, false},
		{"underscore", shards, `1000:1500`, `1_000:1500`, false},
		{"space", shards, `1000:1500`, `1000: 1500`, false},
		{"other digits", shards, `1000:1500`, `1000:١٥٠٠`, false},
		{"hexadecimal", shards, `1000:1500`, `0x3e8:1500`, false},
		{"offset beyond int64", shards, `1000:1500`, `1000:99999999999999999999`, false},
		{"offset beyond any file", shards, `1000:1500`, `1000:9007199254740993`, false},
		{"file beyond any file", strings.NewReplacer(":0:1000", ":0:1125899906842624", "1000:1500", "1125899906842624:1125899906842625", "1000", "1125899906842624").Replace(shards), "", "", false},
		{"no range", shards, `w.bin:1000:1500`, `v.bin`, false},
		{"half a range", shards, `w.bin:1000:1500`, `w.bin:1000`, false},
		{"no name before the range", shards, `w.bin:1000:1500`, `:0:500`, false},
		{"shard of a file below a file", shards, `w.bin:1000:1500`, `w.bin/x:0:500`, false},
		{"ignored path is sharded", shards, `"allow_symlinks":true`, `"allow_symlinks":true,"ignore_paths":["w.bin"]`, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if !strings.Contains(tt.base, tt.old) {
				t.Fatalf("the base has no %q to replace", tt.old)
			}
			predicate := strings.Replace(tt.base, tt.old, tt.new, 1)
			predicate = strings.NewReplacer("SUMA", sumA, "SUMB", sumB).Replace(predicate)
			m, err := parse(t, predicate, rootOf(sumA, sumB))
			if (err == nil) != tt.accept {
				t.Fatalf("ParseManifest = %v, want accepted: %v", err, tt.accept)
			}
			if err == nil {
				checkManifest(t, m)
			}
		})
	}
}

// checkManifest checks what every accepted manifest promises.
func checkManifest(t *testing.T, m *oms.Manifest) {
	t.Helper()
	fs := m.Files()
	if len(fs) == 0 {
		t.Error("no file")
	}
	seen := map[string]bool{}
	for i, f := range fs {
		if i > 0 && fs[i-1].Name >= f.Name {
			t.Errorf("file %q comes after %q", f.Name, fs[i-1].Name)
		}
		if err := oms.CheckName(f.Name); err != nil && (f.Name != oms.SingleFile || len(fs) > 1) {
			t.Errorf("file %q: %v", f.Name, err)
		}
		if !filepath.IsLocal(f.Name) || filepath.Clean(f.Name) != f.Name {
			t.Errorf("file %q is not below the model", f.Name)
		}
		if m.Ignores(f.Name) {
			t.Errorf("file %q is listed and ignored", f.Name)
		}
		for name := range seen {
			if strings.HasPrefix(f.Name, name+"/") {
				t.Errorf("file %q lies in file %q", f.Name, name)
			}
		}
		seen[f.Name] = true
		if got, ok := m.File(f.Name); !ok || got.Name != f.Name {
			t.Errorf("File(%q) = %v, %v", f.Name, got, ok)
		}
		var at int64
		for i, p := range f.Parts {
			if len(p.Sum) != m.Algorithm().Size() {
				t.Errorf("part %q has a digest of %d bytes", p.Name, len(p.Sum))
			}
			if p.Start != at || p.End == digest.ToEnd && len(f.Parts) > 1 || p.End != digest.ToEnd && i < len(f.Parts)-1 && p.End-p.Start != m.ShardSize() {
				t.Errorf("part %q is [%d, %d), want it to start at %d", p.Name, p.Start, p.End, at)
			}
			at = p.End
		}
	}
}

func TestParseManifestRoot(t *testing.T) {
	predicate := strings.NewReplacer("SUMA", sumA, "SUMB", sumB).Replace(files)
	if _, err := parse(t, predicate, rootOf(sumB, sumA)); err == nil {
		t.Error("a root over another order than the listed one is accepted")
	}
	m, err := parse(t, predicate, rootOf(sumA, sumB))
	if err != nil {
		t.Fatal(err)
	}
	if want := "sha256:" + rootOf(sumA, sumB); m.Root() != want {
		t.Errorf("Root = %s, want %s", m.Root(), want)
	}
	if names := []string{m.Files()[0].Name, m.Files()[1].Name}; !slices.Equal(names, []string{"a/c.json", "b.gguf"}) {
		t.Errorf("Files = %q, want them sorted", names)
	}
	if !m.Ignores(".git/HEAD") || !m.Ignores("model.sig") || m.Ignores("x/.git") || m.Ignores("model.sig2") {
		t.Error("Ignores does not cover exactly the listed paths and what is below them")
	}
}

func TestParseManifestOtherPredicate(t *testing.T) {
	payload, err := statement.New("https://model_signing/Digests/v0.1", "m", rootOf(), struct{}{})
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
	if _, err := oms.ParseManifest(s); err == nil {
		t.Error("the predicate from before 1.0 is accepted")
	}
}

func TestTooManyResources(t *testing.T) {
	resources := make([]oms.Resource, oms.MaxResources+1)
	for i := range resources {
		resources[i] = oms.Resource{Name: fmt.Sprint(i), Algorithm: "sha256", Digest: sumA}
	}
	ser := oms.Serialization{Method: oms.MethodFiles, HashType: digest.SHA256}
	if _, err := oms.NewPayload("m", resources, ser); err == nil {
		t.Errorf("%d resources are accepted", len(resources))
	}
	if _, err := oms.NewPayload("m", resources[1:], ser); err != nil {
		t.Errorf("%d resources: %v", len(resources)-1, err)
	}
}

// What is written is read back the same, in the order of the specification.
func TestNewPayload(t *testing.T) {
	unsorted := []oms.Resource{{"a/b.txt", "blake3", sumB}, {"a-b.txt", "blake3", sumA}, {"￮.txt", "blake3", sumA}, {"🙂.txt", "blake3", sumB}}
	ser := oms.Serialization{Method: oms.MethodFiles, HashType: digest.BLAKE3, AllowSymlinks: true, IgnorePaths: []string{".git", ".git", "model.sig"}}
	payload, err := oms.NewPayload("m", unsorted, ser)
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
	checkManifest(t, m)
	if want := "sha256:" + rootOf(sumA, sumB, sumA, sumB); m.Root() != want {
		t.Errorf("root is %s, want %s: a-b.txt sorts before a/b.txt", m.Root(), want)
	}
	if root, err := oms.Root(unsorted, ser); root != m.Root() || err != nil {
		t.Errorf("Root = %s, %v, want %s", root, err, m.Root())
	}
	if !s.Canonical() || !m.AllowSymlinks() || m.Algorithm() != digest.BLAKE3 || !slices.Equal(m.IgnorePaths(), []string{".git", "model.sig"}) || m.Resources() != 4 {
		t.Errorf("the manifest was not written as it was given: %s", payload)
	}
	for name, r := range map[string][]oms.Resource{"no resource": nil, "bad name": {{"../a", "blake3", sumA}}, "bad digest": {{"a", "blake3", "00"}}} {
		if _, err := oms.NewPayload("m", r, ser); err == nil {
			t.Errorf("%s: NewPayload signs what ParseManifest refuses", name)
		}
	}
}

// FuzzParseManifest: an accepted predicate keeps the promises of a Manifest, and its root is over its digests.
func FuzzParseManifest(f *testing.F) {
	for _, p := range []string{files, shards} {
		f.Add([]byte(strings.NewReplacer("SUMA", sumA, "SUMB", sumB).Replace(p)))
	}
	dir, cases := omstest.Open(f, "testdata")
	for _, c := range cases {
		if data, err := os.ReadFile(filepath.Join(dir, c.Bundle)); err == nil {
			if s, err := statement.Parse(data); err == nil {
				f.Add([]byte(s.Predicate()))
			}
		}
	}
	f.Fuzz(func(t *testing.T, predicate []byte) {
		m, err := parse(t, string(predicate), rootOf())
		if err != nil {
			// The root is not known beforehand: take it from the refusal and try again.
			_, said, ok := strings.Cut(err.Error(), "the resources hash to sha256:")
			if !ok || !jsontext.Value(predicate).IsValid() {
				return
			}
			if m, err = parse(t, string(predicate), said[:64]); err != nil {
				t.Fatalf("refused with its own root: %v", err)
			}
		}
		checkManifest(t, m)
		if len(m.Root()) != len("sha256:")+64 || m.Resources() == 0 {
			t.Errorf("root %q over %d resources", m.Root(), m.Resources())
		}
	})
}
