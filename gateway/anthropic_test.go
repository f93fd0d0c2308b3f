package gateway_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/weighbridge/weighbridge/backends"
)

const greeting = `{"model":"chat","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}`

// TestAnthropicWhole: a message in Anthropic's shape, with the id of the request.
func TestAnthropicWhole(t *testing.T) {
	chat := hello()
	d := open(t, map[string]*channel{"chat": chat})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d.url("/v1/messages?beta=true"), strings.NewReader(`{"model":"chat","max_tokens":9,`+
		`"system":[{"type":"text","text":"Be ","cache_control":{"type":"ephemeral","ttl":"1h"}},{"type":"text","text":"brief."}],`+
		`"messages":[{"role":"user","content":[{"type":"text","text":"h","citations":null},{"type":"text","text":"i"}]},{"role":"assistant","content":"ho"},{"role":"user","content":"hum"}],`+
		`"temperature":1,"top_p":0.9,"stop_sequences":["x"],"metadata":{"user_id":"u"},"service_tier":"auto","thinking":{"type": "disabled"},"stream":false}`))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{"anthropic-version": "2023-06-01", "x-api-key": "any", "anthropic-beta": "some", "x-request-id": "abc"} {
		req.Header.Set(name, value)
	}
	resp, err := d.client("/apps/demo").Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	checkNamed(t, resp.Header)
	const want = `{"id":"msg_abc","type":"message","role":"assistant","model":"chat","content":[{"type":"text","text":"Hello, world."}],"stop_reason":"end_turn",` +
		`"stop_sequence":null,"usage":{"input_tokens":7,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":3}}`
	if body, _ := io.ReadAll(resp.Body); strings.TrimSpace(string(body)) != want || resp.Header.Get("request-id") != "abc" {
		t.Errorf("POST = %s %s, want %s", resp.Status, body, want)
	}
	temperature, topP := 1.0, 0.9
	asked := backends.ChatRequest{Whole: true, MaxTokens: 9, Temperature: &temperature, TopP: &topP, Stop: []string{"x"}, Messages: []backends.Message{
		{Role: "system", Content: "Be brief."}, {Role: "user", Content: "hi"}, {Role: "assistant", Content: "ho"}, {Role: "user", Content: "hum"},
	}}
	if got := chat.request(t); !reflect.DeepEqual(got, asked) {
		t.Errorf("the runtime got %+v, want %+v", got, asked)
	}
	d.stop()
	if !strings.Contains(d.log.String(), `"api":"anthropic"`) {
		t.Errorf("the log names no API:\n%s", d.log)
	}
}

// events are the names of a stream's events; each is the type of its data too.
func events(t *testing.T, body string) (names []string) {
	t.Helper()
	for event := range strings.SplitSeq(strings.TrimSpace(body), "\n\n") {
		name, data, ok := strings.Cut(strings.TrimPrefix(event, "event: "), "\ndata: ")
		var typed struct{ Type string }
		if err := json.Unmarshal([]byte(data), &typed); err != nil || !ok || typed.Type != name {
			t.Errorf("event %q has no name, or another than its data: %v", event, err)
		}
		names = append(names, name)
	}
	return names
}

func TestAnthropicStream(t *testing.T) {
	mixed := calling()
	mixed.chunks = append([]backends.Chunk{{Text: "Let me "}, {Text: "see."}}, mixed.chunks...)
	long := hello()
	long.chunks[2].FinishReason = "length"
	d := open(t, map[string]*channel{"chat": hello(), "quiet": long, "ghost": mixed})
	client := d.client("/apps/demo")
	for _, tt := range []struct {
		model  string
		names  string
		pieces []string
	}{
		{"chat", "message_start content_block_start content_block_delta content_block_delta content_block_stop message_delta message_stop", []string{
			`{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}`, `{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"world."}}`,
			`{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"input_tokens":7,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":3}}`,
			`"role":"assistant","model":"chat","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":0,`,
		}},
		{"quiet", "message_start content_block_start content_block_delta content_block_delta content_block_stop message_delta message_stop", []string{`"stop_reason":"max_tokens"`}},
		{"ghost", "message_start content_block_start content_block_delta content_block_delta content_block_stop " +
			"content_block_start content_block_delta content_block_stop content_block_start content_block_delta content_block_stop message_delta message_stop", []string{
			`{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"1","name":"weather","input":{}}}`,
			`{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"city\":\"Rome\"}"}}`,
			`{"type":"content_block_stop","index":1}`, `{"type":"content_block_start","index":2,`, `"stop_reason":"tool_use"`,
		}},
	} {
		body := strings.Replace(greeting, `"chat"`, `"`+tt.model+`"`, 1)
		resp, got := d.postTo(client, "/v1/messages", strings.TrimSuffix(body, "}")+`,"stream":true}`)
		if !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") || strings.Join(events(t, got), " ") != tt.names {
			t.Errorf("POST = %s, %v\n%s, want the events %s", resp.Status, resp.Header, got, tt.names)
		}
		for _, want := range tt.pieces {
			if !strings.Contains(got, want) {
				t.Errorf("stream holds no %s:\n%s", want, got)
			}
		}
	}
}

