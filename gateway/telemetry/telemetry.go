// Package telemetry sets up metrics and traces for the whole process.
//
// The one rule: nothing leaves this machine unless the operator named where to, in OTEL_EXPORTER_OTLP_ENDPOINT (or
// OTEL_EXPORTER_OTLP_TRACES_ENDPOINT). Metrics are kept for whoever asks [Telemetry.Handler]; there are no global
// providers, so a part that is given none records nothing.
package telemetry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	promexporter "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
)

// Config says who reports.
type Config struct {
	Version string       // of the program
	Log     *slog.Logger // gets the exporter's troubles; nil: nowhere
	Offline bool         // nothing is sent, whatever the environment names
}

// Telemetry is the providers of one process.
type Telemetry struct {
	version string
	meters  metric.MeterProvider
	traces  trace.TracerProvider
	handler http.Handler
	closers []func(context.Context) error
}

// Open sets everything up from the OTEL_* variables. With OTEL_SDK_DISABLED=true there are no traces.
func Open(ctx context.Context, c Config) (*Telemetry, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	res, err := resource.New(ctx,
		resource.WithAttributes(semconv.ServiceName("weighbridge"), semconv.ServiceVersion(c.Version)),
		resource.WithFromEnv(), // OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win
		resource.WithTelemetrySDK(),
	)
	if err != nil {
		return nil, fmt.Errorf("telemetry: resource: %w", err)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	exporter, err := promexporter.New(promexporter.WithRegisterer(registry), promexporter.WithoutScopeInfo())
	if err != nil {
		return nil, fmt.Errorf("telemetry: metrics: %w", err)
	}
	meters := sdkmetric.NewMeterProvider(sdkmetric.WithResource(res), sdkmetric.WithReader(exporter))
	t := &Telemetry{
		version: c.Version, meters: meters, traces: tracenoop.NewTracerProvider(),
		handler: promhttp.HandlerFor(registry, promhttp.HandlerOpts{
			Registry: registry,
			ErrorLog: slog.NewLogLogger(c.Log.Handler(), slog.LevelWarn),
		}),
		closers: []func(context.Context) error{meters.Shutdown},
	}
	if !exports() {
		return t, nil
	}
	if c.Offline {
		c.Log.Warn("traces are not sent: the gateway is offline", "collector", cmp.Or(os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"), os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT")))
		return t, nil
	}
	spans, err := otlptracegrpc.New(ctx) // reads the OTEL_EXPORTER_OTLP_* variables
	if err != nil {
		return nil, errors.Join(fmt.Errorf("telemetry: traces: %w", err), t.Close(ctx))
	}
	// The sampler comes from OTEL_TRACES_SAMPLER; by default what a caller samples is sampled.
	traces := sdktrace.NewTracerProvider(sdktrace.WithResource(res), sdktrace.WithBatcher(spans))
	t.traces = traces
	t.closers = append(t.closers, traces.Shutdown)
	return t, nil
}

// exports reports whether an operator named a collector.
func exports() bool {
	if os.Getenv("OTEL_SDK_DISABLED") == "true" || os.Getenv("OTEL_TRACES_EXPORTER") == "none" {
		return false
	}
	return os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
}

// Meter returns what a part of the program, named by scope, measures with.
func (t *Telemetry) Meter(scope string) metric.Meter {
	return t.meters.Meter(scope, metric.WithInstrumentationVersion(t.version))
}

// Tracer returns what a part of the program, named by scope, traces with.
func (t *Telemetry) Tracer(scope string) trace.Tracer {
	return t.traces.Tracer(scope, trace.WithInstrumentationVersion(t.version))
}

// Handler serves the metrics in the Prometheus formats.
func (t *Telemetry) Handler() http.Handler { return t.handler }

// Close sends what is left, until ctx ends.
func (t *Telemetry) Close(ctx context.Context) error {
	var errs []error
	for _, stop := range t.closers {
		errs = append(errs, stop(ctx))
	}
	return errors.Join(errs...)
}
