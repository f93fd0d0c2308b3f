package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"go.opentelemetry.io/otel/propagation"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/gateway/access"
	"github.com/weighbridge/weighbridge/gateway/identity"
	"github.com/weighbridge/weighbridge/gateway/receipt"
)

// httpHandler is the HTTP door: the chat and models parts of OpenAI's API.
func (g *Gateway) httpHandler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/v1/chat/completions", g.route(http.MethodPost, g.serveChat))
	mux.Handle("/v1/receipts/{id}", g.route(http.MethodGet, g.serveReceipt))
	mux.Handle("/v1/models", g.route(http.MethodGet, g.serveModels))
	mux.Handle("/v1/models/{model}", g.route(http.MethodGet, g.serveModel))
	mux.Handle("/", g.route("", func(w http.ResponseWriter, r *http.Request, c call) {
		g.logOther(r.Context(), c, "", errNoRoute)
		writeError(w, errNoRoute)
	}))
	return mux
}

// route identifies the caller by the connection, never by a header, before anything else is looked at.
func (g *Gateway) route(method string, serve func(http.ResponseWriter, *http.Request, call)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := call{protocol: protocolHTTP, id: requestID(r.Header.Get(headerRequestID))}
		w.Header().Set(headerRequestID, c.id)
		if opened, ok := r.Context().Value(openedKey{}).(time.Time); ok && time.Since(opened) > maxConnectionAge {
			w.Header().Set("Connection", "close") // over HTTP/2 this asks the client to connect anew
		}
		var err error
		if c.caller, err = identity.Peer(r.TLS); err == nil {
			err = g.admit(c)
		}
		if err == nil && method != "" && r.Method != method {
			w.Header().Set("Allow", method)
			err = errMethod
		}
		if err != nil {
			g.logOther(r.Context(), c, "", err)
			writeError(w, err)
			return
		}
		ctx := traceContext.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
		serve(w, r.WithContext(ctx), c)
	})
}

func (g *Gateway) serveChat(w http.ResponseWriter, r *http.Request, c call) {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(bodyTimeout)) // test recorders can't
	var req *request
	var usage bool
	var err error
	if c.receipt, err = g.draft(c, r.Header.Values(headerReceipt)); err == nil {
		req, usage, err = decodeBody(w, r, c.receipt)
	}
	// The connection is read on while we answer, to notice a caller who leaves: that may take as long as it takes.
	_ = control.SetReadDeadline(time.Time{})
	if err != nil {
		g.logOther(r.Context(), c, operationChat, err)
		writeError(w, err)
		return
	}
	req.call = c
	written := &receiptWriter{ResponseWriter: w, draft: c.receipt}
	if c.receipt != nil {
		w = written
	}
	err = errUnended
	defer func() { c.receipt.End(err) }()
	to := answerHTTP{w: w, control: control, id: "chatcmpl-" + c.id, created: time.Now().Unix(), receipt: c.receipt.ID()}
	if req.stream {
		a := &streamAnswer{answerHTTP: to, usage: usage}
		err = a.finish(g.chat(r.Context(), req, a))
	} else {
		a := &wholeAnswer{answerHTTP: to}
		err = a.finish(g.chat(r.Context(), req, a))
	}
	err = errors.Join(err, written.err)
}

// decodeBody reads a request to its end, and shows its bytes to its receipt.
func decodeBody(w http.ResponseWriter, r *http.Request, draft *receipt.Draft) (*request, bool, error) {
	if e := r.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return nil, false, invalid("", "Content-Encoding is not supported: send the body as it is")
	}
	body := io.Reader(http.MaxBytesReader(w, r.Body, maxBody))
	if draft != nil {
		body = io.TeeReader(body, draft.Request())
	}
	return decodeChat(body)
}

// modelBody is a channel in OpenAI's shape, with what it serves beside.
type modelBody struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
	Release string `json:"release,omitzero"`
	Weights string `json:"weights,omitzero"`
	Level   string `json:"level,omitzero"`
	State   string `json:"state"`
}

func modelOf(i ChannelInfo) modelBody {
	m := modelBody{ID: i.Channel, Object: "model", OwnedBy: provider, Release: i.Release, Weights: i.Weights, Level: i.Level, State: i.State}
	if !i.Since.IsZero() {
		m.Created = i.Since.Unix()
	}
	return m
}

func (g *Gateway) serveModels(w http.ResponseWriter, r *http.Request, c call) {
	infos, err := g.models(c)
	g.logOther(r.Context(), c, access.MethodModels, err)
	if err != nil {
		writeError(w, err)
		return
	}
	list := struct {
		Object string      `json:"object"`
		Data   []modelBody `json:"data"`
	}{Object: "list"}
	for _, i := range infos {
		list.Data = append(list.Data, modelOf(i))
	}
	writeJSON(w, http.StatusOK, list)
}

func (g *Gateway) serveModel(w http.ResponseWriter, r *http.Request, c call) {
	info, err := g.model(c, r.PathValue("model"))
	g.logOther(r.Context(), c, access.MethodModels, err)
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, modelOf(info))
}

// errorBody is OpenAI's shape of an error.
type errorBody struct {
	Error struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    string  `json:"code"`
	} `json:"error"`
}

func errorOf(o outcome) errorBody {
	var b errorBody
	b.Error.Message, b.Error.Type, b.Error.Code = o.message, o.kind, o.code
	if o.param != "" {
		b.Error.Param = &o.param
	}
	return b
}

func writeError(w http.ResponseWriter, err error) {
	o := outcomeOf(err)
	if o.http == statusClientGone {
		return
	}
	if o.http == http.StatusServiceUnavailable || o.http == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "1")
	}
	writeJSON(w, o.http, errorOf(o))
}

// writeJSON writes a whole body. Nobody is left to be told if that fails.
func writeJSON(w http.ResponseWriter, status int, v any) {
	body := encode(v)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n'))
}

// encode writes a value of ours, all of which have a JSON form.
func encode(v any) []byte {
	body, err := json.Marshal(v, jsontext.AllowInvalidUTF8(true))
	if err != nil {
		panic(fmt.Sprintf("gateway: internal error: %v", err))
	}
	return body
}

// openedKey marks when a connection was opened, in the contexts of its requests.
type openedKey struct{}

func withOpened(ctx context.Context) context.Context {
	return context.WithValue(ctx, openedKey{}, time.Now())
}

// answerHTTP is what both shapes of an HTTP answer share.
type answerHTTP struct {
	w       http.ResponseWriter
	control *http.ResponseController
	id      string
	created int64
	info    ServingInfo
	receipt string // its id, "" if there is none
}

func (a *answerHTTP) begin(info ServingInfo) {
	a.info = info
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
	text   strings.Builder
	reason string
	used   backends.Usage
}

func (a *wholeAnswer) send(c backends.Chunk) error {
	if a.text.Len()+len(c.Text) > maxAnswer {
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

// finish sends the answer, or the error, which it returns.
func (a *wholeAnswer) finish(err error) error {
	if err != nil {
		writeError(a.w, err)
		return err
	}
	_ = a.control.SetWriteDeadline(time.Now().Add(writeTimeout))
	writeJSON(a.w, http.StatusOK, completion{
		ID: a.id, Object: "chat.completion", Created: a.created, Model: a.info.Channel, SystemFingerprint: a.info.Release,
		Choices: []choice{{Message: &turn{Role: "assistant", Content: a.text.String()}, FinishReason: a.reason}},
		Usage:   usageOf(a.used),
	})
	return nil
}
