package gateway

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/gateway/access"
	"github.com/weighbridge/weighbridge/gateway/receipt"
)

// APIs, as the log and rules name them.
const (
	apiOpenAI    = "openai"
	apiOllama    = "ollama"
	apiAnthropic = "anthropic"
	apiGRPC      = "grpc"
)

// errorStyle is how an API writes errors, to the request with an id.
type errorStyle interface {
	// name is the API's, in the log and in rules.
	name() string
	// problem is the body of an answer that is an error.
	problem(id string, o outcome) any
	// broken is the frame in which a stream that has begun says that it failed.
	broken(id string, o outcome) []byte
}

// A style is how an API writes an answer: as one body, or in the frames of a stream. It belongs to one request.
type style interface {
	errorStyle
	contentType() string // of a stream
	whole(meta, collected) []byte
	begin(meta) [][]byte
	piece(meta, backends.Chunk) [][]byte
	end(meta, backends.Usage) [][]byte
}

// A vectorStyle is how an API writes embeddings.
type vectorStyle interface {
	errorStyle
	vectors(info ServingInfo, e backends.Embeddings, took time.Duration) any
}

// meta is what is known of an answer beside its parts.
type meta struct {
	id      string // of the request
	created time.Time
	info    ServingInfo
}

// collected is an answer that is sent at once.
type collected struct {
	text   strings.Builder
	calls  []backends.ToolCall
	reason string
	used   backends.Usage
	size   int
	first  time.Time // when its first part came
}

// add takes a part.
func (a *collected) add(c backends.Chunk) error {
	if a.first.IsZero() || c.Since > 0 {
		a.first = time.Now().Add(-c.Since)
	}
	a.size += len(c.Text)
	if t := c.ToolCall; t != nil {
		a.size += len(t.ID) + len(t.Name) + len(t.Arguments)
		if t.ID != "" || len(a.calls) == 0 {
			a.calls = append(a.calls, backends.ToolCall{})
		}
		last := &a.calls[len(a.calls)-1]
		last.ID, last.Name, last.Arguments = last.ID+t.ID, last.Name+t.Name, last.Arguments+t.Arguments
	}
	if a.size > maxAnswer {
		return fmt.Errorf("answer is larger than %d bytes", maxAnswer)
	}
	a.text.WriteString(c.Text)
	if c.FinishReason != "" {
		a.reason = c.FinishReason
	}
	if c.Usage != nil {
		a.used = *c.Usage
	}
	return nil
}

// asked answers requests of one path and its method, which decode reads, in the style that goes with each.
func (g *Gateway) asked(api errorStyle, method string, decode func(io.Reader) (*request, style, error)) http.Handler {
	return g.route(http.MethodPost, api, func(w http.ResponseWriter, r *http.Request, c call) {
		var req *request
		var how style
		g.received(w, r, api, &request{call: c, method: method}, func(body io.Reader) (_ *request, err error) {
			req, how, err = decode(body)
			return req, err
		}, func(w http.ResponseWriter, to answerHTTP) error {
			if req.stream {
				a := &streamAnswer{answerHTTP: to, style: how}
				return g.chat(r.Context(), req, a)
			}
			a := &wholeAnswer{answerHTTP: to, style: how}
			return g.chat(r.Context(), req, a)
		})
	})
}

// embedded is asked of embeddings.
func (g *Gateway) embedded(api errorStyle, decode func(io.Reader) (*request, vectorStyle, error)) http.Handler {
	return g.route(http.MethodPost, api, func(w http.ResponseWriter, r *http.Request, c call) {
		var req *request
		var how vectorStyle
		g.received(w, r, api, &request{call: c, method: access.MethodEmbed}, func(body io.Reader) (_ *request, err error) {
			req, how, err = decode(body)
			return req, err
		}, func(w http.ResponseWriter, to answerHTTP) error {
			a := &oneAnswer[backends.Embeddings]{answerHTTP: to, body: how.vectors}
			return g.embed(r.Context(), req, a)
		})
	})
}

// counted is asked of how long a request is.
func (g *Gateway) counted(api errorStyle, decode func(io.Reader) (*request, error), body func(tokens int) any) http.Handler {
	return g.route(http.MethodPost, api, func(w http.ResponseWriter, r *http.Request, c call) {
		var req *request
		g.received(w, r, api, &request{call: c, method: access.MethodChat, counts: true}, func(body io.Reader) (_ *request, err error) {
			req, err = decode(body)
			return req, err
		}, func(w http.ResponseWriter, to answerHTTP) error {
			a := &oneAnswer[int]{answerHTTP: to, body: func(_ ServingInfo, tokens int, _ time.Duration) any { return body(tokens) }}
			return g.count(r.Context(), req, a)
		})
	})
}

