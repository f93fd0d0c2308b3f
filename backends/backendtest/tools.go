package backendtest

import (
	"errors"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
)

// Weather is the function that [tinygguf.Caller] calls.
var Weather = backends.Tool{
	Name: "weather", Description: "The weather in a city.",
	Parameters: jsontext.Value(`{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}`),
}

// tools checks that the model is offered what a request offers, and that what it calls comes back; or that nothing starts
// where that can't be.
func (s Suite) tools(t *testing.T) {
	defer s.noTools(t)
	b, w := s.New(t, t.TempDir()), Seal(t, WriteModel(t, tinygguf.Caller))
	spec := backends.Spec{Args: s.Args, ChatTemplate: s.ChatTemplate, Tools: true}
	err := b.Start(t.Context(), w, spec)
	check(t, w.Close())
	defer stop(t, b)
	if !s.starts(t, "tools", err, "") {
		return
	}
	offering := Question("What is the weather in Rome?")
	offering.Tools = []backends.Tool{Weather}
	call, last := s.call(t, b, offering)
	whole := offering
	whole.Whole = true
	if got, end := s.call(t, b, whole); got.ID == "" || got.Name != call.Name || got.Arguments != call.Arguments || end.FinishReason != last.FinishReason {
		t.Errorf("the model calls %+v, and ends by %q, where the answer comes whole; else %+v and %q", got, end.FinishReason, call, last.FinishReason)
	}
	if want := (backends.ToolCall{ID: call.ID, Name: "weather", Arguments: `{"city": "Rome"}`}); call.ID == "" || call != want || last.FinishReason != "tool_calls" {
		t.Errorf("the model calls %+v, and ends by %q; want %+v and tool_calls", call, last.FinishReason, want)
	}
	// The result is one more turn, which is shown too.
	offering.Messages = append(offering.Messages,
		backends.Message{Role: "assistant", ToolCalls: []backends.ToolCall{call}}, backends.Message{Role: "tool", Content: "It is sunny.", ToolCallID: call.ID})
	if _, after := s.call(t, b, offering); after.Usage == nil || after.Usage.PromptTokens < last.Usage.PromptTokens+len("It is sunny.") {
		t.Errorf("usage is %+v with the result, %+v before; want more", after.Usage, last.Usage)
	}
	s.checkCount(t, b, offering)
	none := offering
	none.Messages, none.ToolChoice = none.Messages[:1], backends.ToolsNone
	checkAnswer(t, b, none, tinygguf.Caller.Sentence)
	checkAnswer(t, b, Question("hello"), tinygguf.Caller.Sentence)
}

// call returns the only call of an answer without text, and its last chunk.
func (s Suite) call(t *testing.T, b backends.Backend, req backends.ChatRequest) (call backends.ToolCall, last backends.Chunk) {
	t.Helper()
	check(t, b.Chat(t.Context(), req, func(c backends.Chunk) error {
		if p := c.ToolCall; p != nil {
			if p.ID != "" && call.ID != "" {
				t.Errorf("a second call begins: %+v", p)
			}
			call.ID, call.Name, call.Arguments = call.ID+p.ID, call.Name+p.Name, call.Arguments+p.Arguments
		}
		if c.Text != "" {
			t.Errorf("the model says %q beside its call", c.Text)
		}
		last = c
		return nil
	}))
	return call, last
}

// noTools checks that a model that is offered none refuses them.
func (s Suite) noTools(t *testing.T) {
	t.Helper()
	b := s.start(t, tinygguf.A)
	offering := Question("hello")
	offering.Tools = []backends.Tool{Weather}
	if _, _, err := Ask(t.Context(), b, offering); !errors.Is(err, backends.ErrUnsupported) {
		t.Errorf("Chat() with tools = %v, want %v", err, backends.ErrUnsupported)
	}
	stop(t, b)
}

// prompt checks that a text is continued as it is, without the template, or refused.
func (s Suite) prompt(t *testing.T) {
	b := s.start(t, tinygguf.A)
	const text = "Once:upon:a:time"
	answer, last, err := Ask(t.Context(), b, backends.ChatRequest{Prompt: text, MaxTokens: 64})
	if s.Refuses["a prompt"] != "" {
		if !errors.Is(err, backends.ErrUnsupported) || !strings.Contains(err.Error(), s.Refuses["a prompt"]) {
			t.Errorf("Chat() with a prompt = %v, want %v with %q", err, backends.ErrUnsupported, s.Refuses["a prompt"])
		}
		return
	}
	if err != nil || answer != tinygguf.A.Sentence || last.FinishReason != "stop" {
		t.Errorf("answer is %q, %v, %+v; want %q", answer, err, last, tinygguf.A.Sentence)
	}
	checkWhole(t.Context(), t, b, backends.ChatRequest{Prompt: text, MaxTokens: 64}, answer, last)
	// Every byte is a token; one begins the text, and a space of three bytes may.
	if got := last.Usage; got == nil || got.PromptTokens > len(text)+4 {
		t.Errorf("usage is %+v, want no more than the text itself", got)
	}
}
