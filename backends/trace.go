package backends

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Trace has a request to a runtime belong to the trace of ctx, if there is one, as W3C Trace Context says (traceparent). The
// tracestate is left out: it is a caller's text.
func Trace(ctx context.Context, h http.Header) {
	span := trace.SpanContextFromContext(ctx)
	if !span.IsValid() {
		return
	}
	span = span.WithTraceState(trace.TraceState{})
	propagation.TraceContext{}.Inject(trace.ContextWithSpanContext(context.Background(), span), propagation.HeaderCarrier(h))
}
