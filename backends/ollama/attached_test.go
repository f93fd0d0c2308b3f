package ollama_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ollama/ollama/api"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/backendtest"
	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
	"github.com/weighbridge/weighbridge/backends/ollama"
	"github.com/weighbridge/weighbridge/verifier/seal"
)

// owner is the gateway that tests are.
const owner = "0123456789abcdef"

func newAttached(t *testing.T, at string) *ollama.Attached {
	t.Helper()
	address, err := ollama.ParseAddress(at)
	if err != nil {
		t.Fatal(err)
	}
	a, err := ollama.NewAttached(ollama.AttachedConfig{Address: address, Owner: owner, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Stop(context.Background()) })
	return a
}

func startForeign(t *testing.T) *backendtest.ForeignOllama {
	t.Helper()
	f := backendtest.NewForeignOllama(t, t.TempDir())
	f.Start()
	return f
}

// awaitState waits until a backend has noticed.
func awaitState(t *testing.T, b backends.Backend, want backends.State) backends.Status {
	t.Helper()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for late := time.After(backendtest.Patience); ; {
		st := b.Status()
		if st.State == want {
			return st
		}
		select {
		case <-look.C:
		case <-late:
			t.Fatalf("status is %+v, want state %s", st, want)
		}
	}
}

func TestAttachedConformance(t *testing.T) {
	foreign, oneAdapter := startForeign(t), maps.Clone(refuses)
	oneAdapter["two adapters"], oneAdapter["two adapters, the other way round"] = "takes one", "takes one"
	backendtest.Run(t, backendtest.Suite{
		New:            func(t *testing.T, _ string) backends.Backend { return newAttached(t, foreign.URL()) },
		Args:           oneThread.Args,
		EmbedArgs:      oneThread.Args,
		Refuses:        oneAdapter,
		ChatTemplate:   chatTemplate,
		BrokenTemplate: "{{ range .Messages }}",
		PaddedTemplate: "{{ range .Messages }}{{ .Content }}{{ end }}" + strings.Repeat("x", 100),
		Crash: func(t *testing.T, b backends.Backend) {
			foreign.Kill()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			asked := make(chan struct{})
			go func() {
				defer close(asked)
				backendtest.Ask(ctx, b, backendtest.Question("hello")) // or it notices after a few seconds
			}()
			awaitState(t, b, backends.Restarting)
			cancel()
			<-asked
			foreign.Start()
		},
	})
	if models, err := foreign.Client().List(t.Context()); err != nil || len(models.Models) != 0 {
		t.Errorf("models %v, %v were left behind", models, err)
	}
}

func TestNewAttached(t *testing.T) {
	_, err := ollama.NewAttached(ollama.AttachedConfig{Owner: "../models"})
	for _, want := range []string{"address", "owner", "log"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("NewAttached() = %v, want an error that names %s", err, want)
		}
	}
}

// TestAttachedRefuses: nothing is left at Ollama of what can't be served as it says.
func TestAttachedRefuses(t *testing.T) {
	foreign := startForeign(t)
	small := tinygguf.A
	small.Context = 256
	model := backendtest.Seal(t, backendtest.WriteModel(t, small))
	lora := backendtest.Seal(t, backendtest.WriteAdapter(t, tinygguf.A, tinygguf.Adapted))
	adapters := func(all ...backends.Adapter) func(*backends.Spec) {
		return func(s *backends.Spec) { s.Adapters = all }
	}
	tests := []struct {
		name   string
		change func(*backends.Spec)
		want   string
	}{
		{"no template", func(s *backends.Spec) { s.ChatTemplate = "" }, "is required"},
		{"a pinned build", func(s *backends.Spec) { s.Build = "sha256:" + strings.Repeat("0", 64) }, "nobody knows which one"},
		{"two adapters", adapters(backends.Adapter{Weights: lora, Scale: 1}, backends.Adapter{Weights: lora, Scale: 1}), "takes one"},
		{"an adapter at another scale", adapters(backends.Adapter{Weights: lora, Scale: 2}), "scale is 2"},
		{"an adapter that is a model", adapters(backends.Adapter{Weights: model, Scale: 1}), "not the release"},
		{"an adapter that is not sealed", adapters(backends.Adapter{Weights: new(seal.Weights), Scale: 1}), "not sealed"},
		{"a context that the model does not have", func(s *backends.Spec) { s.Args = map[string]string{"num_ctx": "4096"} }, "holds 256 tokens"},
		{"a function that there is not", func(s *backends.Spec) { s.ChatTemplate = "{{ range .Messages }}{{ other .Content }}{{ end }}" }, `function "other" not defined`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, spec := newAttached(t, foreign.URL()), oneThread
			tt.change(&spec)
			if err := a.Start(t.Context(), model, spec); !errors.Is(err, backends.ErrFailed) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Start() = %v, want ErrFailed with %q", err, tt.want)
			}
			checkModels(t, foreign)
		})
	}
	foreign.Kill()
	if err := newAttached(t, foreign.URL()).Start(t.Context(), model, oneThread); !errors.Is(err, backends.ErrFailed) || !strings.Contains(err.Error(), "can't be reached") {
		t.Errorf("Start() = %v where nobody listens, want ErrFailed that says so", err)
	}
}

