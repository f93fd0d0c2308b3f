package ollama_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ollama/ollama/api"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/backendtest"
	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
	"github.com/weighbridge/weighbridge/backends/ollama"
	"github.com/weighbridge/weighbridge/backends/process"
	"github.com/weighbridge/weighbridge/verifier/seal"
)

func TestMain(m *testing.M) {
	process.Hook()
	backendtest.Hook()
	if os.Args[0] == "ollama" { // the name under which this package starts runtimes
		fmt.Fprintln(os.Stderr, standIn())
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// chatTemplate is what tinygguf.ChatTemplate is, in Ollama's language.
const chatTemplate = "{{ range .Messages }}<{{ .Role }}>\n{{ .Content }}\n{{ end }}<assistant>\n"

// oneThread keeps tests from fighting over the machine.
var oneThread = backends.Spec{Args: map[string]string{"num_thread": "1"}, ChatTemplate: chatTemplate}

func newServer(t *testing.T, command, dir string) *ollama.Server {
	t.Helper()
	s, err := ollama.New(ollama.Config{Command: command, RuntimeDir: dir, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// refuses are the rows of the suite that Ollama can't do, whoever started it.
var refuses = map[string]string{
	"a weak adapter": "scale is 0.25", "a split model": "Ollama takes exactly one: join the parts",
	"tools": "tools are not passed on", "a prompt": "no text but by its template", "a count": "counts no tokens",
}

func TestConformance(t *testing.T) {
	backendtest.Run(t, backendtest.Suite{
		New:            func(t *testing.T, dir string) backends.Backend { return newServer(t, backendtest.Ollama(t), dir) },
		Args:           oneThread.Args,
		EmbedArgs:      oneThread.Args,
		Refuses:        refuses,
		ChatTemplate:   chatTemplate,
		BrokenTemplate: "{{ range .Messages }}",
		PaddedTemplate: "{{ range .Messages }}{{ .Content }}{{ end }}" + strings.Repeat("x", 100),
	})
}

// start starts the real Ollama on the model at path.
func start(t *testing.T, path, dir string, spec backends.Spec) *ollama.Server {
	t.Helper()
	s := newServer(t, backendtest.Ollama(t), dir)
	if err := s.Start(t.Context(), backendtest.Seal(t, path), spec); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Stop(context.Background()) })
	return s
}

func checkAnswer(t *testing.T, s *ollama.Server, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), backendtest.Patience)
	defer cancel()
	if got, _, err := backendtest.Ask(ctx, s, backendtest.Question("hello")); err != nil || got != want {
		t.Errorf("answer is %q, %v; want %q", got, err, want)
	}
}

// checkNothingLeft stops a server and checks that its directory went with it.
func checkNothingLeft(t *testing.T, s *ollama.Server, runtimeDir string) {
	t.Helper()
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(runtimeDir); err != nil || len(left) != 0 {
		t.Errorf("runtime directory holds %v, %v after Stop; want nothing", left, err)
	}
}

// hasNamespaces reports whether a runtime has a network and a directory of its own.
func hasNamespaces(s *ollama.Server) bool {
	return !strings.Contains(strings.Join(s.Status().Sandbox.Missing, "; "), "no namespaces of its own")
}

// TestPrivate has everything that Ollama does for those who reach it tried by someone who does: nobody else can, and
// they can change nothing.
func TestPrivate(t *testing.T) {
	runtimeDir := t.TempDir()
	path := backendtest.WriteModel(t, tinygguf.B)
	s := start(t, backendtest.WriteModel(t, tinygguf.A), runtimeDir, oneThread)
	if conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", fmt.Sprint(s.Port()))); err == nil {
		conn.Close()
		if hasNamespaces(s) {
			t.Error("its port can be reached from outside")
		}
	}
	client, ctx := s.Client(), t.Context()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	no := false
	progress := func(api.ProgressResponse) error { return nil }
	refused := map[string]error{
		"pull":    client.Pull(ctx, &api.PullRequest{Model: "tinyllama", Stream: &no}, progress),
		"create":  client.Create(ctx, &api.CreateRequest{Model: "other", From: "model", System: "Say B.", Stream: &no}, progress),
		"replace": client.Create(ctx, &api.CreateRequest{Model: "model", From: "model", Template: "{{ .Prompt }}", Stream: &no}, progress),
		"copy":    client.Copy(ctx, &api.CopyRequest{Source: "model", Destination: "other"}),
		"delete":  client.Delete(ctx, &api.DeleteRequest{Model: "model"}),
		"blob":    client.CreateBlob(ctx, "sha256:"+strings.Repeat("0", 64), file),
		"another": client.Chat(ctx, &api.ChatRequest{Model: "other"}, func(api.ChatResponse) error { return nil }),
	}
	for what, err := range refused {
		if err == nil {
			t.Errorf("%s: done, want an error", what)
		}
	}
	if list, err := client.List(ctx); err != nil || len(list.Models) != 1 {
		t.Errorf("it has models %v, %v; want one", list, err)
	}
	checkAnswer(t, s, tinygguf.A.Sentence)
	if seen, err := filepath.Glob(filepath.Join(runtimeDir, "*", "*")); hasNamespaces(s) && (err != nil || len(seen) != 0) {
		t.Errorf("its directory holds %v, %v as others see it; want nothing", seen, err)
	}
	checkNothingLeft(t, s, runtimeDir)
}

