package ollama_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/backendtest"
	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
	"github.com/weighbridge/weighbridge/backends/ollama"
)

// brokenAnswers is what the stand-in for Ollama answers to a question with that text: each a way in which a runtime might
// break its protocol, or say no, which the real one does not do on demand.
var brokenAnswers = map[string]struct {
	status  int
	body    string
	want    error  // nil: any
	message string // part of the error
}{
	"proper":                      {200, `{"message":{"content":"hi"}}` + "\n" + `{"done":true,"done_reason":"stop","prompt_eval_count":1,"eval_count":2}` + "\n", nil, ""},
	"no end":                      {200, `{"message":{"content":"hi"}}` + "\n", nil, "without its reason"},
	"another end":                 {200, `{"message":{"content":"hi"},"done":true,"done_reason":"load"}` + "\n", nil, "without its reason"},
	"cut short":                   {200, "", backends.ErrInterrupted, "unexpected EOF"},
	"not JSON":                    {200, "secret\n", nil, "without a reason that is known"},
	"too long":                    {400, `{"error":"the input length exceeds the context length"}`, backends.ErrInvalidRequest, "which is 77"},
	"template":                    {500, `{"error":"template: :1:3: executing \"secret\""}`, backends.ErrInvalidRequest, "chat template"},
	"runner died":                 {500, `{"error":"model runner has unexpectedly stopped, secret"}`, backends.ErrInterrupted, "runner ended"},
	"runner died while streaming": {200, `{"message":{"content":"hi"}}` + "\n" + `{"error":"an error was encountered while running the model: secret"}` + "\n", backends.ErrInterrupted, "runner ended"},
	"server error":                {500, `{"error":"secret"}`, nil, "500"},
	"redirect":                    {302, "", nil, "without its reason"},
}

