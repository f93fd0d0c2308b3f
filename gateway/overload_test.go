package gateway_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/gateway"
	"github.com/weighbridge/weighbridge/gateway/access"
	"github.com/weighbridge/weighbridge/gateway/fair"
)

// A book is the rules of a gateway, which a test may change.
type book struct {
	t     *testing.T
	rules atomic.Pointer[access.Policy]
}

func rulebook(t *testing.T, rules ...access.Rule) *book {
	b := &book{t: t}
	b.write(rules...)
	return b
}

func (b *book) write(rules ...access.Rule) {
	b.t.Helper()
	p, err := access.Parse(rules)
	if err != nil {
		b.t.Fatal(err)
	}
	b.rules.Store(p)
}

func (b *book) use(c *gateway.Config) { c.Access = b.rules.Load }

// apps allows every app to chat, within limits.
func apps(limits access.Limits) access.Rule {
	return access.Rule{Caller: "spiffe://" + domain + "/apps/*", Channels: []string{"chat"}, Methods: []string{"chat"}, Limits: &limits}
}

// metricsText is what Prometheus would be told.
func (d *door) metricsText() string {
	w := httptest.NewRecorder()
	d.metrics.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Body.String()
}

// TestUnseen has the runtime fail over an answer that was to come whole: how much it made of it nobody saw, and all of it
// counts, but for what it refused or did not live to make.
func TestUnseen(t *testing.T) {
	limits := access.Limits{Tokens: access.TokenLimits{Completion: access.Windows{Day: "1000"}}}
	for _, tt := range []struct {
		fail error
		next int // status of another request
	}{
		{errors.New("it can't be formatted"), http.StatusTooManyRequests},
		{backends.ErrInvalidRequest, http.StatusBadRequest},
		{backends.ErrInterrupted, http.StatusBadGateway},
	} {
		d := open(t, map[string]*channel{"chat": {fail: tt.fail}}, rulebook(t, apps(limits)).use)
		asked := strings.TrimSuffix(question, "}") + `,"max_tokens":1000}`
		c := d.client("/apps/demo")
		d.post(c, asked)
		if resp, body := d.post(c, asked); resp.StatusCode != tt.next {
			t.Errorf("POST after %v = %s: %s, want %d", tt.fail, resp.Status, body, tt.next)
		}
	}
}

// TestLimits reaches each limit with the second request, and wants to be told so over both protocols. hello() takes 7 and
// 3 tokens.
func TestLimits(t *testing.T) {
	tests := []struct {
		name    string
		limits  access.Limits
		code    string
		message string
		retry   string
		label   string
	}{
		{"rate", access.Limits{Rate: "1/m"}, "rate_limit", "over the limit of 1 requests a minute, retry in 60 s", "60", "rate"},
		{"prompt", access.Limits{Tokens: access.TokenLimits{Prompt: access.Windows{Minute: "6"}}},
			"prompt_tokens_per_minute", "over the limit of 6 prompt tokens a minute, retry in 60 s", "60", "tokens.prompt.minute"},
		{"answers", access.Limits{Tokens: access.TokenLimits{Completion: access.Windows{Day: "1000"}}},
			"completion_tokens_per_day", "over the limit of 1000 completion tokens a day, retry in 260 s", "260", "tokens.completion.day"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := open(t, map[string]*channel{"chat": hello()}, rulebook(t, apps(tt.limits)).use)
			client := d.client("/apps/demo")
			if resp, body := d.post(client, question); resp.StatusCode != http.StatusOK {
				t.Fatalf("POST = %s: %s, want an answer to the first request", resp.Status, body)
			}
			resp, body := d.post(client, question)
			if e := readError(t, body); resp.StatusCode != http.StatusTooManyRequests || e.Code != tt.code || e.Message != tt.message || resp.Header.Get("Retry-After") != tt.retry {
				t.Errorf("POST = %s, %q %q, retry after %s, want 429, %q %q, %s", resp.Status, e.Code, e.Message, resp.Header.Get("Retry-After"), tt.code, tt.message, tt.retry)
			}
			_, _, _, err := chat(t.Context(), d.conn("/apps/demo"), ask())
			var info *errdetails.RetryInfo
			for _, detail := range status.Convert(err).Details() {
				info, _ = detail.(*errdetails.RetryInfo)
			}
			if status.Code(err) != codes.ResourceExhausted || info == nil || info.GetRetryDelay().AsDuration() < time.Second {
				t.Errorf("Chat = %v with %v, want RESOURCE_EXHAUSTED and when to come back", err, info)
			}
			if resp, body := d.post(d.client("/apps/other"), question); resp.StatusCode != http.StatusOK {
				t.Errorf("POST of another caller = %s: %s, want its own limit", resp.Status, body)
			}
			d.stop()
			for _, want := range []string{`"rule":0`, "access[0].limits." + tt.label} {
				if !strings.Contains(d.log.String(), want) {
					t.Errorf("the log lacks %s:\n%s", want, d.log)
				}
			}
			if text := d.metricsText(); !strings.Contains(text, `weighbridge_requests_refused_total{limit="`+tt.label+`",rule="0"} 2`) {
				t.Errorf("metrics lack the refusals by %s:\n%s", tt.label, text)
			}
		})
	}
}

