package gateway

import (
	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/members"
)

// chunk is OpenAI's chat.completion.chunk, with a delta in each choice.
type chunk struct {
	ID                string        `json:"id"`
	Object            string        `json:"object"`
	Created           int64         `json:"created"`
	Model             string        `json:"model"`
	SystemFingerprint string        `json:"system_fingerprint"`
	Choices           []chunkChoice `json:"choices"`
	Usage             *usage        `json:"usage,omitzero"`
}

type chunkChoice struct {
	Index        int     `json:"index"`
	Delta        delta   `json:"delta"`
	FinishReason *string `json:"finish_reason"`
}

type delta struct {
	Role      string     `json:"role,omitzero"`
	Content   *string    `json:"content,omitzero"`
	ToolCalls []callBody `json:"tool_calls,omitempty"`
}

type usage struct {
	PromptTokens     int `json:"prompt_tokens"`
	CompletionTokens int `json:"completion_tokens"`
	TotalTokens      int `json:"total_tokens"`
}

func usageOf(u backends.Usage) *usage {
	return &usage{u.PromptTokens, u.CompletionTokens, u.PromptTokens + u.CompletionTokens}
}

// errorBody is OpenAI's shape of an error.
type errorBody struct {
	Error struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    string  `json:"code"`
	} `json:"error"`
}

func errorOf(o outcome) errorBody {
	var b errorBody
	b.Error.Message, b.Error.Type, b.Error.Code = o.message, o.kind, o.code
	if o.param != "" {
		b.Error.Param = &o.param
	}
	return b
}

// openAIErrors writes errors as OpenAI does.
type openAIErrors struct{}

func (openAIErrors) name() string { return apiOpenAI }

func (openAIErrors) problem(_ string, o outcome) any { return errorOf(o) }

func (openAIErrors) broken(_ string, o outcome) []byte { return event(errorOf(o)) }

func (openAIErrors) contentType() string { return "text/event-stream; charset=utf-8" }

// event is a server-sent event.
func event(data any) []byte { return append(append([]byte("data: "), encode(data)...), "\n\n"...) }

// doneEvent is the last of a whole answer.
var doneEvent = []byte("data: [DONE]\n\n")

// openAIChat writes answers as OpenAI's chat completions.
type openAIChat struct {
	openAIErrors
	usage bool // whether the caller wants the usage of a stream
	calls int  // that have begun
	text  textFrame
}

func chatID(m meta) string { return "chatcmpl-" + m.id }

func (*openAIChat) whole(m meta, a collected) []byte {
	w := members.NewWriter(a.size + 1<<9)
	w.Begin('{')
	w.Name("id")
	w.Text(chatID(m))
	w.Name("object")
	w.Text("chat.completion")
	w.Name("created")
	w.Int(m.created.Unix())
	w.Name("model")
	w.Text(m.info.Channel)
	w.Name("system_fingerprint")
	w.Text(m.info.Release) // what OpenAI's clients may log already
	w.Name("choices")
	w.Begin('[')
	w.Begin('{')
	w.Name("index")
	w.Int(0)
	w.Name("message")
	writeMessage(w, a)
	w.Name("finish_reason")
	w.Text(a.reason)
	w.End('}')
	w.End(']')
	w.Name("usage")
	writeUsage(w, a.used)
	w.End('}')
	body, _ := w.Bytes() // with U+FFFD where a text is not UTF-8
	return body
}

func writeMessage(w *members.Writer, a collected) {
	w.Begin('{')
	w.Name("role")
	w.Text("assistant")
	w.Name("content")
	if a.text.Len() == 0 && len(a.calls) > 0 {
		w.Null() // beside calls alone
	} else {
		w.Text(a.text.String())
	}
	if len(a.calls) > 0 {
		w.Name("tool_calls")
		w.Begin('[')
		for _, c := range a.calls {
			writeCall(w, c)
		}
		w.End(']')
	}
	w.End('}')
}

