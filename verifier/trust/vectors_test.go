package trust_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/verifier/oms"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// The vectors of FORMAT.md are committed, so that another implementation can be checked against them without this one.
var update = flag.Bool("update", false, "write the vectors in testdata/vectors anew")

const vectorDir = "testdata/vectors"

// A vector is one entry of vectors.json, which FORMAT.md describes.
type vector struct {
	File   string       `json:"file"`
	Kind   string       `json:"kind"`
	Expect string       `json:"expect"`         // valid, tolerated, or the class of the error
	Path   string       `json:"path,omitempty"` // the field, of class "field"
	ID     statement.ID `json:"id,omitempty"`   // none where the envelope can't be read
	Keys   []string     `json:"keys"`           // who signed, a line each
	Why    string       `json:"why"`
}

// classes are the errors of a vector with, where the sentinel is shared, what tells them apart. A reader in another
// language has to refuse in all of them and need not tell one from another.
var classes = map[string]string{
	"predicate-type": "predicate type is",
	"canonical":      "the payload is not canonical JSON",
	"unknown-field":  "unknown field",
	"wrong-kind":     "is of the wrong kind",
	"spelling":       "the predicate is not in the one form that is written",
	"subject":        "its subject is not",
	"weights":        "weights.",
	"adapter":        "behaviour.adapters[",
	"manifest":       "read manifest: ",
	"field":          "",
}

func TestVectors(t *testing.T) {
	if *update {
		writeVectors(t)
	}
	var index []vector
	if err := statement.Unmarshal(readVector(t, "vectors.json"), &index); err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{"vectors.json": true, "test-key-1.pem": true, "test-key-1.pub": true, "test-key-2.pem": true, "test-key-2.pub": true}
	verdicts := map[string][]string{}
	for _, v := range index {
		listed[v.File] = true
		verdicts[v.Kind] = append(verdicts[v.Kind], v.Expect)
		t.Run(v.File, func(t *testing.T) { checkVector(t, v) })
	}
	for _, kind := range []string{"weights", "release", "evaluation", "approval", "publication", "withdrawal", "receipt", "policy"} {
		if !slices.Contains(verdicts[kind], "valid") || !slices.ContainsFunc(verdicts[kind], func(v string) bool { return v != "valid" }) {
			t.Errorf("kind %s has the verdicts %q, want a valid one and others", kind, verdicts[kind])
		}
	}
	files, err := os.ReadDir(vectorDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !listed[f.Name()] {
			t.Errorf("%s is not in vectors.json", f.Name())
		}
	}
}

// TestVectorsAreThoseOfThisFile catches a vector that was changed by hand or left behind.
func TestVectorsAreThoseOfThisFile(t *testing.T) {
	index, made := makeVectors(t)
	for _, v := range index {
		if got, want := payloadsOf(t, readVector(t, v.File)), payloadsOf(t, made[v.File]); !slices.Equal(got, want) {
			t.Errorf("%s holds %q, want %q: run go test ./verifier/trust -run TestVectors -update", v.File, got, want)
		}
	}
}

// checkVector holds one file against its entry: the verdict, the id, the signature, and the one spelling.
func checkVector(t *testing.T, v vector) {
	data := readVector(t, v.File)
	signed, err := statement.ParseLines(data)
	if v.Expect == "envelope" {
		if !errors.Is(err, statement.ErrMalformed) {
			t.Fatalf("ParseLines = %v, want %v", err, statement.ErrMalformed)
		}
		return
	}
	if err != nil || len(signed) != len(v.Keys) {
		t.Fatalf("ParseLines = %d statements, %v, want %d", len(signed), err, len(v.Keys))
	}
	for i, s := range signed {
		if s.ID() != v.ID {
			t.Errorf("line %d: ID() = %s, want %s", i+1, s.ID(), v.ID)
		}
		if v.Kind != "weights" && v.Expect != "canonical" && !s.Canonical() {
			t.Errorf("line %d: Canonical() = false", i+1)
		}
		pub, err := statement.ParsePublicKey(readVector(t, v.Keys[i]+".pub"))
		if err != nil {
			t.Fatal(err)
		}
		switch err := s.VerifyKey(pub); {
		case v.Expect == "signature" && !errors.Is(err, statement.ErrSignature):
			t.Errorf("line %d: VerifyKey(%s) = %v, want %v", i+1, v.Keys[i], err, statement.ErrSignature)
		case v.Expect != "signature" && err != nil:
			t.Errorf("line %d: VerifyKey(%s) = %v", i+1, v.Keys[i], err)
		}
	}
	s := signed[0]
	again, err := reread(v.Kind, s)
	switch v.Expect {
	case "valid", "signature":
		if err != nil || string(again) != string(s.Payload()) {
			t.Errorf("read and made again: %s, %v, want\n%s", again, err, s.Payload())
		}
	case "tolerated":
		// The same must not be what this project writes, or else the entry belongs to the valid ones.
		if err != nil || string(again) == string(s.Payload()) {
			t.Errorf("read and made again: %s, %v, want another payload and no error", again, err)
		}
	case "unenforceable":
		r, err := trust.ParseRelease(s)
		if err != nil || !slices.Equal(r.Unenforceable(), []string{v.Path}) {
			t.Errorf("ParseRelease = %v, want a release that can't be enforced for %s", err, v.Path)
		}
	default:
		checkClass(t, v, err)
	}
}

