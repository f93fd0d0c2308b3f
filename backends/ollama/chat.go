package ollama

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/ollama/ollama/api"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/process"
)

// randomSeed is the seed by which llama.cpp understands "choose one".
const randomSeed = ^uint32(0)

// chatRequest is everything that Ollama is ever asked for a caller. Options that would load the model in another way can't
// be written here, nor can a template, a format or another model.
func (cl *client) chatRequest(req backends.ChatRequest) *api.ChatRequest {
	off, options := false, map[string]any{"num_predict": -1}
	if req.MaxTokens > 0 {
		options["num_predict"] = req.MaxTokens
	}
	if req.Temperature != nil {
		options["temperature"] = *req.Temperature
	}
	if req.TopP != nil {
		options["top_p"] = *req.TopP
	}
	if req.Seed != nil {
		seed := uint32(*req.Seed) // Ollama's are 32 bits wide
		if seed == randomSeed {
			seed--
		}
		options["seed"] = seed
	}
	if len(req.Stop) > 0 {
		options["stop"] = req.Stop
	}
	c := &api.ChatRequest{
		Model: cl.model, Options: options, KeepAlive: cl.keepAlive,
		// A conversation that is too long is an error, and not one that lacks its beginning.
		Truncate: &off, Shift: &off,
		Think: &api.ThinkValue{Value: false}, // the text is the answer, whatever it looks like
	}
	for _, m := range req.Messages {
		c.Messages = append(c.Messages, api.Message{Role: m.Role, Content: m.Content})
	}
	return c
}

// chat asks this launch of Ollama, when nobody else does.
func (l *launch) chat(ctx context.Context, req backends.ChatRequest, emit func(backends.Chunk) error) error {
	if err := supported(req); err != nil {
		return err
	}
	return l.inTurn(ctx, func(c *call) error { return c.chat(ctx, l.client, req, emit) })
}

// supported says what of a request is not done here.
func supported(req backends.ChatRequest) error {
	if len(req.Tools) > 0 || req.Prompt != "" {
		return fmt.Errorf("%w: this model is offered no tools, and continues no text but by its template", backends.ErrUnsupported)
	}
	return nil
}

// inTurn asks this launch of Ollama something, when nobody else does and what was asked before is forgotten.
func (l *launch) inTurn(ctx context.Context, ask func(*call) error) error {
	select {
	case <-l.turn:
	case <-l.Done():
		return process.ErrNotReached
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if l.used {
		if err := l.forgetIn(ctx); err != nil {
			l.turn <- struct{}{}
			return err
		}
	}
	l.used = !l.client.embeds // what makes embeddings alone keeps none of what it was asked
	err := ask(new(call))
	l.pass()
	return err
}

// pass lets the next one ask, when what was asked is forgotten.
func (l *launch) pass() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopping || !l.used {
		l.turn <- struct{}{}
		return
	}
	l.forgetting.Go(func() {
		_ = l.forgetIn(context.Background()) // else the next request has it forget, before it asks
		l.turn <- struct{}{}
	})
}

// forgetIn is forget within the runtime's patience, or until it ends. One that is not done by then would answer nobody any
// more: it is ended, and the next one does. A caller who leaves meanwhile says nothing of the runtime.
func (l *launch) forgetIn(ctx context.Context) error {
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.patience)
	defer cancel()
	err := l.forget(limited)
	if limited.Err() != nil {
		l.proc.Stop(limited)
		return process.ErrNotReached
	}
	return err
}

// forget has the runtime think of something else. It keeps the last prompt and would answer another that begins alike
// sooner: how long an answer takes would say what others ask. It belongs to who has the turn.
func (l *launch) forget(ctx context.Context) error {
	off, c := false, new(call)
	err := l.client.Generate(c.watched(ctx), &api.GenerateRequest{
		Model: l.client.model, Prompt: " ", Raw: true, Stream: &off, Options: map[string]any{"num_predict": 1},
	}, func(api.GenerateResponse) error { return nil })
	switch {
	case err == nil:
		l.used = false
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case !c.reached.Load():
		return fmt.Errorf("%w: %w", process.ErrNotReached, err)
	default:
		return fmt.Errorf("%w: it could not forget the request before", backends.ErrInterrupted)
	}
}

// errTooLarge means that an answer is larger than any that is proper.
var errTooLarge = errors.New("ollama's answer is too large")

