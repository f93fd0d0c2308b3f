package catalog_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
	"github.com/weighbridge/weighbridge/gateway/catalog"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// TestEmbeddingsRelease is warmed up by a text that it embeds, and refuses to chat.
func TestEmbeddingsRelease(t *testing.T) {
	s := newSite(t, gib)
	s.writeModel("embed.gguf", tinygguf.Config{Sentence: tinygguf.A.Sentence, Embeds: true})
	embeds := func(prompt string) func(*trust.Descriptor) {
		return func(d *trust.Descriptor) {
			d.Runtime.Args["embeddings"], d.Behaviour.ChatTemplate, d.Warmup.Prompt = "true", "", prompt
		}
	}
	id := s.release("embed.gguf", 1, embeds("hello"))
	s.untilServes(id)
	held, err := s.cat.Acquire(t.Context(), "chat")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Done()
	req := backends.ChatRequest{Messages: []backends.Message{{Role: "user", Content: "x"}}}
	if err := held.Chat(t.Context(), req, func(backends.Chunk) error { return nil }); !errors.Is(err, backends.ErrUnsupported) {
		t.Errorf("Chat() = %v, want %v", err, backends.ErrUnsupported)
	}
	s.release("embed.gguf", 2, embeds(strings.Repeat("hello", 100)))
	s.until("a warm-up that can't be embedded is told", func(st catalog.Status) bool {
		return strings.Contains(st.Error, "warm up: invalid request") && st.Release == string(id)
	})
}