// received reads a request, of which so much is known by its path, and has it answered unless it can't be read.
func (g *Gateway) received(w http.ResponseWriter, r *http.Request, api errorStyle, asked *request, decode func(io.Reader) (*request, error), answer func(http.ResponseWriter, answerHTTP) error) {
	begun := time.Now()
	c := asked.call
	asked.api = api.name()
	var req *request
	err := g.hasRoom(asked)
	if err == nil {
		c.receipt, err = g.draft(c, r.Header.Values(headerReceipt))
	}
	if err == nil {
		err = readBody(w, r, c.receipt, func(body io.Reader) (err error) {
			req, err = decode(body)
			return err
		})
	}
	if err != nil {
		g.unread(r.Context(), begun, asked, err)
		writeError(w, api, err)
		return
	}
	req.call, req.api = c, asked.api
	control := http.NewResponseController(w)
	written := &receiptWriter{ResponseWriter: w, draft: c.receipt}
	if c.receipt != nil {
		w = written
	}
	err = errUnended
	defer func() { c.receipt.End(err) }()
	err = answer(w, answerHTTP{w: w, control: control, api: api, receipt: c.receipt.ID(), early: r.ProtoMajor == 1 && c.receipt == nil, meta: meta{id: c.id, created: time.Now()}})
	err = errors.Join(err, written.err)
	if _, cut := errors.AsType[cutError](err); cut {
		panic(http.ErrAbortHandler) // else net/http ends the stream, and whoever still listens takes it for whole
	}
}

// readBody reads a request to its end, and shows its bytes to its receipt.
func readBody(w http.ResponseWriter, r *http.Request, draft *receipt.Draft, decode func(io.Reader) error) error {
	if e := r.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return invalid("", "Content-Encoding is not supported: send the body as it is")
	}
	body := io.Reader(http.MaxBytesReader(w, r.Body, maxBody))
	if draft != nil {
		body = io.TeeReader(body, draft.Request())
	}
	if err := decode(body); err != nil {
		return err
	}
	// The connection is read on while we answer, to notice a caller who leaves: that may take as long as it takes.
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // test recorders can't
	return nil
}

// answerHTTP is what all shapes of an HTTP answer share.
type answerHTTP struct {
	w       http.ResponseWriter
	control *http.ResponseController
	api     errorStyle
	receipt string // its id, "" if there is none
	early   bool   // the caller may have its answer before all is done for the request, as it needs nothing of that
	meta    meta
}

func (a *answerHTTP) begin(info ServingInfo) {
	a.meta.info = info
	h := a.w.Header()
	h.Set(headerRelease, info.Release)
	h.Set(headerWeights, info.Weights)
	h.Set(headerLevel, info.Level)
	if a.receipt != "" {
		h.Set(headerReceiptID, a.receipt)
	}
}

// wholeAnswer collects an answer and sends it at once.
type wholeAnswer struct {
	answerHTTP
	style style
	got   collected
}

func (a *wholeAnswer) send(c backends.Chunk) error { return a.got.add(c) }

func (a *wholeAnswer) finish(err error) error {
	return a.sent(err, func() []byte { return a.style.whole(a.meta, a.got) })
}

// sent sends a body, or the error, which it returns.
func (a *answerHTTP) sent(err error, body func() []byte) error {
	if err != nil {
		writeError(a.w, a.api, err)
		return err
	}
	_ = a.control.SetWriteDeadline(time.Now().Add(writeTimeout))
	writeBody(a.w, http.StatusOK, body())
	if !a.early {
		return nil
	}
	if err := a.control.Flush(); err != nil {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	return nil
}

// oneAnswer sends what is found out at once.
type oneAnswer[T any] struct {
	answerHTTP
	body func(info ServingInfo, got T, took time.Duration) any
	got  T
}

func (a *oneAnswer[T]) take(got T) { a.got = got }

func (a *oneAnswer[T]) finish(err error) error {
	return a.sent(err, func() []byte { return encode(a.body(a.meta.info, a.got, time.Since(a.meta.created))) })
}

// streamAnswer sends an answer in frames, as it comes. Nothing is written before the first part, so that an error before
// it still has a status of its own.
type streamAnswer struct {
	answerHTTP
	style    style
	started  bool
	used     backends.Usage
	extended time.Time // when the caller last got time to read
}

func (a *streamAnswer) send(c backends.Chunk) error {
	if c.Usage != nil {
		a.used = *c.Usage
	}
	var frames [][]byte
	if !a.started {
		a.started = true
		h := a.w.Header()
		h.Set("Content-Type", a.style.contentType())
		h.Set("Cache-Control", "no-cache")
		h.Set("X-Accel-Buffering", "no") // else nginx keeps events back
		a.w.WriteHeader(http.StatusOK)
		frames = a.style.begin(a.meta)
	}
	return a.frames(append(frames, a.style.piece(a.meta, c)...))
}

// frames writes frames and sees them off, within a time: a caller who reads nothing must not hold a runtime.
func (a *streamAnswer) frames(frames [][]byte) error {
	if len(frames) == 0 {
		return nil
	}
	if now := time.Now(); now.Sub(a.extended) > time.Second { // not for each token
		a.extended = now
		_ = a.control.SetWriteDeadline(now.Add(writeTimeout))
	}
	var err error
	for _, frame := range frames {
		if err == nil {
			_, err = a.w.Write(frame)
		}
	}
	if err == nil {
		err = a.control.Flush()
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	return nil
}

// A cutError is why a stream ends in the middle without saying so: its caller has left.
type cutError struct{ error }

func (e cutError) Unwrap() error { return e.error }

// finish ends the stream. Only a whole answer ends as its API says; anything else is an error.
func (a *streamAnswer) finish(err error) error {
	switch {
	case err != nil && !a.started:
		writeError(a.w, a.api, err)
		return err
	case err != nil:
		o := outcomeOf(err)
		if o.http == statusClientGone {
			return cutError{err}
		}
		_ = a.frames([][]byte{a.style.broken(a.meta.id, o)})
		return err
	}
	return a.frames(a.style.end(a.meta, a.used))
}