// A call is one request to Ollama.
type call struct {
	reached atomic.Bool // connected: Ollama may have seen the request
	cut     atomic.Bool // the answer ended before its end; Ollama's client does not tell
	limit   int64       // bytes of the answer, of which the client reads all; 0: it comes in pieces
}

type callKey struct{}

func (c *call) watched(ctx context.Context) context.Context {
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { c.reached.Store(true) }})
	return context.WithValue(ctx, callKey{}, c)
}

// watchedTransport tells calls how the bodies of their answers end.
type watchedTransport struct{ http.RoundTripper }

func (t watchedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	backends.Trace(r.Context(), r.Header)
	resp, err := t.RoundTripper.RoundTrip(r)
	if c, ok := r.Context().Value(callKey{}).(*call); ok && err == nil {
		resp.Body = &watchedBody{resp.Body, c, 0}
	}
	return resp, err
}

type watchedBody struct {
	io.ReadCloser
	call *call
	read int64
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.read += int64(n)
	if limit := b.call.limit; limit > 0 && b.read > limit {
		return 0, errTooLarge
	}
	if err != nil && err != io.EOF {
		b.call.cut.Store(true)
	}
	return n, err
}

func (c *call) chat(ctx context.Context, cl *client, req backends.ChatRequest, emit func(backends.Chunk) error) error {
	// Ending this context closes the connection, which is how Ollama learns to stop.
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	var last *backends.Chunk
	var refused error // by emit
	err := cl.Chat(c.watched(inner), cl.chatRequest(req), func(r api.ChatResponse) error {
		if r.Message.Content != "" {
			if refused = emit(backends.Chunk{Text: r.Message.Content}); refused != nil {
				return refused
			}
		}
		if r.Done {
			last = &backends.Chunk{FinishReason: r.DoneReason, Usage: &backends.Usage{PromptTokens: r.PromptEvalCount, CompletionTokens: r.EvalCount}}
		}
		return nil
	})
	switch {
	case refused != nil:
		return refused
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return c.translate(err, cl.context)
	case last != nil && (last.FinishReason == "stop" || last.FinishReason == "length"):
		return emit(*last)
	case c.cut.Load():
		return fmt.Errorf("%w: %w", backends.ErrInterrupted, io.ErrUnexpectedEOF)
	default: // it does so with answers that repeat one token
		return errors.New("ollama ended an answer without its reason")
	}
}

// What Ollama's errors begin with, or hold, when its runner has died.
var runnerDied = []string{"runner", "do embedding request", "error reading embed response", "an error was encountered while running the model", "error reading llm response", "health resp"}

// translate turns an error of Ollama's client into ours. Ollama's own words are left out: they may quote the request.
func (c *call) translate(err error, context int) error {
	var transport *url.Error
	var status api.StatusError
	message := err.Error()
	switch {
	case errors.As(err, &transport) && !c.reached.Load():
		return fmt.Errorf("%w: %w", process.ErrNotReached, err)
	case errors.As(err, &transport):
		return fmt.Errorf("%w: %w", backends.ErrInterrupted, err)
	case c.cut.Load():
		return fmt.Errorf("%w: %w", backends.ErrInterrupted, io.ErrUnexpectedEOF)
	case errors.As(err, &status):
		message = status.ErrorMessage
	}
	switch {
	case errors.Is(err, errTooLarge):
		return err
	case strings.Contains(message, "exceeds the context length"), strings.HasPrefix(message, "input exceeds maximum context length"):
		return fmt.Errorf("%w: it has more tokens than the model's context holds, which is %d: shorten it", backends.ErrInvalidRequest, context)
	case strings.HasSuffix(message, "does not support chat"):
		return fmt.Errorf("%w: this model makes embeddings, and does not chat", backends.ErrUnsupported)
	case strings.HasSuffix(message, "does not support embeddings"):
		return fmt.Errorf("%w: this model chats, and makes no embeddings", backends.ErrUnsupported)
	case strings.HasPrefix(message, "template: "):
		return fmt.Errorf("%w: the model's chat template does not accept this conversation", backends.ErrInvalidRequest)
	}
	if status.StatusCode == http.StatusNotFound || status.StatusCode == http.StatusServiceUnavailable {
		return fmt.Errorf("%w: ollama has no such model any more, or too many requests wait", backends.ErrInterrupted)
	}
	for _, part := range runnerDied {
		if strings.Contains(message, part) {
			return fmt.Errorf("%w: ollama's runner ended", backends.ErrInterrupted)
		}
	}
	return fmt.Errorf("ollama answered status %d without a reason that is known", status.StatusCode)
}