func writeCall(w *members.Writer, c backends.ToolCall) {
	w.Begin('{')
	if c.ID != "" {
		w.Name("id")
		w.Text(c.ID)
		w.Name("type")
		w.Text(functionType)
	}
	w.Name("function")
	w.Begin('{')
	if c.Name != "" {
		w.Name("name")
		w.Text(c.Name)
	}
	w.Name("arguments")
	w.Text(c.Arguments)
	w.End('}')
	w.End('}')
}

func writeUsage(w *members.Writer, u backends.Usage) {
	w.Begin('{')
	w.Name("prompt_tokens")
	w.Int(int64(u.PromptTokens))
	w.Name("completion_tokens")
	w.Int(int64(u.CompletionTokens))
	w.Name("total_tokens")
	w.Int(int64(u.PromptTokens + u.CompletionTokens))
	w.End('}')
}

func callOfModel(c backends.ToolCall) callBody {
	out := callBody{ID: c.ID}
	if c.ID != "" {
		out.Type = functionType
	}
	out.Function.Name, out.Function.Arguments = c.Name, c.Arguments
	return out
}

func (*openAIChat) chunk(m meta, choices []chunkChoice) chunk {
	return chunk{
		ID: chatID(m), Object: "chat.completion.chunk", Created: m.created.Unix(), Model: m.info.Channel, SystemFingerprint: m.info.Release, Choices: choices,
	}
}

// choice is the next piece of the answer, or its end.
func (s *openAIChat) choice(m meta, d delta, reason string) []byte {
	c := chunkChoice{Delta: d}
	if reason != "" {
		c.FinishReason = &reason
	}
	return event(s.chunk(m, []chunkChoice{c}))
}

func (s *openAIChat) begin(m meta) [][]byte {
	empty := ""
	return [][]byte{s.choice(m, delta{Role: "assistant", Content: &empty}, "")}
}

func (s *openAIChat) piece(m meta, c backends.Chunk) (frames [][]byte) {
	if c.Text != "" {
		frames = append(frames, s.text.with(c.Text, func(text string) []byte { return s.choice(m, delta{Content: &text}, "") }))
	}
	if c.ToolCall != nil {
		call := callOfModel(*c.ToolCall)
		if call.ID != "" || s.calls == 0 {
			s.calls++
		}
		index := s.calls - 1
		call.Index = &index
		frames = append(frames, s.choice(m, delta{ToolCalls: []callBody{call}}, ""))
	}
	if c.FinishReason != "" {
		frames = append(frames, s.choice(m, delta{}, c.FinishReason))
	}
	return frames
}

func (s *openAIChat) end(m meta, used backends.Usage) (frames [][]byte) {
	if s.usage {
		last := s.chunk(m, []chunkChoice{})
		last.Usage = usageOf(used)
		frames = append(frames, event(last))
	}
	return append(frames, doneEvent)
}

// modelBody is a channel in OpenAI's shape, with what it serves beside.
type modelBody struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
	Release string `json:"release,omitzero"`
	Weights string `json:"weights,omitzero"`
	Level   string `json:"level,omitzero"`
	State   string `json:"state"`
}

func openAIModel(i ChannelInfo) any {
	m := modelBody{ID: i.Channel, Object: "model", OwnedBy: provider, Release: i.Release, Weights: i.Weights, Level: i.Level, State: i.State}
	if !i.Since.IsZero() {
		m.Created = i.Since.Unix()
	}
	return m
}

func openAIModels(infos []ChannelInfo) any {
	return struct {
		Object string `json:"object"`
		Data   []any  `json:"data"`
	}{"list", each(infos, openAIModel)}
}

// each is what a list holds of each channel; it is never null.
func each(infos []ChannelInfo, body func(ChannelInfo) any) []any {
	all := []any{}
	for _, i := range infos {
		all = append(all, body(i))
	}
	return all
}
