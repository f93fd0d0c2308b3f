package gateway

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"

	"github.com/weighbridge/weighbridge/backends"

	"github.com/weighbridge/weighbridge/gateway/access"
)

// Names of the OpenTelemetry conventions for generative AI, which are still in development.
const (
	attrOperation = attribute.Key("gen_ai.operation.name")
	attrProvider  = attribute.Key("gen_ai.provider.name")
	attrModel     = attribute.Key("gen_ai.request.model")
	attrTokenType = attribute.Key("gen_ai.token.type")
	attrErrorType = attribute.Key("error.type")

	operationChat  = "chat"
	operationText  = "text_completion"
	operationEmbed = "embeddings"
	operationCount = "count_tokens"

	provider = "weighbridge"
)

var (
	durationBuckets = []float64{0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92}
	firstBuckets    = []float64{0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10}
	perTokenBuckets = []float64{0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5}
	overheadBuckets = []float64{0.0001, 0.0002, 0.0003, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.25, 1}
	tokenBuckets    = []float64{1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864}
)

// meters are what the gateway counts.
type meters struct {
	duration metric.Float64Histogram
	first    metric.Float64Histogram
	perToken metric.Float64Histogram
	overhead metric.Float64Histogram
	tokens   metric.Int64Histogram
	refused  metric.Int64Counter

	known sync.Map // of labelKey, to *labels

	// What is only looked at when somebody asks for it: to count it each time would take long.
	active  atomic.Int64
	waiting sync.Map // of channels, to *atomic.Int64
}

// A labelKey is what a measurement is counted under. There are few: all of it is ours, and nothing a caller's.
type labelKey struct{ operation, channel, failure string }

// labels are the attributes of a labelKey, made once: to sort and hash them costs more than to count.
type labels struct {
	all, input, output []metric.RecordOption
}

func (m *meters) labels(k labelKey) *labels {
	if l, ok := m.known.Load(k); ok {
		return l.(*labels) //nolint:forcetypeassert // there are no others
	}
	attrs := []attribute.KeyValue{attrOperation.String(k.operation), attrProvider.String(provider)}
	if k.channel != "" {
		attrs = append(attrs, attrModel.String(k.channel))
	}
	if k.failure != "" {
		attrs = append(attrs, attrErrorType.String(k.failure))
	}
	with := func(more ...attribute.KeyValue) []metric.RecordOption {
		return []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(slices.Concat(attrs, more)...))}
	}
	l, _ := m.known.LoadOrStore(k, &labels{with(), with(attrTokenType.String("input")), with(attrTokenType.String("output"))})
	return l.(*labels) //nolint:forcetypeassert // there are no others
}

func newMeters(m metric.Meter) (*meters, error) {
	if m == nil {
		m = metricnoop.NewMeterProvider().Meter("")
	}
	var out meters
	var errs [8]error
	out.duration, errs[0] = m.Float64Histogram("gen_ai.server.request.duration", metric.WithUnit("s"),
		metric.WithDescription("Time from a request to the end of its answer."), metric.WithExplicitBucketBoundaries(durationBuckets...))
	out.first, errs[1] = m.Float64Histogram("gen_ai.server.time_to_first_token", metric.WithUnit("s"),
		metric.WithDescription("Time from a request to the first part of its answer."), metric.WithExplicitBucketBoundaries(firstBuckets...))
	out.perToken, errs[2] = m.Float64Histogram("gen_ai.server.time_per_output_token", metric.WithUnit("s"),
		metric.WithDescription("Time per token after the first."), metric.WithExplicitBucketBoundaries(perTokenBuckets...))
	out.tokens, errs[3] = m.Int64Histogram("gen_ai.client.token.usage", metric.WithUnit("{token}"),
		metric.WithDescription("Tokens of a request and of its answer."), metric.WithExplicitBucketBoundaries(tokenBuckets...))
	_, errs[4] = m.Int64ObservableUpDownCounter("weighbridge.requests.active", metric.WithUnit("{request}"),
		metric.WithDescription("Requests that are being answered."), metric.WithInt64Callback(out.tellActive))
	_, errs[5] = m.Int64ObservableUpDownCounter("weighbridge.requests.waiting", metric.WithUnit("{request}"),
		metric.WithDescription("Requests that wait for their turn at a runtime."), metric.WithInt64Callback(out.tellWaiting))
	out.refused, errs[6] = m.Int64Counter("weighbridge.requests.refused", metric.WithUnit("{request}"),
		metric.WithDescription("Requests refused because of too many, by limit, and by rule if it is one's."))
	out.overhead, errs[7] = m.Float64Histogram("weighbridge.request.overhead", metric.WithUnit("s"),
		metric.WithDescription("Time that the gateway itself takes of a request: without its wait for a turn, and without that from the question to the runtime to the end of its answer."),
		metric.WithExplicitBucketBoundaries(overheadBuckets...))
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	for _, limit := range []string{limitTurns, limitInFlight} { // which may never be reached: that is shown, too
		out.refused.Add(context.Background(), 0, metric.WithAttributes(attribute.String("rule", ""), attribute.String("limit", limit)))
	}
	return &out, nil
}

