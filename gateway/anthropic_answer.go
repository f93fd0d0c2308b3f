package gateway

import (
	"net/http"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/backends"
)

// anthropicErrors writes errors as Anthropic does.
type anthropicErrors struct{}

func (anthropicErrors) name() string { return apiAnthropic }

type anthropicError struct {
	Type  string `json:"type"`
	Error struct {
		Type    string `json:"type"`
		Message string `json:"message"`
	} `json:"error"`
	RequestID string `json:"request_id"`
}

func (anthropicErrors) problem(id string, o outcome) any {
	e := anthropicError{Type: "error", RequestID: id}
	e.Error.Message = o.message
	switch o.http {
	case http.StatusNotFound:
		e.Error.Type = "not_found_error"
	case http.StatusRequestEntityTooLarge:
		e.Error.Type = "request_too_large"
	case http.StatusServiceUnavailable:
		e.Error.Type = "overloaded_error"
	default:
		if o.kind == "server_error" {
			o.kind = "api_error"
		}
		e.Error.Type = o.kind // as OpenAI calls it, too
	}
	return e
}

func (a anthropicErrors) broken(id string, o outcome) []byte { return named("error", a.problem(id, o)) }

func (anthropicErrors) contentType() string { return "text/event-stream; charset=utf-8" }

// named is a server-sent event with a name, which is the type of its data too.
func named(name string, data any) []byte { return append([]byte("event: "+name+"\n"), event(data)...) }

// anthropicAnswer is Anthropic's message.
type anthropicAnswer struct {
	ID           string         `json:"id"`
	Type         string         `json:"type"`
	Role         string         `json:"role"`
	Model        string         `json:"model"`
	Content      []any          `json:"content"`
	StopReason   *string        `json:"stop_reason"`
	StopSequence *string        `json:"stop_sequence"` // null: which one it was no runtime says
	Usage        anthropicUsage `json:"usage"`
}

// anthropicUsage counts tokens; of what was in a cache nothing is told.
type anthropicUsage struct {
	InputTokens  int `json:"input_tokens"`
	CacheWritten int `json:"cache_creation_input_tokens"`
	CacheRead    int `json:"cache_read_input_tokens"`
	OutputTokens int `json:"output_tokens"`
}

type anthropicText struct {
	Type string `json:"type"`
	Text string `json:"text"`
}

type anthropicUse struct {
	Type  string         `json:"type"`
	ID    string         `json:"id"`
	Name  string         `json:"name"`
	Input jsontext.Value `json:"input"`
}

// stopReason is why a model stopped, in Anthropic's words. It is end_turn at a stop sequence too: runtimes do not say which
// it was.
func stopReason(finish string) *string {
	reason := "end_turn"
	switch finish {
	case "length":
		reason = "max_tokens"
	case "tool_calls":
		reason = "tool_use"
	}
	return &reason
}

// anthropicAnswers writes answers as Anthropic does.
type anthropicAnswers struct {
	anthropicErrors
	blocks int  // that have begun
	open   bool // the last of them is a text that goes on
	reason string
	text   textFrame
}

func (*anthropicAnswers) message(m meta, content []any) anthropicAnswer {
	return anthropicAnswer{ID: "msg_" + m.id, Type: "message", Role: "assistant", Model: m.info.Channel, Content: content}
}

func (s *anthropicAnswers) whole(m meta, a collected) []byte {
	content := []any{}
	if a.text.Len() > 0 {
		content = append(content, anthropicText{"text", a.text.String()})
	}
	for _, c := range a.calls {
		content = append(content, anthropicUse{"tool_use", c.ID, c.Name, jsontext.Value(c.Arguments)})
	}
	said := s.message(m, content)
	said.StopReason, said.Usage = stopReason(a.reason), anthropicUsage{InputTokens: a.used.PromptTokens, OutputTokens: a.used.CompletionTokens}
	return encode(said)
}

func (s *anthropicAnswers) begin(m meta) [][]byte {
	return [][]byte{named("message_start", struct {
		Type    string          `json:"type"`
		Message anthropicAnswer `json:"message"`
	}{"message_start", s.message(m, []any{})})}
}

