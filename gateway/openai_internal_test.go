package gateway

import (
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/backends"
)

// completion is OpenAI's chat.completion, for the library to write.
type completion struct {
	ID                string   `json:"id"`
	Object            string   `json:"object"`
	Created           int64    `json:"created"`
	Model             string   `json:"model"`
	SystemFingerprint string   `json:"system_fingerprint"`
	Choices           []choice `json:"choices"`
	Usage             usage    `json:"usage"`
}

type choice struct {
	Index        int    `json:"index"`
	Message      turn   `json:"message"`
	FinishReason string `json:"finish_reason"`
}

type turn struct {
	Role      string     `json:"role"`
	Content   *string    `json:"content"`
	ToolCalls []callBody `json:"tool_calls,omitempty"`
}

// FuzzWholeChat holds what is written member by member to what the library writes.
func FuzzWholeChat(f *testing.F) {
	f.Add("on and on", "stop", "", "", 1, 2)
	f.Add("", "tool_calls", "weather", `{"city":"Ghent"}`, 0, 0)
	f.Add("\xff\x00\u2028\"", "\\", "\xff", "\n", -1, 1<<40)
	f.Fuzz(func(t *testing.T, text, reason, name, arguments string, prompt, completed int) {
		m := meta{id: "some", created: time.Unix(int64(prompt), 0), info: ServingInfo{Channel: "chat", Release: "sha256:abc"}}
		got := collected{reason: reason, used: backends.Usage{PromptTokens: prompt, CompletionTokens: completed}}
		said := turn{Role: "assistant", Content: &text}
		if name != "" {
			got.calls = []backends.ToolCall{{ID: name, Name: name, Arguments: arguments}, {Arguments: arguments}}
			said.ToolCalls = []callBody{callOfModel(got.calls[0]), callOfModel(got.calls[1])}
			if text == "" {
				said.Content = nil
			}
		}
		got.text.WriteString(text)
		want := encode(completion{
			ID: "chatcmpl-some", Object: "chat.completion", Created: int64(prompt), Model: "chat", SystemFingerprint: "sha256:abc",
			Choices: []choice{{Message: said, FinishReason: reason}}, Usage: *usageOf(got.used),
		})
		if body := (&openAIChat{}).whole(m, got); string(body) != string(want) {
			t.Errorf("wrote %s, want %s", body, want)
		}
	})
}