// TestLimitsBeforeReading refuses who is over its rate before the request is read, however wrong that is, and stays on the
// connection.
func TestLimitsBeforeReading(t *testing.T) {
	d := open(t, map[string]*channel{"chat": hello()}, rulebook(t, apps(access.Limits{Rate: "1/m"})).use)
	client := d.clientOf(d.tls("/apps/demo", "http/1.1"))
	if resp, body := d.post(client, question); resp.StatusCode != http.StatusOK {
		t.Fatalf("POST = %s: %s, want an answer to the first request", resp.Status, body)
	}
	var anew atomic.Int32
	trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		if !i.Reused {
			anew.Add(1)
		}
	}}
	for range 3 {
		ctx := httptrace.WithClientTrace(t.Context(), trace)
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.url("/v1/chat/completions"), strings.NewReader("no JSON"+strings.Repeat(" ", 100<<10)))
		if err != nil {
			t.Fatal(err)
		}
		resp, body := d.do(client, req)
		if e := readError(t, body); resp.StatusCode != http.StatusTooManyRequests || e.Code != "rate_limit" {
			t.Errorf("POST = %s: %s, want 429 for the rate", resp.Status, body)
		}
	}
	if n := anew.Load(); n > 0 {
		t.Errorf("%d connections were made anew, want none", n)
	}
	d.stop() // until all is recorded
	if text := d.metricsText(); !strings.Contains(text, `weighbridge_requests_refused_total{limit="rate",rule="0"} 3`) {
		t.Errorf("metrics lack the refusals:\n%s", text)
	}
}

