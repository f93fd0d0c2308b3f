package gateway

import (
	"fmt"
	"io"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/gateway/access"
)

// anthropicPrompt is what Anthropic's requests to answer and to count share: what a model is to read; see [chatBody].
type anthropicPrompt struct {
	Model        string             `json:"model"`
	Messages     []anthropicMessage `json:"messages"`
	System       *anthropicContent  `json:"system"` // of text alone
	Tools        *[]anthropicTool   `json:"tools"`
	ToolChoice   *anthropicChoice   `json:"tool_choice"`
	Thinking     noThought          `json:"thinking"`
	CacheControl cacheControl       `json:"cache_control"`
}

type anthropicBody struct {
	anthropicPrompt
	MaxTokens     *int64   `json:"max_tokens"` // required
	Temperature   *float64 `json:"temperature"`
	TopP          *float64 `json:"top_p"`
	StopSequences []string `json:"stop_sequences"`
	Stream        bool     `json:"stream"`
	Metadata      struct {
		UserID string `json:"user_id"` // see chatBody
	} `json:"metadata"`
	ServiceTier anyTier `json:"service_tier"`
}

type anthropicMessage struct {
	Role    string            `json:"role"`
	Content *anthropicContent `json:"content"`
}

// anthropicContent is a string, or a list of blocks.
type anthropicContent struct {
	text   string
	blocks []anthropicBlock
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (c *anthropicContent) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if d.PeekKind() == '[' {
		return json.UnmarshalDecode(d, &c.blocks)
	}
	return json.UnmarshalDecode(d, &c.text)
}

// anthropicBlock is a block of the types that we know, as it is sent. Which fields it has is its type's.
type anthropicBlock struct {
	Type         string       `json:"type"`
	CacheControl cacheControl `json:"cache_control"`
	Citations    nothing      `json:"citations"`

	Text *string `json:"text"` // of text

	ID    string         `json:"id"` // of tool_use
	Name  string         `json:"name"`
	Input jsontext.Value `json:"input"`

	ToolUseID string            `json:"tool_use_id"` // of tool_result
	Content   *anthropicContent `json:"content"`
	IsError   bool              `json:"is_error"` // of which the content tells the model
}

type anthropicTool struct {
	Type         string         `json:"type"` // custom, which a tool is without one
	Name         string         `json:"name"`
	Description  string         `json:"description"`
	InputSchema  jsontext.Value `json:"input_schema"`
	Strict       nothing        `json:"strict"`
	CacheControl cacheControl   `json:"cache_control"`
}

type anthropicChoice struct {
	Type    string `json:"type"`
	Name    string `json:"name"` // of type tool
	OneTool bool   `json:"disable_parallel_tool_use"`
}

// cacheControl asks that a prompt be kept for a while. It changes no answer, and is taken as that.
type cacheControl struct{}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (cacheControl) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	var c struct {
		Type string `json:"type"`
		TTL  string `json:"ttl"`
	}
	if d.PeekKind() == 'n' {
		return d.SkipValue()
	}
	if err := json.UnmarshalDecode(d, &c); err != nil {
		return err
	}
	if c.Type != "ephemeral" {
		return errAsked
	}
	return nil
}

// noThought is thinking that is turned off.
type noThought struct{}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (noThought) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	return oneOf(d, "null", `{"type":"disabled"}`)
}

// anyTier is a wish to be served as everybody is.
type anyTier struct{}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (anyTier) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	return oneOf(d, "null", `"auto"`, `"standard_only"`)
}

// anthropicNames are how Anthropic's API spells what a request may hold.
var anthropicNames = names{
	messages: "messages", tools: "tools", toolChoice: "tool_choice", maxTokens: "max_tokens", temperature: "temperature", topP: "top_p",
	stop: "stop_sequences", system: "system", toolName: "name", toolSchema: "input_schema",
}

// decodeAnthropic reads Anthropic's request for a message.
func decodeAnthropic(body io.Reader) (*request, style, error) {
	var b anthropicBody
	if err := decode(body, &b); err != nil {
		return nil, nil, err
	}
	switch {
	case b.MaxTokens == nil:
		return nil, nil, invalid("max_tokens", "is required")
	case b.Temperature != nil && *b.Temperature > 1:
		return nil, nil, invalid("temperature", "must be from 0 to 1")
	}
	r, err := b.request()
	if err != nil {
		return nil, nil, err
	}
	r.maxTokens, r.temperature, r.topP, r.stop, r.stream = b.MaxTokens, b.Temperature, b.TopP, b.StopSequences, b.Stream
	return r, &anthropicAnswers{}, nil
}

// decodeAnthropicCount reads Anthropic's question how long a request is.
func decodeAnthropicCount(body io.Reader) (*request, error) {
	var b anthropicPrompt
	if err := decode(body, &b); err != nil {
		return nil, err
	}
	return b.request()
}