// TestAnthropicTools: what is offered, called and answered reaches the runtime in its own order.
func TestAnthropicTools(t *testing.T) {
	const tools = `{"model":"chat","max_tokens":9,"tools":[{"name":"weather","description":"d","input_schema":{"type":"object"},"cache_control":{"type":"ephemeral"}}],`
	const ask = tools + `"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":[{"type":"text","text":"Let me see."},{"type":"tool_use","id":"1","name":"weather","input":{"a":1}},` +
		`{"type":"tool_use","id":"2","name":"weather","input":{}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"1","content":"sunny"},` +
		`{"type":"tool_result","tool_use_id":"2","is_error":true,"content":[{"type":"text","text":"no city"}]},{"type":"text","text":"so?"}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"3"}]}]`
	messages := []backends.Message{
		{Role: "user", Content: "hi"}, {Role: "assistant", Content: "Let me see.", ToolCalls: []backends.ToolCall{{ID: "1", Name: "weather", Arguments: `{"a":1}`}, {ID: "2", Name: "weather", Arguments: "{}"}}},
		{Role: "tool", Content: "sunny", ToolCallID: "1"}, {Role: "tool", Content: "no city", ToolCallID: "2"}, {Role: "user", Content: "so?"}, {Role: "tool", ToolCallID: "3"},
	}
	for _, tt := range []struct {
		choice, want string
		one          bool
	}{
		{"", backends.ToolsAuto, false}, {`,"tool_choice":{"type":"auto","disable_parallel_tool_use":true}`, backends.ToolsAuto, true},
		{`,"tool_choice":{"type":"any"}`, backends.ToolsRequired, false}, {`,"tool_choice":{"type":"none"}`, backends.ToolsNone, false},
		{`,"tool_choice":{"type":"tool","name":"weather"}`, backends.ToolsRequired, true},
	} {
		chat := calling()
		d := open(t, map[string]*channel{"chat": chat})
		resp, body := d.postTo(d.client("/apps/demo"), "/v1/messages", ask+tt.choice+"}")
		const want = `"content":[{"type":"tool_use","id":"1","name":"weather","input":{"city":"Rome"}},{"type":"tool_use","id":"2","name":"weather","input":{}}],"stop_reason":"tool_use"`
		if resp.StatusCode != http.StatusOK || !strings.Contains(body, want) {
			t.Fatalf("POST with%s = %s %s, want %s", tt.choice, resp.Status, body, want)
		}
		got := chat.request(t)
		if !reflect.DeepEqual(got.Messages, messages) || len(got.Tools) != 1 || string(got.Tools[0].Parameters) != `{"type":"object"}` || got.ToolChoice != tt.want || got.OneTool != tt.one {
			t.Errorf("with%s the runtime got %+v, want %+v", tt.choice, got, messages)
		}
	}
}

