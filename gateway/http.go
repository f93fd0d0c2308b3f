package gateway

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"go.opentelemetry.io/otel/propagation"

	"github.com/weighbridge/weighbridge/gateway/access"
)

// httpHandler is the HTTP door.
func (g *Gateway) httpHandler() http.Handler {
	mux := http.NewServeMux()
	openAI := openAIErrors{}
	mux.Handle("/v1/chat/completions", g.asked(openAI, operationChat, decodeChat))
	mux.Handle("/v1/completions", g.asked(openAI, operationText, decodeText))
	mux.Handle("/v1/embeddings", g.embedded(openAI, decodeEmbed))
	mux.Handle("/v1/receipts/{id}", g.route(http.MethodGet, openAI, g.serveReceipt))
	mux.Handle("/v1/models", g.route(http.MethodGet, openAI, g.serveModels))
	mux.Handle("/v1/models/{model}", g.route(http.MethodGet, openAI, g.serveModel))
	mux.Handle("/", g.route("", openAI, func(w http.ResponseWriter, r *http.Request, c call) {
		g.logOther(r.Context(), c, "", errNoRoute)
		writeError(w, openAI, errNoRoute)
	}))
	return mux
}

// route identifies the caller before anything else is looked at.
func (g *Gateway) route(method string, api errorStyle, serve func(http.ResponseWriter, *http.Request, call)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := call{protocol: protocolHTTP, id: requestID(r.Header.Get(headerRequestID))}
		w.Header().Set(headerRequestID, c.id)
		err := g.identifyHTTP(w, r, &c)
		if err == nil {
			err = g.admit(c)
		}
		if err == nil && method != "" && r.Method != method {
			w.Header().Set("Allow", method)
			err = errMethod
		}
		if err != nil {
			g.logOther(r.Context(), c, "", err)
			writeError(w, api, err)
			return
		}
		ctx := traceContext.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
		ctx, leave := g.whileKnown(ctx, c)
		defer leave()
		serve(w, r.WithContext(ctx), c)
	})
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
		writeError(w, openAIErrors{}, err)
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
		writeError(w, openAIErrors{}, err)
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

func writeError(w http.ResponseWriter, api errorStyle, err error) {
	o := outcomeOf(err)
	if o.http == statusClientGone {
		return
	}
	if d := retryAfter(err); d > 0 {
		w.Header().Set("Retry-After", strconv.FormatInt(seconds(d), 10))
	}
	writeJSON(w, o.http, api.problem(o))
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
