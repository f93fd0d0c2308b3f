package gateway

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/members"
	"github.com/weighbridge/weighbridge/gateway/access"
)

// A chatBody is every field of OpenAI's chat completion request that we take. Each has a meaning here; all others are
// refused, so that nothing a caller sends is quietly dropped, and no field of a runtime (an adapter, a template, a
// path) can be reached by naming it.
type chatBody struct {
	Model               string
	Messages            []messageBody
	Stream              bool
	StreamOptions       *streamOptions
	MaxTokens           *int64
	MaxCompletionTokens *int64
	Temperature         *float64
	TopP                *float64
	Stop                texts
	Seed                *int64
	Tools               *[]toolBody
	ToolChoice          *toolChoice
	ParallelToolCalls   *bool
	N                   *int64 // 1 is all we do
	User                string // taken since clients send it, and ignored: the SVID says who calls
}

func (b *chatBody) member(d *jsontext.Decoder, name string) error {
	switch name {
	case "model":
		return members.Text(d, &b.Model)
	case "messages":
		return members.List(d, func() error {
			var m messageBody
			err := members.Object(d, m.member)
			b.Messages = append(b.Messages, m)
			return err
		})
	case "stream":
		return members.Flag(d, &b.Stream)
	case "stream_options":
		return json.UnmarshalDecode(d, &b.StreamOptions)
	case "max_tokens":
		return members.Int(d, &b.MaxTokens)
	case "max_completion_tokens":
		return members.Int(d, &b.MaxCompletionTokens)
	case "temperature":
		return members.Float(d, &b.Temperature)
	case "top_p":
		return members.Float(d, &b.TopP)
	case "stop":
		return json.UnmarshalDecode(d, &b.Stop)
	case "seed":
		return members.Int(d, &b.Seed)
	case "tools":
		return json.UnmarshalDecode(d, &b.Tools)
	case "tool_choice":
		return json.UnmarshalDecode(d, &b.ToolChoice)
	case "parallel_tool_calls":
		return json.UnmarshalDecode(d, &b.ParallelToolCalls)
	case "n":
		return members.Int(d, &b.N)
	case "user":
		return members.Text(d, &b.User)
	}
	return json.ErrUnknownName
}

type streamOptions struct {
	IncludeUsage bool `json:"include_usage"`
}

type messageBody struct {
	Role       string
	Content    *content
	ToolCalls  []callBody
	ToolCallID string
}

func (m *messageBody) member(d *jsontext.Decoder, name string) error {
	switch name {
	case "role":
		return members.Text(d, &m.Role)
	case "content":
		if d.PeekKind() == 'n' {
			return d.SkipValue()
		}
		m.Content = &content{}
		return m.Content.read(d)
	case "tool_calls":
		return json.UnmarshalDecode(d, &m.ToolCalls)
	case "tool_call_id":
		return members.Text(d, &m.ToolCallID)
	}
	return json.ErrUnknownName
}

// toolBody is a function that is offered to the model.
type toolBody struct {
	Type     string `json:"type"`
	Function struct {
		Name        string         `json:"name"`
		Description string         `json:"description"`
		Parameters  jsontext.Value `json:"parameters"`
		Strict      nothing        `json:"strict"`
	} `json:"function"`
}

// callBody is what a model calls, as it is sent and as it comes back.
type callBody struct {
	Index    *int   `json:"index,omitzero"` // of a piece
	ID       string `json:"id,omitzero"`
	Type     string `json:"type,omitzero"`
	Function struct {
		Name      string `json:"name,omitzero"`
		Arguments string `json:"arguments"`
	} `json:"function"`
}

// functionType is the only type of tools and of calls.
const functionType = "function"

// toolChoice is a word, or the function that is to be called.
type toolChoice struct {
	word string
	of   struct {
		Type     string `json:"type"`
		Function struct {
			Name string `json:"name"`
		} `json:"function"`
	}
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (c *toolChoice) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if d.PeekKind() == '"' {
		return json.UnmarshalDecode(d, &c.word)
	}
	return json.UnmarshalDecode(d, &c.of)
}

// content is a string, or a list of parts of which we know one type.
type content struct {
	text  string
	parts []contentPart
}

type contentPart struct {
	Type string  `json:"type"`
	Text *string `json:"text"`
}

func (c *content) read(d *jsontext.Decoder) error {
	if d.PeekKind() == '[' {
		return json.UnmarshalDecode(d, &c.parts)
	}
	return members.Text(d, &c.text)
}

// texts is a string or a list of them.
type texts []string

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (t *texts) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if d.PeekKind() == '"' {
		*t = texts{""}
		return json.UnmarshalDecode(d, &(*t)[0])
	}
	return json.UnmarshalDecode(d, (*[]string)(t))
}

// openAINames are how OpenAI's API spells what a request may hold.
var openAINames = names{
	messages: "messages", prompt: "prompt", inputs: "input", tools: "tools", toolChoice: "tool_choice", maxTokens: "max_tokens",
	temperature: "temperature", topP: "top_p", stop: "stop", toolName: "function.name", toolSchema: "function.parameters",
}

