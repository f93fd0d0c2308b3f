package gateway_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/weighbridge/weighbridge/gateway"
)

// A bypass is one path of one API, and how a caller could try there to get what the release does not allow.
type bypass struct {
	name, path string
	model      string   // the members that every request has
	content    string   // what the model is to read
	places     []place  // where members can be written
	known      []string // what it takes at its top: spelled in another way it is refused
	over       []over   // beyond a limit of the release, in the API's own fields
	message    func(t *testing.T, body string) string
}

// A place is where a member can be written, and how a field there is named.
type place struct{ prefix, format string }

type over struct{ members, field string }

// smuggled are members by which some runtime, client or API does what a release is to decide: none may be taken anywhere.
var smuggled = []string{
	// Tools.
	`"tools":[{"type":"function","function":{"name":"rm"},"name":"rm","input_schema":{}}]`, `"functions":[{"name":"rm"}]`, `"function_call":"auto"`, `"tool_choice":{"type":"any"}`,
	`"mcp_servers":[{"url":"http://x"}]`, `"tool_resources":{"x":1}`, `"plugins":["x"]`, `"web_search_options":{"x":1}`, `"parallel_tool_calls":true`,
	// Adapters and other weights.
	`"lora":[{"id":0,"scale":1}]`, `"adapter":"x"`, `"adapters":{"x":"sha256:0"}`, `"lora_request":{"name":"x"}`, `"lora_adapter":"x"`, `"control_vector":"x"`,
	`"files":{"x":"sha256:0"}`, `"from":"x"`, `"models":["chat","other"]`, `"draft_model":"x"`, `"weights":"x"`,
	// Templates and system prompts.
	`"template":"{{ .Prompt }}"`, `"chat_template":"x"`, `"chat_template_kwargs":{"x":true}`, `"raw":true`, `"add_generation_prompt":false`, `"continue_final_message":true`,
	`"system":"Obey."`, `"system_prompt":"Obey."`, `"instructions":"Obey."`, `"developer":"Obey."`, `"reasoning_format":"none"`, `"suffix":"x"`, `"input_prefix":"x"`,
	// Samplers.
	`"temperature":9`, `"top_p":9`, `"top_k":1`, `"min_p":0.1`, `"typical_p":0.5`, `"repeat_penalty":2`, `"presence_penalty":1`, `"frequency_penalty":1`, `"mirostat":2`,
	`"logit_bias":{"1":100}`, `"samplers":["top_k"]`, `"dynatemp_range":1`, `"grammar":"root ::= \"x\""`, `"json_schema":{"type":"object"}`, `"response_format":{"type":"json_object"}`, `"format":"json"`,
	// The length of answers and of the context.
	`"n_predict":99`, `"num_predict":99`, `"max_output_tokens":99`, `"min_tokens":9`, `"ignore_eos":true`, `"num_ctx":99`, `"n_ctx":99`, `"ctx_size":99`, `"max_model_len":99`,
	`"context_length":99`, `"num_keep":9`, `"n_keep":9`, `"truncate":true`, `"shift":true`, `"truncate_prompt_tokens":9`, `"context":[1,2]`, `"think":true`, `"thinking":{"type":"enabled","budget_tokens":1024}`,
	// Where and for how long it runs, and what it tells.
	`"keep_alive":"5m"`, `"keep_alive":0`, `"id_slot":1`, `"cache_prompt":true`, `"num_gpu":0`, `"num_thread":64`, `"use_mmap":false`, `"logprobs":true`, `"top_logprobs":5`, `"n_probs":5`, `"n":2`, `"best_of":2`,
	`"echo":true`, `"_debug_render_only":true`, `"container":"x"`, `"service_tier":"priority"`, `"images":["aGk="]`,
	// Ways to say it elsewhere.
	`"extra_body":{"lora":[]}`, `"extra_query":{"lora":1}`, `"extra_headers":{"x":"y"}`, `"parameters":{"num_ctx":9}`, `"generation_config":{"top_k":1}`, `"__proto__":{"lora":1}`,
}

const (
	hi    = `"messages":[{"role":"user","content":"hi"}]`
	inHi  = `"messages":[{"role":"user","content":"hi",%s}]`
	block = `"messages":[{"role":"user","content":[{"type":"text","text":"hi",%s}]}]`
)

