package gateway_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ollama/ollama/api"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/gateway"
)

// ollama is Ollama's own client of an app.
func (d *door) ollama(path string) *api.Client {
	d.t.Helper()
	base, err := url.Parse(d.url("/"))
	if err != nil {
		d.t.Fatal(err)
	}
	return api.NewClient(base, d.client(path))
}

// calling answers with two calls, the first in two pieces.
func calling() *channel {
	return &channel{limits: gateway.Limits{Tools: []string{"weather"}}, chunks: []backends.Chunk{
		{ToolCall: &backends.ToolCall{ID: "1", Name: "weather", Arguments: `{"city"`}}, {ToolCall: &backends.ToolCall{Arguments: `:"Rome"}`}},
		{ToolCall: &backends.ToolCall{ID: "2", Name: "weather"}},
		{FinishReason: "tool_calls", Usage: &backends.Usage{PromptTokens: 7, CompletionTokens: 3}},
	}}
}

// TestOllamaChat: Ollama's client gets an answer in pieces and whole, and what it asks reaches the runtime.
func TestOllamaChat(t *testing.T) {
	for _, stream := range []bool{true, false} {
		chat := hello()
		d := open(t, map[string]*channel{"chat": chat})
		req := &api.ChatRequest{
			Model: "chat:latest", Messages: []api.Message{{Role: "system", Content: "Be brief."}, {Role: "user", Content: "hi"}}, Stream: &stream,
			Options: map[string]any{"temperature": 0.5, "top_p": 0.9, "seed": 7, "num_predict": 9, "stop": []string{"x"}},
		}
		var text string
		var last api.ChatResponse
		pieces := 0
		err := d.ollama("/apps/demo").Chat(t.Context(), req, func(r api.ChatResponse) error {
			text += r.Message.Content
			last, pieces = r, pieces+1
			return nil
		})
		if err != nil || text != "Hello, world." || pieces != map[bool]int{true: 3, false: 1}[stream] {
			t.Errorf("Chat() = %q in %d pieces, %v", text, pieces, err)
		}
		if !last.Done || last.DoneReason != "stop" || last.Model != "chat" || last.PromptEvalCount != 7 || last.EvalCount != 3 || last.TotalDuration <= 0 ||
			last.TotalDuration < last.EvalDuration+last.PromptEvalDuration-time.Millisecond || last.Message.Role != "assistant" || time.Since(last.CreatedAt) > time.Minute {
			t.Errorf("the last piece is %+v", last)
		}
		got, temperature, topP, seed := chat.request(t), 0.5, 0.9, int64(7)
		want := backends.ChatRequest{
			Messages:  []backends.Message{{Role: "system", Content: "Be brief."}, {Role: "user", Content: "hi"}},
			MaxTokens: 9, Whole: !stream, Temperature: &temperature, TopP: &topP, Seed: &seed, Stop: []string{"x"},
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("the runtime got %+v, want %+v", got, want)
		}
		d.stop()
		if !strings.Contains(d.log.String(), `"api":"ollama"`) {
			t.Errorf("the log names no API:\n%s", d.log)
		}
	}
}

