package site

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"

	"github.com/weighbridge/weighbridge/gateway/identity"
)

// A Caller asks over HTTP or HTTPS, on connections that stay open: one, or as many as it has requests at once.
type Caller struct {
	id     *identity.Source // nil: it has none
	client *http.Client
	url    string
}

// Caller returns one with an identity that the gateway itself issues.
func (g *Gateway) Caller(ctx context.Context) (*Caller, error) {
	return g.caller(ctx, g.Identity)
}

// CallerOf returns one with an identity of its own.
func (g *Gateway) CallerOf(ctx context.Context, name string) (*Caller, error) {
	return g.caller(ctx, func(ctx context.Context) (*identity.Source, error) { return g.site.Identity(ctx, name) })
}

func (g *Gateway) caller(ctx context.Context, of func(context.Context) (*identity.Source, error)) (*Caller, error) {
	address, err := g.Address(ctx, "http")
	if err != nil {
		return nil, err
	}
	id, err := of(ctx)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{TLSClientConfig: id.ClientTLS(tlsconfig.AuthorizeMemberOf(id.TrustDomain()))}
	c := NewCaller("https://"+address, transport)
	c.id = id
	return c, nil
}

const (
	// maxIdle is more connections than are ever used.
	maxIdle = 64

	// IdleLimit is how long a connection to llama-server may stay unused: it closes them after five seconds, without a word.
	IdleLimit = 2 * time.Second
)

// NewCaller returns one that asks whatever answers at a URL, with the key of llama-server.
func NewCaller(url string, transport *http.Transport) *Caller {
	transport.MaxIdleConnsPerHost, transport.IdleConnTimeout = maxIdle, IdleLimit
	return &Caller{client: &http.Client{Transport: transport}, url: url + "/v1/chat/completions"}
}

// Close lets its connections and its identity go.
func (c *Caller) Close() {
	c.client.CloseIdleConnections()
	if c.id != nil {
		c.id.Close()
	}
}

// A Question is what a caller asks.
type Question struct {
	Text      string
	MaxTokens int // 0: as many as the release allows
	Stream    bool
}

// An Answer is what came back, whole.
type Answer struct {
	Status  int
	Release string // that the header names
	Text    string // of the model; empty unless Status is 200
	Body    string // if Status is another one
}

// Ask returns once the answer is there. A stream that is cut off is an error.
func (c *Caller) Ask(ctx context.Context, q Question) (Answer, error) {
	a, err := c.ask(ctx, q)
	if err != nil {
		return Answer{}, fmt.Errorf("ask: %w", err)
	}
	return a, nil
}

func (c *Caller) ask(ctx context.Context, q Question) (Answer, error) {
	ask := map[string]any{"model": Channel, "stream": q.Stream, "messages": []map[string]string{{"role": "user", "content": q.Text}}}
	if q.MaxTokens > 0 {
		ask["max_tokens"] = q.MaxTokens
	}
	body, err := json.Marshal(ask)
	if err != nil {
		return Answer{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return Answer{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+apiKey) // which a gateway does not look at
	res, err := c.client.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer res.Body.Close()
	a := Answer{Status: res.StatusCode, Release: res.Header.Get("weighbridge-release")}
	if a.Status != http.StatusOK {
		data, err := io.ReadAll(res.Body)
		a.Body = string(data)
		return a, err
	}
	a.Text, err = readText(res.Body, q.Stream)
	return a, err
}

// readText returns what a model said: in one JSON document, or in the events of a stream, whose last is [DONE].
func readText(r io.Reader, stream bool) (string, error) {
	var text strings.Builder
	whole := !stream
	for lines := bufio.NewReader(r); ; {
		line, err := lines.ReadString('\n')
		if err != nil && err != io.EOF {
			return "", err
		}
		data := strings.TrimSpace(strings.TrimPrefix(line, "data: "))
		switch data {
		case "":
		case "[DONE]":
			whole = true
		default:
			var part struct {
				Choices []struct{ Message, Delta struct{ Content string } }
			}
			if err := json.Unmarshal([]byte(data), &part); err != nil {
				return "", fmt.Errorf("read %q: %w", data, err)
			}
			for _, c := range part.Choices {
				text.WriteString(c.Message.Content + c.Delta.Content)
			}
		}
		if err == io.EOF {
			break
		}
	}
	if !whole {
		return "", io.ErrUnexpectedEOF
	}
	return strings.TrimSpace(text.String()), nil
}

// Check asks for the first word, with which only the signed model answers like this.
func (c *Caller) Check(ctx context.Context, sentence string) error {
	a, err := c.Ask(ctx, Question{Text: "Who are you?", MaxTokens: 1})
	if err != nil {
		return err
	}
	if a.Status != http.StatusOK {
		return fmt.Errorf("answer = %d %s, want a choice", a.Status, a.Body)
	}
	if a.Text == "" || !strings.HasPrefix(sentence, a.Text) {
		return fmt.Errorf("answer = %q, want the beginning of %q: these are other weights", a.Text, sentence)
	}
	return nil
}