// operation is what is asked for, in the words of the conventions.
func (r *request) operation() string {
	switch {
	case r.counts:
		return operationCount
	case r.method == access.MethodGenerate:
		return operationText
	case r.method == access.MethodEmbed:
		return operationEmbed
	default:
		return operationChat
	}
}

// waits counts a request that waits for a runtime of the channel, until done.
func (m *meters) waits(channel string) (done func()) {
	n, ok := m.waiting.Load(channel)
	if !ok {
		n, _ = m.waiting.LoadOrStore(channel, new(atomic.Int64))
	}
	waiting := n.(*atomic.Int64) //nolint:forcetypeassert // there are no others
	waiting.Add(1)
	return func() { waiting.Add(-1) }
}

func (m *meters) tellActive(_ context.Context, to metric.Int64Observer) error {
	to.Observe(m.active.Load())
	return nil
}

func (m *meters) tellWaiting(_ context.Context, to metric.Int64Observer) error {
	m.waiting.Range(func(channel, n any) bool {
		//nolint:forcetypeassert // there are no others
		to.Observe(n.(*atomic.Int64).Load(), metric.WithAttributes(attribute.String("channel", channel.(string))))
		return true
	})
	return nil
}

// crowded counts a request that was refused because of too many, if that is the error.
func (m *meters) crowded(ctx context.Context, err error) {
	if rule, limit, ok := limitOf(err); ok {
		m.refused.Add(ctx, 1, metric.WithAttributes(attribute.String("rule", rule), attribute.String("limit", limit)))
	}
}

// An observation follows one request. It sees counts, names and times, and never a word of the conversation.
type observation struct {
	g    *Gateway
	span trace.Span
	r    *request

	start, first time.Time
	ended        time.Time
	err          error // with which it ended
	info         ServingInfo
	usage        *backends.Usage
	finish       string
	rule         *int          // by which it was let in; nil: by none
	wait         time.Duration // for its turn at the runtime
	asked        bool          // it had its turn
	runtime      time.Duration // that its runtime took
	chunks       int64
	unseen       int64 // tokens that an answer may have which comes whole
	unread       bool  // how long it took was up to its caller
}

func (g *Gateway) observe(ctx context.Context, r *request) (context.Context, *observation) {
	ctx, span := g.tracer.Start(ctx, r.operation(), trace.WithSpanKind(trace.SpanKindServer))
	if span.IsRecording() {
		r.describe(span)
	}
	g.meters.active.Add(1)
	return ctx, &observation{g: g, span: span, r: r, start: time.Now()}
}

// describe says what is asked.
func (r *request) describe(span trace.Span) {
	span.SetAttributes(
		attrOperation.String(r.operation()), attrProvider.String(provider), attribute.Bool("gen_ai.request.stream", r.stream),
		attribute.String("weighbridge.caller", r.caller.String()), attribute.String("weighbridge.request.id", r.id))
	if r.maxTokens != nil {
		span.SetAttributes(attribute.Int64("gen_ai.request.max_tokens", *r.maxTokens))
	}
	if r.temperature != nil {
		span.SetAttributes(attribute.Float64("gen_ai.request.temperature", *r.temperature))
	}
	if r.topP != nil {
		span.SetAttributes(attribute.Float64("gen_ai.request.top_p", *r.topP))
	}
}