// standIn is main of the stand-in for Ollama. It says more than the real one about what reaches it.
func standIn() error {
	l, err := net.Listen("tcp", os.Getenv("OLLAMA_HOST"))
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var asked []string // since the last question for it
	stuck := false     // from a question on it does nothing else
	http.HandleFunc("GET /{$}", func(http.ResponseWriter, *http.Request) {})
	http.HandleFunc("GET /api/ps", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"models":[{"name":"model","context_length":77}]}`)
	})
	http.HandleFunc("POST /api/embed", answerVectors)
	http.HandleFunc("POST /api/generate", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, "generate "+string(body))
		if stuck {
			select {}
		}
		io.WriteString(w, `{"done":true}`)
	})
	http.HandleFunc("POST /api/chat", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		body, err := io.ReadAll(r.Body)
		var req struct {
			Messages []struct{ Role, Content string }
		}
		if err == nil {
			err = json.Unmarshal(body, &req, json.MatchCaseInsensitiveNames(true))
		}
		if err != nil || len(req.Messages) == 0 { // the request that loads
			asked = append(asked, "load "+string(body))
			behaveWhileLoading(w)
			return
		}
		asked = append(asked, "chat "+string(body))
		answer := func(text string) { writeAnswer(w, text) }
		switch text := req.Messages[0].Content; text {
		case "everything": // that it was asked
			answer(strings.Join(asked, "\n"))
			asked = nil
		case "trace":
			answer(strings.Join(r.Header.Values("Traceparent"), " "))
		case "store": // what it sees
			answer(lookAround())
		case "get stuck":
			stuck = true
			answer("stuck")
		case "cut short":
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, `{"message":`)
		default:
			if path, ok := strings.CutPrefix(text, "open "); ok {
				_, err := os.ReadFile(path)
				answer(fmt.Sprint(err))
				return
			}
			a := brokenAnswers[text]
			if a.status == http.StatusFound {
				w.Header().Set("Location", "/api/ps")
			}
			w.WriteHeader(a.status)
			io.WriteString(w, a.body)
		}
	})
	return http.Serve(l, nil)
}

// behaveWhileLoading does what a test asks for by the template.
func behaveWhileLoading(w http.ResponseWriter) {
	switch seen := lookAround(); {
	case strings.Contains(seen, "die while loading"):
		fmt.Println("out of memory")
		os.Exit(3)
	case strings.Contains(seen, "load for ever"):
		fmt.Println("loading for ever")
		select {}
	case strings.Contains(seen, "no chat"):
		http.Error(w, `{"error":"\"model\" does not support chat"}`, http.StatusBadRequest)
	}
}

func writeAnswer(w io.Writer, text string) {
	quoted, _ := json.Marshal(text)
	fmt.Fprintf(w, `{"message":{"content":%s},"done":true,"done_reason":"stop"}`+"\n", quoted)
}

// lookAround tells the store's names and contents, and the environment.
func lookAround() string {
	var b strings.Builder
	filepath.WalkDir(os.Getenv("HOME"), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, _ := filepath.Rel(os.Getenv("HOME"), path)
		data, err := os.ReadFile(path)
		if len(data) > 4 && string(data[:4]) == "GGUF" {
			data = []byte("GGUF…")
		}
		if name != "ollama" { // can be executed only
			fmt.Fprintf(&b, "%s: %s %v\n", name, data, err)
		} else if err == nil {
			fmt.Fprintf(&b, "%s can be read\n", name)
		}
		return nil
	})
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		b.WriteString(name + "\n")
	}
	return b.String()
}

func startStandIn(t *testing.T, spec backends.Spec) *ollama.Server {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(t, self, t.TempDir())
	t.Cleanup(func() { s.Stop(context.Background()) })
	if err := s.Start(t.Context(), backendtest.Seal(t, backendtest.WriteModel(t, tinygguf.A)), spec); err != nil {
		t.Fatal(err)
	}
	return s
}

// TestStuckIsStartedAnew: one that is never done with a request does not keep the next one waiting for ever.
func TestStuckIsStartedAnew(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s, err := ollama.New(ollama.Config{Command: self, RuntimeDir: t.TempDir(), Patience: 300 * time.Millisecond, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Stop(context.Background()) })
	if err := s.Start(t.Context(), backendtest.Seal(t, backendtest.WriteModel(t, tinygguf.A)), backends.Spec{ChatTemplate: chatTemplate}); err != nil {
		t.Fatal(err)
	}
	for _, question := range []string{"get stuck", "proper"} {
		if _, _, err := backendtest.Ask(t.Context(), s, backendtest.Question(question)); err != nil {
			t.Errorf("Chat(%q) = %v", question, err)
		}
	}
	if st := s.Status(); st.Restarts != 1 || st.State != backends.Ready {
		t.Errorf("status is %+v, want ready after a restart", st)
	}
}

// TestLoadingFails: what a runtime wrote is told if it dies while it loads, and one that loads for ever is given up.
func TestLoadingFails(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		what string
		want error
		text string
	}{
		{"die while loading", backends.ErrFailed, "out of memory"},
		{"load for ever", context.Canceled, "not ready"},
	} {
		var said backendtest.Lines
		runtimeDir := t.TempDir()
		s, err := ollama.New(ollama.Config{Command: self, RuntimeDir: runtimeDir, Log: slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug}))})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var patient sync.WaitGroup
		if errors.Is(tt.want, context.Canceled) {
			patient.Go(func() {
				defer cancel()
				said.WaitFor(t, "loading for ever")
			})
		}
		err = s.Start(ctx, backendtest.Seal(t, backendtest.WriteModel(t, tinygguf.A)), backends.Spec{ChatTemplate: chatTemplate + tt.what})
		if !errors.Is(err, tt.want) || !strings.Contains(fmt.Sprint(err), tt.text) {
			t.Errorf("%s: Start() = %v, want %v with %q", tt.what, err, tt.want, tt.text)
		}
		patient.Wait()
		cancel()
		checkNothingLeft(t, s, runtimeDir)
	}
}

func TestBrokenAnswers(t *testing.T) {
	s := startStandIn(t, backends.Spec{ChatTemplate: chatTemplate})
	for name, a := range brokenAnswers {
		t.Run(name, func(t *testing.T) {
			_, last, err := backendtest.Ask(t.Context(), s, backendtest.Question(name))
			if a.message == "" {
				if want := (backends.Usage{PromptTokens: 1, CompletionTokens: 2}); err != nil || last.Usage == nil || *last.Usage != want {
					t.Errorf("Chat() = %v, %+v; want usage %+v", err, last, want)
				}
				return
			}
			if err == nil || a.want != nil && !errors.Is(err, a.want) || !strings.Contains(err.Error(), a.message) {
				t.Errorf("Chat() = %v, want %v with %q", err, a.want, a.message)
			}
			if a.want == nil && (errors.Is(err, backends.ErrInterrupted) || errors.Is(err, backends.ErrInvalidRequest)) {
				t.Errorf("Chat() = %v, which tells callers to try otherwise", err)
			}
			if strings.Contains(fmt.Sprint(err), "secret") {
				t.Errorf("error repeats the runtime's words: %v", err)
			}
		})
	}
}

// TestRequestsOnTheWire checks all that is asked: another field here is another thing that callers can reach. Between
// two callers' requests there is one that has the first forgotten.
func TestRequestsOnTheWire(t *testing.T) {
	s := startStandIn(t, backends.Spec{ChatTemplate: chatTemplate})
	ask := func(req backends.ChatRequest, want ...string) {
		t.Helper()
		got, _, err := backendtest.Ask(t.Context(), s, req)
		if want := strings.Join(want, "\n"); err != nil || got != want {
			t.Errorf("it was asked\n%s, %v; want\n%s", got, err, want)
		}
	}
	const forget = `generate {"model":"model","prompt":" ","suffix":"","system":"","template":"","stream":false,"raw":true,"options":{"num_predict":1}}`
	everything := []backends.Message{{Role: "user", Content: "everything"}}
	ask(backends.ChatRequest{Messages: everything},
		`load {"model":"model","messages":null,"options":null}`,
		`chat {"model":"model","messages":[{"role":"user","content":"everything"}],"options":{"num_predict":-1},"think":false,"truncate":false,"shift":false}`)
	temperature, topP, seed := 0.5, 0.9, int64(-1)
	ask(backends.ChatRequest{
		Messages:  append(everything, backends.Message{Role: "assistant", Content: `","options":{"num_ctx":1}`}),
		MaxTokens: 7, Temperature: &temperature, TopP: &topP, Seed: &seed, Stop: []string{"end"},
	},
		forget,
		`chat {"model":"model","messages":[{"role":"user","content":"everything"},{"role":"assistant","content":"\",\"options\":{\"num_ctx\":1}"}],`+
			`"options":{"num_predict":7,"seed":4294967294,"stop":["end"],"temperature":0.5,"top_p":0.9},"think":false,"truncate":false,"shift":false}`)
}

