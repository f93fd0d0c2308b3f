package gateway

import (
	"fmt"
	"net/http"
	"time"

	"github.com/weighbridge/weighbridge/backends"
)

// completion is OpenAI's chat.completion, with a message in each choice.
type completion struct {
	ID                string   `json:"id"`
	Object            string   `json:"object"`
	Created           int64    `json:"created"`
	Model             string   `json:"model"`
	SystemFingerprint string   `json:"system_fingerprint"` // the release: what OpenAI's clients may log already
	Choices           []choice `json:"choices"`
	Usage             *usage   `json:"usage"`
}

type choice struct {
	Index        int    `json:"index"`
	Message      *turn  `json:"message"`
	FinishReason string `json:"finish_reason"`
}

type turn struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

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
	Role    string  `json:"role,omitzero"`
	Content *string `json:"content,omitzero"`
}

type usage struct {
	PromptTokens     int `json:"prompt_tokens"`
	CompletionTokens int `json:"completion_tokens"`
	TotalTokens      int `json:"total_tokens"`
}

func usageOf(u backends.Usage) *usage {
	return &usage{u.PromptTokens, u.CompletionTokens, u.PromptTokens + u.CompletionTokens}
}

// streamAnswer sends an answer in server-sent events, as it comes. Nothing is written before the first part, so that an
// error before it still has a status of its own.
type streamAnswer struct {
	answerHTTP
	usage   bool // whether the caller wants the usage
	started bool
	used    backends.Usage
}

func (a *streamAnswer) send(c backends.Chunk) error {
	if c.Usage != nil {
		a.used = *c.Usage
	}
	if !a.started {
		a.started = true
		h := a.w.Header()
		h.Set("Content-Type", "text/event-stream; charset=utf-8")
		h.Set("Cache-Control", "no-cache")
		h.Set("X-Accel-Buffering", "no") // else nginx keeps events back
		a.w.WriteHeader(http.StatusOK)
		empty := ""
		if err := a.choice(delta{Role: "assistant", Content: &empty}, ""); err != nil {
			return err
		}
	}
	if c.Text != "" {
		if err := a.choice(delta{Content: &c.Text}, ""); err != nil {
			return err
		}
	}
	if c.FinishReason != "" {
		return a.choice(delta{}, c.FinishReason)
	}
	return nil
}

// choice writes the next piece of the answer, or its end.
func (a *streamAnswer) choice(d delta, reason string) error {
	c := chunkChoice{Delta: d}
	if reason != "" {
		c.FinishReason = &reason
	}
	return a.event(encode(a.chunk([]chunkChoice{c})))
}

func (a *streamAnswer) chunk(choices []chunkChoice) chunk {
	return chunk{
		ID: a.id, Object: "chat.completion.chunk", Created: a.created, Model: a.info.Channel, SystemFingerprint: a.info.Release,
		Choices: choices,
	}
}

// event writes one event and sees it off, within a time: a caller who reads nothing must not hold a runtime.
func (a *streamAnswer) event(data []byte) error {
	_ = a.control.SetWriteDeadline(time.Now().Add(writeTimeout))
	buf := make([]byte, 0, len("data: ")+len(data)+2)
	buf = append(append(append(buf, "data: "...), data...), "\n\n"...)
	_, err := a.w.Write(buf)
	if err == nil {
		err = a.control.Flush()
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	return nil
}

// finish ends the stream. Only a whole answer ends with [DONE]; anything else is an error, which it returns.
func (a *streamAnswer) finish(err error) error {
	switch {
	case err != nil && !a.started:
		writeError(a.w, err)
		return err
	case err != nil:
		if o := outcomeOf(err); o.http != statusClientGone {
			_ = a.event(encode(errorOf(o)))
		}
		return err
	}
	if a.usage {
		last := a.chunk([]chunkChoice{})
		last.Usage = usageOf(a.used)
		if err := a.event(encode(last)); err != nil {
			return err
		}
	}
	return a.event([]byte("[DONE]"))
}