// serving notes who answers. Only from here on the channel is a name of ours: before, it is a caller's text, which must
// not become a label or the name of a span.
func (o *observation) serving(info ServingInfo) {
	o.info = info
	if !o.span.IsRecording() {
		return
	}
	o.span.SetName(o.r.operation() + " " + info.Channel)
	o.span.SetAttributes(attrModel.String(info.Channel), attribute.String("gen_ai.response.model", info.Channel),
		attribute.String("weighbridge.release", info.Release), attribute.String("weighbridge.weights", info.Weights),
		attribute.String("weighbridge.level", info.Level))
}

func (o *observation) chunk(c backends.Chunk) {
	o.chunks++
	if o.first.IsZero() || c.Since > 0 {
		o.first = time.Now().Add(-c.Since)
	}
	if c.Usage != nil {
		o.usage = c.Usage
	}
	if c.FinishReason != "" {
		o.finish = c.FinishReason
	}
}

// timed measures what the runtime takes of a request.
func (o *observation) timed(ask func() error) error {
	begun := time.Now()
	defer func() { o.runtime += time.Since(begun) }()
	return ask()
}

// spent is what a request has used that ended so. An answer that was cut off is counted by its parts, each of which has a
// token at least, and its prompt as it was expected; of one that was to come whole nobody saw how far it was, and all of it
// is counted. What a runtime failed to begin costs nothing.
func (o *observation) spent(expected access.Tokens, err error) access.Tokens {
	failed := new(runtimeError)
	switch {
	case o.usage != nil:
		return access.Tokens{Prompt: int64(o.usage.PromptTokens), Completion: int64(o.usage.CompletionTokens)}
	case !o.asked, o.chunks == 0 && errors.As(err, &failed) && (o.unseen == 0 || unbegun(err)):
		return access.Tokens{}
	case o.chunks == 0:
		return access.Tokens{Prompt: expected.Prompt, Completion: o.unseen}
	}
	return access.Tokens{Prompt: expected.Prompt, Completion: o.chunks}
}

// unbegun reports whether a runtime refused what it was asked, or died over it.
func unbegun(err error) bool {
	return errors.Is(err, backends.ErrInvalidRequest) || errors.Is(err, backends.ErrUnsupported) || errors.Is(err, backends.ErrInterrupted)
}

// end ends the observation of a request that ended so.
func (o *observation) end(err error) {
	o.ended, o.err = time.Now(), err
	o.g.meters.active.Add(-1)
	o.g.tellRefused(o.r.call, err)
	if o.span.IsRecording() {
		o.conclude(outcomeOf(err))
	}
	o.span.End()
	o.r.forget()
	o.g.ledger.add(o)
}

// forget drops the conversation: what is still to be recorded of a request has no use for it.
func (r *request) forget() {
	r.messages, r.places, r.prompt, r.inputs, r.tools, r.stop = nil, nil, "", nil, nil, nil
}

// record counts a request that has ended, and writes its line.
func (o *observation) record() {
	ctx := trace.ContextWithSpanContext(context.Background(), o.span.SpanContext()) // that of the request is over
	out := outcomeOf(o.err)
	m := o.g.meters
	of := m.labels(labelKey{o.r.operation(), o.info.Channel, ""})
	if !o.first.IsZero() {
		m.first.Record(ctx, o.first.Sub(o.start).Seconds(), of.all...)
	}
	if o.usage != nil {
		in, outTokens := o.usage.PromptTokens, o.usage.CompletionTokens
		m.tokens.Record(ctx, int64(in), of.input...)
		m.tokens.Record(ctx, int64(outTokens), of.output...)
		if outTokens > 1 {
			m.perToken.Record(ctx, o.ended.Sub(o.first).Seconds()/float64(outTokens-1), of.all...)
		}
	}
	if out.code != "" {
		of = m.labels(labelKey{o.r.operation(), o.info.Channel, out.code})
	}
	m.crowded(ctx, o.err)
	m.duration.Record(ctx, o.ended.Sub(o.start).Seconds(), of.all...)
	if !o.unread {
		m.overhead.Record(ctx, (o.ended.Sub(o.start) - o.wait - o.runtime).Seconds(), of.all...)
	}
	o.log(ctx, out)
}