func checkClass(t *testing.T, v vector, err error) {
	text, known := classes[v.Expect]
	switch {
	case !known:
		t.Errorf("vectors.json expects %q, which is no class", v.Expect)
	case err == nil || !strings.Contains(err.Error(), text):
		t.Errorf("parse = %v, want an error of class %s (%q)", err, v.Expect, text)
	case v.Kind != "weights" && !errors.Is(err, trust.ErrMalformed):
		t.Errorf("parse = %v, want %v", err, trust.ErrMalformed)
	case v.Expect == "field":
		paths := []string{}
		for _, p := range trust.Problems(err) {
			paths = append(paths, p.Path)
		}
		if !slices.Equal(paths, []string{v.Path}) {
			t.Errorf("parse = %v, about %q, want %q", err, paths, v.Path)
		}
	}
}

// reread reads a statement by the parser of its kind and makes the payload anew from what was read.
func reread(kind string, s *statement.Signed) ([]byte, error) {
	switch kind {
	case "weights":
		m, err := oms.ParseManifest(s)
		if err != nil {
			return nil, err
		}
		name, _ := s.Subject()
		return oms.NewPayload(name, resourcesOf(m), oms.Serialization{
			Method: m.Method(), HashType: m.Algorithm(), ShardSize: m.ShardSize(), AllowSymlinks: m.AllowSymlinks(), IgnorePaths: m.IgnorePaths(),
		})
	case "release":
		r, err := trust.ParseRelease(s)
		if err != nil {
			return nil, err
		}
		return trust.NewRelease(r.Descriptor)
	case "evaluation":
		return remake(s, trust.ParseEvaluation, trust.NewEvaluation)
	case "approval":
		return remake(s, trust.ParseApproval, trust.NewApproval)
	case "publication":
		return remake(s, trust.ParsePublication, trust.NewPublication)
	case "withdrawal":
		return remake(s, trust.ParseWithdrawal, trust.NewWithdrawal)
	case "receipt":
		return remake(s, trust.ParseReceipt, trust.NewReceipt)
	case "policy":
		p, err := trust.ParsePolicy(s, nil)
		if err != nil {
			return nil, err
		}
		return trust.NewPolicy(p.Document())
	}
	return nil, fmt.Errorf("no kind %q", kind)
}

func remake[T any](s *statement.Signed, parse func(*statement.Signed) (statement.ID, T, error), write func(statement.ID, T) ([]byte, error)) ([]byte, error) {
	about, act, err := parse(s)
	if err != nil {
		return nil, err
	}
	return write(about, act)
}

func resourcesOf(m *oms.Manifest) []oms.Resource {
	var all []oms.Resource
	for _, f := range m.Files() {
		for _, p := range f.Parts {
			all = append(all, oms.Resource{Name: p.Name, Algorithm: string(m.Algorithm()), Digest: hex.EncodeToString(p.Sum)})
		}
	}
	return all
}

func readVector(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(vectorDir, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// payloadsOf returns the payloads of the bundles in a file, those too that no parser takes.
func payloadsOf(t *testing.T, data []byte) []string {
	t.Helper()
	var payloads []string
	for line := range bytes.Lines(data) {
		var b struct {
			Envelope struct {
				Payload []byte `json:"payload"`
			} `json:"dsseEnvelope"`
		}
		if err := json.Unmarshal(line, &b, jsontext.AllowDuplicateNames(true)); err != nil {
			t.Fatal(err)
		}
		payloads = append(payloads, string(b.Envelope.Payload))
	}
	return payloads
}

// testKey is the key in test-key-N.pem. It is derived from its name, so it is nobody's secret.
func testKey(n string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("weighbridge vectors: TEST KEY " + n + ", never to be trusted"))
	return ed25519.NewKeyFromSeed(seed[:])
}

func writeVectors(t *testing.T) {
	t.Helper()
	index, files := makeVectors(t)
	for _, n := range []string{"1", "2"} {
		der, err := x509.MarshalPKCS8PrivateKey(testKey(n))
		if err != nil {
			t.Fatal(err)
		}
		files["test-key-"+n+".pem"] = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
		files["test-key-"+n+".pub"] = []byte(testPEM(t, n))
	}
	text, err := json.Marshal(index, jsontext.WithIndent("  "))
	if err != nil {
		t.Fatal(err)
	}
	files["vectors.json"] = append(text, '\n')
	if err := os.RemoveAll(vectorDir); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(vectorDir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(vectorDir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func testPEM(t *testing.T, n string) string {
	t.Helper()
	text, err := trust.PublicPEM(testKey(n).Public())
	if err != nil {
		t.Fatal(err)
	}
	return text
}
