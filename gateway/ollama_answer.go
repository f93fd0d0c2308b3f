package gateway

import (
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/gateway/access"
)

// ollamaRoutes are the paths of Ollama's API, but for those that change what is served: these are nobody's to call here.
func (g *Gateway) ollamaRoutes(mux *http.ServeMux) {
	api := ollamaErrors{}
	mux.Handle("/api/chat", g.asked(api, access.MethodChat, decodeOllamaChat))
	mux.Handle("/api/generate", g.asked(api, access.MethodGenerate, decodeOllamaGenerate))
	mux.Handle("/api/embed", g.embedded(api, decodeOllamaEmbed))
	mux.Handle("/api/embeddings", g.embedded(api, decodeOllamaEmbedding))
	mux.Handle("/api/tags", g.listed(api, ollamaTags))
	mux.Handle("/api/ps", g.listed(api, ollamaRunning))
	mux.Handle("/api/show", g.route(http.MethodPost, api, g.serveOllamaShow))
	mux.Handle("/api/version", g.route(http.MethodGet, api, func(w http.ResponseWriter, r *http.Request, c call) {
		g.logOther(r.Context(), c, methodVersion, nil)
		writeJSON(w, http.StatusOK, struct {
			Version string `json:"version"`
		}{g.version})
	}))
	mux.Handle("/api/", g.unrouted(api))
	mux.Handle("/{$}", g.route(http.MethodGet, api, func(w http.ResponseWriter, r *http.Request, c call) {
		g.logOther(r.Context(), c, methodVersion, nil)
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, "Weighbridge is running")
	}))
}

// methodVersion is what the log calls a question whether the gateway is there.
const methodVersion = "version"

// ollamaErrors writes errors as Ollama does.
type ollamaErrors struct{}

func (ollamaErrors) name() string { return apiOllama }

func (ollamaErrors) problem(_ string, o outcome) any {
	return struct {
		Error string `json:"error"`
	}{o.message}
}

func (e ollamaErrors) broken(id string, o outcome) []byte { return line(e.problem(id, o)) }

func (ollamaErrors) contentType() string { return "application/x-ndjson" }

// line is one frame of a stream.
func line(v any) []byte { return append(encode(v), '\n') }

// ollamaAnswer is Ollama's answer, whole or a piece of it, with a message of a chat or with a text.
type ollamaAnswer struct {
	Model     string      `json:"model"`
	CreatedAt time.Time   `json:"created_at"`
	Message   *ollamaTurn `json:"message,omitzero"`
	Response  *string     `json:"response,omitzero"`
	Done      bool        `json:"done"`

	// Of the end. Durations are in nanoseconds; nothing is loaded for a request, and loading takes none.
	DoneReason         string `json:"done_reason,omitzero"`
	TotalDuration      int64  `json:"total_duration,omitzero"`
	LoadDuration       *int64 `json:"load_duration,omitzero"`
	PromptEvalCount    int    `json:"prompt_eval_count,omitzero"`
	PromptEvalDuration int64  `json:"prompt_eval_duration,omitzero"`
	EvalCount          int    `json:"eval_count,omitzero"`
	EvalDuration       int64  `json:"eval_duration,omitzero"`
}

type ollamaTurn struct {
	Role      string       `json:"role"`
	Content   string       `json:"content"`
	ToolCalls []ollamaCall `json:"tool_calls,omitempty"`
}

// ollamaAnswers writes answers as Ollama does, to a chat or to generate.
type ollamaAnswers struct {
	ollamaErrors
	generate bool
	first    time.Time // when the first piece came
	reason   string
	calls    int // that came
}

func (s *ollamaAnswers) answer(m meta, text string, calls []ollamaCall) ollamaAnswer {
	a := ollamaAnswer{Model: m.info.Channel, CreatedAt: time.Now().UTC()}
	if s.generate {
		a.Response = &text
	} else {
		a.Message = &ollamaTurn{"assistant", text, calls}
	}
	return a
}

// ended makes an answer the last.
func (a ollamaAnswer) ended(m meta, reason string, first time.Time, used backends.Usage) ollamaAnswer {
	a.Done, a.DoneReason = true, reason
	if reason == loaded {
		return a
	}
	if reason != "length" {
		a.DoneReason = "stop" // calls end an answer in no way of their own
	}
	a.LoadDuration = new(int64)
	a.TotalDuration = a.CreatedAt.Sub(m.created).Nanoseconds()
	a.PromptEvalCount, a.PromptEvalDuration = used.PromptTokens, first.Sub(m.created).Nanoseconds()
	a.EvalCount, a.EvalDuration = used.CompletionTokens, a.CreatedAt.Sub(first).Nanoseconds()
	return a
}

func ollamaCalls(calls []backends.ToolCall, from int) (all []ollamaCall) {
	for i, c := range calls {
		call := ollamaCall{ID: c.ID}
		call.Function.Index, call.Function.Name, call.Function.Arguments = from+i, c.Name, jsontext.Value(c.Arguments)
		all = append(all, call)
	}
	return all
}

func (s *ollamaAnswers) whole(m meta, a collected) []byte {
	return encode(s.answer(m, a.text.String(), ollamaCalls(a.calls, 0)).ended(m, a.reason, a.first, a.used))
}

