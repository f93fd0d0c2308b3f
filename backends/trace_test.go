package backends_test

import (
	"net/http"
	"reflect"
	"testing"

	"go.opentelemetry.io/otel/trace"

	"github.com/weighbridge/weighbridge/backends"
)

func TestTrace(t *testing.T) {
	h := http.Header{}
	if backends.Trace(t.Context(), h); len(h) != 0 {
		t.Errorf("Trace() outside of a trace writes %v", h)
	}
	state, err := trace.ParseTraceState("vendor=secret")
	if err != nil {
		t.Fatal(err)
	}
	span := trace.SpanContextConfig{TraceID: trace.TraceID{15: 0xa}, SpanID: trace.SpanID{7: 0xb}, TraceState: state}
	for _, tt := range []struct {
		flags trace.TraceFlags
		want  string
	}{
		{trace.FlagsSampled, "00-0000000000000000000000000000000a-000000000000000b-01"},
		{0, "00-0000000000000000000000000000000a-000000000000000b-00"},
	} {
		span.TraceFlags = tt.flags
		h := http.Header{}
		backends.Trace(trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(span)), h)
		if want := (http.Header{"Traceparent": {tt.want}}); !reflect.DeepEqual(h, want) {
			t.Errorf("Trace() writes %v, want %v", h, want)
		}
	}
}
