package gateway_test

import (
	"crypto/tls"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	grpccodes "google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/gateway"
	"github.com/weighbridge/weighbridge/gateway/access"
	"github.com/weighbridge/weighbridge/gateway/fair"
)

// TestTraces expects a span for each chat, below the caller's own, over both protocols.
func TestTraces(t *testing.T) {
	const parent, traceID = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "0af7651916cd43dd8448eb211c80319c"
	for _, protocol := range []string{"grpc", "http"} {
		t.Run(protocol, func(t *testing.T) {
			spans := tracetest.NewSpanRecorder()
			provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
			asked := hello()
			d := open(t, map[string]*channel{"chat": asked}, func(c *gateway.Config) { c.Tracer = provider.Tracer("test") })
			if protocol == "grpc" {
				ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", parent)
				if _, _, _, err := chat(ctx, d.conn("/apps/demo"), ask()); err != nil {
					t.Fatal(err)
				}
			} else {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, d.url("/v1/chat/completions"), strings.NewReader(question))
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Traceparent", parent)
				resp, err := d.client("/apps/demo").Do(req)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
			}
			d.stop()
			ended := spans.Ended()
			if len(ended) != 1 {
				t.Fatalf("%d spans, want 1", len(ended))
			}
			span := ended[0]
			if span.Name() != "chat chat" || span.SpanContext().TraceID().String() != traceID || span.Status().Code == codes.Error {
				t.Errorf("span %q in trace %s: %v", span.Name(), span.SpanContext().TraceID(), span.Status())
			}
			if at := asked.spans[0]; at.TraceID() != span.SpanContext().TraceID() || at.SpanID() != span.SpanContext().SpanID() {
				t.Errorf("the runtime was asked in span %s of trace %s, want those of the request", at.SpanID(), at.TraceID())
			}
			got := attribute.NewSet(span.Attributes()...)
			for key, want := range map[attribute.Key]string{
				"gen_ai.operation.name": "chat", "gen_ai.request.model": "chat", "gen_ai.usage.input_tokens": "7",
				"gen_ai.usage.output_tokens": "3", "weighbridge.release": release, "weighbridge.caller": "spiffe://bank.example/apps/demo",
			} {
				if v, ok := got.Value(key); !ok || v.String() != want {
					t.Errorf("%s = %q, want %q", key, v.String(), want)
				}
			}
			for _, a := range span.Attributes() {
				if strings.Contains(a.Value.String(), "secret") {
					t.Errorf("%s holds the conversation", a.Key)
				}
			}
			if !strings.Contains(d.log.String(), `"trace_id":"`+traceID) {
				t.Errorf("the log lacks the trace:\n%s", d.log)
			}
		})
	}
}

// TestOverhead has a runtime, and the wait for a turn, take time that is not the gateway's own, and the rules time that is.
func TestOverhead(t *testing.T) {
	const wait, work, own = 100 * time.Millisecond, 200 * time.Millisecond, 50 * time.Millisecond
	ch, rules, now := hello(), rulebook(t, apps(access.Limits{Rate: "1/s"})).rules.Load(), time.Now()
	d := open(t, map[string]*channel{"chat": ch}, func(c *gateway.Config) {
		c.Now = func() time.Time { return now }
		c.Access = func() *access.Policy {
			time.Sleep(own)
			return rules
		}
	})
	svid, err := d.source(d.agent, "/apps/demo").GetX509SVID()
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) { // where nothing else takes time
		ch.entered, ch.turns = make(chan struct{}), fair.NewQueue(fair.Config{Slots: 1, Places: 2, Patience: waitLimit})
		leave, err := ch.turns.Enter(t.Context(), "another")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for ch.turns.Waiting() == 0 {
				time.Sleep(time.Millisecond)
			}
			time.Sleep(wait)
			leave()
			time.Sleep(work)
			<-ch.entered
		}()
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/chat/completions", strings.NewReader(question))
		r.TLS = &tls.ConnectionState{HandshakeComplete: true, PeerCertificates: svid.Certificates}
		d.gateway.Handler().ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			t.Fatalf("POST = %d: %s", w.Code, w.Body)
		}
		time.Sleep(time.Second) // until it is recorded
	})
	all, overhead := d.sum("gen_ai_server_request_duration_seconds"), d.sum("weighbridge_request_overhead_seconds")
	if overhead != own.Seconds() || all < (wait+work+own).Seconds() {
		t.Errorf("the gateway took %v s of %v s, want %s beside %s and %s", overhead, all, own, wait, work)
	}
}

