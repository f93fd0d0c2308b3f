package gateway

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/backends"
)

// A chatBody is every field of OpenAI's chat completion request that we take. Each has a meaning here; all others are
// refused, so that nothing a caller sends is quietly dropped, and no field of a runtime (an adapter, a template, a
// path) can be reached by naming it.
type chatBody struct {
	Model               string         `json:"model"`
	Messages            []messageBody  `json:"messages"`
	Stream              bool           `json:"stream"`
	StreamOptions       *streamOptions `json:"stream_options"`
	MaxTokens           *int64         `json:"max_tokens"`
	MaxCompletionTokens *int64         `json:"max_completion_tokens"`
	Temperature         *float64       `json:"temperature"`
	TopP                *float64       `json:"top_p"`
	Stop                texts          `json:"stop"`
	Seed                *int64         `json:"seed"`
	N                   *int64         `json:"n"`    // 1 is all we do
	User                string         `json:"user"` // taken since clients send it, and ignored: the SVID says who calls
}

type streamOptions struct {
	IncludeUsage bool `json:"include_usage"`
}

type messageBody struct {
	Role    string   `json:"role"`
	Content *content `json:"content"`
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

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (c *content) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if d.PeekKind() == '[' {
		return json.UnmarshalDecode(d, &c.parts)
	}
	return json.UnmarshalDecode(d, &c.text)
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

// decodeChat reads a request. What is wrong with its form is reported here; what is wrong with its values, where gRPC
// could be wrong in the same way, is found in [request.check].
func decodeChat(body io.Reader) (r *request, usage bool, err error) {
	var b chatBody
	if err := json.UnmarshalRead(body, &b, json.RejectUnknownMembers(true)); err != nil {
		return nil, false, decodeError(err)
	}
	switch {
	case b.Model == "":
		return nil, false, invalid("model", "is required")
	case b.N != nil && *b.N != 1:
		return nil, false, invalid("n", "must be 1: there is one answer to a request")
	case b.StreamOptions != nil && !b.Stream:
		return nil, false, invalid("stream_options", "is for requests with stream")
	case b.MaxTokens != nil && b.MaxCompletionTokens != nil:
		return nil, false, invalid("max_tokens", "is an older name of max_completion_tokens: give one of them")
	}
	r = &request{
		channel: b.Model, maxTokens: b.MaxTokens, maxTokensName: "max_tokens", temperature: b.Temperature, topP: b.TopP,
		stop: b.Stop, seed: b.Seed, stream: b.Stream,
	}
	if b.MaxCompletionTokens != nil {
		r.maxTokens, r.maxTokensName = b.MaxCompletionTokens, "max_completion_tokens"
	}
	for i, m := range b.Messages {
		text, err := m.Content.join(fmt.Sprintf("messages[%d].content", i))
		if err != nil {
			return nil, false, err
		}
		r.messages = append(r.messages, backends.Message{Role: m.Role, Content: text})
	}
	return r, b.StreamOptions != nil && b.StreamOptions.IncludeUsage, nil
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

// toolFields are how OpenAI's clients offer functions to a model. A release that lists tools is not served (trust says
// why), so that the answer to them is the same for every channel.
var toolFields = []string{"tools", "tool_choice", "parallel_tool_calls", "functions", "function_call"}

// decodeError says which field is wrong and how, in words of ours: the library's repeat values, and those are the
// caller's conversation, which must reach no log.
func decodeError(err error) error {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return errTooLarge
	}
	var semantic *json.SemanticError
	if errors.As(err, &semantic) {
		field := fieldName(semantic.JSONPointer)
		if errors.Is(semantic.Err, json.ErrUnknownName) {
			if slices.Contains(toolFields, field) {
				return invalid(field, "is not allowed: this release allows no tools, and this version forwards none")
			}
			return invalid(field, "is unknown or not supported")
		}
		return invalid(field, "has the wrong type or is out of range (got a JSON %s)", kindName(semantic.JSONKind))
	}
	var syntactic *jsontext.SyntacticError
	if errors.As(err, &syntactic) {
		field := fieldName(syntactic.JSONPointer)
		if errors.Is(syntactic.Err, jsontext.ErrDuplicateName) {
			return invalid(field, "is given twice")
		}
		return invalid(field, "malformed JSON at byte %d", syntactic.ByteOffset)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return invalid("", "the body ends before its JSON does")
	}
	return fmt.Errorf("%w: read the body: %w", errGone, err)
}

// fieldName writes /messages/0/content as messages[0].content. A name that no field of ours could have is cut: it is
// the caller's text.
func fieldName(p jsontext.Pointer) string {
	var name strings.Builder
	for token := range p.Tokens() {
		if _, err := strconv.Atoi(token); err == nil {
			fmt.Fprintf(&name, "[%s]", token)
			continue
		}
		if !sane(token) {
			token = strconv.QuoteToASCII(token[:min(len(token), 32)])
		}
		if name.Len() > 0 {
			name.WriteByte('.')
		}
		name.WriteString(token)
	}
	return name.String()
}

func kindName(k jsontext.Kind) string {
	switch k {
	case 'n':
		return "null"
	case 't', 'f':
		return "boolean"
	case '"':
		return "string"
	case '0':
		return "number"
	case '{':
		return "object"
	case '[':
		return "array"
	}
	return "value"
}