// TestLimitsBeforeReadingByMethod refuses what each path asks for by the rule of that, beside others that name the caller
// too, and records it as any request.
func TestLimitsBeforeReadingByMethod(t *testing.T) {
	by := func(rate string, methods ...string) access.Rule {
		r := apps(access.Limits{Rate: rate})
		r.Methods = methods
		return r
	}
	listing := by("", "models")
	listing.Limits = nil
	rules := rulebook(t, listing, by("1/h", "chat", "models"), by("1/m", "generate"), by("1/d", "embed"))
	const said = `"messages":[{"role":"user","content":"hi"}]}`
	tests := []struct {
		path, body string
		rule       string
		retry      string
		operation  string
		api        string
	}{
		{"/v1/chat/completions", `{"model":"chat",` + said, "1", "3600", "chat", "openai"},
		{"/v1/completions", `{"model":"chat","prompt":"hi"}`, "2", "60", "text_completion", "openai"},
		{"/v1/embeddings", `{"model":"chat","input":"hi"}`, "3", "86400", "embeddings", "openai"},
		{"/v1/messages", `{"model":"chat","max_tokens":5,` + said, "1", "3600", "chat", "anthropic"},
		{"/v1/messages/count_tokens", `{"model":"chat",` + said, "1", "3600", "count_tokens", "anthropic"},
		{"/api/chat", `{"model":"chat",` + said, "1", "3600", "chat", "ollama"},
		{"/api/generate", `{"model":"chat","prompt":"hi"}`, "2", "60", "text_completion", "ollama"},
		{"/api/embed", `{"model":"chat","input":"hi"}`, "3", "86400", "embeddings", "ollama"},
		{"/api/embeddings", `{"model":"chat","prompt":"hi"}`, "3", "86400", "embeddings", "ollama"},
	}
	for _, tt := range tests {
		t.Run(tt.path, func(t *testing.T) {
			spans := tracetest.NewSpanRecorder()
			tracer := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("test")
			d := open(t, map[string]*channel{"chat": hello()}, rules.use, func(c *gateway.Config) { c.Tracer = tracer })
			client := d.client("/apps/demo")
			if resp, body := d.postTo(client, tt.path, tt.body); resp.StatusCode != http.StatusOK {
				t.Fatalf("POST = %s: %s, want an answer to the first request", resp.Status, body)
			}
			resp, body := d.postTo(client, tt.path, "no JSON")
			if resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") != tt.retry {
				t.Errorf("POST = %s, retry after %s: %s, want 429, %s", resp.Status, resp.Header.Get("Retry-After"), body, tt.retry)
			}
			d.stop()
			text := d.metricsText()
			for _, want := range []string{
				`weighbridge_requests_refused_total{limit="rate",rule="` + tt.rule + `"} 1`,
				`gen_ai_server_request_duration_seconds_count{error_type="rate_limit",gen_ai_operation_name="` + tt.operation + `",gen_ai_provider_name="weighbridge"} 1`,
			} {
				if !strings.Contains(text, want) {
					t.Errorf("metrics lack %s:\n%s", want, text)
				}
			}
			if all := spans.Ended(); len(all) != 2 || all[1].Name() != tt.operation || all[1].Status().Description != "rate_limit" {
				t.Errorf("spans are %v, want that of the refusal last", all)
			}
			if want := `"method":"` + tt.operation + `","api":"` + tt.api + `","channel":"",`; strings.Count(d.log.String(), want) != 1 {
				t.Errorf("the log lacks %s:\n%s", want, d.log)
			}
		})
	}
}

// TestMethodBeforeReading refuses whom no rule allows what a path asks for before that is read, and records it as any request;
// so it does where what is allowed can't be read.
func TestMethodBeforeReading(t *testing.T) {
	listing := apps(access.Limits{})
	listing.Methods, listing.Limits = []string{"models", "embed"}, nil
	var refused []string
	d := open(t, map[string]*channel{"chat": hello()}, rulebook(t, listing).use, func(c *gateway.Config) {
		c.Refused = func(caller string) { refused = append(refused, caller) }
	})
	client := d.client("/apps/demo")
	for _, tt := range []struct {
		path   string
		status int
		label  string
	}{
		{"/v1/chat/completions", http.StatusForbidden, `error_type="permission_denied",gen_ai_operation_name="chat"`},
		{"/api/generate", http.StatusForbidden, `error_type="permission_denied",gen_ai_operation_name="text_completion"`},
		{"/v1/messages/count_tokens", http.StatusForbidden, `error_type="permission_denied",gen_ai_operation_name="count_tokens"`},
		{"/v1/embeddings", http.StatusBadRequest, `error_type="invalid_argument",gen_ai_operation_name="embeddings"`},
	} {
		if resp, body := d.postTo(client, tt.path, "no JSON"); resp.StatusCode != tt.status {
			t.Errorf("POST %s = %s: %s, want %d", tt.path, resp.Status, body, tt.status)
		}
		if want := "gen_ai_server_request_duration_seconds_count{" + tt.label; strings.Count(d.metricsText(), want) != 1 {
			t.Errorf("metrics lack %s:\n%s", want, d.metricsText())
		}
	}
	d.stop()
	if caller := "spiffe://" + domain + "/apps/demo"; !slices.Equal(refused, []string{caller, caller, caller}) {
		t.Errorf("refused were %q, want %s for each request that no rule allows", refused, caller)
	}
	if text := d.metricsText(); strings.Contains(text, "weighbridge_request_overhead_seconds_count") {
		t.Errorf("the gateway is said to have taken what callers took to send:\n%s", text)
	}
}

