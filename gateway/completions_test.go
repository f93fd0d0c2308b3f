package gateway_test

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/gateway"
)

// TestToolCalls: what a release lets callers offer reaches the runtime, and what the model calls comes back, whole and in
// pieces.
func TestToolCalls(t *testing.T) {
	const ask = `{"model":"chat","messages":[{"role":"user","content":"hi"}],"tool_choice":"required","parallel_tool_calls":false,` +
		`"tools":[{"type":"function","function":{"name":"weather","description":"d","parameters":{"type":"object"}}}],"stream":`
	calling := &channel{limits: gateway.Limits{Tools: []string{"weather"}}, chunks: []backends.Chunk{
		{ToolCall: &backends.ToolCall{ID: "1", Name: "weather", Arguments: `{"city"`}}, {ToolCall: &backends.ToolCall{Arguments: `:"Rome"}`}},
		{ToolCall: &backends.ToolCall{ID: "2", Name: "weather", Arguments: `{}`}},
		{FinishReason: "tool_calls", Usage: &backends.Usage{PromptTokens: 7, CompletionTokens: 3}},
	}}
	d := open(t, map[string]*channel{"chat": calling})
	client := d.client("/apps/demo")
	resp, body := d.post(client, ask+`false}`)
	const want = `"message":{"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"weather","arguments":"{\"city\":\"Rome\"}"}},` +
		`{"id":"2","type":"function","function":{"name":"weather","arguments":"{}"}}]},"finish_reason":"tool_calls"`
	if resp.StatusCode != http.StatusOK || !strings.Contains(body, want) {
		t.Errorf("POST = %s %s, want %s", resp.Status, body, want)
	}
	req := calling.request(t)
	tool := backends.Tool{Name: "weather", Description: "d", Parameters: []byte(`{"type":"object"}`)}
	if !reflect.DeepEqual(req.Tools, []backends.Tool{tool}) || req.ToolChoice != backends.ToolsRequired || !req.OneTool {
		t.Errorf("the runtime got %+v, want the tool, and that one is to be called", req)
	}
	_, body = d.post(client, ask+`true}`)
	for _, want := range []string{
		`"delta":{"tool_calls":[{"index":0,"id":"1","type":"function","function":{"name":"weather","arguments":"{\"city\""}}]}`,
		`"delta":{"tool_calls":[{"index":0,"function":{"arguments":":\"Rome\"}"}}]}`,
		`"delta":{"tool_calls":[{"index":1,"id":"2","type":"function"`,
		`"finish_reason":"tool_calls"`, "data: [DONE]\n\n",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("stream holds no %s:\n%s", want, body)
		}
	}
}