// sum is that of all measurements of a histogram.
func (d *door) sum(name string) (sum float64) {
	for line := range strings.Lines(d.metricsText()) {
		if strings.HasPrefix(line, name+"_sum") {
			n, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(line, ' '):]), 64)
			if err != nil {
				d.t.Fatal(err)
			}
			sum += n
		}
	}
	return sum
}

// TestPanic checks that an answer that a bug has cut short does not look whole.
func TestPanic(t *testing.T) {
	for _, stream := range []string{"", `,"stream":true`} {
		buggy := &channel{chunks: []backends.Chunk{{Text: "Hel"}}, panics: true}
		d := open(t, map[string]*channel{"chat": buggy})
		resp, err := d.clientOf(d.tls("/apps/demo", "http/1.1")).Post(d.url("/v1/chat/completions"), "application/json",
			strings.NewReader(strings.TrimSuffix(question, "}")+stream+"}"))
		if err == nil {
			var body []byte
			body, err = io.ReadAll(resp.Body)
			resp.Body.Close()
			if strings.Contains(string(body), "[DONE]") {
				t.Errorf("POST%s = %s", stream, body)
			}
		}
		if err == nil {
			t.Errorf("POST%s = %s, want the connection to be cut", stream, resp.Status)
		}
		d.stop()
		if !strings.Contains(d.log.String(), `"status":500`) {
			t.Errorf("the log does not say that it failed:\n%s", d.log)
		}
	}
}

// TestBusy asks while the only slot is taken.
func TestBusy(t *testing.T) {
	slow := hello()
	slow.entered = make(chan struct{})
	d := open(t, map[string]*channel{"chat": slow}, func(c *gateway.Config) { c.InFlight = 1 })
	answered := make(chan error, 1)
	conn, client := d.conn("/apps/demo"), d.client("/apps/demo")
	go func() {
		_, _, _, err := chat(t.Context(), conn, ask())
		answered <- err
	}()
	eventually(t, "the first request", func() bool {
		slow.mu.Lock()
		defer slow.mu.Unlock()
		return len(slow.got) == 1
	})
	resp, body := d.post(client, question)
	if e := readError(t, body); resp.StatusCode != http.StatusTooManyRequests || e.Code != "busy" || resp.Header.Get("Retry-After") == "" {
		t.Errorf("POST while busy = %s, %+v, want 429", resp.Status, e)
	}
	<-slow.entered
	if err := <-answered; err != nil {
		t.Errorf("the first request ended with %v", err)
	}
	go func() { <-slow.entered }()
	if resp, body := d.post(client, question); resp.StatusCode != http.StatusOK {
		t.Errorf("POST after that = %s: %s", resp.Status, body)
	}
}

// TestStrangersAreNotReadTo sends a body that would be a mistake, from a caller that no rule names.
func TestStrangersAreNotReadTo(t *testing.T) {
	d := open(t, map[string]*channel{"chat": hello()})
	resp, body := d.post(d.client("/batch/job"), `{"no":"json`)
	if e := readError(t, body); resp.StatusCode != http.StatusForbidden || e.Message != "permission denied" {
		t.Errorf("POST = %s, %+v, want 403", resp.Status, e)
	}
}

// TestNoTextOfCallersInTheLog puts text where a name belongs: it must not come out in the log.
func TestNoTextOfCallersInTheLog(t *testing.T) {
	text := strings.Repeat("my secret question ", 10_000)
	d := open(t, map[string]*channel{"chat": hello()})
	client, conn := d.client("/apps/demo"), d.conn("/apps/demo")
	body := `{"model":"` + text + `","messages":[{"role":"user","content":"x"}]}`
	if resp, got := d.post(client, body); resp.StatusCode != http.StatusForbidden {
		t.Errorf("POST with text for a model = %s: %s, want 403", resp.Status, got)
	}
	in := ask()
	in.Model = text
	if _, _, _, err := chat(t.Context(), conn, in); status.Code(err) != grpccodes.PermissionDenied {
		t.Errorf("Chat with text for a model = %v, want %v", err, grpccodes.PermissionDenied)
	}
	resp, err := client.Get(d.url("/v1/models/" + url.PathEscape(text[:1000])))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("GET with text for a model = %s, want 403", resp.Status)
	}
	d.stop()
	if log := d.log.String(); strings.Contains(log, "secret") || strings.Count(log, `"outcome":"permission_denied"`) != 3 {
		t.Errorf("the log has %d bytes, want three refusals without the text:\n%.500s", len(log), log)
	}
}
