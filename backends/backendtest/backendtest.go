// Package backendtest checks that a backend keeps the contract of [backends.Backend], with a real runtime.
//
// The one rule: every test asks the runtime for a sentence that only the weights it was given can say. What is checked
// here holds for all kinds of backends; what is special to one is tested beside it.
//
// A package that runs the suite calls process.Hook and [Hook] at the start of its TestMain.
package backendtest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
	"github.com/weighbridge/weighbridge/verifier"
	"github.com/weighbridge/weighbridge/verifier/oms"
	"github.com/weighbridge/weighbridge/verifier/seal"
	"github.com/weighbridge/weighbridge/verifier/statement"
)

// Patience is how long a test waits for what takes a moment, on a machine that is busy with other tests.
const Patience = 30 * time.Second

// maxWeights bounds the memory that test models may take.
const maxWeights = 1 << 30

// WriteModel writes a model to a file of its own and returns the path.
func WriteModel(t testing.TB, c tinygguf.Config) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model.gguf")
	check(t, os.WriteFile(path, modelOf(t, c), 0o644))
	return path
}

func modelOf(t testing.TB, c tinygguf.Config) []byte {
	t.Helper()
	var buf bytes.Buffer
	check(t, tinygguf.Write(&buf, c))
	return buf.Bytes()
}

// Seal signs the model at path with a new key and admits it by that signature: the way that weights go in production,
// made short. It closes the weights when the test ends.
func Seal(t testing.TB, path string) *seal.Weights {
	t.Helper()
	w, err := Admit(t, path, Sign(t, path))
	check(t, err)
	return w
}

// Sign signs the model at path with a new key and returns what was signed.
func Sign(t testing.TB, path string) *oms.Manifest {
	t.Helper()
	listing, err := verifier.Digest(t.Context(), path, verifier.DigestOptions{})
	check(t, err)
	payload, err := listing.Payload()
	check(t, err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	signer, err := statement.NewKeySigner(key)
	check(t, err)
	bundle, err := signer.Sign(payload)
	check(t, err)
	signed, err := statement.Parse(bundle)
	check(t, err)
	check(t, signed.VerifyKey(key.Public()))
	manifest, err := oms.ParseManifest(signed)
	check(t, err)
	return manifest
}

// Admit admits the model at path by what was signed. It closes the weights when the test ends.
func Admit(t testing.TB, path string, manifest *oms.Manifest) (*seal.Weights, error) {
	t.Helper()
	pool := seal.NewPool(maxWeights)
	w, err := verifier.Admit(t.Context(), pool, path, manifest, seal.Options{})
	check(t, pool.Close()) // nothing stays warm, so that tests see what is left
	if err == nil {
		t.Cleanup(func() { w.Close() })
	}
	return w, err
}

// LlamaServer returns the path of the llama-server that tests run: WEIGHBRIDGE_LLAMA_SERVER, or the one that the
// module's own script has built.
func LlamaServer(t testing.TB) string {
	t.Helper()
	return part(t, "WEIGHBRIDGE_LLAMA_SERVER", "llama-server")
}

// Ollama returns the path of the Ollama that tests run: WEIGHBRIDGE_OLLAMA, or the one that the module's own script has
// built.
func Ollama(t testing.TB) string {
	t.Helper()
	return part(t, "WEIGHBRIDGE_OLLAMA", "ollama")
}

// built are the paths of parts that were asked for, by name: the script takes a moment.
var built sync.Map

func part(t testing.TB, variable, name string) string {
	t.Helper()
	if path := os.Getenv(variable); path != "" {
		return path
	}
	if path, ok := built.Load(name); ok {
		return path.(string)
	}
	dir, err := os.Getwd()
	check(t, err)
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			t.Fatalf("no go.mod above the test: set %s", variable)
		}
		dir = filepath.Dir(dir)
	}
	cmd := exec.Command(filepath.Join(dir, ".ci", "parts"), name)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("build %s: %v", name, err)
	}
	path := strings.TrimSpace(string(out))
	built.Store(name, path)
	return path
}

// Ask asks a backend and returns the whole answer and its last chunk.
func Ask(ctx context.Context, b backends.Backend, req backends.ChatRequest) (answer string, last backends.Chunk, err error) {
	err = b.Chat(ctx, req, func(c backends.Chunk) error {
		answer += c.Text
		last = c
		return nil
	})
	return answer, last, err
}

// Question is a request that every tiny model answers with its sentence.
func Question(text string) backends.ChatRequest {
	return backends.ChatRequest{Messages: []backends.Message{{Role: "user", Content: text}}, MaxTokens: 64}
}

// CheckTrace checks that a stand-in which answers the question "trace" with the traceparent that it was sent was sent one.
func CheckTrace(t *testing.T, b backends.Backend) {
	t.Helper()
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}})
	const want = "00-01000000000000000000000000000000-0200000000000000-00"
	if got, _, err := Ask(trace.ContextWithSpanContext(t.Context(), span), b, Question("trace")); err != nil || got != want {
		t.Errorf("the traceparent is %q, %v; want %q", got, err, want)
	}
	if got, _, err := Ask(t.Context(), b, Question("trace")); err != nil || got != "" {
		t.Errorf("the traceparent is %q, %v; want none", got, err)
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
