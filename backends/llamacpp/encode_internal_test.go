package llamacpp

import (
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/backends"
)

// A chatRequest is what encode writes, for the library to write.
type chatRequest struct {
	Messages      []message     `json:"messages,omitempty"`
	Prompt        string        `json:"prompt,omitzero"`
	Tools         []tool        `json:"tools,omitempty"`
	ToolChoice    string        `json:"tool_choice,omitzero"`
	ParallelTools *bool         `json:"parallel_tool_calls,omitzero"`
	MaxTokens     int           `json:"max_tokens,omitzero"`
	Temperature   *float64      `json:"temperature,omitzero"`
	TopP          *float64      `json:"top_p,omitzero"`
	Stop          []string      `json:"stop,omitempty"`
	Seed          *uint32       `json:"seed,omitzero"`
	Stream        bool          `json:"stream"`
	StreamOptions streamOptions `json:"stream_options,omitzero"`
	CachePrompt   bool          `json:"cache_prompt"`
}

type streamOptions struct {
	IncludeUsage bool `json:"include_usage"`
}

type message struct {
	Role       string     `json:"role"`
	Content    string     `json:"content"`
	ToolCalls  []toolCall `json:"tool_calls,omitempty"`
	ToolCallID string     `json:"tool_call_id,omitzero"`
}

// FuzzEncode holds what is written by hand to what the library writes.
func FuzzEncode(f *testing.F) {
	f.Add("user", "Go on?", "", 1, 0.0, int64(1), false)
	f.Add("tool", "\"}],\"lora\":[{\"id\":0}]", "weather", 0, 1.5, int64(-1), true)
	f.Add("system", "\x00\u2028\xff", "\\", -7, 1e-9, int64(1)<<40, true)
	f.Add("", "", "stop", 1<<30, 1e21, int64(0), false)
	f.Fuzz(func(t *testing.T, role, text, name string, tokens int, temperature float64, seed int64, whole bool) {
		req := backends.ChatRequest{
			Messages:  []backends.Message{{Role: role, Content: text}, {Role: role, Content: name, ToolCallID: text}},
			MaxTokens: tokens, Whole: whole, OneTool: whole,
		}
		want := chatRequest{
			Messages: []message{{Role: role, Content: text}, {Role: role, Content: name, ToolCallID: text}}, MaxTokens: tokens,
			Stream: !whole, StreamOptions: streamOptions{!whole},
		}
		if name != "" {
			several := !whole
			call := toolCall{ID: name, Type: functionType}
			call.Function.Name, call.Function.Arguments = name, text
			req.Prompt, req.Stop, req.ToolChoice = text, []string{name, text}, role
			req.Tools = []backends.Tool{{Name: name, Description: text, Parameters: jsontext.Value(`{"a":[1,"b"]}`)}, {Name: text}}
			req.Messages[0].ToolCalls = []backends.ToolCall{{ID: name, Name: name, Arguments: text}}
			want.Prompt, want.Stop, want.ToolChoice, want.ParallelTools = text, []string{name, text}, role, &several
			want.Tools = []tool{{functionType, function(req.Tools[0])}, {functionType, function(req.Tools[1])}}
			want.Messages[0].ToolCalls = []toolCall{call}
		}
		if seed != 0 {
			low := uint32(seed) // what is above is dropped
			if low == 1<<32-1 {
				low--
			}
			req.Temperature, req.TopP, req.Seed = &temperature, &temperature, &seed
			want.Temperature, want.TopP, want.Seed = &temperature, &temperature, &low
		}
		wanted, wantErr := json.Marshal(want)
		got, err := encode(req)
		if (err == nil) != (wantErr == nil) || err == nil && string(got) != string(wanted) {
			t.Errorf("encode(%+v) =\n%s, %v; want\n%s, %v", req, got, err, wanted, wantErr)
		}
	})
}
