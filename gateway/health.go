package gateway

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// serviceReadiness is the name by which probes ask whether any channel answers.
const serviceReadiness = "readiness"

// channelHealth answers for what the server reports, and for each channel by its name: to callers who may see that
// channel, as if there were none to others.
type channelHealth struct {
	grpc_health_v1.UnimplementedHealthServer
	reported *health.Server
	g        *Gateway
}

// of returns how a service is, SERVICE_UNKNOWN if there is none that the caller may know of.
func (h *channelHealth) of(ctx context.Context, service string) grpc_health_v1.HealthCheckResponse_ServingStatus {
	if known, err := h.reported.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: service}); err == nil {
		return known.GetStatus()
	}
	info, err := h.g.model(callOf(ctx), service)
	switch {
	case err != nil:
		return grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN
	case info.State != StateReady || h.g.identity.Check(h.g.now()) != nil:
		return grpc_health_v1.HealthCheckResponse_NOT_SERVING
	}
	return h.of(ctx, "") // which ends with the server
}

// Check implements grpc_health_v1.HealthServer.
func (h *channelHealth) Check(ctx context.Context, in *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	found := h.of(ctx, in.GetService())
	if found == grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN {
		return nil, status.Error(codes.NotFound, "unknown service")
	}
	return &grpc_health_v1.HealthCheckResponse{Status: found}, nil
}

// List implements grpc_health_v1.HealthServer.
func (h *channelHealth) List(ctx context.Context, in *grpc_health_v1.HealthListRequest) (*grpc_health_v1.HealthListResponse, error) {
	out, err := h.reported.List(ctx, in)
	if err != nil {
		return nil, err
	}
	channels, _ := h.g.models(callOf(ctx)) // or none that the caller may see
	for _, info := range channels {
		out.Statuses[info.Channel] = &grpc_health_v1.HealthCheckResponse{Status: h.of(ctx, info.Channel)}
	}
	return out, nil
}

// Watch implements grpc_health_v1.HealthServer. It ends with the server, which would else wait for it.
func (h *channelHealth) Watch(in *grpc_health_v1.HealthCheckRequest, stream grpc.ServerStreamingServer[grpc_health_v1.HealthCheckResponse]) error {
	tick := time.NewTicker(healthInterval)
	defer tick.Stop()
	for last := grpc_health_v1.HealthCheckResponse_UNKNOWN; ; {
		if found := h.of(stream.Context(), in.GetService()); found != last {
			if err := stream.Send(&grpc_health_v1.HealthCheckResponse{Status: found}); err != nil {
				return err
			}
			last = found
		}
		if h.of(stream.Context(), "") != grpc_health_v1.HealthCheckResponse_SERVING {
			return status.Error(codes.Unavailable, "the server shuts down")
		}
		select {
		case <-tick.C:
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		}
	}
}
