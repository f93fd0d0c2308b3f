package llamacpp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/backendtest"
	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
	"github.com/weighbridge/weighbridge/backends/llamacpp"
)

// brokenAnswers is what the stand-in for llama-server answers to a question with that text: each a way in which a
// runtime might break its protocol, which the real one does not do on demand.
var brokenAnswers = map[string]struct {
	status  int
	body    string
	want    error  // nil: any
	message string // part of the error
}{
	"proper": {200, `data: {"choices":[{"delta":{"content":"hi"},"finish_reason":null}]}` + "\n\n: ping\n\n" +
		`data: {"choices":[{"delta":{},"finish_reason":"stop"}]}` + "\n\n" +
		`data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}` + "\n\ndata: [DONE]\n\n", nil, ""},
	"no end":          {200, `data: {"choices":[{"delta":{"content":"hi"},"finish_reason":"stop"}]}` + "\n\n", backends.ErrInterrupted, "unexpected EOF"},
	"no usage":        {200, `data: {"choices":[{"delta":{},"finish_reason":"stop"}]}` + "\n\ndata: [DONE]\n\n", nil, "without its reason or usage"},
	"no reason":       {200, `data: {"choices":[],"usage":{"prompt_tokens":1}}` + "\n\ndata: [DONE]\n\n", nil, "without its reason or usage"},
	"not JSON":        {200, "data: hello\n\n", nil, "decode"},
	"endless line":    {200, "data: " + strings.Repeat("x", 2<<20), nil, "token too long"},
	"error in stream": {200, `data: {"error":{"type":"server_error","message":"secret"}}` + "\n\n", nil, "server_error"},
	"overflow":        {400, `{"error":{"type":"exceed_context_size_error","n_prompt_tokens":9,"n_ctx":8}}`, backends.ErrInvalidRequest, "9 tokens"},
	"bad request":     {400, `{"error":{"type":"invalid_request_error","message":"secret"}}`, backends.ErrInvalidRequest, "template"},
	"unauthorized":    {401, `{"error":{"type":"authentication_error","message":"secret"}}`, nil, "401"},
	"server error":    {500, "secret", nil, "500"},
	"redirect":        {302, "", nil, "302"},

	"whole":           {200, `{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}`, nil, ""},
	"whole, cut off":  {200, `{"choices":[{"message":`, nil, "decode"},
	"whole, no usage": {200, `{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}]}`, nil, "without its reason or usage"},
	"whole, no end":   {200, `{"choices":[{"message":{"content":"hi"},"finish_reason":null}],"usage":{"prompt_tokens":1,"completion_tokens":2}}`, nil, "without its reason or usage"},
	"whole, nothing":  {200, `{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}`, nil, "without its reason or usage"},
	"whole, two":      {200, `{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"},{"message":{"content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}`, nil, "without its reason or usage"},
	"whole, unasked":  {200, `{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],"usage":{"completion_tokens":2}}`, nil, "without its reason or usage"},
	"whole, unmade":   {200, `{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1}}`, nil, "without its reason or usage"},
	"whole, endless":  {200, strings.Repeat(" ", 33<<20), nil, "more than"},
	"whole, refused":  {400, `{"error":{"type":"exceed_context_size_error","n_prompt_tokens":9,"n_ctx":8}}`, backends.ErrInvalidRequest, "9 tokens"},
}

// standIn is main of the stand-in for llama-server. It says more than the real one about what reaches it.
func standIn() error {
	if len(os.Environ()) != 0 {
		return fmt.Errorf("environment is %q, want none", os.Environ())
	}
	key, err := os.ReadFile(os.Args[slices.Index(os.Args, "--api-key-file")+1])
	if err != nil {
		return err
	}
	if slices.Contains(os.Args, "--main-gpu") { // how a test asks for one that never becomes healthy
		time.Sleep(time.Hour)
	}
	l, err := listenShort(os.Args[slices.Index(os.Args, "--host")+1])
	if err != nil {
		return err
	}
	http.HandleFunc("GET /health", func(http.ResponseWriter, *http.Request) {})
	http.HandleFunc("POST /v1/embeddings", answerVectors)
	http.HandleFunc("POST /v1/chat/completions", func(w http.ResponseWriter, r *http.Request) {
		var req struct {
			Messages []struct{ Role, Content string }
		}
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal(body, &req, json.MatchCaseInsensitiveNames(true))
		}
		if err != nil || len(req.Messages) == 0 || r.Header.Get("Authorization") != "Bearer "+strings.TrimSpace(string(key)) {
			http.Error(w, "no key, or no messages", http.StatusTeapot)
			return
		}
		text := req.Messages[0].Content
		// One closes the connection, as llama-server does after a while, and does not say so; the other says more than it should.
		if more, ok := map[string]string{"whole, then gone": "", "whole, and more": "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"}[text]; ok {
			conn, rw, _ := http.NewResponseController(w).Hijack()
			body := brokenAnswers["whole"].body
			fmt.Fprintf(rw, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s%s", len(body), body, more)
			_ = rw.Flush()
			if more == "" {
				conn.Close()
			}
			return
		}
		told := string(body) // of a question about the request itself
		if text == "trace" {
			told = strings.Join(r.Header.Values("Traceparent"), " ")
		}
		if text == "everything" || text == "trace" {
			quoted, _ := json.Marshal(told)
			fmt.Fprintf(w, "data: {\"choices\":[{\"delta\":{\"content\":%s},\"finish_reason\":\"stop\"}],\"usage\":{}}\n\ndata: [DONE]\n\n", quoted)
			return
		}
		if a := brokenAnswers[text]; a.status == http.StatusFound {
			http.Redirect(w, r, "/health", a.status)
		} else {
			w.WriteHeader(a.status)
			io.WriteString(w, a.body)
		}
	})
	return http.Serve(l, nil)
}

