package ollama_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/backendtest"
	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
)

// brokenVectors is what the stand-in for Ollama answers to the texts NAME and "x".
var brokenVectors = map[string]struct {
	status  int
	body    string
	want    error  // nil: any
	message string // part of the error
}{
	"proper":         {200, `{"embeddings":[[1,-2.5],[3,4]],"prompt_eval_count":7}`, nil, ""},
	"one":            {200, `{"embeddings":[[1]]}`, nil, "1 vectors of 2"},
	"lengths":        {200, `{"embeddings":[[1],[1,2]]}`, nil, "of 1 and of 2 numbers"},
	"zero":           {200, `{"embeddings":[[1],[0]]}`, nil, "zero"},
	"not JSON":       {200, `secret`, nil, "without a reason that is known"},
	"endless":        {200, `{"x":"` + strings.Repeat("x", 17<<20), nil, "too large"},
	"too long":       {400, `{"error":"the input length exceeds the context length"}`, backends.ErrInvalidRequest, "which is 77"},
	"does not":       {501, `{"error":"this model does not support embeddings"}`, backends.ErrUnsupported, "makes no embeddings"},
	"runner died":    {500, `{"error":"do embedding request: Post \"http://127.0.0.1:1/embedding\": EOF"}`, backends.ErrInterrupted, "runner ended"},
	"server error":   {500, `{"error":"secret"}`, nil, "500"},
	"ends too early": {-1, `{"embeddings":[`, backends.ErrInterrupted, "EOF"},
}

// answerVectors is the stand-in's. It answers to nothing but the whole request as it should be.
func answerVectors(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	if string(body) == `{"model":"model","input":null,"options":null}` && strings.Contains(lookAround(), "no chat") { // to be loaded
		io.WriteString(w, `{"embeddings":[]}`)
		return
	}
	for name, a := range brokenVectors {
		if string(body) != `{"model":"model","input":["`+name+`","x"],"truncate":false,"options":null}` {
			continue
		}
		if a.status < 0 {
			w.Header().Set("Content-Length", "100")
		} else {
			w.WriteHeader(a.status)
		}
		io.WriteString(w, a.body)
		return
	}
	http.Error(w, `{"error":"not the request that it should be"}`, http.StatusTeapot)
}

// TestBrokenVectors asks a runtime that chats, too, and one that does not.
func TestBrokenVectors(t *testing.T) {
	for _, template := range []string{chatTemplate, chatTemplate + "no chat"} {
		s := startStandIn(t, backends.Spec{ChatTemplate: template})
		for name, a := range brokenVectors {
			t.Run(name, func(t *testing.T) {
				e, err := s.Embed(t.Context(), backends.EmbedRequest{Inputs: []string{name, "x"}})
				if a.message == "" {
					if want := (backends.Embeddings{Vectors: [][]float32{{1, -2.5}, {3, 4}}, PromptTokens: 7}); err != nil || !reflect.DeepEqual(e, want) {
						t.Errorf("Embed() = %+v, %v; want %+v", e, err, want)
					}
					return
				}
				if err == nil || a.want != nil && !errors.Is(err, a.want) || !strings.Contains(err.Error(), a.message) || e.Vectors != nil {
					t.Errorf("Embed() = %v, %v; want %v with %q, and no vector", e, err, a.want, a.message)
				}
				if a.want == nil && (errors.Is(err, backends.ErrInterrupted) || errors.Is(err, backends.ErrInvalidRequest)) {
					t.Errorf("Embed() = %v, which tells callers to try otherwise", err)
				}
				if strings.Contains(fmt.Sprint(err), "secret") {
					t.Errorf("error repeats the runtime's words: %v", err)
				}
			})
		}
	}
}

// TestEmbeddingIsForgotten: a chat after it is not answered sooner for what was embedded before.
func TestEmbeddingIsForgotten(t *testing.T) {
	s := startStandIn(t, backends.Spec{ChatTemplate: chatTemplate})
	if _, err := s.Embed(t.Context(), backends.EmbedRequest{Inputs: []string{"proper", "x"}}); err != nil {
		t.Fatal(err)
	}
	asked, _, err := backendtest.Ask(t.Context(), s, backendtest.Question("everything"))
	if before, _, ok := strings.Cut(asked, "chat "); err != nil || !ok || !strings.HasPrefix(before[strings.Index(before, "\n")+1:], "generate ") {
		t.Errorf("it was asked\n%s, %v; want that it forgets before it chats", asked, err)
	}
}

// TestEmbedsAndChats: weights that chat make vectors too.
func TestEmbedsAndChats(t *testing.T) {
	s := start(t, backendtest.WriteModel(t, tinygguf.A), t.TempDir(), oneThread)
	e, err := s.Embed(t.Context(), backends.EmbedRequest{Inputs: []string{"hello", "hello"}})
	if err != nil || !reflect.DeepEqual(e.Vectors[0], e.Vectors[1]) || len(e.Vectors[0]) != 256 {
		t.Errorf("Embed() = %d tokens, %v; want the same vector of 256 numbers twice", e.PromptTokens, err)
	}
	checkAnswer(t, s, tinygguf.A.Sentence)
}
