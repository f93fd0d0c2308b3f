package gateway

import (
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
	openAI, anthropic := openAIErrors{}, anthropicErrors{}
	mux.Handle("/v1/chat/completions", g.asked(openAI, access.MethodChat, decodeChat))
	mux.Handle("/v1/completions", g.asked(openAI, access.MethodGenerate, decodeText))
	mux.Handle("/v1/embeddings", g.embedded(openAI, decodeEmbed))
	mux.Handle("/v1/receipts/{id}", g.route(http.MethodGet, openAI, g.serveReceipt))
	mux.Handle("/v1/messages", g.asked(anthropic, access.MethodChat, decodeAnthropic))
	mux.Handle("/v1/messages/count_tokens", g.counted(anthropic, decodeAnthropicCount, anthropicCount))
	mux.Handle("/v1/messages/", g.unrouted(anthropic))
	mux.Handle("/v1/models", bySender(g.listed(openAI, openAIModels), g.listed(anthropic, anthropicModels)))
	mux.Handle("/v1/models/{model}", bySender(g.shown(openAI, openAIModel), g.shown(anthropic, anthropicModel)))
	g.ollamaRoutes(mux)
	mux.Handle("/", bySender(g.unrouted(openAI), g.unrouted(anthropic)))
	return mux
}

// unrouted answers where there is nothing.
func (g *Gateway) unrouted(api errorStyle) http.Handler {
	return g.route("", api, func(w http.ResponseWriter, r *http.Request, c call) {
		g.logOther(r.Context(), c, "", errNoRoute)
		writeError(w, api, errNoRoute)
	})
}

// route identifies the caller before anything else is looked at. What may be got may
// be asked for by HEAD, too.
func (g *Gateway) route(method string, api errorStyle, serve func(http.ResponseWriter, *http.Request, call)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := call{protocol: protocolHTTP, id: requestID(r.Header.Get(headerRequestID))}
		w.Header().Set(headerRequestID, c.id)
		if r.Header.Get(headerAnthropic) != "" {
			w.Header().Set(headerAnthropicID, c.id)
		}
		if r.ContentLength != 0 {
			// Also of what is refused: net/http reads the rest of a body before it answers.
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
		}
		err := g.identifyHTTP(w, r, &c)
		if err == nil {
			err = g.admit(c)
		}
		if err == nil && method != "" && r.Method != method && (r.Method != http.MethodHead || method != http.MethodGet) {
			w.Header().Set("Allow", method)
			err = errMethod
		}
		if err != nil {
			g.logOther(r.Context(), c, "", err)
			writeError(w, api, err)
			return
		}
		if ctx := traceContext.Extract(r.Context(), propagation.HeaderCarrier(r.Header)); ctx != r.Context() {
			r = r.WithContext(ctx)
		}
		serve(w, r, c)
	})
}

// listed answers with the channels that the caller may see.
func (g *Gateway) listed(api errorStyle, body func([]ChannelInfo) any) http.Handler {
	return g.route(http.MethodGet, api, func(w http.ResponseWriter, r *http.Request, c call) {
		infos, err := g.models(c)
		g.logOther(r.Context(), c, access.MethodModels, err)
		if err != nil {
			writeError(w, api, err)
			return
		}
		writeJSON(w, http.StatusOK, body(infos))
	})
}

// shown answers with one of them, which the path names.
func (g *Gateway) shown(api errorStyle, body func(ChannelInfo) any) http.Handler {
	return g.route(http.MethodGet, api, func(w http.ResponseWriter, r *http.Request, c call) {
		g.show(w, r, c, api, r.PathValue("model"), body)
	})
}

func (g *Gateway) show(w http.ResponseWriter, r *http.Request, c call, api errorStyle, channel string, body func(ChannelInfo) any) {
	info, err := g.model(c, channel)
	g.logOther(r.Context(), c, access.MethodModels, err)
	if err != nil {
		writeError(w, api, err)
		return
	}
	writeJSON(w, http.StatusOK, body(info))
}

func writeError(w http.ResponseWriter, api errorStyle, err error) {
	o := outcomeOf(err)
	if o.http == statusClientGone {
		w.Header().Set("Connection", "close")
		w.WriteHeader(o.http) // else net/http answers 200 to whoever still listens
		return
	}
	if d := retryAfter(err); d > 0 {
		w.Header().Set("Retry-After", strconv.FormatInt(seconds(d), 10))
	}
	writeJSON(w, o.http, api.problem(w.Header().Get(headerRequestID), o))
}

func writeJSON(w http.ResponseWriter, status int, v any) { writeBody(w, status, encode(v)) }

// writeBody writes a whole body of JSON. Nobody is left to be told if that fails.
func writeBody(w http.ResponseWriter, status int, body []byte) {
	body = append(body, '\n')
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// encode writes a value of ours, all of which have a JSON form.
func encode(v any) []byte {
	body, err := json.Marshal(v, jsontext.AllowInvalidUTF8(true))
	if err != nil {
		panic(fmt.Sprintf("gateway: internal error: %v", err))
	}
	return body
}
