package main_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var (
	adapter string // the built program, with weighbridge beside it
	watched = sync.OnceValue(watchSources)
)

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "conformance")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		build := exec.Command("go", "build", "-o", dir+"/", ".", "../weighbridge")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
			return 1
		}
		os.Unsetenv("WEIGHBRIDGE")       // the test is of the program that was just built
		os.Unsetenv("SIGSTORE_ID_TOKEN") // and signs as nobody but whom it names
		adapter = filepath.Join(dir, "conformance")
		return m.Run()
	}())
}

// watchSources reads every directory of the module. The tests import nothing of what they build, so without it "go test"
// would repeat an old result from its cache after the programs changed. It counts only from within a test.
func watchSources() error {
	return filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if name := d.Name(); err == nil && d.IsDir() && path != "../.." && (name[0] == '.' || name == "bin" || name == "dist") {
			return filepath.SkipDir
		}
		return err
	})
}

// call runs the adapter and returns its exit status and what it wrote.
func call(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	return callAs(t, nil, args...)
}

// callOffline is call in a network namespace that has no network at all, not even itself.
func callOffline(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	return callAs(t, &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}, args...)
}

func callAs(t *testing.T, attr *syscall.SysProcAttr, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	if err := watched(); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), adapter, args...)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = &out, &errs, attr
	if err := cmd.Run(); attr != nil && errors.Is(err, syscall.EPERM) {
		t.Skip("this machine lets nobody make a network namespace")
	} else if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// A model maps the names of files to their content.
type model map[string]string

// models are those of the suite (conformance/config/models.yaml in the specification's repository).
var models = map[string]model{
	"simple":      {"signme-1": "signme-1\n", "signme-2": "signme-2", "ignore-me": ""},
	"single-file": {"model.bin": strings.Repeat("\xEF", 256)},
	"multi-file": {
		"config.json": `{"model": "test", "version": "1.0"}`, "weights.bin": strings.Repeat("\xAB", 1024), "subdir/adapter.bin": strings.Repeat("\xCD", 512),
	},
	"binary-content":  {"header.bin": "\x00\x01\xff\xfe\x00\x00\x89PNG", "weights.bin": allBytes()},
	"empty":           {".gitignore": ".gitkeep\n"},
	"with-dotfiles":   {".config": "config data", ".env.example": "env example", "model.bin": "model"},
	"with-empty-file": {"empty.bin": "", "signme-1": "signme-1"},
	"with-git-dir": {
		".gitattributes": "", ".gitignore": "", "model.bin": "model data", ".git/HEAD": "git object", ".github/ci.yml": "workflow",
	},
	"hidden-subdir":          {"model.bin": "main model", ".cache/weights.bin": "cached weights", ".local/share/data.bin": "local data"},
	"with-nested-gitignore":  {"model.bin": "model content\n", "subdir/.gitignore": "nested gitignore\n"},
	"with-nested-ignore":     {"ignore-me": "top-level ignore\n", "signme-1": "signme content\n", "subdir/ignore-me": "nested ignore\n"},
	"unicode-names":          {"weights.bin": "weights", "模型.bin": "model data"},
	"special-chars":          {"file (copy).bin": "file1", "normal.bin": "file3", "path with spaces/model.bin": "file2"},
	"deeply-nested":          {"a/very/deep/directory/tree/weights.bin": "deep weights"},
	"deeply-nested-with-git": {"a/very/deep/directory/tree/weights.bin": "deep weights", ".git/HEAD": "git object"},
	"multi-git-dirs":         {"model.bin": "main model", ".git/HEAD": "git root", "submodule/model.bin": "sub model", "submodule/.git/HEAD": "git sub"},
	"multi-gitignore":        {"model.bin": "main model", ".gitignore": "", "subdir/data.bin": "sub data", "subdir/.gitignore": "nested gitignore"},
	"with-git-and-ignore": {
		"model.bin": "model", ".git/HEAD": "git object", ".gitignore": "", ".gitattributes": "", "ignored-file.tmp": "should be ignored",
	},
	"with-assets-subdir": {
		"weights.bin": "weights", "config.json": `{"version": "1.0"}`, "assets/vocab.txt": "vocabulary data", "assets/tokenizer.bin": strings.Repeat("\xAA", 128),
	},
}

