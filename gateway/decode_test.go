package gateway_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/weighbridge/weighbridge/gateway"
)

// TestHTTPDecode breaks one thing of a request at a time, and expects the error to name it.
func TestHTTPDecode(t *testing.T) {
	chat := hello()
	two, one := 2.0, 1.0
	chat.limits = gateway.Limits{MaxTokens: 100, Temperature: gateway.Range{Default: &one, Max: &one}, TopP: gateway.Range{Max: &two}}
	tooled := hello()
	tooled.limits.Tools = []string{"search", "weather"}
	prompted := hello()
	prompted.limits.SystemPrompt = "Be brief."
	d := open(t, map[string]*channel{"chat": chat, "quiet": prompted, "ghost": tooled})
	client := d.client("/apps/demo")
	const g = `{"model":"ghost","messages":[{"role":"user","content":"hi"}],`
	weather := func(more string) string {
		return `"tools":[{"type":"function","function":{"name":"weather"` + more + `}}]`
	}
	const m = `"model":"chat"`
	const q = `"messages":[{"role":"user","content":"hi"}]`
	huge := strings.Repeat("x", 5<<20)
	tests := []struct {
		name   string
		body   string
		status int
		param  string
	}{
		{"valid", `{` + m + `,` + q + `}`, 200, ""},
		{"everything", `{` + m + `,` + q + `,"stream":false,"max_tokens":100,"temperature":1,"top_p":0.5,"stop":["a","b"],"seed":-1,"n":1,"user":"u"}`, 200, ""},
		{"newer names", `{` + m + `,"max_completion_tokens":5,"stop":"a","messages":[{"role":"developer","content":"x"},{"role":"user","content":[{"type":"text","text":"hi"}]}]}`, 200, ""},
		{"nulls", `{` + m + `,` + q + `,"temperature":null,"stop":null,"max_tokens":null,"stream_options":null}`, 200, ""},
		{"no model", `{` + q + `}`, 400, "model"},
		{"case of a name", `{"Model":"chat",` + q + `}`, 400, "Model"},
		{"case of a nested name", `{` + m + `,"messages":[{"Role":"user","content":"hi"}]}`, 400, "messages[0].Role"},
		{"duplicate name", `{` + m + `,"model":"other",` + q + `}`, 400, "model"},
		{"duplicate by escape", `{` + m + `,"mod\u0065l":"other",` + q + `}`, 400, "model"},
		{"duplicate nested name", `{` + m + `,"messages":[{"role":"user","role":"system","content":"hi"}]}`, 400, "messages[0].role"},
		{"lora", `{` + m + `,` + q + `,"lora":[{"id":0,"scale":1}]}`, 400, "lora"},
		{"template", `{` + m + `,` + q + `,"chat_template":"x"}`, 400, "chat_template"},
		{"tools", `{` + m + `,` + q + `,"tools":[]}`, 400, "tools"},
		{"no content", `{` + m + `,"messages":[{"role":"user","content":null}]}`, 400, "messages[0].content"},
		{"tools in a message", `{` + m + `,"messages":[{"role":"user","content":"hi","tools":[]}]}`, 400, "messages[0].tools"},
		{"a tool", g + weather(`,"description":"d","parameters":{"type":"object"},"strict":false`) + `,"tool_choice":"auto","parallel_tool_calls":false}`, 200, ""},
		{"the tool that is to be called", g + weather("") + `,"tool_choice":{"type":"function","function":{"name":"weather"}}}`, 200, ""},
		{"a call and its result", `{"model":"ghost",` + weather("") + `,"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function","function":{"name":"weather","arguments":"{}"}}]},{"role":"tool","tool_call_id":"1","content":"sunny"}]}`, 200, ""},
		{"a tool of another name", g + `"tools":[{"type":"function","function":{"name":"Weather"}}]}`, 400, "tools[0].function.name"},
		{"a tool where the release allows none", `{` + m + `,` + q + `,` + weather("") + `}`, 400, "tools[0].function.name"},
		{"a tool twice", g + `"tools":[{"type":"function","function":{"name":"weather"}},{"type":"function","function":{"name":"weather"}}]}`, 400, "tools[1].function.name"},
		{"a tool without a name", g + `"tools":[{"type":"function","function":{}}]}`, 400, "tools[0].function.name"},
		{"a tool of another type", g + `"tools":[{"type":"custom","function":{"name":"weather"}}]}`, 400, "tools[0].type"},
		{"a schema that is none", g + weather(`,"parameters":"{}"`) + `}`, 400, "tools[0].function.parameters"},
		{"a strict tool", g + weather(`,"strict":true`) + `}`, 400, "tools[0].function.strict"},
		{"a field of a tool", g + weather(`,"url":"http://x"`) + `}`, 400, "tools[0].function.url"},
		{"another choice", g + weather("") + `,"tool_choice":"any"}`, 400, "tool_choice"},
		{"a choice that is not offered", g + weather("") + `,"tool_choice":{"type":"function","function":{"name":"search"}}}`, 400, "tool_choice.function.name"},
		{"a choice without tools", `{` + m + `,` + q + `,"tool_choice":"auto"}`, 400, "tool_choice"},
		{"parallel calls without tools", `{` + m + `,` + q + `,"parallel_tool_calls":true}`, 400, "parallel_tool_calls"},
		{"a call where the release allows none", `{` + m + `,"messages":[{"role":"assistant","tool_calls":[{"id":"1","type":"function","function":{"name":"weather","arguments":"{}"}}]}]}`, 400, "messages[0]"},
		{"a result where the release allows none", `{` + m + `,"messages":[{"role":"tool","tool_call_id":"1","content":"hi"}]}`, 400, "messages[0]"},
		{"a result of no call", `{"model":"ghost","messages":[{"role":"tool","content":"hi"}]}`, 400, "messages[0].tool_call_id"},
		{"a call by the user", `{"model":"ghost","messages":[{"role":"user","content":"","tool_calls":[{"id":"1","type":"function","function":{"name":"weather","arguments":"{}"}}]}]}`, 400, "messages[0].tool_calls"},
		{"name of a message", `{` + m + `,"messages":[{"role":"user","name":"x","content":"hi"}]}`, 400, "messages[0].name"},
		{"no messages", `{` + m + `}`, 400, "messages"},
		{"empty messages", `{` + m + `,"messages":[]}`, 400, "messages"},
		{"no role", `{` + m + `,"messages":[{"content":"hi"}]}`, 400, "messages[0].role"},
		{"other role", `{` + m + `,"messages":[{"role":"root","content":"hi"}]}`, 400, "messages[0].role"},
		{"no content", `{` + m + `,"messages":[{"role":"user"}]}`, 400, "messages[0].content"},
		{"content of a wrong type", `{` + m + `,"messages":[{"role":"user","content":1}]}`, 400, "messages[0].content"},
		{"image", `{` + m + `,"messages":[{"role":"user","content":[{"type":"image_url","text":""}]}]}`, 400, "messages[0].content[0].type"},
		{"part without text", `{` + m + `,"messages":[{"role":"user","content":[{"type":"text"}]}]}`, 400, "messages[0].content[0].text"},
		{"unknown name in a part", `{` + m + `,"messages":[{"role":"user","content":[{"type":"text","text":"","x":1}]}]}`, 400, "messages[0].content[0].x"},
		{"max_tokens 0", `{` + m + `,` + q + `,"max_tokens":0}`, 400, "max_tokens"},
		{"max_tokens a string", `{` + m + `,` + q + `,"max_tokens":"5"}`, 400, "max_tokens"},
		{"max_tokens too large for a number", `{` + m + `,` + q + `,"max_tokens":99999999999999999999}`, 400, "max_tokens"},
		{"max_tokens above the release's", `{` + m + `,` + q + `,"max_tokens":101}`, 400, "max_tokens"},
		{"max_completion_tokens above the release's", `{` + m + `,` + q + `,"max_completion_tokens":101}`, 400, "max_completion_tokens"},
		{"both names", `{` + m + `,` + q + `,"max_completion_tokens":5,"max_tokens":5}`, 400, "max_tokens"},
		{"temperature below 0", `{` + m + `,` + q + `,"temperature":-0.1}`, 400, "temperature"},
		{"temperature above all", `{` + m + `,` + q + `,"temperature":2.1}`, 400, "temperature"},
		{"temperature above the release's", `{` + m + `,` + q + `,"temperature":1.1}`, 400, "temperature"},
		{"top_p 0", `{` + m + `,` + q + `,"top_p":0}`, 400, "top_p"},
		{"top_p above 1", `{` + m + `,` + q + `,"top_p":1.1}`, 400, "top_p"},
		{"five stops", `{` + m + `,` + q + `,"stop":["a","b","c","d","e"]}`, 400, "stop"},
		{"empty stop", `{` + m + `,` + q + `,"stop":["a",""]}`, 400, "stop[1]"},
		{"stop of a wrong type", `{` + m + `,` + q + `,"stop":1}`, 400, "stop"},
		{"n 2", `{` + m + `,` + q + `,"n":2}`, 400, "n"},
		{"stream_options without stream", `{` + m + `,` + q + `,"stream_options":{"include_usage":true}}`, 400, "stream_options"},
		{"unknown stream option", `{` + m + `,` + q + `,"stream":true,"stream_options":{"x":true}}`, 400, "stream_options.x"},
		{"system prompt beside the release's", `{"model":"quiet","messages":[{"role":"user","content":"a"},{"role":"system","content":"b"}]}`, 400, "messages[1].role"},
		{"developer prompt beside the release's", `{"model":"quiet","messages":[{"role":"developer","content":"b"}]}`, 400, "messages[0].role"},
		{"empty", ``, 400, ""},
		{"cut short", `{` + m + `,`, 400, ""},
		{"two documents", `{` + m + `,` + q + `}{}`, 400, ""},
		{"list", `[]`, 400, ""},
		{"not UTF-8", `{` + m + `,"messages":[{"role":"user","content":"` + "\xff" + `"}]}`, 400, "messages[0].content"},
		{"huge", `{` + m + `,"messages":[{"role":"user","content":"` + huge + `"}]}`, 413, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			resp, body := d.post(client, tt.body)
			if resp.StatusCode != tt.status {
				t.Fatalf("POST = %s, want %d: %s", resp.Status, tt.status, body)
			}
			if tt.status == 200 {
				return
			}
			e := readError(t, body)
			if e.Param != tt.param || e.Type != "invalid_request_error" || e.Message == "" || e.Code == "" {
				t.Errorf("error = %+v, want param %q", e, tt.param)
			}
			if !strings.HasPrefix(e.Message, tt.param) {
				t.Errorf("message %q does not name %q", e.Message, tt.param)
			}
		})
	}
}

// TestHTTPDecodeFunctions: who offers tools in the old way learns how it is done now, and not that a field is unknown.
func TestHTTPDecodeFunctions(t *testing.T) {
	d := open(t, map[string]*channel{"chat": hello()})
	client := d.client("/apps/demo")
	for _, field := range []string{"functions", "function_call"} {
		resp, body := d.post(client, `{"model":"chat","messages":[{"role":"user","content":"hi"}],"`+field+`":"auto"}`)
		e := readError(t, body)
		if resp.StatusCode != http.StatusBadRequest || e.Param != field || !strings.Contains(e.Message, "as tools") {
			t.Errorf("POST with %s = %s, %+v, want an error about tools", field, resp.Status, e)
		}
	}
}

type apiError struct{ Message, Type, Code, Param string }

func readError(t *testing.T, body string) apiError {
	t.Helper()
	var e struct{ Error apiError }
	if err := json.Unmarshal([]byte(body), &e); err != nil || e.Error.Message == "" {
		t.Fatalf("%q is no error in OpenAI's shape: %v", body, err)
	}
	return e.Error
}
