package llamacpp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/process"
)

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
	if conn.answer.status != http.StatusOK {
		defer l.end(conn)
		return c.refusal(ctx, conn.answer)
	}
	if err := read(c, conn.answer.body); err != nil {
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
func (c *call) refusal(ctx context.Context, resp *response) error {
	data, err := io.ReadAll(io.LimitReader(resp.body, maxError))
	if err != nil {
		return c.broken(ctx, err)
	}
	var body struct {
		Error runtimeError `json:"error"`
	}
	if err := json.Unmarshal(data, &body); err != nil {
		return fmt.Errorf("llama-server answered status %d without a reason", resp.status)
	}
	return c.translate(body.Error, resp.status)
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