// TestLimitsChargeWhatWasCut charges a stream whose caller leaves in the middle.
func TestLimitsChargeWhatWasCut(t *testing.T) {
	cut := &channel{chunks: []backends.Chunk{{Text: "one "}, {Text: "two "}, {Text: "three "}}, entered: make(chan struct{}), block: true}
	limits := access.Limits{Tokens: access.TokenLimits{Completion: access.Windows{Day: "3"}}}
	d := open(t, map[string]*channel{"chat": cut}, rulebook(t, apps(limits)).use)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	conn := d.conn("/apps/demo")
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _, _, _ = chat(ctx, conn, ask())
	}()
	<-cut.entered
	cancel()
	<-ended
	eventually(t, "the end of the request", func() bool { return strings.Contains(d.log.String(), `"outcome":"canceled"`) })
	if _, _, _, err := chat(t.Context(), conn, ask()); status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "3 completion tokens a day") {
		t.Errorf("Chat = %v, want it refused: the three parts that were sent are charged", err)
	}
}

// TestLimitsChargeNoFailure charges nothing where the runtime did nothing.
func TestLimitsChargeNoFailure(t *testing.T) {
	broken := &channel{fail: backends.ErrInterrupted}
	limits := access.Limits{Tokens: access.TokenLimits{Prompt: access.Windows{Day: "5"}, Completion: access.Windows{Day: "5"}}}
	d := open(t, map[string]*channel{"chat": broken}, rulebook(t, apps(limits)).use)
	client := d.client("/apps/demo")
	for range 3 {
		if resp, body := d.post(client, question); resp.StatusCode != http.StatusBadGateway {
			t.Errorf("POST = %s: %s, want 502 and no charge for it", resp.Status, body)
		}
	}
}

// TestLimitsOfEveryMethod has texts and embeddings pass through the limits that conversations pass through.
func TestLimitsOfEveryMethod(t *testing.T) {
	plain := hello()
	plain.limits.Plain = true
	for path, body := range map[string]string{
		"/v1/completions": `{"model":"chat","prompt":"Once upon a time"}`, "/v1/embeddings": `{"model":"chat","input":["Once upon a time","b"]}`,
	} {
		rule := apps(access.Limits{Tokens: access.TokenLimits{Prompt: access.Windows{Day: "6"}}})
		rule.Methods = []string{"generate", "embed"}
		d := open(t, map[string]*channel{"chat": plain}, rulebook(t, rule).use)
		client := d.client("/apps/demo")
		if resp, body := d.postTo(client, path, body); resp.StatusCode != http.StatusOK {
			t.Errorf("POST %s = %s: %s, want an answer to the first request", path, resp.Status, body)
		}
		if resp, body := d.postTo(client, path, body); resp.StatusCode != http.StatusTooManyRequests || readError(t, body).Code != "prompt_tokens_per_day" {
			t.Errorf("POST %s = %s: %s, want 429 to the second", path, resp.Status, body)
		}
		if resp, body := d.post(client, question); resp.StatusCode != http.StatusForbidden {
			t.Errorf("POST of a conversation = %s: %s, want 403: the rule does not name it", resp.Status, body)
		}
	}
}

