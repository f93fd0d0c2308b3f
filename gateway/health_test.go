package gateway_test

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// TestHealthOfChannels: each channel has a health of its own, for those who may see it.
func TestHealthOfChannels(t *testing.T) {
	d := open(t, map[string]*channel{"chat": hello(), "quiet": {missing: errors.New("no approval")}, "private": hello()})
	serving, not, unknown := grpc_health_v1.HealthCheckResponse_SERVING, grpc_health_v1.HealthCheckResponse_NOT_SERVING, grpc_health_v1.HealthCheckResponse_SERVICE_UNKNOWN
	for _, tt := range []struct {
		path, service string
		want          grpc_health_v1.HealthCheckResponse_ServingStatus
	}{
		{"/apps/demo", "chat", serving},
		{"/apps/demo", "quiet", not},
		{"/apps/demo", "private", unknown}, // no rule
		{"/apps/demo", "ghost", unknown},   // no channel
		{"/apps/demo", "no such\nname", unknown},
		{"/batch/job", "chat", unknown},
		{"/batch/job", "readiness", serving},
	} {
		client := grpc_health_v1.NewHealthClient(d.conn(tt.path))
		got, err := client.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: tt.service})
		if tt.want == unknown {
			if s := status.Convert(err); s.Code() != codes.NotFound || s.Message() != "unknown service" {
				t.Errorf("Check of %q by %s = %v, %v, want NOT_FOUND", tt.service, tt.path, got, err)
			}
		} else if err != nil || got.GetStatus() != tt.want {
			t.Errorf("Check of %q by %s = %v, %v, want %v", tt.service, tt.path, got, err, tt.want)
		}
		watch, err := client.Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: tt.service})
		if err != nil {
			t.Fatal(err)
		}
		if first, err := watch.Recv(); err != nil || first.GetStatus() != tt.want {
			t.Errorf("Watch of %q by %s = %v, %v, want %v", tt.service, tt.path, first, err, tt.want)
		}
	}
	list, err := grpc_health_v1.NewHealthClient(d.conn("/apps/demo")).List(t.Context(), &grpc_health_v1.HealthListRequest{})
	if err != nil || list.GetStatuses()["chat"].GetStatus() != serving || list.GetStatuses()["quiet"].GetStatus() != not || list.GetStatuses()["private"] != nil {
		t.Errorf("List = %v, %v", list, err)
	}
}

// TestHealthOfShutdown: who watches a channel hears of the end, and does not delay it.
func TestHealthOfShutdown(t *testing.T) {
	d := open(t, map[string]*channel{"chat": hello()})
	watch, err := grpc_health_v1.NewHealthClient(d.conn("/apps/demo")).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: "chat"})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := watch.Recv(); err != nil || m.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Fatalf("Recv = %v, %v", m, err)
	}
	if err := d.stop(); err != nil {
		t.Errorf("Serve = %v", err)
	}
	if strings.Contains(d.log.String(), "cut off") {
		t.Error("the shutdown waited for the watch until the time was up")
	}
	if m, err := watch.Recv(); err != nil || m.GetStatus() != grpc_health_v1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("Recv = %v, %v, want NOT_SERVING", m, err)
	}
	if _, err := watch.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("Recv = %v, want UNAVAILABLE", err)
	}
}
