package llamacpp

import (
	"cmp"
	"fmt"
	"math"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/backends"
)

// encode writes everything that llama-server is ever asked. Its other fields, some of which switch adapters or replace the
// template, are not written here.
func encode(req backends.ChatRequest) ([]byte, error) {
	o := object{text: append(make([]byte, 0, 1<<10), '{')}
	if len(req.Messages) > 0 {
		o.name("messages")
		o.messages(req.Messages)
	}
	if req.Prompt != "" {
		o.string("prompt", req.Prompt)
	}
	if len(req.Tools) > 0 {
		tools := make([]tool, 0, len(req.Tools))
		for _, t := range req.Tools {
			tools = append(tools, tool{functionType, function(t)})
		}
		o.value("tools", tools)
		if req.ToolChoice != "" {
			o.string("tool_choice", req.ToolChoice)
		}
		o.bool("parallel_tool_calls", !req.OneTool)
	}
	if req.MaxTokens != 0 {
		o.int("max_tokens", int64(req.MaxTokens))
	}
	if req.Temperature != nil {
		o.float("temperature", *req.Temperature)
	}
	if req.TopP != nil {
		o.float("top_p", *req.TopP)
	}
	if len(req.Stop) > 0 {
		o.value("stop", req.Stop)
	}
	if req.Seed != nil {
		o.int("seed", seedOf(*req.Seed))
	}
	o.bool("stream", !req.Whole)
	if !req.Whole {
		o.value("stream_options", streamOptions{IncludeUsage: true})
	}
	o.bool("cache_prompt", false)
	if o.err != nil {
		return nil, fmt.Errorf("encode request: %w", o.err) // text that is not UTF-8
	}
	return append(o.text, '}'), nil
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

type streamOptions struct {
	IncludeUsage bool `json:"include_usage"`
}

// randomSeed is the seed by which llama-server understands "choose one".
const randomSeed = int64(^uint32(0))

// seedOf is a seed as llama-server has them, of 32 bits.
func seedOf(seed int64) int64 {
	if seed = int64(uint32(seed)); seed == randomSeed { //nolint:gosec // what is above is dropped
		seed--
	}
	return seed
}

// An object is written member by member: by reflection it takes as long as all else that is done to ask.
type object struct {
	text []byte
	err  error // the first
}

// name begins a member.
func (o *object) name(name string) {
	if last := o.text[len(o.text)-1]; last != '{' {
		o.text = append(o.text, ',')
	}
	o.quote(name)
	o.text = append(o.text, ':')
}

func (o *object) quote(s string) {
	text, err := jsontext.AppendQuote(o.text, s)
	o.text = text
	o.fail(err)
}

func (o *object) fail(err error) { o.err = cmp.Or(o.err, err) }

func (o *object) string(name, s string) {
	o.name(name)
	o.quote(s)
}

func (o *object) int(name string, n int64) {
	o.name(name)
	o.text = strconv.AppendInt(o.text, n, 10)
}

func (o *object) float(name string, f float64) {
	o.name(name)
	if math.IsNaN(f) || math.IsInf(f, 0) {
		o.fail(fmt.Errorf("%s is %v", name, f))
	}
	o.text = append(o.text, jsontext.Float(f).String()...)
}

func (o *object) bool(name string, b bool) {
	o.name(name)
	o.text = strconv.AppendBool(o.text, b)
}

// value writes what few requests have.
func (o *object) value(name string, v any) {
	o.name(name)
	text, err := json.Marshal(v)
	o.text = append(o.text, text...)
	o.fail(err)
}

func (o *object) messages(all []backends.Message) {
	o.text = append(o.text, '[')
	for i, m := range all {
		if i > 0 {
			o.text = append(o.text, ',')
		}
		o.text = append(o.text, '{')
		o.string("role", m.Role)
		o.string("content", m.Content)
		if len(m.ToolCalls) > 0 {
			o.value("tool_calls", callsOf(m.ToolCalls))
		}
		if m.ToolCallID != "" {
			o.string("tool_call_id", m.ToolCallID)
		}
		o.text = append(o.text, '}')
	}
	o.text = append(o.text, ']')
}

func callsOf(all []backends.ToolCall) (calls []toolCall) {
	for _, c := range all {
		call := toolCall{ID: c.ID, Type: functionType}
		call.Function.Name, call.Function.Arguments = c.Name, c.Arguments
		calls = append(calls, call)
	}
	return calls
}