// checkModels wants Ollama to have these models, whatever ours is called, and no others.
func checkModels(t *testing.T, at *backendtest.ForeignOllama, want ...string) {
	t.Helper()
	list, err := at.Client().List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := []string{}
	for _, m := range list.Models {
		got = append(got, m.Name)
	}
	slices.Sort(got)
	if !slices.Equal(got, append([]string{}, want...)) {
		t.Errorf("ollama has the models %q, want %q", got, want)
	}
}

// ours returns the name of the only model that a gateway made there.
func ours(t *testing.T, at *backendtest.ForeignOllama) string {
	t.Helper()
	list, err := at.Client().List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range list.Models {
		if strings.HasPrefix(m.Name, "weighbridge-"+owner) {
			return m.Name
		}
	}
	t.Fatal("ollama has no model of ours")
	return ""
}

func startAttached(t *testing.T, at *backendtest.ForeignOllama, path string) *ollama.Attached {
	t.Helper()
	return startAttachedAt(t, at.URL(), path)
}

func startAttachedAt(t *testing.T, address, path string) *ollama.Attached {
	t.Helper()
	a := newAttached(t, address)
	if err := a.Start(t.Context(), backendtest.Seal(t, path), oneThread); err != nil {
		t.Fatal(err)
	}
	return a
}

// TestOthersChangeTheModel: once Ollama says something else of the model than it did, no more is answered by it.
func TestOthersChangeTheModel(t *testing.T) {
	no := false
	progress := func(api.ProgressResponse) error { return nil }
	tests := []struct {
		name   string
		change func(c *api.Client, model string) error
		want   string
	}{
		{"removed", func(c *api.Client, model string) error {
			return c.Delete(t.Context(), &api.DeleteRequest{Model: model})
		}, "removed the model"},
		{"another template", func(c *api.Client, model string) error {
			return c.Create(t.Context(), &api.CreateRequest{Model: model, From: model, Template: "{{ .Prompt }}", Stream: &no}, progress)
		}, "its template is another"},
		{"words of its own", func(c *api.Client, model string) error {
			return c.Create(t.Context(), &api.CreateRequest{Model: model, From: model, System: "Say B.", Stream: &no}, progress)
		}, "words of its own"},
		{"another parameter", func(c *api.Client, model string) error {
			return c.Create(t.Context(), &api.CreateRequest{Model: model, From: model, Parameters: map[string]any{"temperature": 2}, Stream: &no}, progress)
		}, "its parameters are"},
		{"a parser", func(c *api.Client, model string) error {
			return c.Create(t.Context(), &api.CreateRequest{Model: model, From: model, Parser: "harmony", Stream: &no}, progress)
		}, `it says "PARSER harmony"`},
		{"a copy of its parts", func(c *api.Client, model string) error {
			return c.Create(t.Context(), &api.CreateRequest{Model: model, From: model, License: "MIT", Stream: &no}, progress)
		}, "it says"},
		{"something that is not compared", func(c *api.Client, model string) error {
			return c.Create(t.Context(), &api.CreateRequest{Model: model, From: model, Requires: "0.1.0", Info: map[string]any{"model_family": "weighbridge"}, Stream: &no}, progress)
		}, "others have replaced the model"},
		{"another family", func(c *api.Client, model string) error {
			return c.Create(t.Context(), &api.CreateRequest{Model: model, From: model, Info: map[string]any{"model_family": "qwen3"}, Stream: &no}, progress)
		}, `its family is "qwen3"`},
		{"another machine", func(c *api.Client, model string) error {
			return c.Create(t.Context(), &api.CreateRequest{Model: model, From: "other", RemoteHost: "http://127.0.0.1:1", Stream: &no}, progress)
		}, "is on another machine"},
		{"other weights", func(c *api.Client, model string) error {
			return c.Copy(t.Context(), &api.CopyRequest{Source: "other", Destination: model})
		}, "its files are"},
	}
	foreign := startForeign(t)
	other := startAttached(t, foreign, backendtest.WriteModel(t, tinygguf.B))
	if err := foreign.Client().Copy(t.Context(), &api.CopyRequest{Source: ours(t, foreign), Destination: "other"}); err != nil {
		t.Fatal(err)
	}
	other.Stop(t.Context())
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := startAttached(t, foreign, backendtest.WriteModel(t, tinygguf.A))
			if err := tt.change(foreign.Client(), ours(t, foreign)); err != nil {
				t.Fatal(err)
			}
			if i > 0 { // the first finds it out by itself
				a.Doubt()
			}
			if st := awaitState(t, a, backends.Failed); !strings.Contains(st.Error, tt.want) {
				t.Errorf("error is %q, want %q", st.Error, tt.want)
			}
			if _, _, err := backendtest.Ask(t.Context(), a, backendtest.Question("hello")); !errors.Is(err, backends.ErrFailed) {
				t.Errorf("Chat() = %v, want ErrFailed", err)
			}
			checkModels(t, foreign, "other:latest")
		})
	}
}

