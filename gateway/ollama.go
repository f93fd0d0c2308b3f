package gateway

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/gateway/access"
)

// ollamaAsk is what Ollama's requests for an answer share; see [chatBody].
type ollamaAsk struct {
	Model   string         `json:"model"`
	Stream  *bool          `json:"stream"` // an answer comes in pieces unless this is false
	Options *ollamaOptions `json:"options"`

	KeepAlive keepAlive `json:"keep_alive"`
	Format    nothing   `json:"format"`
	Think     nothing   `json:"think"`
	Truncate  nothing   `json:"truncate"`
	Shift     nothing   `json:"shift"`
	Logprobs  nothing   `json:"logprobs"`
	TopProbs  nothing   `json:"top_logprobs"`
	Debug     nothing   `json:"_debug_render_only"`
}

type ollamaOptions struct {
	Temperature *float64 `json:"temperature"`
	TopP        *float64 `json:"top_p"`
	Seed        *int64   `json:"seed"`        // -1: any, as if it were left out
	NumPredict  *int64   `json:"num_predict"` // below 0: no limit of the caller's, as if it were left out
	Stop        texts    `json:"stop"`
}

// keepAlive is how long a model is to stay loaded. What serves a channel stays: who asks for that is given it.
type keepAlive struct{}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (keepAlive) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	v, err := d.ReadValue()
	if err != nil {
		return err
	}
	s := strings.Trim(string(v), `"`)
	if s == "" || s == "null" || strings.HasPrefix(s, "-") && strings.ContainsAny(s, "123456789") {
		return nil
	}
	return errAsked
}

type ollamaChatBody struct {
	ollamaAsk
	Messages []ollamaMessage `json:"messages"`
	Tools    []toolBody      `json:"tools"`
}

type ollamaMessage struct {
	Role       string       `json:"role"`
	Content    string       `json:"content"`
	ToolCalls  []ollamaCall `json:"tool_calls"`
	ToolName   string       `json:"tool_name"` // of role tool: whose result it is
	ToolCallID string       `json:"tool_call_id"`
	Thinking   nothing      `json:"thinking"`
	Images     nothing      `json:"images"`
}

// ollamaCall is what a model calls, as it is sent and as it comes back.
type ollamaCall struct {
	ID       string `json:"id,omitzero"`
	Function struct {
		Index     int            `json:"index"` // the order of calls is that of their list
		Name      string         `json:"name"`
		Arguments jsontext.Value `json:"arguments"`
	} `json:"function"`
}

type ollamaGenerateBody struct {
	ollamaAsk
	Prompt string `json:"prompt"`
	System string `json:"system"`

	Suffix   nothing `json:"suffix"`
	Template nothing `json:"template"`
	Context  nothing `json:"context"`
	Raw      nothing `json:"raw"`
	Images   nothing `json:"images"`
	Width    nothing `json:"width"`
	Height   nothing `json:"height"`
	Steps    nothing `json:"steps"`
}

// ollamaNames are how Ollama's API spells what a request may hold.
var ollamaNames = names{ //nolint:gosec // names of fields, and no secrets
	messages: "messages", prompt: "prompt", inputs: "input", tools: "tools", maxTokens: "options.num_predict", temperature: "options.temperature",
	topP: "options.top_p", stop: "options.stop", toolName: "function.name", toolSchema: "function.parameters",
}

// ollamaModel is the channel that Ollama's clients mean by a model's name: they may have made it one with a tag.
func ollamaModel(name string) string { return strings.TrimSuffix(name, ":latest") }

// request is what all requests for an answer have.
func (b *ollamaAsk) request(method string) (*request, error) {
	channel := ollamaModel(b.Model)
	if channel == "" {
		return nil, invalid("model", "is required")
	}
	r := &request{
		method: method, names: ollamaNames, channel: channel, stream: b.Stream == nil || *b.Stream, wholeCalls: true,
	}
	o := b.Options
	if o == nil {
		return r, nil
	}
	r.temperature, r.topP, r.stop = o.Temperature, o.TopP, o.Stop
	if o.Seed != nil && *o.Seed != -1 {
		r.seed = o.Seed
	}
	if o.NumPredict != nil && *o.NumPredict >= 0 {
		r.maxTokens = o.NumPredict
	}
	return r, nil
}

// decodeOllamaChat reads Ollama's request for a turn of a conversation. One without messages asks whether the model is there.
func decodeOllamaChat(body io.Reader) (*request, style, error) {
	var b ollamaChatBody
	if err := decode(body, &b); err != nil {
		return nil, nil, err
	}
	r, err := b.request(access.MethodChat)
	if err != nil {
		return nil, nil, err
	}
	if r.tools, err = toolsOf(b.Tools); err != nil {
		return nil, nil, err
	}
	if r.messages, err = ollamaMessages(b.Messages); err != nil {
		return nil, nil, err
	}
	r.load = len(r.messages) == 0
	return r, &ollamaAnswers{}, nil
}