// TestStartRefuses: nothing starts, and nothing is left, where a release can't be served as it says.
func TestStartRefuses(t *testing.T) {
	small := tinygguf.A
	small.Context = 256
	files := func(content string, names ...string) *seal.Weights {
		dir := t.TempDir()
		for _, name := range names {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return backendtest.Seal(t, dir)
	}
	model := backendtest.Seal(t, backendtest.WriteModel(t, small))
	lora := backendtest.Seal(t, backendtest.WriteAdapter(t, tinygguf.A, tinygguf.Adapted))
	with := func(change func(*backends.Spec)) backends.Spec {
		spec := oneThread
		change(&spec)
		return spec
	}
	tests := []struct {
		name    string
		weights *seal.Weights
		spec    backends.Spec
		want    string
	}{
		{"no template", model, with(func(s *backends.Spec) { s.ChatTemplate = "" }), "is required"},
		{"a template in another language", model, with(func(s *backends.Spec) { s.ChatTemplate = tinygguf.ChatTemplate }), "does not show"},
		{"a template that is none", model, with(func(s *backends.Spec) { s.ChatTemplate = "{{ range .Messages }}" }), "not in ollama's language"},
		{"a template that shows nothing", model, with(func(s *backends.Spec) { s.ChatTemplate = "{{ .Prompt }}" }), "does not show"},
		{"a function that there is not", model, with(func(s *backends.Spec) { s.ChatTemplate = "{{ range .Messages }}{{ other .Content }}{{ end }}" }), `function "other" not defined`},
		{"a context that the model does not have", model, with(func(s *backends.Spec) { s.Args = map[string]string{"num_ctx": "4096"} }), "holds 256 tokens"},
		{"an adapter at another scale", model, with(func(s *backends.Spec) { s.Adapters = []backends.Adapter{{Weights: lora, Scale: 0.5}} }), "scale is 0.5"},
		{"an adapter that is a model", model, with(func(s *backends.Spec) { s.Adapters = []backends.Adapter{{Weights: model, Scale: 1}} }), "can't load"},
		{"an adapter that is not sealed", model, with(func(s *backends.Spec) { s.Adapters = []backends.Adapter{{Weights: new(seal.Weights), Scale: 1}} }), "not sealed"},
		{"two models", files("GGUF", "a.gguf", "b.gguf"), oneThread, "exactly one"},
		{"no GGUF file", files("weights of another kind", "model.gguf"), oneThread, "is no GGUF file"},
		{"a file that is cut short", files("GGU", "model.gguf"), oneThread, "is no GGUF file"},
		{"a broken file", files("GGUF", "model.gguf"), oneThread, "can't load"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			runtimeDir := t.TempDir()
			s := newServer(t, backendtest.Ollama(t), runtimeDir)
			if err := s.Start(t.Context(), tt.weights, tt.spec); !errors.Is(err, backends.ErrFailed) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Start() = %v, want ErrFailed with %q", err, tt.want)
			}
			checkNothingLeft(t, s, runtimeDir)
		})
	}
}

func TestNew(t *testing.T) {
	_, err := ollama.New(ollama.Config{})
	for _, want := range []string{"command", "runtime directory", "log"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New() = %v, want an error that names %s", err, want)
		}
	}
}