// TestKnownTemplate: a template that Ollama takes for one it knows brings no words to stop at, which the release does not have.
func TestKnownTemplate(t *testing.T) {
	model := tinygguf.A
	model.ChatTemplate = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
	foreign := startForeign(t)
	startAttached(t, foreign, backendtest.WriteModel(t, model))
	shown, err := foreign.Client().Show(t.Context(), &api.ShowRequest{Model: ours(t, foreign)})
	if err != nil || strings.Contains(shown.Parameters, "stop") || shown.Template != chatTemplate {
		t.Errorf("ollama shows parameters %q and template %q, %v; want the release's alone", shown.Parameters, shown.Template, err)
	}
}

// TestOthersAreLeftAlone: of what there is at Ollama only what this gateway has made in a former life is removed.
func TestOthersAreLeftAlone(t *testing.T) {
	foreign := startForeign(t)
	first := startAttached(t, foreign, backendtest.WriteModel(t, tinygguf.A))
	left := "weighbridge-" + owner + "-formerlife00-000000000000"
	for _, name := range []string{"mine", "weighbridge-" + strings.Repeat("f", 16) + "-formerlife00-000000000000", "weighbridge", left} {
		if err := foreign.Client().Copy(t.Context(), &api.CopyRequest{Source: ours(t, foreign), Destination: name}); err != nil {
			t.Fatal(err)
		}
	}
	second := startAttached(t, foreign, backendtest.WriteModel(t, tinygguf.B))
	for _, a := range []*ollama.Attached{first, second} {
		want := tinygguf.A.Sentence
		if a == second {
			want = tinygguf.B.Sentence
		}
		if got, _, err := backendtest.Ask(t.Context(), a, backendtest.Question("hello")); err != nil || got != want {
			t.Errorf("answer is %q, %v; want %q", got, err, want)
		}
		if err := a.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	checkModels(t, foreign, "mine:latest", "weighbridge-"+strings.Repeat("f", 16)+"-formerlife00-000000000000:latest", "weighbridge:latest")
}

// TestAlteredBlob pins what is and what is not found out about a file that Ollama had before it was given it, and about one
// that is altered later: another length, and nothing else. Ollama says so itself, in no way, of neither; this is what level
// attached means.
func TestAlteredBlob(t *testing.T) {
	var right, other bytes.Buffer
	if err := errors.Join(tinygguf.Write(&right, tinygguf.A), tinygguf.Write(&other, tinygguf.B)); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(right.Bytes())
	path := backendtest.WriteModel(t, tinygguf.A)
	tests := []struct {
		name    string
		content []byte
		want    string // of the error; empty: it serves
		answer  string
	}{
		{"another of the same length", other.Bytes(), "", tinygguf.B.Sentence},
		{"longer", append(right.Bytes(), make([]byte, 1<<20)...), "its files have", ""},
		{"cut short", right.Bytes()[:right.Len()/2], "can't load", ""},
		{"something else", []byte("weights of another kind"), "can't load", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			foreign := startForeign(t)
			blob := filepath.Join(foreign.Store(), "blobs", "sha256-"+hex.EncodeToString(sum[:]))
			if err := os.WriteFile(blob, tt.content, 0o600); err != nil {
				t.Fatal(err)
			}
			a := newAttached(t, foreign.URL())
			err := a.Start(t.Context(), backendtest.Seal(t, path), oneThread)
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("Start() = %v, want %q", err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got, _, err := backendtest.Ask(t.Context(), a, backendtest.Question("hello")); err != nil || got != tt.answer {
				t.Errorf("answer is %q, %v; it used to be %q", got, err, tt.answer)
			}
			if st := a.Status(); st.Level != seal.Attached {
				t.Errorf("level is %q, want %q", st.Level, seal.Attached)
			}
		})
	}
}

// TestAttachedIsTold: when a caller leaves, or has enough, Ollama's connection is closed, and so it is when the backend stops.
func TestAttachedIsTold(t *testing.T) {
	foreign := startForeign(t)
	behind, err := url.Parse(foreign.URL())
	if err != nil {
		t.Fatal(err)
	}
	pass, gone := httputil.NewSingleHostReverseProxy(behind), make(chan struct{})
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		if !bytes.Contains(body, []byte("for ever")) {
			pass.ServeHTTP(w, r)
			return
		}
		io.WriteString(w, `{"message":{"content":"on"}}`+"\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		gone <- struct{}{}
	}))
	defer proxy.Close()
	a := startAttachedAt(t, proxy.URL, backendtest.WriteModel(t, tinygguf.A))
	var cancel context.CancelFunc
	errEnough := errors.New("enough")
	for _, tt := range []struct {
		name  string
		leave func() error
		want  error
	}{
		{"a caller leaves", func() error { cancel(); return nil }, context.Canceled},
		{"a caller has enough", func() error { return errEnough }, errEnough},
		{"the backend stops", func() error { go a.Stop(context.Background()); return nil }, backends.ErrInterrupted},
	} {
		var ctx context.Context
		ctx, cancel = context.WithCancel(t.Context())
		err := a.Chat(ctx, backendtest.Question("for ever"), func(backends.Chunk) error { return tt.leave() })
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: Chat() = %v, want %v", tt.name, err, tt.want)
		}
		<-gone
		cancel()
	}
}