// TestOllamaTools: calls come back as objects, each in one piece, and results go to the calls they are of.
func TestOllamaTools(t *testing.T) {
	for _, stream := range []bool{true, false} {
		chat := calling()
		d := open(t, map[string]*channel{"chat": chat})
		rome := api.NewToolCallFunctionArguments()
		rome.Set("city", "Rome")
		call := api.ToolCall{Function: api.ToolCallFunction{Name: "weather", Arguments: rome}}
		req := &api.ChatRequest{
			Model: "chat", Stream: &stream, Tools: api.Tools{{Type: "function", Function: api.ToolFunction{Name: "weather", Parameters: api.ToolFunctionParameters{Type: "object"}}}},
			Messages: []api.Message{
				{Role: "user", Content: "hi"}, {Role: "assistant", ToolCalls: []api.ToolCall{call, call}},
				{Role: "tool", Content: "sunny", ToolName: "weather"}, {Role: "tool", Content: "still sunny", ToolName: "weather"},
			},
		}
		var calls []api.ToolCall
		var reason string
		err := d.ollama("/apps/demo").Chat(t.Context(), req, func(r api.ChatResponse) error {
			calls = append(calls, r.Message.ToolCalls...)
			reason = r.DoneReason
			return nil
		})
		if err != nil || len(calls) != 2 || reason != "stop" {
			t.Fatalf("Chat() = %+v, %q, %v, want two calls", calls, reason, err)
		}
		if c := calls[0]; c.ID != "1" || c.Function.Index != 0 || c.Function.Name != "weather" || c.Function.Arguments.String() != `{"city":"Rome"}` {
			t.Errorf("the first call is %+v", c)
		}
		if c := calls[1]; c.ID != "2" || c.Function.Index != 1 || c.Function.Arguments.String() != "{}" {
			t.Errorf("the second call is %+v", c)
		}
		got := chat.request(t).Messages
		if len(got) != 4 || len(got[1].ToolCalls) != 2 || got[1].ToolCalls[0].Arguments != `{"city":"Rome"}` ||
			got[2].ToolCallID != got[1].ToolCalls[0].ID || got[3].ToolCallID != got[1].ToolCalls[1].ID || got[2].ToolCallID == got[3].ToolCallID {
			t.Errorf("the runtime got %+v, want each result with its call", got)
		}
	}
}

// TestMalformedCalls: arguments that are no object are no answer, in APIs where they are one.
func TestMalformedCalls(t *testing.T) {
	for _, arguments := range []string{`{"city"`, `[]`, `{"a":1,"a":2}`, `"{}"`} {
		chat := calling()
		chat.chunks = []backends.Chunk{{ToolCall: &backends.ToolCall{ID: "1", Name: "weather", Arguments: arguments}}, {FinishReason: "tool_calls", Usage: &backends.Usage{}}}
		d := open(t, map[string]*channel{"chat": chat})
		resp, body := d.postTo(d.client("/apps/demo"), "/api/chat", `{"model":"chat","messages":[{"role":"user","content":"hi"}]}`)
		if resp.StatusCode != http.StatusBadGateway || strings.TrimSpace(body) != `{"error":"the model server failed, retry later"}` {
			t.Errorf("POST where the model calls with %s = %s %s, want 502", arguments, resp.Status, body)
		}
	}
}

// TestOllamaGenerate: a text is put as a question, by the template, whatever the release.
func TestOllamaGenerate(t *testing.T) {
	plain, prompted := hello(), hello()
	plain.limits.Plain = true
	prompted.limits.SystemPrompt = "Be brief."
	d := open(t, map[string]*channel{"chat": plain, "quiet": prompted})
	var text string
	var last api.GenerateResponse
	err := d.ollama("/apps/demo").Generate(t.Context(), &api.GenerateRequest{Model: "chat", Prompt: "hi", System: "Rhyme."}, func(r api.GenerateResponse) error {
		text += r.Response
		last = r
		return nil
	})
	if err != nil || text != "Hello, world." || !last.Done || last.DoneReason != "stop" || last.EvalCount != 3 {
		t.Errorf("Generate() = %q, %+v, %v", text, last, err)
	}
	want := []backends.Message{{Role: "system", Content: "Rhyme."}, {Role: "user", Content: "hi"}}
	if req := plain.request(t); req.Prompt != "" || !reflect.DeepEqual(req.Messages, want) {
		t.Errorf("the runtime got %+v, want %+v", req, want)
	}
	client := d.client("/apps/demo")
	if resp, body := d.postTo(client, "/api/generate", `{"model":"quiet","prompt":"hi","system":"Rhyme."}`); resp.StatusCode != http.StatusBadRequest || !strings.Contains(body, `{"error":"system: the release brings its own`) {
		t.Errorf("POST with a system prompt = %s %s, want 400", resp.Status, body)
	}
	resp, body := d.postTo(client, "/api/generate", `{"model":"quiet","prompt":"hi","stream":false}`)
	if resp.StatusCode != http.StatusOK || !strings.Contains(body, `"response":"Hello, world.","done":true,"done_reason":"stop"`) {
		t.Errorf("POST = %s %s, want a whole answer", resp.Status, body)
	}
}