// TestCompletions: a text is continued as it is where the release sets nothing that this would go around, and else is put as
// a question.
func TestCompletions(t *testing.T) {
	plain, prompted := hello(), hello()
	plain.limits.Plain = true
	prompted.limits = gateway.Limits{SystemPrompt: "Be brief.", MaxTokens: 9}
	d := open(t, map[string]*channel{"chat": plain, "quiet": prompted})
	client := d.client("/apps/demo")
	post := func(body string) (status int, answer string) {
		t.Helper()
		resp, answer := d.postTo(client, "/v1/completions", body)
		return resp.StatusCode, answer
	}
	status, body := post(`{"model":"chat","prompt":"Once","max_tokens":5,"stop":"x"}`)
	if status != http.StatusOK || !strings.Contains(body, `"object":"text_completion"`) ||
		!strings.Contains(body, `"choices":[{"index":0,"text":"Hello, world.","logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":7`) {
		t.Errorf("POST = %d %s, want a text completion", status, body)
	}
	if req := plain.request(t); req.Prompt != "Once" || len(req.Messages) != 0 || req.MaxTokens != 5 {
		t.Errorf("the runtime got %+v, want the text itself", req)
	}
	status, body = post(`{"model":"quiet","prompt":["Once"],"stream":true,"stream_options":{"include_usage":true}}`)
	if status != http.StatusOK || strings.Count(body, `"text":`) != 3 || !strings.Contains(body, `"choices":[],"usage":`) || !strings.HasSuffix(body, "data: [DONE]\n\n") {
		t.Errorf("POST = %d %s, want a stream of three pieces and the usage", status, body)
	}
	want := []backends.Message{{Role: "system", Content: "Be brief."}, {Role: "user", Content: "Once"}}
	if req := prompted.request(t); req.Prompt != "" || !reflect.DeepEqual(req.Messages, want) || req.MaxTokens != 9 {
		t.Errorf("the runtime got %+v, want %v", req, want)
	}
	for _, tt := range []struct{ body, param string }{
		{`{"prompt":"a"}`, "model"}, {`{"model":"chat"}`, "prompt"}, {`{"model":"chat","prompt":""}`, "prompt"}, {`{"model":"chat","prompt":["a","b"]}`, "prompt"},
		{`{"model":"chat","prompt":[1]}`, "prompt[0]"}, {`{"model":"chat","prompt":"a","suffix":"b"}`, "suffix"}, {`{"model":"chat","prompt":"a","echo":true}`, "echo"},
		{`{"model":"quiet","prompt":"a","max_tokens":10}`, "max_tokens"}, {`{"model":"chat","prompt":"a","messages":[]}`, "messages"}, {`{"model":"chat","prompt":"a","n":2}`, "n"},
	} {
		status, body := post(tt.body)
		if e := readError(t, body); status != http.StatusBadRequest || e.Param != tt.param {
			t.Errorf("POST %s = %d %+v, want 400 about %s", tt.body, status, e, tt.param)
		}
	}
}

// TestEmbeddings: vectors come back in the order of their texts, as numbers and as bytes.
func TestEmbeddings(t *testing.T) {
	d := open(t, map[string]*channel{"chat": {}})
	client := d.client("/apps/demo")
	resp, body := d.postTo(client, "/v1/embeddings", `{"model":"chat","input":["a","bcd"],"user":"u"}`)
	const want = `{"object":"list","data":[{"object":"embedding","index":0,"embedding":[1,0.5]},{"object":"embedding","index":1,"embedding":[3,0.5]}],"model":"chat","usage":{"prompt_tokens":4,"total_tokens":4}}`
	if strings.TrimSpace(body) != want || resp.Header.Get("weighbridge-release") != release {
		t.Errorf("POST = %s %s, want %s of the release", resp.Status, body, want)
	}
	_, body = d.postTo(client, "/v1/embeddings", `{"model":"chat","input":"a","encoding_format":"base64"}`)
	var got struct{ Data []struct{ Embedding string } }
	if err := json.Unmarshal([]byte(body), &got); err != nil || len(got.Data) != 1 || got.Data[0].Embedding != "AACAPwAAAD8=" {
		t.Errorf("POST = %s, %v, want the bytes of 1 and 0.5", body, err)
	}
	for _, tt := range []struct{ body, param string }{
		{`{"input":"a"}`, "model"}, {`{"model":"chat"}`, "input"}, {`{"model":"chat","input":[]}`, "input"}, {`{"model":"chat","input":[[1,2]]}`, "input[0]"},
		{`{"model":"chat","input":"a","dimensions":1}`, "dimensions"}, {`{"model":"chat","input":"a","encoding_format":"int8"}`, "encoding_format"},
		{`{"model":"chat","input":[` + strings.Repeat(`"a",`, 2048) + `"a"]}`, "input"},
	} {
		resp, body := d.postTo(client, "/v1/embeddings", tt.body)
		if e := readError(t, body); resp.StatusCode != http.StatusBadRequest || e.Param != tt.param {
			t.Errorf("POST %.40s = %s %+v, want 400 about %s", tt.body, resp.Status, e, tt.param)
		}
	}
}