// TestAttachedBySocket reaches Ollama by a socket, behind which somebody else passes on what comes.
func TestAttachedBySocket(t *testing.T) {
	foreign := startForeign(t)
	behind, err := url.Parse(foreign.URL())
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "ollama.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &http.Server{Handler: httputil.NewSingleHostReverseProxy(behind)}
	go proxy.Serve(l)
	defer proxy.Close()
	a := startAttachedAt(t, "unix:"+socket, backendtest.WriteModel(t, tinygguf.A))
	if got, _, err := backendtest.Ask(t.Context(), a, backendtest.Question("hello")); err != nil || got != tinygguf.A.Sentence {
		t.Errorf("answer is %q, %v; want %q", got, err, tinygguf.A.Sentence)
	}
	if err := a.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkModels(t, foreign)
}

// TestServerComesBackWithoutTheModel: what lost its models is given them again by a new backend, and not by this one.
func TestServerComesBackWithoutTheModel(t *testing.T) {
	foreign := startForeign(t)
	path := backendtest.WriteModel(t, tinygguf.A)
	a := startAttached(t, foreign, path)
	foreign.Kill()
	if err := os.RemoveAll(foreign.Store()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	answered := make(chan error, 1)
	go func() {
		_, _, err := backendtest.Ask(ctx, a, backendtest.Question("hello"))
		answered <- err
	}()
	awaitState(t, a, backends.Restarting)
	foreign.Start()
	if st := awaitState(t, a, backends.Failed); !strings.Contains(st.Error, "removed the model") {
		t.Errorf("error is %q, want that the model is gone", st.Error)
	}
	if err := <-answered; !errors.Is(err, backends.ErrFailed) {
		t.Errorf("Chat() = %v, want ErrFailed", err)
	}
	again := startAttached(t, foreign, path)
	if got, _, err := backendtest.Ask(t.Context(), again, backendtest.Question("hello")); err != nil || got != tinygguf.A.Sentence {
		t.Errorf("answer is %q, %v; want %q", got, err, tinygguf.A.Sentence)
	}
}
