package backendtest

import (
	"errors"
	"strings"
	"testing"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
)

// count checks that a conversation is counted as it is when it is answered, or that nothing is.
func (s Suite) count(t *testing.T) {
	b := s.start(t, tinygguf.A)
	long := Question("hello")
	long.Messages = append(long.Messages, backends.Message{Role: "assistant", Content: "I am here."}, backends.Message{Role: "user", Content: strings.Repeat("Say: \"é漢🙂\" ", 20)})
	for _, req := range []backends.ChatRequest{Question("hello"), Question(""), long} {
		s.checkCount(t, b, req)
	}
	if refusal := s.Refuses["a count"]; refusal != "" {
		return
	}
	offering := Question("hello")
	offering.Tools = []backends.Tool{Weather}
	for what, req := range map[string]backends.ChatRequest{"tools": offering, "a text": {Prompt: "Once"}} {
		if _, err := b.Count(t.Context(), req); !errors.Is(err, backends.ErrUnsupported) {
			t.Errorf("Count() of %s = %v, want %v", what, err, backends.ErrUnsupported)
		}
	}
}

// checkCount compares the count of a conversation with what its answer tells.
func (s Suite) checkCount(t *testing.T, b backends.Backend, req backends.ChatRequest) {
	t.Helper()
	tokens, err := b.Count(t.Context(), req)
	if refusal := s.Refuses["a count"]; refusal != "" {
		if !errors.Is(err, backends.ErrUnsupported) || !strings.Contains(err.Error(), refusal) {
			t.Errorf("Count() = %v, want %v with %q", err, backends.ErrUnsupported, refusal)
		}
		return
	}
	check(t, err)
	_, last, err := Ask(t.Context(), b, req)
	check(t, err)
	if last.Usage == nil || tokens != last.Usage.PromptTokens {
		t.Errorf("Count() = %d, and the answer tells %+v", tokens, last.Usage)
	}
}