// blockEvent is about the block that began last.
type blockEvent struct {
	Type  string `json:"type"`
	Index int    `json:"index"`
	Block any    `json:"content_block,omitzero"`
	Delta any    `json:"delta,omitzero"`
}

func (s *anthropicAnswers) block(e blockEvent) []byte {
	e.Index = s.blocks - 1
	return named(e.Type, e)
}

func (s *anthropicAnswers) starts(block any) []byte {
	s.blocks++
	s.text = textFrame{} // it names the block
	return s.block(blockEvent{Type: "content_block_start", Block: block})
}

func (s *anthropicAnswers) delta(d any) []byte {
	return s.block(blockEvent{Type: "content_block_delta", Delta: d})
}

// stops ends a text that goes on.
func (s *anthropicAnswers) stops() (frames [][]byte) {
	if s.open {
		s.open = false
		frames = append(frames, s.block(blockEvent{Type: "content_block_stop"}))
	}
	return frames
}

func (s *anthropicAnswers) piece(_ meta, c backends.Chunk) (frames [][]byte) {
	if c.Text != "" {
		if !s.open {
			s.open = true
			frames = append(frames, s.starts(anthropicText{Type: "text"}))
		}
		frames = append(frames, s.text.with(c.Text, func(text string) []byte { return s.delta(anthropicText{"text_delta", text}) }))
	}
	if t := c.ToolCall; t != nil {
		frames = append(frames, s.stops()...)
		s.open = true
		frames = append(frames, s.starts(anthropicUse{"tool_use", t.ID, t.Name, jsontext.Value("{}")}), s.delta(struct {
			Type string `json:"type"`
			JSON string `json:"partial_json"`
		}{"input_json_delta", t.Arguments}))
		frames = append(frames, s.stops()...)
	}
	if c.FinishReason != "" {
		s.reason = c.FinishReason
		frames = append(frames, s.stops()...)
	}
	return frames
}

func (s *anthropicAnswers) end(_ meta, used backends.Usage) [][]byte {
	var last struct {
		Type  string `json:"type"`
		Delta struct {
			StopReason   *string `json:"stop_reason"`
			StopSequence *string `json:"stop_sequence"`
		} `json:"delta"`
		Usage anthropicUsage `json:"usage"` // of the whole answer
	}
	last.Type, last.Delta.StopReason = "message_delta", stopReason(s.reason)
	last.Usage = anthropicUsage{InputTokens: used.PromptTokens, OutputTokens: used.CompletionTokens}
	return [][]byte{named("message_delta", last), named("message_stop", struct {
		Type string `json:"type"`
	}{"message_stop"})}
}

func anthropicCount(tokens int) any {
	return struct {
		InputTokens int `json:"input_tokens"`
	}{tokens}
}

const (
	headerAnthropic   = "Anthropic-Version" // of every request by Anthropic's clients
	headerAnthropicID = "Request-Id"        // by which they know X-Request-Id
)

// bySender answers Anthropic's clients in their shape where another API has the same path.
func bySender(others, anthropic http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(headerAnthropic) != "" {
			anthropic.ServeHTTP(w, r)
		} else {
			others.ServeHTTP(w, r)
		}
	})
}

func anthropicModel(i ChannelInfo) any {
	return struct {
		Type        string    `json:"type"`
		ID          string    `json:"id"`
		DisplayName string    `json:"display_name"`
		CreatedAt   time.Time `json:"created_at"`
	}{"model", i.Channel, i.Channel, i.Since.UTC()}
}

// anthropicModels is a list of one page: there are never many.
func anthropicModels(infos []ChannelInfo) any {
	return struct {
		Data    []any  `json:"data"`
		HasMore bool   `json:"has_more"`
		FirstID string `json:"first_id"`
		LastID  string `json:"last_id"`
	}{each(infos, anthropicModel), false, infos[0].Channel, infos[len(infos)-1].Channel}
}

var _ style = (*anthropicAnswers)(nil)