// TestOllamaLoad: a request that asks nothing learns whether the channel answers, and no runtime is asked.
func TestOllamaLoad(t *testing.T) {
	chat := hello()
	d := open(t, map[string]*channel{"chat": chat, "quiet": {missing: io.EOF}, "private": hello()})
	client := d.client("/apps/demo")
	for _, tt := range []struct {
		path, body string
		status     int
		want       string
	}{
		{"/api/chat", `{"model":"chat"}`, 200, `"message":{"role":"assistant","content":""},"done":true,"done_reason":"load"}`},
		{"/api/chat", `{"model":"chat","messages":[],"stream":false,"keep_alive":-1,"options":null}`, 200, `"done_reason":"load"}`},
		{"/api/generate", `{"model":"chat","prompt":"","keep_alive":"-1m"}`, 200, `"response":"","done":true,"done_reason":"load"}`},
		{"/api/chat", `{"model":"quiet"}`, 503, `{"error":"channel is not serving, retry later"}`},
		{"/api/chat", `{"model":"private"}`, 403, `{"error":"permission denied"}`},
		{"/api/chat", `{"model":"chat","keep_alive":0}`, 400, `{"error":"keep_alive: is not to be asked for`},
		{"/api/generate", `{"model":"chat","keep_alive":"5m"}`, 400, `{"error":"keep_alive: is not to be asked for`},
	} {
		resp, body := d.postTo(client, tt.path, tt.body)
		if resp.StatusCode != tt.status || !strings.Contains(body, tt.want) {
			t.Errorf("POST %s %s = %s %s, want %d %s", tt.path, tt.body, resp.Status, body, tt.status, tt.want)
		}
	}
	if len(chat.got) != 0 {
		t.Errorf("the runtime was asked %+v", chat.got)
	}
}

func TestOllamaEmbed(t *testing.T) {
	d := open(t, map[string]*channel{"chat": {}})
	client := d.ollama("/apps/demo")
	off := false
	got, err := client.Embed(t.Context(), &api.EmbedRequest{Model: "chat", Input: []string{"a", "bcd"}, Truncate: &off})
	if err != nil || !reflect.DeepEqual(got.Embeddings, [][]float32{{1, 0.5}, {3, 0.5}}) || got.PromptEvalCount != 4 || got.Model != "chat" || got.TotalDuration <= 0 {
		t.Errorf("Embed() = %+v, %v", got, err)
	}
	if got, err = client.Embed(t.Context(), &api.EmbedRequest{Model: "chat", Input: "ab"}); err != nil || !reflect.DeepEqual(got.Embeddings, [][]float32{{2, 0.5}}) {
		t.Errorf("Embed() of one text = %+v, %v", got, err)
	}
	if got, err := client.Embeddings(t.Context(), &api.EmbeddingRequest{Model: "chat", Prompt: "abc"}); err != nil || !reflect.DeepEqual(got.Embedding, []float64{3, 0.5}) {
		t.Errorf("Embeddings() = %+v, %v", got, err)
	}
}