// TestAnthropicCount: a request is counted with all that the release puts around it, and nobody answers it.
func TestAnthropicCount(t *testing.T) {
	chat := hello()
	chat.limits.SystemPrompt = "Be brief."
	d := open(t, map[string]*channel{"chat": chat, "quiet": {fail: backends.ErrUnsupported}, "private": hello()})
	client := d.client("/apps/demo")
	for model, want := range map[string]string{
		"chat": `{"input_tokens":11}`, "quiet": `"error":{"type":"invalid_request_error","message":"model: not supported"}`, "private": `"permission_error"`,
	} {
		resp, body := d.postTo(client, "/v1/messages/count_tokens", `{"model":"`+model+`","messages":[{"role":"user","content":"hi"}]}`)
		if !strings.Contains(body, want) || model == "chat" && resp.Header.Get("weighbridge-release") != release {
			t.Errorf("POST of %s = %s %s, want %s", model, resp.Status, body, want)
		}
	}
	d.stop()
	if len(chat.got) != 0 || !strings.Contains(d.log.String(), `"method":"count_tokens"`) {
		t.Errorf("the runtime was asked %+v; the log:\n%s", chat.got, d.log)
	}
}

// TestAnthropicOutcomes: errors have Anthropic's types, and a stream that fails ends with one.
func TestAnthropicOutcomes(t *testing.T) {
	d := open(t, map[string]*channel{"chat": {chunks: []backends.Chunk{{Text: "Hello"}}, fail: backends.ErrInterrupted}, "quiet": {missing: io.EOF}, "private": hello()})
	client := d.client("/apps/demo")
	ask := func(model string) string { return strings.Replace(greeting, `"chat"`, `"`+model+`"`, 1) }
	for _, tt := range []struct {
		path, body string
		status     int
		kind       string
	}{
		{"/v1/messages", ask("private"), 403, "permission_error"}, {"/v1/messages", ask("quiet"), 503, "overloaded_error"}, {"/v1/messages", ask("chat"), 502, "api_error"},
		{"/v1/messages", `{}`, 400, "invalid_request_error"}, {"/v1/messages", `{"model":"` + strings.Repeat("x", 5<<20) + `"}`, 413, "request_too_large"},
		{"/v1/messages/batches", `{}`, 404, "not_found_error"}, {"/v1/messages/x/y", `{}`, 404, "not_found_error"},
	} {
		resp, body := d.postTo(client, tt.path, tt.body)
		if e := readAnthropicError(t, body); resp.StatusCode != tt.status || e.Error.Type != tt.kind || e.RequestID != resp.Header.Get("x-request-id") {
			t.Errorf("POST %s %.40s = %s %s, want %d %s", tt.path, tt.body, resp.Status, body, tt.status, tt.kind)
		}
	}
	_, body := d.postTo(client, "/v1/messages", strings.TrimSuffix(greeting, "}")+`,"stream":true}`)
	names := events(t, body)
	last := body[strings.LastIndex(body, "data: ")+len("data: "):]
	if e := readAnthropicError(t, last); names[len(names)-1] != "error" || e.Error.Type != "api_error" || e.RequestID == "" || strings.Contains(body, "message_stop") {
		t.Errorf("stream ends with %s in\n%s", last, body)
	}
}

type anthropicError struct {
	Type      string
	Error     struct{ Type, Message string }
	RequestID string `json:"request_id"`
}

func readAnthropicError(t *testing.T, body string) (e anthropicError) {
	t.Helper()
	if err := json.Unmarshal([]byte(body), &e); err != nil || e.Type != "error" || e.Error.Message == "" {
		t.Fatalf("%q is no error in Anthropic's shape: %v", body, err)
	}
	return e
}

// TestAnthropicModels: one path, two shapes; who sends Anthropic's header gets Anthropic's, errors too.
func TestAnthropicModels(t *testing.T) {
	d := open(t, map[string]*channel{"chat": hello(), "quiet": {missing: io.EOF}, "private": hello()})
	client := d.client("/apps/demo")
	model := func(name string) string {
		return fmt.Sprintf(`{"type":"model","id":%q,"display_name":%q,"created_at":"2023-11-14T22:13:20Z"}`, name, name)
	}
	for path, want := range map[string]string{
		"/v1/models":         `{"data":[` + model("chat") + `,` + model("quiet") + `],"has_more":false,"first_id":"chat","last_id":"quiet"}`,
		"/v1/models/chat":    model("chat"),
		"/v1/models/private": `"error":{"type":"permission_error","message":"permission denied"}`,
		"/v1/files":          `"error":{"type":"not_found_error","message":"no such path"}`,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, d.url(path), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("anthropic-version", "2023-06-01")
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if !strings.Contains(string(body), want) {
			t.Errorf("GET %s = %s %s, want %s", path, resp.Status, body, want)
		}
	}
}