// request is what a model is to read, and may call.
func (b *anthropicPrompt) request() (*request, error) {
	if b.Model == "" {
		return nil, invalid("model", "is required")
	}
	r := &request{method: access.MethodChat, names: anthropicNames, channel: b.Model, wholeCalls: true}
	if err := b.takeTools(r); err != nil {
		return nil, err
	}
	if b.System != nil {
		text, err := b.System.plain("system")
		if err != nil {
			return nil, err
		}
		if text != "" {
			r.add("system", backends.Message{Role: "system", Content: text})
		}
	}
	if len(b.Messages) == 0 {
		return nil, invalid("messages", "must hold at least one message")
	}
	for i, m := range b.Messages {
		if err := m.add(r, fmt.Sprintf("messages[%d]", i)); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// takeTools reads what is offered to the model, and whether it is to be called.
func (b *anthropicPrompt) takeTools(r *request) error {
	if b.Tools != nil {
		for i, t := range *b.Tools {
			if t.Type != "" && t.Type != "custom" {
				return invalid(fmt.Sprintf("tools[%d].type", i), "must be custom: no other tools are offered here")
			}
			r.tools = append(r.tools, backends.Tool{Name: t.Name, Description: t.Description, Parameters: t.InputSchema})
		}
	}
	c := b.ToolChoice
	if c == nil {
		return nil
	}
	if len(r.tools) == 0 {
		return invalid("tool_choice", "is for requests with tools")
	}
	if c.Name != "" && c.Type != "tool" {
		return invalid("tool_choice.name", "is for type tool")
	}
	r.oneTool = c.OneTool
	switch c.Type {
	case "auto":
	case "any":
		r.toolChoice = backends.ToolsRequired
	case "none":
		r.toolChoice = backends.ToolsNone
	case "tool":
		return r.only("tool_choice.name", c.Name)
	default:
		return invalid("tool_choice.type", "must be auto, any, tool or none")
	}
	return nil
}

// add adds a message as runtimes take it: there the result of a call is a turn of its own.
func (m anthropicMessage) add(r *request, place string) error {
	if m.Role != "user" && m.Role != "assistant" {
		return invalid(place+".role", "must be user or assistant")
	}
	if m.Content == nil {
		return invalid(place+".content", "is required")
	}
	turn := backends.Message{Role: m.Role}
	var text strings.Builder // of turn
	text.WriteString(m.Content.text)
	empty := m.Content.blocks != nil // nothing of the turn has come
	flush := func() {
		turn.Content = text.String()
		r.add(place, turn)
		turn, empty = backends.Message{Role: m.Role}, true
		text.Reset()
	}
	for i, b := range m.Content.blocks {
		at := fmt.Sprintf("%s.content[%d]", place, i)
		switch {
		case b.Type == "tool_use" && m.Role == "assistant":
			call, err := b.call(at + ".")
			if err != nil {
				return err
			}
			turn.ToolCalls, empty = append(turn.ToolCalls, call), false
		case b.Type == "tool_result" && m.Role == "user":
			result, err := b.result(at + ".")
			if err != nil {
				return err
			}
			if !empty {
				flush()
			}
			r.add(at, result)
		default:
			part, err := b.plain(at+".", m.Role)
			if err != nil {
				return err
			}
			text.WriteString(part)
			empty = false
		}
	}
	if !empty || len(m.Content.blocks) == 0 {
		flush()
	}
	return nil
}

// only refuses what a block of one type has of another's.
func (b anthropicBlock) only(at string) error {
	for _, of := range []struct {
		has         bool
		kind, field string
	}{
		{b.Text != nil, "text", "text"}, {b.ID != "", "tool_use", "id"}, {b.Name != "", "tool_use", "name"}, {b.Input != nil, "tool_use", "input"},
		{b.ToolUseID != "", "tool_result", "tool_use_id"}, {b.Content != nil, "tool_result", "content"}, {b.IsError, "tool_result", "is_error"},
	} {
		if of.has && b.Type != of.kind {
			return invalid(at+of.field, "is for type %s", of.kind)
		}
	}
	return nil
}

// plain is the text of a block.
func (b anthropicBlock) plain(at, role string) (string, error) {
	if b.Type != "text" {
		may := "text"
		switch role {
		case "user":
			may = "text or tool_result"
		case "assistant":
			may = "text or tool_use"
		}
		return "", invalid(at+"type", "must be %s: other blocks are not supported here", may)
	}
	if b.Text == nil {
		return "", invalid(at+"text", "is required")
	}
	return *b.Text, b.only(at)
}

func (b anthropicBlock) call(at string) (backends.ToolCall, error) {
	switch {
	case b.ID == "" || b.Name == "":
		return backends.ToolCall{}, invalid(at+"id", "and a name are required")
	case b.Input.Kind() != '{':
		return backends.ToolCall{}, invalid(at+"input", "must be an object")
	}
	return backends.ToolCall{ID: b.ID, Name: b.Name, Arguments: string(b.Input)}, b.only(at)
}

func (b anthropicBlock) result(at string) (backends.Message, error) {
	out := backends.Message{Role: "tool", ToolCallID: b.ToolUseID}
	if b.ToolUseID == "" {
		return out, invalid(at+"tool_use_id", "is required")
	}
	if err := b.only(at); err != nil || b.Content == nil {
		return out, err
	}
	var err error
	out.Content, err = b.Content.plain(at + "content")
	return out, err
}

// plain is the text of content that can hold no other blocks.
func (c *anthropicContent) plain(field string) (string, error) {
	if c.blocks == nil {
		return c.text, nil
	}
	var text strings.Builder
	for i, b := range c.blocks {
		part, err := b.plain(fmt.Sprintf("%s[%d].", field, i), "")
		if err != nil {
			return "", err
		}
		text.WriteString(part)
	}
	return text.String(), nil
}