func TestOllamaModels(t *testing.T) {
	d := open(t, map[string]*channel{"chat": hello(), "quiet": {missing: io.EOF}, "private": hello()}, func(c *gateway.Config) { c.Version = "1.2.3" })
	client, hash := d.ollama("/apps/demo"), strings.TrimPrefix(weights, "sha256:")
	list, err := client.List(t.Context())
	if err != nil || len(list.Models) != 2 {
		t.Fatalf("List() = %+v, %v, want chat and quiet", list, err)
	}
	want := api.ListModelResponse{
		Name: "chat", Model: "chat", ModifiedAt: time.Unix(1700000000, 0), Size: 42, Digest: hash, Details: api.ModelDetails{Format: "gguf", Families: []string{}},
	}
	got := list.Models[0]
	if got.ModifiedAt.Equal(want.ModifiedAt) {
		got.ModifiedAt = want.ModifiedAt
	}
	if !reflect.DeepEqual(got, want) || list.Models[1].Name != "quiet" {
		t.Errorf("List() = %+v, want %+v", list.Models, want)
	}
	if running, err := client.ListRunning(t.Context()); err != nil || len(running.Models) != 1 || running.Models[0].Name != "chat" || time.Until(running.Models[0].ExpiresAt) < time.Hour {
		t.Errorf("ListRunning() = %+v, %v, want chat", running, err)
	}
	show, err := client.Show(t.Context(), &api.ShowRequest{Model: "chat:latest"})
	if err != nil || show.ModelInfo["weighbridge.release"] != release || len(show.Capabilities) != 1 || show.Capabilities[0] != "completion" || show.Details.Format != "gguf" {
		t.Errorf("Show() = %+v, %v", show, err)
	}
	if _, err := client.Show(t.Context(), &api.ShowRequest{Model: "private"}); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("Show() of a channel without a rule = %v", err)
	}
	if version, err := client.Version(t.Context()); err != nil || version != "1.2.3" {
		t.Errorf("Version() = %q, %v", version, err)
	}
	if err := client.Heartbeat(t.Context()); err != nil {
		t.Errorf("Heartbeat() = %v", err)
	}
	if _, err := d.ollama("/batch/job").List(t.Context()); err == nil {
		t.Error("List() without a rule = nil")
	}
}

// TestOllamaFails: an error in a stream is its last line, and one before it a status.
func TestOllamaFails(t *testing.T) {
	d := open(t, map[string]*channel{"chat": {chunks: []backends.Chunk{{Text: "Hello, "}}, fail: backends.ErrInterrupted}, "quiet": {fail: backends.ErrInvalidRequest}})
	client := d.client("/apps/demo")
	resp, body := d.postTo(client, "/api/chat", `{"model":"chat","messages":[{"role":"user","content":"hi"}]}`)
	if resp.Header.Get("Content-Type") != "application/x-ndjson" || !strings.HasSuffix(body, "\n"+`{"error":"the model server failed, retry later"}`+"\n") || strings.Contains(body, `"done":true`) {
		t.Errorf("POST = %s, %v:\n%s", resp.Status, resp.Header, body)
	}
	for path, want := range map[string]string{"chat": `","messages":[{"role":"user","content":"hi"}]}`, "generate": `","prompt":"hi"}`, "embed": `","input":"hi"}`, "embeddings": `","prompt":"hi"}`} {
		field := map[string]string{"chat": "messages", "embed": "input"}[path]
		if field == "" {
			field = "prompt"
		}
		if resp, body := d.postTo(client, "/api/"+path, `{"model":"quiet`+want); resp.StatusCode != http.StatusBadRequest || strings.TrimSpace(body) != `{"error":"`+field+`: invalid request"}` {
			t.Errorf("POST of what can't be answered = %s %s, want 400 about %s", resp.Status, body, field)
		}
	}
}

// TestOllamaRoutes: what would change a model is not there, and says so as Ollama would.
func TestOllamaRoutes(t *testing.T) {
	d := open(t, map[string]*channel{"chat": hello()})
	client := d.client("/apps/demo")
	for _, tt := range []struct {
		method, path string
		status       int
	}{
		{"POST", "/api/pull", 404}, {"POST", "/api/push", 404}, {"POST", "/api/create", 404}, {"POST", "/api/copy", 404}, {"DELETE", "/api/delete", 404},
		{"HEAD", "/api/blobs/sha256:00", 404}, {"POST", "/api/blobs/sha256:00", 404}, {"POST", "/api/me", 404}, {"POST", "/api/signout", 404},
		{"GET", "/api/status", 404}, {"GET", "/api/", 404}, {"POST", "/api/tags", 405}, {"GET", "/api/chat", 405}, {"GET", "/api/show", 405},
		{"HEAD", "/", 200}, {"GET", "/", 200}, {"HEAD", "/api/version", 200}, {"HEAD", "/api/tags", 200}, {"POST", "/", 405},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tt.method, d.url(tt.path), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		var e struct{ Error string }
		if resp.StatusCode != tt.status || tt.status >= 400 && tt.method != "HEAD" && (json.Unmarshal(body, &e) != nil || e.Error == "") {
			t.Errorf("%s %s = %s %s, want %d", tt.method, tt.path, resp.Status, body, tt.status)
		}
	}
}
