package telemetry_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"

	"github.com/weighbridge/weighbridge/gateway/telemetry"
)

// traces is an OpenTelemetry collector.
type traces struct {
	collector.UnimplementedTraceServiceServer
	got chan *collector.ExportTraceServiceRequest
}

func (c *traces) Export(_ context.Context, r *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	c.got <- r
	return &collector.ExportTraceServiceResponse{}, nil
}

func startCollector(t *testing.T) (*traces, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &traces{got: make(chan *collector.ExportTraceServiceRequest, 1)}
	s := grpc.NewServer()
	collector.RegisterTraceServiceServer(s, c)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Stop()
		<-done
	})
	return c, "http://" + l.Addr().String()
}

func open(t *testing.T, offline bool) *telemetry.Telemetry {
	t.Helper()
	tel, err := telemetry.Open(t.Context(), telemetry.Config{Version: "1.2.3", Offline: offline})
	if err != nil {
		t.Fatal(err)
	}
	return tel
}

func closeAll(t *testing.T, tel *telemetry.Telemetry) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := tel.Close(ctx); err != nil {
		t.Errorf("Close = %v", err)
	}
}

// TestTraces expects spans at a collector if, and only if, the environment names one.
func TestTraces(t *testing.T) {
	tests := []struct {
		name string
		env  map[string]string // ENDPOINT is put in
		sent bool
	}{
		{"offline", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "ENDPOINT"}, false},
		{"endpoint", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "ENDPOINT"}, true},
		{"endpoint of traces", map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "ENDPOINT"}, true},
		{"no endpoint", nil, false},
		{"disabled", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "ENDPOINT", "OTEL_SDK_DISABLED": "true"}, false},
		{"no exporter", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "ENDPOINT", "OTEL_TRACES_EXPORTER": "none"}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, endpoint := startCollector(t)
			for k, v := range tt.env {
				t.Setenv(k, strings.Replace(v, "ENDPOINT", endpoint, 1))
			}
			tel := open(t, tt.name == "offline")
			_, span := tel.Tracer("test").Start(t.Context(), "chat chat")
			span.End()
			closeAll(t, tel) // it sends what is left
			select {
			case r := <-c.got:
				if name := r.GetResourceSpans()[0].GetScopeSpans()[0].GetSpans()[0].GetName(); !tt.sent || name != "chat chat" {
					t.Errorf("the collector got %q, want sent %v", name, tt.sent)
				}
			default:
				if tt.sent {
					t.Error("the collector got nothing")
				}
			}
		})
	}
}

func TestHandler(t *testing.T) {
	tel := open(t, false)
	defer closeAll(t, tel)
	counter, err := tel.Meter("test").Int64Counter("weighbridge.tests")
	if err != nil {
		t.Fatal(err)
	}
	counter.Add(t.Context(), 2)
	w := httptest.NewRecorder()
	tel.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for _, want := range []string{"weighbridge_tests_total 2", `service_version="1.2.3"`, `service_name="weighbridge"`, "process_open_fds"} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("metrics lack %s", want)
		}
	}
}
