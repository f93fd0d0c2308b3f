package llamacpp

import (
	"fmt"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/members"
)

// encode writes everything that llama-server is ever asked. Its other fields, some of which switch adapters or replace the
// template, are not written here.
func encode(req backends.ChatRequest) ([]byte, error) {
	w := members.NewWriter(1 << 10)
	w.Begin('{')
	if len(req.Messages) > 0 {
		w.Name("messages")
		writeMessages(w, req.Messages)
	}
	if req.Prompt != "" {
		w.Name("prompt")
		w.Text(req.Prompt)
	}
	if len(req.Tools) > 0 {
		writeTools(w, req)
	}
	if req.MaxTokens != 0 {
		w.Name("max_tokens")
		w.Int(int64(req.MaxTokens))
	}
	if req.Temperature != nil {
		w.Name("temperature")
		w.Float(*req.Temperature)
	}
	if req.TopP != nil {
		w.Name("top_p")
		w.Float(*req.TopP)
	}
	if len(req.Stop) > 0 {
		w.Name("stop")
		w.Value(req.Stop)
	}
	if req.Seed != nil {
		w.Name("seed")
		w.Int(seedOf(*req.Seed))
	}
	w.Name("stream")
	w.Flag(!req.Whole)
	if !req.Whole {
		w.Name("stream_options")
		w.Begin('{')
		w.Name("include_usage")
		w.Flag(true)
		w.End('}')
	}
	w.Name("cache_prompt")
	w.Flag(false)
	w.End('}')
	body, err := w.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err) // text that is not UTF-8
	}
	return body, nil
}

func writeMessages(w *members.Writer, all []backends.Message) {
	w.Begin('[')
	for _, m := range all {
		w.Begin('{')
		w.Name("role")
		w.Text(m.Role)
		w.Name("content")
		w.Text(m.Content)
		if len(m.ToolCalls) > 0 {
			w.Name("tool_calls")
			w.Value(callsOf(m.ToolCalls))
		}
		if m.ToolCallID != "" {
			w.Name("tool_call_id")
			w.Text(m.ToolCallID)
		}
		w.End('}')
	}
	w.End(']')
}

func writeTools(w *members.Writer, req backends.ChatRequest) {
	tools := make([]tool, 0, len(req.Tools))
	for _, t := range req.Tools {
		tools = append(tools, tool{functionType, function(t)})
	}
	w.Name("tools")
	w.Value(tools)
	if req.ToolChoice != "" {
		w.Name("tool_choice")
		w.Text(req.ToolChoice)
	}
	w.Name("parallel_tool_calls")
	w.Flag(!req.OneTool)
}

type tool struct {
	Type     string   `json:"type"` // "function"
	Function function `json:"function"`
}

type function struct {
	Name        string         `json:"name"`
	Description string         `json:"description,omitzero"`
	Parameters  jsontext.Value `json:"parameters,omitzero"`
}

type toolCall struct {
	ID       string `json:"id,omitzero"`
	Type     string `json:"type,omitzero"` // "function"
	Function struct {
		Name      string `json:"name,omitzero"`
		Arguments string `json:"arguments"`
	} `json:"function"`
}

// functionType is the only type of a tool.
const functionType = "function"

// randomSeed is the seed by which llama-server understands "choose one".
const randomSeed = int64(^uint32(0))

// seedOf is a seed as llama-server has them, of 32 bits.
func seedOf(seed int64) int64 {
	if seed = int64(uint32(seed)); seed == randomSeed { // what is above is dropped
		seed--
	}
	return seed
}

func callsOf(all []backends.ToolCall) (calls []toolCall) {
	for _, c := range all {
		call := toolCall{ID: c.ID, Type: functionType}
		call.Function.Name, call.Function.Arguments = c.Name, c.Arguments
		calls = append(calls, call)
	}
	return calls
}