func allBytes() string {
	var b []byte
	for i := range 4 * 256 {
		b = append(b, byte(i))
	}
	return string(b)
}

// write makes the model's directory and returns its path.
func (m model) write(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "model")
	for name, content := range m {
		put(t, filepath.Join(dir, name), content)
	}
	return dir
}

func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// A group is a group of keys of the suite (conformance/config/keys.yaml): what signs, and what is trusted for it.
type group struct {
	private, public string
	cert            string
	chain, roots    []string
}

// sign are the flags that the suite signs with.
func (g group) sign(method string) []string {
	args := []string{"--private-key", g.private}
	if method == "certificate" {
		args = append(args, "--signing-cert", g.cert)
		for _, c := range g.chain {
			args = append(args, "--cert-chain", c)
		}
	}
	return args
}

// verify are the flags that the suite verifies with.
func (g group) verify(method string) []string {
	if method == "key" {
		return []string{"--public-key", g.public}
	}
	var args []string
	for _, c := range g.roots {
		args = append(args, "--cert-chain", c)
	}
	return args
}

// A pair is a private key and its place on disk.
type pair struct {
	key             *ecdsa.PrivateKey
	private, public string
}

func newPair(t *testing.T, dir, name string, curve elliptic.Curve) pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	p := pair{key, filepath.Join(dir, name+"-key.pem"), filepath.Join(dir, name+"-pub.pem")}
	put(t, p.private, string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}))) // as openssl ecparam writes it
	put(t, p.public, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})))
	return p
}

// A span says when a certificate is valid.
type span struct{ from, to time.Time }

var (
	valid       = span{time.Now().Add(-time.Hour), time.Now().Add(24 * time.Hour)}
	expired     = span{time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2020, 1, 2, 0, 0, 0, 0, time.UTC)}
	notYetValid = span{time.Now().Add(24 * time.Hour), time.Now().Add(48 * time.Hour)}
)

// A pki makes the certificates of one test.
type pki struct {
	t   *testing.T
	dir string
}

// An authority is a CA that issues.
type authority struct {
	pair
	cert *x509.Certificate
	file string
}

func (p pki) issue(name string, key pair, by *authority, when span, change func(*x509.Certificate)) authority {
	p.t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		p.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: when.from, NotAfter: when.to, BasicConstraintsValid: true,
	}
	change(template)
	parent, signer := template, key.key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.key.Public(), signer)
	if err != nil {
		p.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		p.t.Fatal(err)
	}
	file := filepath.Join(p.dir, name+"-cert.pem")
	put(p.t, file, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	return authority{key, cert, file}
}

func (p pki) ca(name string, by *authority, when span) authority {
	p.t.Helper()
	return p.issue(name, newPair(p.t, p.dir, name, elliptic.P384()), by, when, func(c *x509.Certificate) {
		c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign
	})
}

func (p pki) leaf(by *authority, when span, change func(*x509.Certificate)) group {
	p.t.Helper()
	key := newPair(p.t, p.dir, "signing", elliptic.P384())
	leaf := p.issue("leaf", key, by, when, func(c *x509.Certificate) {
		c.KeyUsage, c.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
		if change != nil {
			change(c)
		}
	})
	return group{private: key.private, public: key.public, cert: leaf.file}
}

// newChain makes a root, an intermediate and a leaf, each valid for its span.
func newChain(t *testing.T, root, mid, leaf span, change func(*x509.Certificate)) group {
	t.Helper()
	p := pki{t, t.TempDir()}
	r := p.ca("ca", nil, root)
	m := p.ca("int-ca", &r, mid)
	g := p.leaf(&m, leaf, change)
	g.chain, g.roots = []string{m.file}, []string{r.file}
	return g
}

