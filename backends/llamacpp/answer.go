package llamacpp

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/members"
)

// An event is one piece of a streamed answer. Only what is used is read.
type event struct {
	Choices []struct {
		FinishReason string `json:"finish_reason"`
		Text         string `json:"text"` // of a prompt that is continued
		Delta        struct {
			Content   string     `json:"content"`
			ToolCalls []toolCall `json:"tool_calls"`
		} `json:"delta"`
	} `json:"choices"`
	Usage *usage        `json:"usage"`
	Error *runtimeError `json:"error"`
}

// plain reports whether an event is the next piece of a text, and no more.
func (e *event) plain() bool {
	return len(e.Choices) == 1 && e.Choices[0].FinishReason == "" && len(e.Choices[0].Delta.ToolCalls) == 0 && e.Usage == nil
}

type usage struct {
	PromptTokens     int `json:"prompt_tokens"`
	CompletionTokens int `json:"completion_tokens"`
}

func (u usage) counted() *backends.Usage {
	return &backends.Usage{PromptTokens: u.PromptTokens, CompletionTokens: u.CompletionTokens}
}

// A completion is an answer that comes whole. Only what is used is read.
type completion struct {
	choices   int
	reason    string
	text      string // of the message, or of a prompt that is continued
	calls     []toolCall
	prompt    *int64   // its tokens
	completed *int64   // tokens of the answer
	predicted *float64 // milliseconds that all tokens but the first took
}

// read reads an answer. Names that are given twice, which llama-server does not write, are not looked for.
func (a *completion) read(data []byte) error {
	return members.Document(data, a.member, jsontext.AllowDuplicateNames(true))
}

func (a *completion) member(d *jsontext.Decoder, name string) error {
	switch name {
	case "choices":
		return members.List(d, func() error {
			a.choices++
			return members.Object(d, a.choice)
		})
	case "usage", "timings":
		return members.Object(d, a.count)
	}
	return d.SkipValue()
}

// count reads a number of the usage or of the timings, which share no names.
func (a *completion) count(d *jsontext.Decoder, name string) error {
	switch name {
	case "prompt_tokens":
		return members.Int(d, &a.prompt)
	case "completion_tokens":
		return members.Int(d, &a.completed)
	case "predicted_ms":
		return members.Float(d, &a.predicted)
	}
	return d.SkipValue()
}

func (a *completion) choice(d *jsontext.Decoder, name string) error {
	switch name {
	case "finish_reason":
		return members.Text(d, &a.reason)
	case "text":
		return members.Text(d, &a.text)
	case "message":
		return members.Object(d, func(d *jsontext.Decoder, name string) error {
			switch name {
			case "content":
				return members.Text(d, &a.text)
			case "tool_calls":
				return json.UnmarshalDecode(d, &a.calls)
			}
			return d.SkipValue()
		})
	}
	return d.SkipValue()
}

// whole reads an answer that comes at once.
func (c *call) whole(ctx context.Context, body io.Reader, emit func(backends.Chunk) error) error {
	data, err := io.ReadAll(io.LimitReader(body, maxWhole+1))
	switch {
	case err != nil:
		return c.broken(ctx, err)
	case len(data) > maxWhole:
		return fmt.Errorf("llama-server answered with more than %d bytes", maxWhole)
	}
	var a completion
	if err := a.read(data); err != nil {
		return fmt.Errorf("decode llama-server's answer: %w", err)
	}
	if a.choices != 1 || a.reason == "" || a.prompt == nil || a.completed == nil {
		return errors.New("llama-server ended an answer without its reason or usage")
	}
	var since time.Duration
	if a.predicted != nil {
		since = min(time.Since(c.begun), time.Duration(max(0, min(*a.predicted, maxPredicted))*float64(time.Millisecond)))
	}
	if err := emitParts(a.text, a.calls, emit); err != nil {
		return err
	}
	return emit(backends.Chunk{FinishReason: a.reason, Usage: &backends.Usage{PromptTokens: int(*a.prompt), CompletionTokens: int(*a.completed)}, Since: since})
}

// emitParts passes what a model said and called on.
func emitParts(text string, calls []toolCall, emit func(backends.Chunk) error) error {
	if text != "" {
		if err := emit(backends.Chunk{Text: text}); err != nil {
			return err
		}
	}
	for _, t := range calls {
		piece := backends.ToolCall{ID: t.ID, Name: t.Function.Name, Arguments: t.Function.Arguments}
		if err := emit(backends.Chunk{ToolCall: &piece}); err != nil {
			return err
		}
	}
	return nil
}

// stream reads server-sent events up to the last one. An answer without a proper end is an interrupted one.
func (c *call) stream(ctx context.Context, body io.Reader, emit func(backends.Chunk) error) error {
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, maxEvent)
	var last backends.Chunk
	var form repeated
	for lines.Scan() {
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: "))
		if !ok {
			continue // an empty line between events, or a comment that keeps the connection alive
		}
		if ctx.Err() != nil {
			return context.Cause(ctx) // the rest is what was made before llama-server noticed
		}
		if text, ok := form.text(data); ok {
			if err := emitParts(text, nil, emit); err != nil {
				return err
			}
			continue
		}
		if string(data) == "[DONE]" {
			return errors.New("llama-server ended an answer without its reason or usage")
		}
		var e event
		if err := json.Unmarshal(data, &e); err != nil {
			return fmt.Errorf("decode llama-server's answer: %w", err)
		}
		if e.Error != nil {
			return c.translate(*e.Error, http.StatusInternalServerError)
		}
		if e.Usage != nil {
			last.Usage = e.Usage.counted()
		}
		for _, choice := range e.Choices {
			if choice.FinishReason != "" {
				last.FinishReason = choice.FinishReason
			}
			if text := choice.Delta.Content + choice.Text; text != "" && e.plain() {
				form.learn(data, text)
			}
			if err := emitParts(choice.Delta.Content+choice.Text, choice.Delta.ToolCalls, emit); err != nil {
				return err
			}
		}
		if last.FinishReason != "" && last.Usage != nil {
			return emit(last) // [DONE] is yet to come, and would say no more
		}
	}
	if err := lines.Err(); err != nil && !errors.Is(err, bufio.ErrTooLong) {
		return c.broken(ctx, err)
	} else if err != nil {
		return fmt.Errorf("read llama-server's answer: %w", err)
	}
	return c.broken(ctx, io.ErrUnexpectedEOF)
}
