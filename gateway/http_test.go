package gateway_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/gateway"
)

const question = `{"model":"chat","messages":[{"role":"user","content":"tell me a secret"}]}`

func TestHTTPWhole(t *testing.T) {
	for _, protos := range [][]string{{"h2"}, {"http/1.1"}} {
		t.Run(protos[0], func(t *testing.T) {
			chat := hello()
			d := open(t, map[string]*channel{"chat": chat})
			resp, body := d.post(d.clientOf(d.tls("/apps/demo", protos...)), question)
			if resp.StatusCode != http.StatusOK || (resp.Proto == "HTTP/2.0") != (protos[0] == "h2") {
				t.Fatalf("POST = %s over %s: %s", resp.Status, resp.Proto, body)
			}
			checkNamed(t, resp.Header)
			var got struct {
				Object  string
				Model   string
				Choices []struct {
					Message      struct{ Role, Content string }
					FinishReason string `json:"finish_reason"`
				}
				Usage map[string]int
			}
			if err := json.Unmarshal([]byte(body), &got); err != nil {
				t.Fatal(err)
			}
			c := got.Choices[0]
			if got.Object != "chat.completion" || got.Model != "chat" || c.Message.Role != "assistant" || c.Message.Content != "Hello, world." ||
				c.FinishReason != "stop" || got.Usage["total_tokens"] != 10 {
				t.Errorf("body = %s", body)
			}
			if req := chat.request(t); len(req.Messages) != 1 || !reflect.DeepEqual(req.Messages[0], backends.Message{Role: "user", Content: "tell me a secret"}) || req.MaxTokens != gateway.DefaultMaxTokens {
				t.Errorf("the runtime got %+v", req)
			}
			d.stop()
			for _, want := range []string{`"caller":"spiffe://bank.example/apps/demo"`, `"release":"` + release, `"status":200`, `"prompt_tokens":7`, `"completion_tokens":3`, `"channel":"chat"`} {
				if !strings.Contains(d.log.String(), want) {
					t.Errorf("the log lacks %s:\n%s", want, d.log)
				}
			}
			for _, secret := range []string{"secret", "Hello", "world"} {
				if strings.Contains(d.log.String(), secret) {
					t.Errorf("the log holds %q of the conversation", secret)
				}
			}
		})
	}
}

func checkNamed(t *testing.T, h http.Header) {
	t.Helper()
	for name, want := range map[string]string{"weighbridge-release": release, "weighbridge-weights": weights, "weighbridge-level": level} {
		if got := h.Get(name); got != want {
			t.Errorf("header %s = %q, want %q", name, got, want)
		}
	}
}

func TestHTTPStream(t *testing.T) {
	for _, usage := range []string{"", `,"stream_options":{"include_usage":true}`} {
		t.Run("usage"+usage, func(t *testing.T) {
			d := open(t, map[string]*channel{"chat": hello()})
			resp, body := d.post(d.client("/apps/demo"), strings.TrimSuffix(question, "}")+`,"stream":true`+usage+"}")
			if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
				t.Fatalf("POST = %s, %v: %s", resp.Status, resp.Header, body)
			}
			checkNamed(t, resp.Header)
			text, reason, counted := readEvents(t, body)
			if text != "Hello, world." || reason != "stop" || counted != (usage != "") {
				t.Errorf("stream gave %q, %q, usage %v: %s", text, reason, counted, body)
			}
			if !strings.HasSuffix(body, "data: [DONE]\n\n") {
				t.Errorf("stream does not end with [DONE]: %s", body)
			}
		})
	}
}

// readEvents joins the pieces of a stream.
func readEvents(t *testing.T, body string) (text, reason string, counted bool) {
	t.Helper()
	for _, event := range strings.Split(strings.TrimSpace(body), "\n\n") {
		data, ok := strings.CutPrefix(event, "data: ")
		if !ok {
			t.Fatalf("event %q has no data", event)
		}
		if data == "[DONE]" {
			continue
		}
		var c struct {
			Object  string
			Choices []struct {
				Delta        struct{ Role, Content string }
				FinishReason *string `json:"finish_reason"`
			}
			Usage *struct{ TotalTokens int }
		}
		if err := json.Unmarshal([]byte(data), &c); err != nil {
			t.Fatalf("event %q: %v", data, err)
		}
		counted = counted || c.Usage != nil
		for _, choice := range c.Choices {
			text += choice.Delta.Content
			if choice.FinishReason != nil {
				reason = *choice.FinishReason
			}
		}
	}
	return text, reason, counted
}

