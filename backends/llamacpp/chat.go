package llamacpp

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/process"
)

// A chatRequest is everything that llama-server is ever asked. Its other fields, some of which switch adapters or
// replace the template, can't be written here.
type chatRequest struct {
	Messages      []message     `json:"messages,omitempty"`
	Prompt        string        `json:"prompt,omitzero"`
	Tools         []tool        `json:"tools,omitempty"`
	ToolChoice    string        `json:"tool_choice,omitzero"`
	ParallelTools *bool         `json:"parallel_tool_calls,omitzero"`
	MaxTokens     int           `json:"max_tokens,omitzero"`
	Temperature   *float64      `json:"temperature,omitzero"`
	TopP          *float64      `json:"top_p,omitzero"`
	Stop          []string      `json:"stop,omitempty"`
	Seed          *uint32       `json:"seed,omitzero"`
	Stream        bool          `json:"stream"`
	StreamOptions streamOptions `json:"stream_options,omitzero"`
	CachePrompt   bool          `json:"cache_prompt"`
}

type message struct {
	Role       string     `json:"role"`
	Content    string     `json:"content"`
	ToolCalls  []toolCall `json:"tool_calls,omitempty"`
	ToolCallID string     `json:"tool_call_id,omitzero"`
}

type tool struct {
	Type     string   `json:"type"` // "function"
	Function function `json:"function"`
}

type function struct {
	Name        string         `json:"name"`
	Description string         `json:"description,omitzero"`
	Parameters  jsontext.Value `json:"parameters,omitzero"`
}

type toolCall struct {
	ID       string `json:"id,omitzero"`
	Type     string `json:"type,omitzero"` // "function"
	Function struct {
		Name      string `json:"name,omitzero"`
		Arguments string `json:"arguments"`
	} `json:"function"`
}

type streamOptions struct {
	IncludeUsage bool `json:"include_usage"`
}

// randomSeed is the seed by which llama-server understands "choose one".
const randomSeed = ^uint32(0)

func encode(req backends.ChatRequest) ([]byte, error) {
	c := chatRequest{
		Prompt: req.Prompt, MaxTokens: req.MaxTokens, Temperature: req.Temperature, TopP: req.TopP, Stop: req.Stop,
		Stream: !req.Whole, StreamOptions: streamOptions{IncludeUsage: !req.Whole},
	}
	for _, m := range req.Messages {
		c.Messages = append(c.Messages, messageOf(m))
	}
	for _, t := range req.Tools {
		c.Tools = append(c.Tools, tool{functionType, function(t)})
	}
	if len(req.Tools) > 0 {
		several := !req.OneTool
		c.ToolChoice, c.ParallelTools = req.ToolChoice, &several
	}
	if req.Seed != nil {
		seed := uint32(*req.Seed) // llama-server's are 32 bits wide
		if seed == randomSeed {
			seed--
		}
		c.Seed = &seed
	}
	body, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err) // text that is not UTF-8
	}
	return body, nil
}

// functionType is the only type of a tool.
const functionType = "function"

func messageOf(m backends.Message) message {
	out := message{Role: m.Role, Content: m.Content, ToolCallID: m.ToolCallID}
	for _, c := range m.ToolCalls {
		call := toolCall{ID: c.ID, Type: functionType}
		call.Function.Name, call.Function.Arguments = c.Name, c.Arguments
		out.ToolCalls = append(out.ToolCalls, call)
	}
	return out
}

// chat asks this launch of llama-server.
func (l *launch) chat(ctx context.Context, req backends.ChatRequest, emit func(backends.Chunk) error) error {
	body, err := l.chatBody(req)
	if err != nil {
		return err
	}
	path := "/v1/chat/completions"
	if len(req.Messages) == 0 {
		path = "/v1/completions"
	}
	return l.post(ctx, path, body, func(c *call, answer io.Reader) error {
		if req.Whole {
			return c.whole(ctx, answer, emit)
		}
		return c.stream(ctx, answer, emit)
	})
}

// chatBody is a request to this launch, if it chats.
func (l *launch) chatBody(req backends.ChatRequest) ([]byte, error) {
	if l.embeds {
		return nil, fmt.Errorf("%w: this model makes embeddings, and does not chat", backends.ErrUnsupported)
	}
	if len(req.Tools) > 0 && !l.tools {
		return nil, fmt.Errorf("%w: this model is offered no tools", backends.ErrUnsupported)
	}
	return encode(req)
}

// count asks this launch of llama-server how long a conversation is.
func (l *launch) count(ctx context.Context, req backends.ChatRequest) (tokens int, err error) {
	if len(req.Messages) == 0 {
		return 0, fmt.Errorf("%w: only conversations are counted", backends.ErrUnsupported)
	}
	body, err := l.chatBody(req)
	if err != nil {
		return 0, err
	}
	err = l.post(ctx, "/v1/chat/completions/input_tokens", body, func(c *call, answer io.Reader) error {
		data, err := io.ReadAll(io.LimitReader(answer, maxError))
		if err != nil {
			return c.broken(ctx, err)
		}
		var counted struct {
			Tokens int `json:"input_tokens"`
		}
		if err := json.Unmarshal(data, &counted); err != nil || counted.Tokens < 1 {
			return errors.New("llama-server answered without a count")
		}
		tokens = counted.Tokens
		return nil
	})
	return tokens, err
}