// keyGroup makes a bare key pair.
func keyGroup(t *testing.T, curve elliptic.Curve) group {
	t.Helper()
	p := newPair(t, t.TempDir(), "signing", curve)
	return group{private: p.private, public: p.public}
}

// A bundle is what the suite reads of one.
type bundle struct {
	MediaType    string `json:"mediaType"`
	DSSEEnvelope struct {
		Payload     []byte `json:"payload"`
		PayloadType string `json:"payloadType"`
		Signatures  []any  `json:"signatures"`
	} `json:"dsseEnvelope"`
	Material map[string]any `json:"verificationMaterial"`
}

type statement struct {
	Type    string `json:"_type"`
	Subject []struct {
		Name   string            `json:"name"`
		Digest map[string]string `json:"digest"`
	} `json:"subject"`
	PredicateType string `json:"predicateType"`
	Predicate     struct {
		Resources     []map[string]any `json:"resources"`
		Serialization map[string]any   `json:"serialization"`
	} `json:"predicate"`
}

func readBundle(t *testing.T, path string) (b bundle, s statement) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	unmarshal(t, data, &b)
	unmarshal(t, b.DSSEEnvelope.Payload, &s)
	return b, s
}

// checkBundle checks everything that the suite checks of a bundle that the adapter wrote, and returns the names of the
// signed files.
func checkBundle(t *testing.T, path, method, model string) []string {
	t.Helper()
	b, s := readBundle(t, path)
	material := map[string]string{"key": "publicKey", "certificate": "x509CertificateChain", "sigstore": "certificate"}[method]
	for _, other := range []string{"publicKey", "x509CertificateChain", "certificate"} {
		equal(t, other+" is there", b.Material[other] != nil, other == material)
	}
	if method == "key" { // section 4.1: a hint, and no rawBytes
		key, _ := b.Material["publicKey"].(map[string]any)
		equal(t, "members of publicKey", len(key), 1)
		equal(t, "digits of the key's hint", len(fmt.Sprint(key["hint"])), 64)
	}
	equal(t, "mediaType", b.MediaType, "application/vnd.dev.sigstore.bundle.v0.3+json")
	equal(t, "signatures", len(b.DSSEEnvelope.Signatures), 1)
	equal(t, "payloadType", b.DSSEEnvelope.PayloadType, "application/vnd.in-toto+json")
	equal(t, "_type", s.Type, "https://in-toto.io/Statement/v1")
	equal(t, "predicateType", s.PredicateType, "https://model_signing/signature/v1.0")
	equal(t, "subjects", len(s.Subject), 1)
	equal(t, "subject's name", s.Subject[0].Name, filepath.Base(model)) // section 6.5
	_, follows := s.Predicate.Serialization["allow_symlinks"].(bool)
	equal(t, "allow_symlinks is there", follows, true)
	equal(t, "hash_type", s.Predicate.Serialization["hash_type"], any("sha256"))
	equal(t, "method", s.Predicate.Serialization["method"], any("files"))
	equal(t, "shard_size is there", s.Predicate.Serialization["shard_size"] != nil, false)
	root := sha256.New()
	var names []string
	for _, r := range s.Predicate.Resources {
		name, sum := fmt.Sprint(r["name"]), fmt.Sprint(r["digest"])
		raw, err := hex.DecodeString(sum)
		if err != nil || sum != strings.ToLower(sum) {
			t.Errorf("digest of %q is %q, want lower-case hex", name, sum)
		}
		root.Write(raw)
		equal(t, "algorithm", r["algorithm"], any("sha256"))
		equal(t, "canonical name", filepath.Clean(name), name)
		equal(t, name+" lies in the model", filepath.IsLocal(name), true)
		names = append(names, name)
	}
	equal(t, "resources are sorted", slices.IsSorted(names), true)
	equal(t, "root digest", s.Subject[0].Digest["sha256"], hex.EncodeToString(root.Sum(nil)))
	return names
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s = %v, want %v", what, got, want)
	}
}