// TestCondition holds requests to what a rule says of them.
func TestCondition(t *testing.T) {
	rule := apps(access.Limits{Concurrent: "5"})
	rule.When = `request.api == "openai" && request.stream && request.maxTokens <= 20`
	d := open(t, map[string]*channel{"chat": hello()}, rulebook(t, rule).use)
	client := d.client("/apps/demo")
	body := strings.TrimSuffix(question, "}")
	for with, want := range map[string]int{
		`,"stream":true,"max_tokens":20}`: 200, `,"max_tokens":20}`: 403, `,"stream":true,"max_tokens":21}`: 403, `,"stream":true}`: 403,
	} {
		if resp, got := d.post(client, body+with); resp.StatusCode != want {
			t.Errorf("POST with %s = %s: %s, want %d", with, resp.Status, got, want)
		}
	}
	if _, _, _, err := chat(t.Context(), d.conn("/apps/demo"), ask()); status.Code(err) != codes.PermissionDenied {
		t.Errorf("Chat over gRPC = %v, want PERMISSION_DENIED", err)
	}
}

// TestRecheck takes a caller's rule away while it is answered, over each protocol and in each place where a request may be.
func TestRecheck(t *testing.T) {
	slow := &channel{chunks: []backends.Chunk{{Text: "Hello, "}}, block: true, entered: make(chan struct{}),
		turns: fair.NewQueue(fair.Config{Slots: 3, Places: 100, Patience: waitLimit})}
	mine := apps(access.Limits{Concurrent: "5"})
	mine.Caller = "spiffe://" + domain + "/apps/demo"
	other := mine
	other.Caller = "spiffe://" + domain + "/apps/other"
	rules := rulebook(t, mine, other)
	d := open(t, map[string]*channel{"chat": slow}, rules.use)
	client, stays := d.client("/apps/demo"), d.conn("/apps/other")

	type end struct {
		status int
		body   string
	}
	post := func(body string) chan end {
		ended := make(chan end, 1)
		go func() {
			resp, err := client.Post(d.url("/v1/chat/completions"), "application/json", strings.NewReader(body))
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			text, _ := io.ReadAll(resp.Body)
			ended <- end{resp.StatusCode, string(text)}
		}()
		return ended
	}
	stream := post(strings.TrimSuffix(question, "}") + `,"stream":true}`)
	<-slow.entered
	overGRPC := make(chan error, 1)
	go func() {
		_, _, _, err := chat(t.Context(), d.conn("/apps/demo"), ask())
		overGRPC <- err
	}()
	<-slow.entered
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	stayed := make(chan error, 1)
	go func() {
		_, _, _, err := chat(ctx, stays, ask())
		stayed <- err
	}()
	<-slow.entered
	waits := post(question) // for a turn: all three are taken
	eventually(t, "the wait", func() bool { return slow.turns.Waiting() == 1 })

	d.gateway.Recheck() // nothing has changed
	rules.write(other)
	begun := time.Now()
	d.gateway.Recheck()
	s := <-stream
	last := s.body[strings.LastIndex(s.body, "data: ")+len("data: "):]
	if e := readError(t, last); s.status != http.StatusOK || e.Code != "permission_revoked" || e.Message != "permission was taken back while the request ran" {
		t.Errorf("the stream ended with %s, want permission_revoked", last)
	}
	if err := <-overGRPC; status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "taken back") {
		t.Errorf("the gRPC stream ended with %v, want PERMISSION_DENIED", err)
	}
	if w := <-waits; w.status != http.StatusForbidden || readError(t, w.body).Code != "permission_revoked" {
		t.Errorf("the waiting request ended with %d %s, want 403", w.status, w.body)
	}
	if took := time.Since(begun); took > time.Second {
		t.Errorf("it took %s, want a second at most", took)
	}
	select {
	case err := <-stayed:
		t.Errorf("the other caller's stream ended with %v, want it to go on", err)
	default:
	}
	leave()
	<-stayed
}