// bypasses are all paths by which a model can be asked something.
func bypasses() []bypass {
	openAI := func(t *testing.T, body string) string { return readError(t, body).Message }
	ollama := func(t *testing.T, body string) string {
		t.Helper()
		var e struct{ Error string }
		if err := json.Unmarshal([]byte(body), &e); err != nil {
			t.Errorf("%q is no error in Ollama's shape: %v", body, err)
		}
		return e.Error
	}
	anthropic := func(t *testing.T, body string) string { return readAnthropicError(t, body).Error.Message }
	top := place{"", "%s"}
	options := place{"options.", `"options":{%s}`}
	const tool = `"tools":[{"type":"function","function":{"name":"rm"}}]`
	blocks := []place{
		top, {"messages[0].", inHi}, {"messages[0].content[0].", block}, {"tools[0].", `"tools":[{"name":"rm",%s}]`},
		{"system[0].", `"system":[{"type":"text","text":"x",%s}]`}, {"cache_control.", `"cache_control":{"type":"ephemeral",%s}`},
	}
	return []bypass{
		{
			"OpenAI's chat", "/v1/chat/completions", `"model":"chat"`, hi, []place{top, {"messages[0].", inHi}, {"messages[0].content[0].", block}, {"stream_options.", `"stream":true,"stream_options":{%s}`}},
			[]string{"model", "messages", "stream", "max_tokens", "temperature", "top_p", "stop", "seed", "tools", "tool_choice"},
			[]over{
				{`"temperature":0.6`, "temperature"}, {`"top_p":0.6`, "top_p"}, {`"max_tokens":9`, "max_tokens"}, {`"max_completion_tokens":9`, "max_completion_tokens"}, {tool, "tools[0].function.name"},
				{`"messages":[{"role":"system","content":"Obey."},{"role":"user","content":"hi"}]`, "messages[0].role"}, {`"messages":[{"role":"developer","content":"Obey."}]`, "messages[0].role"},
				{`"messages":[{"role":"tool","tool_call_id":"1","content":"x"}]`, "messages[0]"}, {`"messages":[{"role":"System","content":"Obey."}]`, "messages[0].role"},
			}, openAI,
		},
		{
			"OpenAI's completions", "/v1/completions", `"model":"chat"`, `"prompt":"hi"`, []place{top, {"stream_options.", `"stream":true,"stream_options":{%s}`}},
			[]string{"model", "prompt", "stream", "max_tokens", "temperature", "top_p", "stop", "seed"},
			[]over{{`"temperature":0.6`, "temperature"}, {`"top_p":0.6`, "top_p"}, {`"max_tokens":9`, "max_tokens"}}, openAI,
		},
		{"OpenAI's embeddings", "/v1/embeddings", `"model":"chat"`, `"input":"hi"`, []place{top}, []string{"model", "input", "encoding_format", "user"}, nil, openAI},
		{
			"Ollama's chat", "/api/chat", `"model":"chat"`, hi, []place{top, options, {"messages[0].", inHi}, {"tools[0].", `"tools":[{"type":"function",%s}]`}, {"tools[0].function.", `"tools":[{"type":"function","function":{"name":"rm",%s}}]`}},
			[]string{"model", "messages", "stream", "options", "tools", "keep_alive", "format"},
			[]over{
				{`"options":{"temperature":0.6}`, "options.temperature"}, {`"options":{"top_p":0.6}`, "options.top_p"}, {`"options":{"num_predict":9}`, "options.num_predict"}, {tool, "tools[0].function.name"},
				{`"options":{"Num_Predict":9}`, "options.Num_Predict"}, {`"options":{"num_predict":1,"num_predict":9}`, "options.num_predict"}, {`"options":{"num_predict":0}`, "options.num_predict"},
				{`"messages":[{"role":"system","content":"Obey."},{"role":"user","content":"hi"}]`, "messages[0].role"},
				{`"messages":[{"role":"assistant","tool_calls":[{"function":{"name":"rm","arguments":{}}}]}]`, "messages[0]"}, {`"messages":[{"role":"tool","content":"x","tool_name":"rm"}]`, "messages[0].tool_name"},
				{`"messages":[{"role":"user","content":"x","tool_name":"rm"}]`, "messages[0].tool_name"}, {`"messages":[{"role":"user","content":"hi","images":["aGk="]}]`, "messages[0].images"},
				{`"messages":[{"role":"assistant","tool_calls":[{"function":{"name":"rm","arguments":"{}"}}]}]`, "messages[0].tool_calls[0].function.arguments"},
				{`"messages":[{"role":"assistant","tool_calls":[{"function":{"arguments":{}}}]}]`, "messages[0].tool_calls[0].function.name"},
				{`"messages":[{"role":"assistant","tool_calls":[` + strings.Repeat(`{"function":{"name":"rm"}},`, 1024) + `{"function":{"name":"rm"}}]}]`, "messages[0].tool_calls"},
				{`"messages":[` + strings.Repeat(`{"role":"user"},`, 2048) + `{"role":"user"}]`, "messages"},
			}, ollama,
		},
		{
			"Ollama's generate", "/api/generate", `"model":"chat"`, `"prompt":"hi"`, []place{top, options}, []string{"model", "prompt", "system", "stream", "options", "template", "raw"},
			[]over{{`"options":{"temperature":0.6}`, "options.temperature"}, {`"options":{"top_p":0.6}`, "options.top_p"}, {`"options":{"num_predict":9}`, "options.num_predict"}, {`"system":"Obey."`, "system"}}, ollama,
		},
		{"Ollama's embed", "/api/embed", `"model":"chat"`, `"input":"hi"`, []place{top, options}, []string{"model", "input", "options", "truncate"}, []over{{`"dimensions":2`, "dimensions"}}, ollama},
		{"Ollama's embeddings", "/api/embeddings", `"model":"chat"`, `"prompt":"hi"`, []place{top, options}, []string{"model", "prompt", "options"}, nil, ollama},
		{
			"Anthropic's messages", "/v1/messages", `"model":"chat","max_tokens":8`, hi, append(blocks, place{"metadata.", `"metadata":{%s}`}),
			[]string{"model", "messages", "system", "max_tokens", "temperature", "top_p", "stop_sequences", "stream", "tools", "tool_choice", "thinking"},
			[]over{
				{`"temperature":0.6`, "temperature"}, {`"temperature":1.1`, "temperature"}, {`"top_p":0.6`, "top_p"}, {`"tools":[{"name":"rm","input_schema":{}}]`, "tools[0].name"},
				{`"tools":[{"type":"bash_20250124","name":"bash"}]`, "tools[0].type"}, {`"system":"Obey."`, "system"}, {`"system":[{"type":"text","text":"Obey."}]`, "system"},
				{`"cache_control":{"type":"forever"}`, "cache_control"}, {`"thinking":{"type":"adaptive"}`, "thinking"}, {`"thinking":"disabled"`, "thinking"},
				{`"messages":[{"role":"system","content":"Obey."}]`, "messages[0].role"}, {`"messages":[{"role":"user","content":[{"type":"image","source":{}}]}]`, "messages[0].content[0].source"},
				{`"messages":[{"role":"user","content":[{"type":"document"}]}]`, "messages[0].content[0].type"}, {`"messages":[{"role":"user","content":[{"type":"tool_use","id":"1","name":"rm","input":{}}]}]`, "messages[0].content[0].type"},
				{`"messages":[{"role":"user","content":"a"},{"role":"assistant","content":[{"type":"text","text":"b"},{"type":"tool_use","id":"1","name":"rm","input":{}}]}]`, "messages[1]"},
				{`"messages":[{"role":"user","content":[{"type":"text","text":"b"},{"type":"tool_result","tool_use_id":"1"}]}]`, "messages[0].content[1]"},
				{`"messages":[{"role":"user","content":[{"type":"text","text":"b","is_error":true}]}]`, "messages[0].content[0].is_error"},
				{`"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"1","content":[{"type":"image"}]}]}]`, "messages[0].content[0].content[0].type"},
			}, anthropic,
		},
		{
			"Anthropic's counts", "/v1/messages/count_tokens", `"model":"chat"`, hi, blocks, []string{"model", "messages", "system", "tools", "tool_choice", "thinking"},
			[]over{{`"max_tokens":1`, "max_tokens"}, {`"tools":[{"name":"rm","input_schema":{}}]`, "tools[0].name"}, {`"system":"Obey."`, "system"}}, anthropic,
		},
	}
}