// TestHTTPCompletes expects the release's defaults and its system prompt at the runtime.
func TestHTTPCompletes(t *testing.T) {
	temperature, topP := 0.2, 0.9
	chat := hello()
	chat.limits = gateway.Limits{SystemPrompt: "Be brief.", MaxTokens: 64, Temperature: gateway.Range{Default: &temperature}, TopP: gateway.Range{Default: &topP}}
	d := open(t, map[string]*channel{"chat": chat})
	if resp, body := d.post(d.client("/apps/demo"), question); resp.StatusCode != http.StatusOK {
		t.Fatalf("POST = %s: %s", resp.Status, body)
	}
	req := chat.request(t)
	if len(req.Messages) != 2 || !reflect.DeepEqual(req.Messages[0], backends.Message{Role: "system", Content: "Be brief."}) ||
		req.MaxTokens != 64 || *req.Temperature != temperature || *req.TopP != topP {
		t.Errorf("the runtime got %+v", req)
	}
}

// TestHTTPOutcomes is what callers see of everything that is not an answer.
func TestHTTPOutcomes(t *testing.T) {
	broken := &channel{chunks: []backends.Chunk{}, fail: errors.New("segmentation fault at 0xdead")}
	tooLong, embedder := &channel{fail: backends.ErrInvalidRequest}, &channel{fail: backends.ErrUnsupported}
	cut := &channel{chunks: []backends.Chunk{}}
	quiet := &channel{missing: errors.New("1 of 2 required approvals")}
	tests := []struct {
		name    string
		path    string // of the caller
		chat    *channel
		model   string
		status  int
		message string
		logged  string
	}{
		{"no rule for the caller", "/batch/job", hello(), "chat", 403, "permission denied", "no rule names it"},
		{"no rule for the channel", "/apps/demo", hello(), "other", 403, "permission denied", "no rule for chat on channel"},
		{"unknown channel", "/apps/demo", hello(), "ghost", 403, "permission denied", "unknown channel"},
		{"serves nothing", "/apps/demo", hello(), "quiet", 503, "channel is not serving, retry later", "1 of 2 required approvals"},
		{"runtime fails", "/apps/demo", broken, "chat", 502, "the model server failed, retry later", "segmentation fault"},
		{"runtime ends early", "/apps/demo", cut, "chat", 502, "the model server failed, retry later", "ended without a reason"},
		{"model does not chat", "/apps/demo", embedder, "chat", 400, "model: not supported", "not supported"},
		{"runtime refuses", "/apps/demo", tooLong, "chat", 400, "messages: invalid request", "invalid request"},
	}
	for _, tt := range tests {
		for _, stream := range []string{"", `,"stream":true`} {
			t.Run(tt.name+stream, func(t *testing.T) {
				d := open(t, map[string]*channel{"chat": tt.chat, "quiet": quiet})
				resp, body := d.post(d.client(tt.path), `{"model":"`+tt.model+`","messages":[{"role":"user","content":"hi"}]`+stream+`}`)
				if e := readError(t, body); resp.StatusCode != tt.status || e.Message != tt.message {
					t.Errorf("POST = %s, %q, want %d, %q", resp.Status, e.Message, tt.status, tt.message)
				}
				d.stop()
				if !strings.Contains(d.log.String(), tt.logged) {
					t.Errorf("the log lacks %q:\n%s", tt.logged, d.log)
				}
			})
		}
	}
}

// TestHTTPDenialsAreAlike keeps callers from finding out which channels there are.
func TestHTTPDenialsAreAlike(t *testing.T) {
	d := open(t, map[string]*channel{"chat": hello(), "private": hello()})
	client := d.client("/apps/demo")
	ask := func(model string) string {
		resp, body := d.post(client, `{"model":"`+model+`","messages":[{"role":"user","content":"hi"}]}`)
		return resp.Status + body
	}
	if there, gone := ask("private"), ask("ghost"); there != gone {
		t.Errorf("a channel that is there gives %q, one that is not %q", there, gone)
	}
	get := func(model string) string {
		resp, err := client.Get(d.url("/v1/models/" + model))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.Status + string(body)
	}
	if there, gone := get("private"), get("ghost"); there != gone {
		t.Errorf("GET of a channel that is there gives %q, of one that is not %q", there, gone)
	}
}