// conclude says in the span what became of the request.
func (o *observation) conclude(out outcome) {
	if out.code != "" {
		o.span.SetStatus(codes.Error, out.code)
		o.span.SetAttributes(attrErrorType.String(out.code))
	}
	if !o.first.IsZero() {
		o.span.SetAttributes(attribute.Float64("gen_ai.response.time_to_first_chunk", o.first.Sub(o.start).Seconds()))
	}
	if o.usage != nil {
		o.span.SetAttributes(attribute.Int("gen_ai.usage.input_tokens", o.usage.PromptTokens), attribute.Int("gen_ai.usage.output_tokens", o.usage.CompletionTokens))
	}
	if o.finish != "" {
		o.span.SetAttributes(attribute.StringSlice("gen_ai.response.finish_reasons", []string{o.finish}))
	}
}

// log writes the access log: one line for each request.
func (o *observation) log(ctx context.Context, out outcome) {
	attrs := append(o.r.attrs(out), slog.String("method", o.r.operation()), slog.String("api", o.r.api), slog.String("channel", o.r.channel),
		slog.Bool("stream", o.r.stream), slog.Duration("duration", o.ended.Sub(o.start)))
	if o.rule != nil {
		attrs = append(attrs, slog.Int("rule", *o.rule))
	}
	if o.wait >= time.Millisecond {
		attrs = append(attrs, slog.Duration("wait", o.wait))
	}
	if o.info.Release != "" {
		attrs = append(attrs, slog.String("release", o.info.Release), slog.String("weights", o.info.Weights), slog.String("guarded", o.info.Level))
	}
	if !o.first.IsZero() {
		attrs = append(attrs, slog.Duration("first", o.first.Sub(o.start)))
	}
	if o.usage != nil {
		attrs = append(attrs, slog.Int("prompt_tokens", o.usage.PromptTokens), slog.Int("completion_tokens", o.usage.CompletionTokens))
	}
	if o.finish != "" {
		attrs = append(attrs, slog.String("finish", o.finish))
	}
	if id := o.r.receipt.ID(); id != "" {
		attrs = append(attrs, slog.String("receipt", id))
	}
	if span := o.span.SpanContext(); span.IsValid() {
		attrs = append(attrs, slog.String("trace_id", span.TraceID().String()))
	}
	o.g.logRequest(ctx, o.ended, out, o.err, attrs)
}

// tellRefused passes on who was refused; what for is the caller's business no more than the log's.
func (g *Gateway) tellRefused(c call, err error) {
	if errors.Is(err, access.ErrDenied) || errors.Is(err, ErrUnknownChannel) {
		g.refused(c.caller.String())
	}
}

// logOther writes the access log's line of a call that asks no model, or was refused before that was known.
func (g *Gateway) logOther(ctx context.Context, c call, method string, err error) {
	out := outcomeOf(err)
	g.tellRefused(c, err)
	g.ledger.flush() // what ended before it
	g.logRequest(ctx, time.Now(), out, err, append(c.attrs(out), slog.String("method", method)))
}

// maxAttrs is how many a line of the access log has at most, or nearly.
const maxAttrs = 24

func (c *call) attrs(out outcome) []slog.Attr {
	status := slog.Int("status", out.http)
	if c.protocol == protocolGRPC {
		status = slog.String("status", out.grpc.String())
	}
	attrs := append(make([]slog.Attr, 0, maxAttrs),
		slog.String("request_id", c.id), slog.String("caller", c.caller.String()), slog.String("protocol", c.protocol), status)
	if c.shown.By != "" {
		attrs = append(attrs, slog.String("auth", c.shown.By))
	}
	if !c.shown.Proxy.IsZero() {
		attrs = append(attrs, slog.String("proxy", c.shown.Proxy.String()))
	}
	return attrs
}

// logRequest gives operators the reason that callers don't get. Trouble of ours is a warning; callers' mistakes and
// refusals are not.
func (g *Gateway) logRequest(ctx context.Context, at time.Time, out outcome, err error, attrs []slog.Attr) {
	level := slog.LevelInfo
	if err != nil {
		attrs = append(attrs, slog.String("outcome", out.code), slog.String("err", err.Error()))
		if out.http >= 500 {
			level = slog.LevelWarn
		}
	}
	if !g.log.Enabled(ctx, level) {
		return
	}
	line := slog.NewRecord(at, level, "request", 0) // of no place in the program, which takes long to find
	line.AddAttrs(attrs...)
	_ = g.log.Handler().Handle(ctx, line) // as slog itself does
}