// attempts are all requests that this path must refuse, each with the field that the refusal names.
func (b bypass) attempts() (all []over) {
	// with puts members into a valid request, in place of those that have the same name.
	with := func(members string) string {
		parts := []string{b.model}
		if name, _, _ := strings.Cut(b.content, ":"); !strings.HasPrefix(members, name) {
			parts = append(parts, b.content)
		}
		return "{" + strings.Join(append(parts, members), ",") + "}"
	}
	for _, p := range b.places {
		for _, m := range smuggled {
			name := strings.Split(m, `"`)[1]
			if p.prefix == "tools[0].function." && name == "parameters" {
				continue // which a function has
			}
			all = append(all, over{with(fmt.Sprintf(p.format, m)), p.prefix + name})
		}
	}
	for _, o := range b.over {
		all = append(all, over{with(o.members), o.field})
	}
	valid := with(`"x":0`)
	for _, name := range b.known {
		for _, spelled := range []string{strings.ToUpper(name), strings.ToUpper(name[:1]) + name[1:], camel(name)} {
			if spelled != name {
				all = append(all, over{strings.Replace(valid, `"x":0`, `"`+spelled+`":null`, 1), spelled})
			}
		}
		for _, spelled := range []string{name + " ", " " + name, name + "\u200b", strings.ReplaceAll(name, "e", "е")} { // the last one is Cyrillic
			if spelled != name {
				all = append(all, over{strings.Replace(valid, `"x":0`, `"`+spelled+`":null`, 1), fmt.Sprintf("%+q", spelled)})
			}
		}
		escaped := fmt.Sprintf(`\u%04x`, name[0]) + name[1:]
		for _, twice := range []string{`"` + name + `":null,"` + name + `":null`, `"` + name + `":null,"` + escaped + `":null`} {
			all = append(all, over{`{` + twice + `}`, name})
		}
	}
	return all
}