// TestHTTPFailsInMidStream expects an error in the stream, and no [DONE].
func TestHTTPFailsInMidStream(t *testing.T) {
	chat := &channel{chunks: []backends.Chunk{{Text: "Hello, "}}, fail: backends.ErrInterrupted}
	d := open(t, map[string]*channel{"chat": chat})
	resp, body := d.post(d.client("/apps/demo"), strings.TrimSuffix(question, "}")+`,"stream":true}`)
	if resp.StatusCode != http.StatusOK || strings.Contains(body, "[DONE]") {
		t.Errorf("POST = %s: %s", resp.Status, body)
	}
	events := strings.Split(strings.TrimSpace(body), "\n\n")
	last := strings.TrimPrefix(events[len(events)-1], "data: ")
	if e := readError(t, last); e.Message != "the model server failed, retry later" || e.Code != "runtime_failed" {
		t.Errorf("last event = %+v", e)
	}
}

// TestHTTPCancel expects the runtime's work to end when the caller leaves.
func TestHTTPCancel(t *testing.T) {
	for _, protos := range [][]string{{"h2"}, {"http/1.1"}} {
		t.Run(protos[0], func(t *testing.T) {
			chat := &channel{chunks: []backends.Chunk{{Text: "Hello, "}}, block: true}
			d := open(t, map[string]*channel{"chat": chat})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.url("/v1/chat/completions"), strings.NewReader(strings.TrimSuffix(question, "}")+`,"stream":true}`))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := d.clientOf(d.tls("/apps/demo", protos...)).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if _, err := io.ReadFull(resp.Body, make([]byte, 10)); err != nil {
				t.Fatal(err)
			}
			cancel()
			eventually(t, "the end of the runtime's work", func() bool {
				chat.mu.Lock()
				defer chat.mu.Unlock()
				// Cancelled, or unable to write on: the caller may leave while the next event is being written.
				return len(chat.ended) == 1 && chat.ended[0] != nil
			})
			d.stop()
			if !strings.Contains(d.log.String(), `"status":499`) || strings.Contains(d.log.String(), `"level":"WARN"`) {
				t.Errorf("want the leave at INFO with status 499 in the log:\n%s", d.log)
			}
		})
	}
}

