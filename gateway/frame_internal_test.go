package gateway

import (
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/backends"
)

// TestTextFrames checks that every frame is what encoding it as a whole would make.
func TestTextFrames(t *testing.T) {
	m := meta{id: "abc", created: time.Unix(1, 0), info: ServingInfo{Channel: "chat", Release: "sha256:00"}}
	texts := []string{"on", " and\n\"on\" ", "é漢🙂", "\x00", "<&>\u2028", "\\u0000"}
	chat, plain, blocks := &openAIChat{}, &openAIText{}, &anthropicAnswers{}
	for _, tt := range []struct {
		name  string
		style style
		want  func(text string) []byte
	}{
		{"chat", chat, func(text string) []byte { return chat.choice(m, delta{Content: &text}, "") }},
		{"completion", plain, func(text string) []byte { return event(plain.completion(m, []textChoice{{Text: text}})) }},
		{"message", blocks, func(text string) []byte { return blocks.delta(anthropicText{"text_delta", text}) }},
	} {
		for _, called := range []bool{false, true} { // after a call, a block has another number
			if called {
				tt.style.piece(m, backends.Chunk{ToolCall: &backends.ToolCall{ID: "1", Name: "weather"}})
			}
			tt.style.piece(m, backends.Chunk{Text: "x"})
			for _, text := range texts {
				got := tt.style.piece(m, backends.Chunk{Text: text})
				if want := tt.want(text); len(got) != 1 || string(got[0]) != string(want) {
					t.Errorf("%s: piece(%q) = %q, want %q", tt.name, text, got, want)
				}
			}
		}
	}
	var f textFrame
	encoded := func(text string) []byte { return event(map[string]string{"text": text}) }
	for _, text := range append(texts, "\xff") {
		if got, want := f.with(text, encoded), encoded(text); string(got) != string(want) {
			t.Errorf("with(%q) = %q, want %q", text, got, want)
		}
	}
	if got, want := new(textFrame).with("x", func(text string) []byte { return event([]string{text, text}) }), `data: ["x","x"]`+"\n\n"; string(got) != want {
		t.Errorf("with() = %q, want %q where the text is there twice", got, want)
	}
}
