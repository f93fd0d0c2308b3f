package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/codes"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
	"github.com/weighbridge/weighbridge/gateway/audit"
	"github.com/weighbridge/weighbridge/gateway/audit/audittest"
	"github.com/weighbridge/weighbridge/gateway/catalog"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// A slowTrail has the record of a switch only once it is let.
type slowTrail struct {
	catalog.Trail
	let chan struct{}
}

func (s *slowTrail) Append(ctx context.Context, r audit.Record) (int64, error) {
	if r.Kind == audit.KindSwitch {
		select {
		case <-s.let:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
	return s.Trail.Append(ctx, r)
}

// TestPhases follows swaps through their phases: as status shows them, and as spans and metrics tell of them afterwards.
func TestPhases(t *testing.T) {
	s, stage := newWorld(t), newStage()
	s.backend = stage.backend
	trail := &slowTrail{audittest.Open(t), make(chan struct{})}
	s.trail = trail
	spans, reader := tracetest.NewSpanRecorder(), sdkmetric.NewManualReader()
	s.tracer = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("test")
	s.meter = sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)).Meter("test")
	s.start(gib)

	a := s.release("a.gguf", 1, nil)
	stage.next(t).verdict <- nil
	trail.let <- struct{}{}
	s.untilServes(a)

	// The next asks its first question, whose answer is not what it says.
	s.release("b.gguf", 2, func(d *trust.Descriptor) { d.Warmup = trust.Warmup{Prompt: "hello", Contains: "nothing like it"} })
	stage.next(t).verdict <- nil
	s.until("why not", func(st catalog.Status) bool { return strings.Contains(st.Error, "warm up") })

	s.writeModel("c.gguf", tinygguf.Config{Sentence: "I am version C."})
	c := s.release("c.gguf", 3, nil)
	phase := func(want string) {
		t.Helper()
		s.until(want, func(st catalog.Status) bool {
			return st.Load != nil && st.Load.Release == string(c) && st.Load.Phase == want && st.Release == string(a)
		})
	}
	starting := stage.next(t)
	phase("start")
	starting.verdict <- nil
	phase("record")
	trail.let <- struct{}{}
	if st := s.untilServes(c); st.Load != nil {
		t.Errorf("load is %+v when the release serves, want none", st.Load)
	}
	// Published again, it is only recorded.
	s.Publish(c, "chat", 4)
	s.until("record", func(st catalog.Status) bool {
		return st.Load != nil && st.Load.Phase == "record" && st.Release == string(c)
	})
	trail.let <- struct{}{}
	s.until("epoch 4", func(st catalog.Status) bool { return st.Epoch == 4 && st.Load == nil })
	s.stop()

	var told []string
	names := map[string]string{}
	for _, span := range spans.Ended() {
		names[span.SpanContext().SpanID().String()] = span.Name()
	}
	for _, span := range spans.Ended() {
		if strings.HasPrefix(span.Name(), "swap ") || names[span.Parent().SpanID().String()] == "swap chat" {
			told = append(told, fmt.Sprint(span.Name(), " ", span.Status().Code == codes.Error))
		}
	}
	want := []string{
		"read false", "start false", "warm-up false", "record false", "swap chat false",
		"read false", "start false", "warm-up true", "swap chat true",
		"read false", "start false", "warm-up false", "record false", "swap chat false",
	}
	if !slices.Equal(told, want) {
		t.Errorf("spans are %q, want %q", told, want)
	}
	var data metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &data); err != nil {
		t.Fatal(err)
	}
	counts, err := phases(data)
	if err != nil {
		t.Fatal(err)
	}
	for phase, want := range map[string]uint64{
		"read done": 3, "start done": 3, "warm-up done": 2, "warm-up failed": 1, "record done": 3, "stop done": 2,
	} {
		if counts[phase] != want {
			t.Errorf("metric counts phase %s %d times, want %d", phase, counts[phase], want)
		}
	}
}

// phases are how often each phase ended, by its outcome.
func phases(data metricdata.ResourceMetrics) (map[string]uint64, error) {
	counts := map[string]uint64{}
	for _, scope := range data.ScopeMetrics {
		for _, m := range scope.Metrics {
			if m.Name != "weighbridge.swap.phase.duration" {
				continue
			}
			h, ok := m.Data.(metricdata.Histogram[float64])
			if !ok {
				return nil, errors.New("the metric is no histogram")
			}
			for _, p := range h.DataPoints {
				phase, _ := p.Attributes.Value("phase")
				outcome, _ := p.Attributes.Value("outcome")
				counts[phase.AsString()+" "+outcome.AsString()] += p.Count
			}
		}
	}
	return counts, nil
}
