package llamacpp_test

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

// brokenVectors is what the stand-in for llama-server answers to the texts NAME and "x".
var brokenVectors = map[string]struct {
	status  int
	body    string
	want    error  // nil: any
	message string // part of the error
}{
	"proper":         {200, `{"data":[{"index":1,"embedding":[3,4e0]},{"index":0,"embedding":[1,-2.5]}],"usage":{"prompt_tokens":7}}`, nil, ""},
	"one":            {200, `{"data":[{"index":0,"embedding":[1]}]}`, nil, "1 vectors of 2"},
	"one twice":      {200, `{"data":[{"index":1,"embedding":[1]},{"index":1,"embedding":[1]}]}`, nil, "made it twice"},
	"one more":       {200, `{"data":[{"index":2,"embedding":[1]}]}`, nil, "vector 2 of 2"},
	"negative":       {200, `{"data":[{"index":-1,"embedding":[1]}]}`, nil, "vector -1 of 2"},
	"lengths":        {200, `{"data":[{"index":0,"embedding":[1]},{"index":1,"embedding":[1,2]}]}`, nil, "of 1 and of 2 numbers"},
	"zero":           {200, `{"data":[{"index":0,"embedding":[1]},{"index":1,"embedding":[0]}]}`, nil, "zero"},
	"not a number":   {200, `{"data":[{"index":0,"embedding":[1,null]},{"index":1,"embedding":[1,2]}]}`, nil, "no number"},
	"too large":      {200, `{"data":[{"index":0,"embedding":[1e300]},{"index":1,"embedding":[1]}]}`, nil, "not finite"},
	"base64":         {200, `{"data":[{"index":0,"embedding":"AAAA"}]}`, nil, "no list"},
	"not JSON":       {200, `secret`, nil, "decode"},
	"endless":        {200, `{"x":"` + strings.Repeat("x", 17<<20), nil, "more than"},
	"overflow":       {400, `{"error":{"type":"exceed_context_size_error","n_prompt_tokens":9,"n_ctx":8}}`, backends.ErrInvalidRequest, "9 tokens"},
	"too many":       {500, `{"error":{"type":"server_error","message":"input (9 tokens) is too large to process. increase the physical batch size (current batch size: 8)"}}`, backends.ErrInvalidRequest, "8 at once"},
	"bad request":    {400, `{"error":{"type":"invalid_request_error","message":"secret"}}`, backends.ErrInvalidRequest, "can't embed"},
	"server error":   {500, `{"error":{"type":"server_error","message":"secret"}}`, nil, "500"},
	"ends too early": {-1, `{"data":[`, backends.ErrInterrupted, "EOF"},
}

// answerVectors is the stand-in's. It answers to nothing but the whole request as it should be.
func answerVectors(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	if string(body) == `{"input":[" "],"encoding_format":"float"}` { // whether it can
		io.WriteString(w, `{"data":[{"index":0,"embedding":[1]}]}`)
		return
	}
	for name, a := range brokenVectors {
		if string(body) != `{"input":["`+name+`","x"],"encoding_format":"float"}` {
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
	http.Error(w, "not the request that it should be", http.StatusTeapot)
}

func TestBrokenVectors(t *testing.T) {
	s := newStandIn(t)
	spec := backends.Spec{Args: map[string]string{"embeddings": "true"}}
	if err := s.Start(t.Context(), backendtest.Seal(t, backendtest.WriteModel(t, tinygguf.A)), spec); err != nil {
		t.Fatal(err)
	}
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

// TestPooling: a release that makes vectors says how, where its weights do not, or does not start.
func TestPooling(t *testing.T) {
	for pooling, want := range map[string]string{"": "name no pooling", "mean": "", "cls": "", "last": ""} {
		s := newServer(t, backendtest.LlamaServer(t), t.TempDir())
		spec := backends.Spec{Args: map[string]string{"threads": "1", "embeddings": "true"}}
		if pooling != "" {
			spec.Args["pooling"] = pooling
		}
		err := s.Start(t.Context(), backendtest.Seal(t, backendtest.WriteModel(t, tinygguf.A)), spec)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("Start() with pooling %q = %v, want %q", pooling, err, want)
		}
		if err := s.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestEmbedBatch: a text may be as long as the release says, by its batch or by its context.
func TestEmbedBatch(t *testing.T) {
	long := tinygguf.Config{Sentence: tinygguf.A.Sentence, Embeds: true, Context: 1 << 16}
	tests := []struct {
		name, value string
		limit       int
	}{
		{"ubatch-size", "100", 100},
		{"ctx-size", "512", 512},
		{"ctx-size", "20000", 8192},
		{"threads-batch", "1", 8192},
	}
	for _, tt := range tests {
		spec := backends.Spec{Args: map[string]string{"threads": "1", "embeddings": "true", tt.name: tt.value}}
		s := start(t, backendtest.WriteModel(t, long), t.TempDir(), spec)
		for tokens, want := range map[int]error{tt.limit: nil, tt.limit + 1: backends.ErrInvalidRequest} {
			if tokens == 8192 {
				continue // takes long
			}
			_, err := s.Embed(t.Context(), backends.EmbedRequest{Inputs: []string{strings.Repeat("a", tokens-1)}})
			if !errors.Is(err, want) || err != nil && !strings.Contains(err.Error(), fmt.Sprint(tt.limit)) {
				t.Errorf("Embed() of %d tokens with %s %s = %v, want %v and %d", tokens, tt.name, tt.value, err, want, tt.limit)
			}
		}
		if err := s.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