func (s *ollamaAnswers) begin(meta) [][]byte {
	s.first = time.Now()
	return nil
}

func (s *ollamaAnswers) piece(m meta, c backends.Chunk) [][]byte {
	if c.FinishReason != "" {
		s.reason = c.FinishReason
	}
	switch {
	case c.ToolCall != nil:
		s.calls++
		return [][]byte{line(s.answer(m, c.Text, ollamaCalls([]backends.ToolCall{*c.ToolCall}, s.calls-1)))}
	case c.Text != "":
		return [][]byte{line(s.answer(m, c.Text, nil))}
	}
	return nil
}

func (s *ollamaAnswers) end(m meta, used backends.Usage) [][]byte {
	return [][]byte{line(s.answer(m, "", nil).ended(m, s.reason, s.first, used))}
}

// ollamaVectors writes embeddings as Ollama does.
type ollamaVectors struct {
	ollamaErrors
	one bool // in the older form, for one text
}

func (s *ollamaVectors) vectors(info ServingInfo, e backends.Embeddings, took time.Duration) any {
	if s.one {
		return struct {
			Embedding []float32 `json:"embedding"`
		}{e.Vectors[0]}
	}
	return struct {
		Model           string      `json:"model"`
		Embeddings      [][]float32 `json:"embeddings"`
		TotalDuration   int64       `json:"total_duration"`
		LoadDuration    int64       `json:"load_duration"`
		PromptEvalCount int         `json:"prompt_eval_count"`
	}{info.Channel, e.Vectors, took.Nanoseconds(), 0, e.PromptTokens}
}

type ollamaDetails struct {
	ParentModel       string   `json:"parent_model"`
	Format            string   `json:"format"`
	Family            string   `json:"family"`
	Families          []string `json:"families"`
	ParameterSize     string   `json:"parameter_size"`
	QuantizationLevel string   `json:"quantization_level"`
}

// ollamaListed is a channel in Ollama's shape. Its digest is the root of the weights.
type ollamaListed struct {
	Name    string        `json:"name"`
	Model   string        `json:"model"`
	Size    int64         `json:"size"`
	Digest  string        `json:"digest"`
	Details ollamaDetails `json:"details"`

	ModifiedAt *time.Time `json:"modified_at,omitzero"` // of what is there
	ExpiresAt  *time.Time `json:"expires_at,omitzero"`  // of what runs
	SizeVRAM   *int64     `json:"size_vram,omitzero"`
}

func ollamaListing(i ChannelInfo) ollamaListed {
	return ollamaListed{
		Name: i.Channel, Model: i.Channel, Size: i.Size, Digest: strings.TrimPrefix(i.Weights, "sha256:"),
		Details: ollamaDetails{Format: i.Format, Families: []string{}},
	}
}

func ollamaTags(infos []ChannelInfo) any {
	return ollamaModels{each(infos, func(i ChannelInfo) any {
		m := ollamaListing(i)
		m.ModifiedAt = &i.Since
		return m
	})}
}

type ollamaModels struct {
	Models []any `json:"models"`
}

// never is when what runs ends: Ollama's clients show so distant a time as forever.
var never = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

func ollamaRunning(infos []ChannelInfo) any {
	ready := []ChannelInfo{}
	for _, i := range infos {
		if i.State == StateReady {
			ready = append(ready, i)
		}
	}
	return ollamaModels{each(ready, func(i ChannelInfo) any {
		m := ollamaListing(i)
		m.ExpiresAt, m.SizeVRAM = &never, new(int64)
		return m
	})}
}

// An ollamaShowBody asks what a model is.
type ollamaShowBody struct {
	Model    string  `json:"model"`
	Name     string  `json:"name"` // older than model
	System   nothing `json:"system"`
	Template nothing `json:"template"`
	Verbose  nothing `json:"verbose"`
	Options  nothing `json:"options"`
}

func (g *Gateway) serveOllamaShow(w http.ResponseWriter, r *http.Request, c call) {
	var b ollamaShowBody
	err := readBody(w, r, nil, func(body io.Reader) error { return decode(body, &b) })
	switch {
	case err != nil:
	case b.Model == "" && b.Name == "":
		err = invalid("model", "is required")
	case b.Model != "" && b.Name != "":
		err = invalid("name", "is an older name of model: give one of them")
	default:
		g.show(w, r, c, ollamaErrors{}, ollamaModel(b.Model+b.Name), ollamaShown)
		return
	}
	g.logOther(r.Context(), c, access.MethodModels, err)
	writeError(w, ollamaErrors{}, err)
}

// ollamaShown leaves out how the model is prompted: who may call it need not see that.
func ollamaShown(i ChannelInfo) any {
	l := ollamaListing(i)
	return struct {
		Details      ollamaDetails     `json:"details"`
		ModelInfo    map[string]string `json:"model_info"`
		Capabilities []string          `json:"capabilities"`
		ModifiedAt   time.Time         `json:"modified_at"`
	}{l.Details, map[string]string{"weighbridge.release": i.Release, "weighbridge.weights": i.Weights, "weighbridge.level": i.Level}, i.Does, i.Since}
}

var (
	_ style       = (*ollamaAnswers)(nil)
	_ vectorStyle = (*ollamaVectors)(nil)
)