// ollamaMessages are turns as runtimes take them. Where calls have no id they get one, so that results can be told apart.
func ollamaMessages(turns []ollamaMessage) (all []backends.Message, err error) {
	if len(turns) > maxMessages {
		return nil, invalid("messages", "must hold at most %d messages", maxMessages)
	}
	var open []backends.ToolCall // that have no result yet
	for i, m := range turns {
		field := fmt.Sprintf("messages[%d].", i)
		out := backends.Message{Role: m.Role, Content: m.Content, ToolCallID: m.ToolCallID}
		for j, c := range m.ToolCalls {
			call := backends.ToolCall{ID: c.ID, Name: c.Function.Name, Arguments: string(c.Function.Arguments)}
			switch at := fmt.Sprintf("%stool_calls[%d].function.", field, j); {
			case call.Name == "":
				return nil, invalid(at+"name", "is required")
			case call.Arguments == "" || call.Arguments == "null":
				call.Arguments = "{}"
			case c.Function.Arguments.Kind() != '{':
				return nil, invalid(at+"arguments", "must be an object")
			}
			if call.ID == "" {
				call.ID = fmt.Sprintf("call_%d_%d", i, j)
			}
			out.ToolCalls = append(out.ToolCalls, call)
		}
		if open = append(open, out.ToolCalls...); len(open) > maxOpenCalls {
			return nil, invalid(field+"tool_calls", "must leave at most %d calls without a result", maxOpenCalls)
		}
		if m.Role != "tool" && m.ToolName != "" {
			return nil, invalid(field+"tool_name", "is for role tool")
		}
		if m.Role == "tool" {
			n := slices.IndexFunc(open, func(c backends.ToolCall) bool {
				return (m.ToolCallID == "" || c.ID == m.ToolCallID) && (m.ToolName == "" || c.Name == m.ToolName)
			})
			if n < 0 {
				return nil, invalid(field+"tool_name", "is the result of a call, and no such call is before it")
			}
			out.ToolCallID = open[n].ID
			open = slices.Delete(open, n, n+1)
		}
		all = append(all, out)
	}
	return all, nil
}

// decodeOllamaGenerate reads Ollama's request to answer a text, which its API puts as a question. An empty one asks whether
// the model is there.
func decodeOllamaGenerate(body io.Reader) (*request, style, error) {
	var b ollamaGenerateBody
	if err := decode(body, &b); err != nil {
		return nil, nil, err
	}
	r, err := b.request(access.MethodGenerate)
	if err != nil {
		return nil, nil, err
	}
	r.names.system = "system"
	if b.System != "" {
		r.add("system", backends.Message{Role: "system", Content: b.System})
	}
	if r.load = b.Prompt == ""; !r.load {
		r.add("prompt", backends.Message{Role: "user", Content: b.Prompt})
	}
	return r, &ollamaAnswers{generate: true}, nil
}

// An ollamaEmbedBody is a request for embeddings, in its present form and in the older one.
type ollamaEmbedBody struct {
	Model      string    `json:"model"`
	Input      texts     `json:"input"`
	Options    struct{}  `json:"options"` // a model has none here
	KeepAlive  keepAlive `json:"keep_alive"`
	Truncate   nothing   `json:"truncate"`
	Dimensions nothing   `json:"dimensions"`
}

type ollamaEmbeddingBody struct {
	Model     string    `json:"model"`
	Prompt    string    `json:"prompt"`
	Options   struct{}  `json:"options"`
	KeepAlive keepAlive `json:"keep_alive"`
}

func decodeOllamaEmbed(body io.Reader) (*request, vectorStyle, error) {
	var b ollamaEmbedBody
	if err := decode(body, &b); err != nil {
		return nil, nil, err
	}
	r, err := (&ollamaAsk{Model: b.Model}).request(access.MethodEmbed)
	if err != nil {
		return nil, nil, err
	}
	r.inputs, r.stream = b.Input, false
	return r, &ollamaVectors{}, nil
}

func decodeOllamaEmbedding(body io.Reader) (*request, vectorStyle, error) {
	var b ollamaEmbeddingBody
	if err := decode(body, &b); err != nil {
		return nil, nil, err
	}
	r, err := (&ollamaAsk{Model: b.Model}).request(access.MethodEmbed)
	if err != nil {
		return nil, nil, err
	}
	r.names.inputs, r.inputs, r.stream = "prompt", []string{b.Prompt}, false
	return r, &ollamaVectors{one: true}, nil
}