// post sends a request and has the answer read, unless it is an error.
func (l *launch) post(ctx context.Context, path string, body []byte, read func(*call, io.Reader) error) error {
	c := &call{launch: l, begun: time.Now()}
	conn, reached, err := l.ask(ctx, http.MethodPost, path, body)
	c.reached = reached
	if err != nil {
		return c.broken(ctx, err)
	}
	if conn.answer.StatusCode != http.StatusOK {
		defer l.end(conn)
		return c.refusal(ctx, conn.answer)
	}
	if err := read(c, conn.answer.Body); err != nil {
		conn.Close()
		return err
	}
	l.end(conn)
	return nil
}

// A call is one request to llama-server.
type call struct {
	launch  *launch
	begun   time.Time
	reached bool // connected: llama-server may have seen the request
}

// broken says what a connection that ended too early means: the caller went away, or the runtime did, before or after
// it could see the request.
func (c *call) broken(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case !c.reached:
		return fmt.Errorf("%w: %w", process.ErrNotReached, err)
	default:
		return fmt.Errorf("%w: %w", backends.ErrInterrupted, err)
	}
}

// A runtimeError is how llama-server says no.
type runtimeError struct {
	Type         string `json:"type"`
	Message      string `json:"message"` // only looked at
	PromptTokens int    `json:"n_prompt_tokens"`
	Context      int    `json:"n_ctx"`
}

// refusal turns an answer that is an error into ours. The runtime's own words are left out: they may quote the request.
func (c *call) refusal(ctx context.Context, resp *http.Response) error {
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxError))
	if err != nil {
		return c.broken(ctx, err)
	}
	var body struct {
		Error runtimeError `json:"error"`
	}
	if err := json.Unmarshal(data, &body); err != nil {
		return fmt.Errorf("llama-server answered status %d without a reason", resp.StatusCode)
	}
	return c.translate(body.Error, resp.StatusCode)
}

// textTooLong is how a text that can't be embedded is refused; llama-server takes it for an error of its own.
const textTooLong = "input (%d tokens) is too large to process. increase the physical batch size (current batch size: %d)"

func scan(text, format string, into ...any) bool {
	n, _ := fmt.Sscanf(text, format, into...) // the error says less than how many
	return n == len(into)
}

// templateRaised marks the error by which a template refuses a conversation; llama-server takes it for one of its own.
const templateRaised = "Jinja Exception: "

func (c *call) translate(e runtimeError, status int) error {
	var tokens, batch int
	switch {
	case e.Type == "exceed_context_size_error":
		return fmt.Errorf("%w: it has %d tokens, and the model's context holds %d: shorten it",
			backends.ErrInvalidRequest, e.PromptTokens, e.Context)
	case scan(e.Message, textTooLong, &tokens, &batch):
		return fmt.Errorf("%w: a text has %d tokens, and the model takes %d at once: shorten it", backends.ErrInvalidRequest, tokens, batch)
	case c.launch.embeds && status == http.StatusBadRequest:
		return fmt.Errorf("%w: the model can't embed this text", backends.ErrInvalidRequest)
	case status == http.StatusBadRequest, strings.Contains(e.Message, templateRaised):
		return fmt.Errorf("%w: the model's chat template does not accept this conversation (roles it does not know, or in an order it does not expect)",
			backends.ErrInvalidRequest)
	default:
		return fmt.Errorf("llama-server answered status %d, %q", status, e.Type)
	}
}

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
	Choices []struct {
		FinishReason string `json:"finish_reason"`
		Text         string `json:"text"` // of a prompt that is continued
		Message      struct {
			Content   string     `json:"content"`
			ToolCalls []toolCall `json:"tool_calls"`
		} `json:"message"`
	} `json:"choices"`
	Usage   *usage `json:"usage"`
	Timings struct {
		Predicted float64 `json:"predicted_ms"` // of all tokens but the first
	} `json:"timings"`
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
	if err := json.Unmarshal(data, &a, jsontext.AllowDuplicateNames(true)); err != nil { // which llama-server does not write
		return fmt.Errorf("decode llama-server's answer: %w", err)
	}
	if len(a.Choices) != 1 || a.Choices[0].FinishReason == "" || a.Usage == nil {
		return errors.New("llama-server ended an answer without its reason or usage")
	}
	choice := a.Choices[0]
	since := min(time.Since(c.begun), time.Duration(max(0, min(a.Timings.Predicted, maxPredicted))*float64(time.Millisecond)))
	if err := emitParts(choice.Message.Content+choice.Text, choice.Message.ToolCalls, emit); err != nil {
		return err
	}
	return emit(backends.Chunk{FinishReason: choice.FinishReason, Usage: a.Usage.counted(), Since: since})
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