// TestHTTPHalfClosed has a caller say that nothing more comes from it, which over HTTP/1.1 is to leave, and listen on: what
// ends then must not look whole, to whoever knows no more than HTTP either.
func TestHTTPHalfClosed(t *testing.T) {
	d := open(t, map[string]*channel{"chat": {chunks: []backends.Chunk{{Text: "Hello, "}}, block: true}})
	conn, err := tls.Dial("tcp", d.http, d.tls("/apps/demo", "http/1.1"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	body := strings.TrimSuffix(question, "}") + `,"stream":true}`
	fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.ReadFull(resp.Body, make([]byte, 10)); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("POST = %s, %v, want the beginning of a stream", resp.Status, err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(resp.Body); !errors.Is(err, io.ErrUnexpectedEOF) || strings.Contains(string(rest), "[DONE]") {
		t.Errorf("the stream ended with %q, %v, want %v", rest, err, io.ErrUnexpectedEOF)
	}
	d.stop()
	if !strings.Contains(d.log.String(), `"status":499`) || strings.Contains(d.log.String(), "panic") {
		t.Errorf("want the leave with status 499 in the log:\n%s", d.log)
	}
	if text := d.metricsText(); !strings.Contains(text, `gen_ai_server_request_duration_seconds_count{error_type="canceled"`) {
		t.Errorf("metrics lack the leave:\n%s", text)
	}
}

func TestHTTPModels(t *testing.T) {
	d := open(t, map[string]*channel{"chat": hello(), "quiet": {missing: errors.New("no approval")}, "private": hello()})
	client := d.client("/apps/demo")
	get := func(c *http.Client, path string) (int, string) {
		resp, err := c.Get(d.url(path))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, strings.TrimSpace(string(body))
	}
	chat := `{"id":"chat","object":"model","created":1700000000,"owned_by":"weighbridge","release":"` + release + `","weights":"` + weights + `","level":"sealed","state":"ready"}`
	quiet := `{"id":"quiet","object":"model","created":1700000000,"owned_by":"weighbridge","state":"none"}`
	if status, body := get(client, "/v1/models"); status != 200 || body != `{"object":"list","data":[`+chat+`,`+quiet+`]}` {
		t.Errorf("GET /v1/models = %d %s", status, body)
	}
	if status, body := get(client, "/v1/models/chat"); status != 200 || body != chat {
		t.Errorf("GET /v1/models/chat = %d %s", status, body)
	}
	if status, body := get(client, "/v1/models/private"); status != 403 || readError(t, body).Code != "permission_denied" {
		t.Errorf("GET /v1/models/private = %d %s, want 403", status, body)
	}
	if status, body := get(d.client("/batch/job"), "/v1/models"); status != 403 || strings.Contains(body, "chat") {
		t.Errorf("GET /v1/models without a rule = %d %s, want 403", status, body)
	}
}

func TestHTTPRoutes(t *testing.T) {
	d := open(t, map[string]*channel{"chat": hello()})
	client := d.client("/apps/demo")
	tests := []struct {
		method, path string
		status       int
	}{
		{http.MethodGet, "/v1/chat/completions", 405},
		{http.MethodPost, "/v1/models", 405},
		{http.MethodDelete, "/v1/models/chat", 405},
		{http.MethodGet, "/nowhere", 404},
		{http.MethodGet, "/metrics", 404},
		{http.MethodPost, "/completion", 404},
		{http.MethodGet, "/v1/models/chat/x", 404},
	}
	for _, tt := range tests {
		req, err := http.NewRequestWithContext(t.Context(), tt.method, d.url(tt.path), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != tt.status {
			t.Errorf("%s %s = %s, want %d", tt.method, tt.path, resp.Status, tt.status)
		}
		readError(t, string(body))
	}
}

// TestHTTPIgnoresForwardedIdentity sends every header that other proxies believe.
func TestHTTPIgnoresForwardedIdentity(t *testing.T) {
	d := open(t, map[string]*channel{"chat": hello()})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d.url("/v1/chat/completions"), strings.NewReader(question))
	if err != nil {
		t.Fatal(err)
	}
	const id = "spiffe://bank.example/apps/demo"
	for _, h := range []string{"X-Forwarded-Client-Cert", "X-Client-Spiffe-Id", "Client-Cert", "Authorization"} {
		req.Header.Set(h, id)
	}
	req.Header.Set("X-Forwarded-Client-Cert", "By=spiffe://bank.example/proxy;URI="+id)
	resp, err := d.client("/batch/job").Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("POST = %s, want 403: the certificate says who calls", resp.Status)
	}
}

func TestHTTPRequestID(t *testing.T) {
	d := open(t, map[string]*channel{"chat": hello()})
	client := d.client("/apps/demo")
	for given, kept := range map[string]bool{"abc-123_4.5": true, "": false, "a b": false, strings.Repeat("x", 129): false, `a"b`: false} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, d.url("/v1/models"), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Request-Id", given)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := resp.Header.Get("X-Request-Id"); got == "" || (got == given) != kept {
			t.Errorf("x-request-id %q came back as %q, want kept %v", given, got, kept)
		}
	}
}

// TestMetrics expects the names of the conventions, with the channel as the model and nothing a caller made up.
func TestMetrics(t *testing.T) {
	d := open(t, map[string]*channel{"chat": hello()})
	client := d.client("/apps/demo")
	d.post(client, question)
	d.post(client, strings.Replace(question, `"chat"`, `"made-up"`, 1))
	d.stop()
	w := httptest.NewRecorder()
	d.metrics.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	text := w.Body.String()
	for _, want := range []string{
		"gen_ai_server_request_duration_seconds_count", "gen_ai_server_time_to_first_token_seconds_bucket", `le="81.92"`,
		`gen_ai_client_token_usage_sum{`, `gen_ai_token_type="input"`, `gen_ai_request_model="chat"`, `error_type="permission_denied"`,
		"weighbridge_requests_active", "go_goroutines",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %s:\n%s", want, text)
		}
	}
	if strings.Contains(text, "made-up") {
		t.Error("metrics hold the name of a channel that a caller made up")
	}
}

// A deadlines notes until when a request may be read.
type deadlines struct {
	*httptest.ResponseRecorder
	last time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error {
	d.last = t
	return nil
}

// TestRefusedBodies checks that there is a time for a body that nobody will look at: net/http reads its rest.
func TestRefusedBodies(t *testing.T) {
	d := open(t, map[string]*channel{"chat": hello()})
	w := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	d.gateway.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/chat/completions", strings.NewReader(question)))
	if w.Code != http.StatusUnauthorized || w.last.IsZero() || time.Until(w.last) > time.Minute {
		t.Errorf("POST by nobody = %d, and its body may come until %v; want 401 and a minute at most", w.Code, w.last)
	}
}