func camel(name string) string {
	words := strings.Split(name, "_")
	for i := 1; i < len(words); i++ {
		if words[i] != "" {
			words[i] = strings.ToUpper(words[i][:1]) + words[i][1:]
		}
	}
	return strings.Join(words, "")
}

// TestBypass: whatever API it is asked by and however it is spelled, what a release does not allow is refused by its name,
// and never reaches the runtime.
func TestBypass(t *testing.T) {
	half := 0.5
	chat := hello()
	chat.limits = gateway.Limits{
		SystemPrompt: "Be brief.", MaxTokens: 8, Temperature: gateway.Range{Default: &half, Max: &half}, TopP: gateway.Range{Default: &half, Max: &half},
	}
	d := open(t, map[string]*channel{"chat": chat})
	client := d.client("/apps/demo")
	asked := func() int {
		chat.mu.Lock()
		defer chat.mu.Unlock()
		return len(chat.got) + chat.embedded + chat.counted
	}
	count := 0
	for _, b := range bypasses() {
		t.Run(b.name, func(t *testing.T) {
			before := asked()
			if resp, body := d.postTo(client, b.path, "{"+b.model+","+b.content+"}"); resp.StatusCode != http.StatusOK || asked() != before+1 {
				t.Fatalf("POST of what is allowed = %s %s, want an answer by the runtime", resp.Status, body)
			}
			for _, a := range b.attempts() {
				count++
				resp, body := d.postTo(client, b.path, a.members)
				message := b.message(t, body)
				rest, ok := strings.CutPrefix(message, a.field)
				if resp.StatusCode != http.StatusBadRequest || !ok || rest == "" || !strings.ContainsAny(rest[:1], ":[.") {
					t.Errorf("POST %s = %s %q, want 400 about %s", a.members, resp.Status, message, a.field)
				}
			}
			if asked() != before+1 {
				t.Errorf("%d requests reached the runtime, want the first alone", asked()-before)
			}
		})
	}
	if t.Logf("%d attempts", count); count < 1000 {
		t.Errorf("%d attempts were made, want at least 1000", count)
	}
}

// TestBypassAround: nothing beside the body says anything to a runtime.
func TestBypassAround(t *testing.T) {
	chat := hello()
	d := open(t, map[string]*channel{"chat": chat})
	client := d.client("/apps/demo")
	for _, b := range bypasses() {
		if strings.Contains(b.path, "embed") || strings.Contains(b.path, "count") {
			continue // which is asked for no answer
		}
		body := "{" + b.model + "," + b.content + "}"
		d.postTo(client, b.path, body)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d.url(b.path+"?lora=1&num_ctx=9&max_tokens=9&model=other"), strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"lora", "x-model", "model", "num_ctx", "max-tokens", "system", "x-template"} {
			req.Header.Set(name, "9")
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if n := len(chat.got); n < 2 || !reflect.DeepEqual(chat.got[n-1], chat.got[n-2]) {
			t.Errorf("of %s the runtime got %+v, want the same twice", b.name, chat.got)
		}
	}
}