// listenShort listens with the shortest queue of connections there is.
func listenShort(path string) (net.Listener, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	socket := os.NewFile(uintptr(fd), path)
	defer socket.Close()
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
		return nil, err
	}
	return net.FileListener(socket)
}

func TestFullQueue(t *testing.T) {
	s := startStandIn(t)
	var all sync.WaitGroup
	for range 200 {
		all.Go(func() {
			if _, _, err := backendtest.Ask(t.Context(), s, backendtest.Question("proper")); err != nil {
				t.Errorf("Chat() = %v", err)
			}
		})
	}
	all.Wait()
}

// TestLostSocket takes the socket of a runtime away: it lives, so that nothing restarts it, and nobody can reach it.
func TestLostSocket(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s := newServer(t, self, dir)
	t.Cleanup(func() { s.Stop(context.Background()) })
	if err := s.Start(t.Context(), backendtest.Seal(t, backendtest.WriteModel(t, tinygguf.A)), backends.Spec{}); err != nil {
		t.Fatal(err)
	}
	sockets, err := filepath.Glob(filepath.Join(dir, "*", "*.sock"))
	if err != nil || len(sockets) != 1 || os.Remove(sockets[0]) != nil {
		t.Fatalf("sockets = %v, %v, want one that can be removed", sockets, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, _, err := backendtest.Ask(ctx, s, backendtest.Question("proper")); !errors.Is(err, backends.ErrInterrupted) {
		t.Errorf("Chat() = %v, want %v before the caller's patience ends", err, backends.ErrInterrupted)
	}
}

func startStandIn(t *testing.T) *llamacpp.Server {
	t.Helper()
	s := newStandIn(t)
	if err := s.Start(t.Context(), backendtest.Seal(t, backendtest.WriteModel(t, tinygguf.A)), backends.Spec{}); err != nil {
		t.Fatal(err)
	}
	return s
}

func newStandIn(t *testing.T) *llamacpp.Server {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(t, self, t.TempDir())
	t.Cleanup(func() { s.Stop(context.Background()) })
	return s
}

func TestBrokenAnswers(t *testing.T) {
	s := startStandIn(t)
	for name, a := range brokenAnswers {
		t.Run(name, func(t *testing.T) {
			req := backendtest.Question(name)
			req.Whole = strings.HasPrefix(name, "whole")
			_, last, err := backendtest.Ask(t.Context(), s, req)
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

func TestTrace(t *testing.T) { backendtest.CheckTrace(t, startStandIn(t)) }

// TestKeptConnections checks that what llama-server does with a connection that is kept costs no request.
func TestKeptConnections(t *testing.T) {
	s := startStandIn(t)
	for _, text := range []string{"whole", "whole", "whole, then gone", "whole, then gone", "whole", "whole, and more", "whole"} {
		req := backendtest.Question(text)
		req.Whole = true
		if answer, _, err := backendtest.Ask(t.Context(), s, req); err != nil || answer != "hi" {
			t.Errorf("Chat(%q) = %q, %v, want hi", text, answer, err)
		}
	}
}

// TestRequestOnTheWire checks the whole request: another field here is another thing that callers can reach.
func TestRequestOnTheWire(t *testing.T) {
	s := startStandIn(t)
	temperature, topP, seed := 0.5, 0.9, int64(-1)
	got, _, err := backendtest.Ask(t.Context(), s, backends.ChatRequest{
		Messages:  []backends.Message{{Role: "system", Content: "everything"}, {Role: "user", Content: `","lora":[{"id":0}]`}},
		MaxTokens: 7, Temperature: &temperature, TopP: &topP, Seed: &seed, Stop: []string{"end"},
	})
	want := `{"messages":[{"role":"system","content":"everything"},{"role":"user","content":"\",\"lora\":[{\"id\":0}]"}],` +
		`"max_tokens":7,"temperature":0.5,"top_p":0.9,"stop":["end"],"seed":4294967294,` +
		`"stream":true,"stream_options":{"include_usage":true},"cache_prompt":false}`
	if err != nil || got != want {
		t.Errorf("request is\n%s, %v; want\n%s", got, err, want)
	}
	got, _, err = backendtest.Ask(t.Context(), s, backends.ChatRequest{Messages: []backends.Message{{Role: "user", Content: "everything"}}})
	want = `{"messages":[{"role":"user","content":"everything"}],"stream":true,"stream_options":{"include_usage":true},"cache_prompt":false}`
	if err != nil || got != want {
		t.Errorf("request is\n%s, %v; want\n%s", got, err, want)
	}
}

func TestStartTimeout(t *testing.T) {
	s := newStandIn(t)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	w := backendtest.Seal(t, backendtest.WriteModel(t, tinygguf.A))
	err := s.Start(ctx, w, backends.Spec{Args: map[string]string{"main-gpu": "0"}})
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, backends.ErrFailed) {
		t.Errorf("Start() = %v, want ErrFailed because the deadline passed", err)
	}
	if st := s.Status(); st.PID != 0 || st.State != backends.Failed {
		t.Errorf("status is %+v, want failed without a process", st)
	}
}