// decodeChat reads OpenAI's request for a chat completion.
func decodeChat(body io.Reader) (*request, style, error) {
	var b chatBody
	if err := decodeMembers(body, b.member); err != nil {
		return nil, nil, err
	}
	switch {
	case b.Model == "":
		return nil, nil, invalid("model", "is required")
	case b.N != nil && *b.N != 1:
		return nil, nil, invalid("n", "must be 1: there is one answer to a request")
	case b.StreamOptions != nil && !b.Stream:
		return nil, nil, invalid("stream_options", "is for requests with stream")
	case b.MaxTokens != nil && b.MaxCompletionTokens != nil:
		return nil, nil, invalid("max_tokens", "is an older name of max_completion_tokens: give one of them")
	}
	r := &request{
		method: access.MethodChat, names: openAINames, channel: b.Model, maxTokens: b.MaxTokens, temperature: b.Temperature, topP: b.TopP,
		stop: b.Stop, seed: b.Seed, stream: b.Stream, oneTool: b.ParallelToolCalls != nil && !*b.ParallelToolCalls,
	}
	if b.MaxCompletionTokens != nil {
		r.maxTokens, r.names.maxTokens = b.MaxCompletionTokens, "max_completion_tokens"
	}
	if err := b.takeTools(r); err != nil {
		return nil, nil, err
	}
	for i, m := range b.Messages {
		message, err := m.message("messages[" + strconv.Itoa(i) + "].")
		if err != nil {
			return nil, nil, err
		}
		r.messages = append(r.messages, message)
	}
	return r, &openAIChat{usage: b.StreamOptions != nil && b.StreamOptions.IncludeUsage}, nil
}

// takeTools reads what is offered to the model, and whether it is to be called.
func (b *chatBody) takeTools(r *request) error {
	if b.Tools == nil {
		if b.ParallelToolCalls != nil {
			return invalid("parallel_tool_calls", "is for requests with tools")
		}
	} else {
		if len(*b.Tools) == 0 {
			return invalid("tools", "must hold at least one tool, or be left out")
		}
		var err error
		if r.tools, err = toolsOf(*b.Tools); err != nil {
			return err
		}
	}
	switch c := b.ToolChoice; {
	case c == nil:
		return nil
	case b.Tools == nil:
		return invalid("tool_choice", "is for requests with tools")
	case c.word == "auto":
	case c.word == backends.ToolsNone || c.word == backends.ToolsRequired:
		r.toolChoice = c.word
	case c.of.Type == functionType:
		return r.only("tool_choice.function.name", c.of.Function.Name)
	default:
		return invalid("tool_choice", "must be none, auto, required or a function")
	}
	return nil
}

// toolsOf are the functions that are offered to the model.
func toolsOf(all []toolBody) (tools []backends.Tool, err error) {
	for i, t := range all {
		if t.Type != functionType {
			return nil, invalid(fmt.Sprintf("tools[%d].type", i), "must be function")
		}
		tools = append(tools, backends.Tool{Name: t.Function.Name, Description: t.Function.Description, Parameters: t.Function.Parameters})
	}
	return tools, nil
}

// only has the model call one of the tools that are offered.
func (r *request) only(field, name string) error {
	i := slices.IndexFunc(r.tools, func(t backends.Tool) bool { return t.Name == name })
	if i < 0 {
		return invalid(field, "is not the name of a tool of this request")
	}
	r.tools, r.toolChoice, r.oneTool = r.tools[i:i+1], backends.ToolsRequired, true
	return nil
}

// message is a turn as runtimes take it.
func (m messageBody) message(field string) (backends.Message, error) {
	out := backends.Message{Role: m.Role, ToolCallID: m.ToolCallID}
	if m.Role == "tool" && m.ToolCallID == "" {
		return out, invalid(field+"tool_call_id", "is required of role tool")
	}
	for i, c := range m.ToolCalls {
		switch at := fmt.Sprintf("%stool_calls[%d].", field, i); {
		case c.Type != functionType:
			return out, invalid(at+"type", "must be function")
		case c.ID == "" || c.Function.Name == "":
			return out, invalid(at+"function.name", "and an id are required")
		case c.Index != nil:
			return out, invalid(at+"index", "is of a piece of an answer")
		}
		out.ToolCalls = append(out.ToolCalls, backends.ToolCall{ID: c.ID, Name: c.Function.Name, Arguments: c.Function.Arguments})
	}
	if m.Content == nil && len(m.ToolCalls) > 0 {
		return out, nil
	}
	var err error
	out.Content, err = m.Content.join(field + "content")
	return out, err
}

// join returns the text of a message.
func (c *content) join(field string) (string, error) {
	if c == nil {
		return "", invalid(field, "is required")
	}
	if c.parts == nil {
		return c.text, nil
	}
	var text strings.Builder
	for i, p := range c.parts {
		switch {
		case p.Type == "":
			return "", invalid(fmt.Sprintf("%s[%d].type", field, i), "is required")
		case p.Type != "text":
			return "", invalid(fmt.Sprintf("%s[%d].type", field, i), "must be text: other parts are not supported")
		case p.Text == nil:
			return "", invalid(fmt.Sprintf("%s[%d].text", field, i), "is required")
		}
		text.WriteString(*p.Text)
	}
	return text.String(), nil
}