func TestTrace(t *testing.T) {
	backendtest.CheckTrace(t, startStandIn(t, backends.Spec{ChatTemplate: chatTemplate}))
}

// TestStore checks all that Ollama sees: another file, parameter or variable here is another thing that changes answers.
func TestStore(t *testing.T) {
	s := startStandIn(t, backends.Spec{ChatTemplate: chatTemplate, Args: map[string]string{"num_thread": "2", "use_mmap": "false", "num_ctx": "77"}})
	got, _, err := backendtest.Ask(t.Context(), s, backendtest.Question("store"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"models/manifests/registry.ollama.ai/library/model/latest: {\"schemaVersion\":2,",
		": {\"model_format\":\"gguf\",\"architecture\":\"amd64\",\"os\":\"linux\",\"rootfs\":{\"type\":\"layers\"}} <nil>\n",
		": GGUF… <nil>\n",
		": " + chatTemplate + " <nil>\n",
		": {\"num_ctx\":77,\"num_thread\":2,\"use_mmap\":false} <nil>\n",
		"\nHOME\n", "\nOLLAMA_NO_CLOUD\n", "\nOLLAMA_NUM_PARALLEL\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("it sees no %q", want)
		}
	}
	if n := strings.Count(got, "models/blobs/"); n != 4 || strings.Contains(got, "can be read") {
		t.Errorf("it sees %d blobs, want 4, and nothing else:\n%s", n, got)
	}
}

// TestSecondModel has a runtime open other models: a file on disk, and what the gateway holds for another runtime.
func TestSecondModel(t *testing.T) {
	other := backendtest.Seal(t, backendtest.WriteModel(t, tinygguf.B))
	f, err := other.Dup(other.Names()[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := startStandIn(t, backends.Spec{ChatTemplate: chatTemplate})
	for _, path := range []string{
		backendtest.WriteModel(t, tinygguf.B),
		fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd()),
		fmt.Sprintf("/proc/%d/mem", os.Getpid()),
	} {
		got, _, err := backendtest.Ask(t.Context(), s, backendtest.Question("open "+path))
		if err != nil || !strings.Contains(got, "permission denied") {
			t.Errorf("opening %s: %s, %v; want permission denied", path, got, err)
		}
	}
}
