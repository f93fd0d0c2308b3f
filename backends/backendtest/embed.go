package backendtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
)

// embedder makes vectors in which a text's most frequent byte is the axis of the largest number.
var embedder = tinygguf.Config{Sentence: tinygguf.A.Sentence, ChatTemplate: tinygguf.ChatTemplate, Embeds: true, Context: 256}

func (s Suite) startEmbedder(t *testing.T, c tinygguf.Config) (b backends.Backend, path string) {
	t.Helper()
	b, path = s.New(t, t.TempDir()), WriteModel(t, c)
	w := Seal(t, path)
	spec := backends.Spec{Args: s.EmbedArgs}
	if s.ChatTemplate != "" { // which nobody sees
		spec.ChatTemplate = s.ChatTemplate
	}
	check(t, b.Start(t.Context(), w, spec))
	check(t, w.Close())
	t.Cleanup(func() { stop(t, b) })
	return b, path
}

func embed(t *testing.T, b backends.Backend, texts ...string) backends.Embeddings {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	e, err := b.Embed(ctx, backends.EmbedRequest{Inputs: texts})
	if err != nil || len(e.Vectors) != len(texts) {
		t.Fatalf("Embed() = %d vectors, %v; want %d", len(e.Vectors), err, len(texts))
	}
	return e
}

// embed checks that vectors are those of their texts, in order, and the same whatever else is asked, by whomever.
func (s Suite) embed(t *testing.T) {
	b, path := s.startEmbedder(t, embedder)
	var texts []string // more than are computed at once
	tokens := 0
	for i := range 40 {
		letter := string(rune('A' + i))
		texts = append(texts, strings.Repeat(letter, 8+i)+"!?"+letter)
		tokens += len("<s>") - 2 + len(texts[i])
	}
	all := embed(t, b, texts...)
	for i, v := range all.Vectors {
		if axis := slices.Index(v, slices.Max(v)); axis != int(texts[i][0]) {
			t.Errorf("the vector of %q has its largest number on axis %d, want %d", texts[i], axis, texts[i][0])
		}
	}
	if all.PromptTokens != tokens {
		t.Errorf("%d tokens were counted, want %d", all.PromptTokens, tokens)
	}
	same := func(what string, texts []string, got, want [][]float32) {
		t.Helper()
		for i := range want {
			if !slices.Equal(got[i], want[i]) {
				t.Errorf("%s: the vector of %q is another", what, texts[i])
			}
		}
	}
	reversed, turned := slices.Clone(texts), slices.Clone(all.Vectors)
	slices.Reverse(reversed)
	slices.Reverse(turned)
	same("in another order", reversed, embed(t, b, reversed...).Vectors, turned)
	same("alone", texts[7:8], embed(t, b, texts[7]).Vectors, all.Vectors[7:8])
	same("twice", texts[:1], embed(t, b, texts[0], texts[0]).Vectors[1:], all.Vectors[:1])
	same("after one that it begins", texts[7:8], embed(t, b, texts[7]+"and more", texts[7]).Vectors[1:], all.Vectors[7:8])
	var callers sync.WaitGroup
	for i := range texts[:20] {
		callers.Go(func() { same("beside others", texts[i:i+1], embed(t, b, texts[i]).Vectors, all.Vectors[i:i+1]) })
	}
	callers.Wait()

	other := embedder
	other.Seed = 1
	check(t, writeInto(path, modelOf(t, other)))
	s.crash(t, b)
	same("after a restart", texts, embed(t, b, texts...).Vectors, all.Vectors)
	stop(t, b)
	o, _ := s.startEmbedder(t, other)
	if slices.Equal(embed(t, o, texts[0]).Vectors[0], all.Vectors[0]) {
		t.Error("other weights make the same vector")
	}
}

// embedOrChat checks that what can't be done is refused, and changes nothing.
func (s Suite) embedOrChat(t *testing.T) {
	b, _ := s.startEmbedder(t, embedder)
	want := embed(t, b, "hello").Vectors[0]
	for _, texts := range [][]string{nil, {""}, {"a", ""}, {"\xff"}, {"a", strings.Repeat("secret ", 1000)}} {
		_, err := b.Embed(t.Context(), backends.EmbedRequest{Inputs: texts})
		if !errors.Is(err, backends.ErrInvalidRequest) || strings.Contains(fmt.Sprint(err), "secret") {
			t.Errorf("Embed(%.20q) = %v, want ErrInvalidRequest that does not name the request", texts, err)
		}
		if len(texts) == 2 && texts[1] != "" && !strings.Contains(fmt.Sprint(err), "256") {
			t.Errorf("Embed() of a text that is too long = %v, want the limit to be named", err)
		}
	}
	if _, _, err := Ask(t.Context(), b, Question("hello")); !errors.Is(err, backends.ErrUnsupported) {
		t.Errorf("Chat() = %v, want ErrUnsupported", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Embed(ctx, backends.EmbedRequest{Inputs: []string{"hello"}}); !errors.Is(err, context.Canceled) {
		t.Errorf("Embed() = %v, want %v", err, context.Canceled)
	}
	if got := embed(t, b, "hello").Vectors[0]; !slices.Equal(got, want) {
		t.Error("the vector is another after requests that were refused")
	}
	s.checkReady(t, b, 0)

	stop(t, b)

	// What chats may embed too, and chats on as if it had not.
	chats := s.start(t, tinygguf.A)
	before := checkAnswer(t, chats, Question("hello"), tinygguf.A.Sentence)
	if e, err := chats.Embed(t.Context(), backends.EmbedRequest{Inputs: []string{"hello"}}); err == nil {
		check(t, e.Check(1))
	} else if !errors.Is(err, backends.ErrUnsupported) {
		t.Errorf("Embed() = %v, want vectors or ErrUnsupported", err)
	}
	if after := checkAnswer(t, chats, Question("hello"), tinygguf.A.Sentence); *after.Usage != *before.Usage {
		t.Errorf("usage is %+v after embedding, %+v before", after.Usage, before.Usage)
	}
}

// embedWhileCrashing kills a runtime while it makes vectors. What is returned is all of them, or an error.
func (s Suite) embedWhileCrashing(t *testing.T) {
	b, _ := s.startEmbedder(t, embedder)
	texts := slices.Repeat([]string{strings.Repeat("a", 200)}, backends.MaxInputs)
	want := embed(t, b, texts[0]).Vectors[0]
	asked := make(chan error)
	go func() {
		_, err := b.Embed(t.Context(), backends.EmbedRequest{Inputs: texts})
		asked <- err
	}()
	// However far it has come: after one short text of another caller it has begun.
	embed(t, b, "b")
	s.crash(t, b)
	if err := <-asked; err != nil && !errors.Is(err, backends.ErrInterrupted) {
		t.Errorf("Embed() = %v, want ErrInterrupted", err)
	}
	if got := embed(t, b, texts[0]).Vectors[0]; !slices.Equal(got, want) {
		t.Error("the vector is another after a restart")
	}
	s.checkReady(t, b, 1)
}
