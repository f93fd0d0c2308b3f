package gateway_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/gateway"
	pb "github.com/weighbridge/weighbridge/proto/weighbridge/inference/v1"
)

func ask() *pb.ChatRequest {
	return &pb.ChatRequest{Model: "chat", Messages: []*pb.Message{{Role: "user", Content: "tell me a secret"}}}
}

// chat reads an answer to its end.
func chat(ctx context.Context, conn *grpc.ClientConn, req *pb.ChatRequest) (parts []*pb.ChatResponse, header, trailer metadata.MD, err error) {
	stream, err := pb.NewInferenceClient(conn).Chat(ctx, req)
	if err != nil {
		return nil, nil, nil, err
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			header, _ := stream.Header()
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return parts, header, stream.Trailer(), err
		}
		parts = append(parts, m)
	}
}

func TestGRPCChat(t *testing.T) {
	ch := hello()
	d := open(t, map[string]*channel{"chat": ch})
	parts, header, trailer, err := chat(t.Context(), d.conn("/apps/demo"), ask())
	if err != nil {
		t.Fatal(err)
	}
	text := ""
	for _, p := range parts {
		text += p.GetText()
	}
	first, last := parts[0], parts[len(parts)-1]
	if text != "Hello, world." || last.GetFinishReason() != "stop" || last.GetUsage().GetPromptTokens() != 7 || last.GetUsage().GetCompletionTokens() != 3 {
		t.Errorf("Chat = %v", parts)
	}
	if first.GetRelease() != release || first.GetWeights() != weights || first.GetLevel() != level || last.GetRelease() != "" {
		t.Errorf("first = %v, want it to name the release", first)
	}
	for _, md := range []metadata.MD{header, trailer} {
		for name, want := range map[string]string{"weighbridge-release": release, "weighbridge-weights": weights, "weighbridge-level": level} {
			if got := md.Get(name); len(got) != 1 || got[0] != want {
				t.Errorf("metadata %s = %v, want %s", name, got, want)
			}
		}
	}
	d.stop()
	for _, want := range []string{`"protocol":"grpc"`, `"status":"OK"`, `"caller":"spiffe://bank.example/apps/demo"`} {
		if !strings.Contains(d.log.String(), want) {
			t.Errorf("the log lacks %s:\n%s", want, d.log)
		}
	}
	if strings.Contains(d.log.String(), "secret") {
		t.Error("the log holds the conversation")
	}
}

// TestGRPCRequest breaks one thing of a request at a time.
func TestGRPCRequest(t *testing.T) {
	ch := hello()
	ch.limits.MaxTokens = 100
	d := open(t, map[string]*channel{"chat": ch})
	conn := d.conn("/apps/demo")
	unknown := protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1)
	n, f := func(n int32) *int32 { return &n }, func(f float64) *float64 { return &f }
	tests := []struct {
		name   string
		change func(*pb.ChatRequest)
		want   string // "" for an answer
	}{
		{"valid", func(*pb.ChatRequest) {}, ""},
		{"temperature 0", func(r *pb.ChatRequest) { r.Temperature = f(0) }, ""},
		{"unknown field", func(r *pb.ChatRequest) { r.ProtoReflect().SetUnknown(unknown) }, "field 99: is unknown"},
		{"unknown field of a message", func(r *pb.ChatRequest) { r.Messages[0].ProtoReflect().SetUnknown(unknown) }, "messages[0].field 99: is unknown"},
		{"no messages", func(r *pb.ChatRequest) { r.Messages = nil }, "messages"},
		{"other role", func(r *pb.ChatRequest) { r.Messages[0].Role = "root" }, "messages[0].role"},
		{"max_tokens below 1", func(r *pb.ChatRequest) { r.MaxTokens = n(0) }, "max_tokens"},
		{"max_tokens above the release's", func(r *pb.ChatRequest) { r.MaxTokens = n(101) }, "max_tokens: is above 100"},
		{"temperature not a number", func(r *pb.ChatRequest) { r.Temperature = f(math.NaN()) }, "temperature"},
		{"top_p infinite", func(r *pb.ChatRequest) { r.TopP = f(math.Inf(1)) }, "top_p"},
		{"long stop", func(r *pb.ChatRequest) { r.Stop = []string{strings.Repeat("x", 257)} }, "stop[0]"},
		{"many messages", func(r *pb.ChatRequest) {
			for range 2048 {
				r.Messages = append(r.Messages, r.Messages[0])
			}
		}, "messages"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req := ask()
			tt.change(req)
			_, _, _, err := chat(t.Context(), conn, req)
			switch s := status.Convert(err); {
			case tt.want == "" && err != nil:
				t.Errorf("Chat = %v, want an answer", err)
			case tt.want != "" && (s.Code() != codes.InvalidArgument || !strings.HasPrefix(s.Message(), tt.want)):
				t.Errorf("Chat = %v, want INVALID_ARGUMENT with %q", err, tt.want)
			}
		})
	}
	large := ask()
	large.Messages[0].Content = strings.Repeat("x", 5<<20)
	if _, _, _, err := chat(t.Context(), conn, large); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("Chat of 5 MiB = %v, want RESOURCE_EXHAUSTED", err)
	}
}

func TestGRPCOutcomes(t *testing.T) {
	quiet := &channel{missing: errors.New("1 of 2 required approvals")}
	broken := &channel{chunks: []backends.Chunk{{Text: "Hello, "}}, fail: errors.New("segmentation fault")}
	tests := []struct {
		name, path, model string
		code              codes.Code
		message           string
	}{
		{"no rule for the caller", "/batch/job", "chat", codes.PermissionDenied, "permission denied"},
		{"no rule for the channel", "/apps/demo", "private", codes.PermissionDenied, "permission denied"},
		{"unknown channel", "/apps/demo", "ghost", codes.PermissionDenied, "permission denied"},
		{"no channel", "/apps/demo", "", codes.PermissionDenied, "permission denied"},
		{"serves nothing", "/apps/demo", "quiet", codes.Unavailable, "channel is not serving, retry later"},
		{"runtime fails in mid-stream", "/apps/demo", "chat", codes.Unavailable, "the model server failed, retry later"},
	}
	d := open(t, map[string]*channel{"chat": broken, "quiet": quiet, "private": hello()})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req := ask()
			req.Model = tt.model
			_, _, _, err := chat(t.Context(), d.conn(tt.path), req)
			if s := status.Convert(err); s.Code() != tt.code || s.Message() != tt.message {
				t.Errorf("Chat = %v, want %v %q", err, tt.code, tt.message)
			}
		})
	}
}

func TestGRPCCancel(t *testing.T) {
	ch := &channel{chunks: []backends.Chunk{{Text: "Hello, "}}, block: true}
	d := open(t, map[string]*channel{"chat": ch})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := pb.NewInferenceClient(d.conn("/apps/demo")).Chat(ctx, ask())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	cancel()
	eventually(t, "the end of the runtime's work", func() bool {
		ch.mu.Lock()
		defer ch.mu.Unlock()
		return len(ch.ended) == 1 && errors.Is(ch.ended[0], context.Canceled) && ch.done == 1
	})
}

func TestGRPCListModels(t *testing.T) {
	d := open(t, map[string]*channel{"chat": hello(), "quiet": {missing: errors.New("no approval")}, "private": hello()})
	got, err := pb.NewInferenceClient(d.conn("/apps/demo")).ListModels(t.Context(), &pb.ListModelsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.GetModels()) != 2 {
		t.Fatalf("ListModels = %v, want chat and quiet", got)
	}
	a, b := got.GetModels()[0], got.GetModels()[1]
	if a.GetModel() != "chat" || a.GetRelease() != release || a.GetWeights() != weights || a.GetLevel() != level || a.GetState() != "ready" ||
		b.GetModel() != "quiet" || b.GetRelease() != "" || b.GetState() != "none" {
		t.Errorf("ListModels = %v", got)
	}
	_, err = pb.NewInferenceClient(d.conn("/batch/job")).ListModels(t.Context(), &pb.ListModelsRequest{})
	if status.Code(err) != codes.PermissionDenied {
		t.Errorf("ListModels without a rule = %v, want PERMISSION_DENIED", err)
	}
}

// TestHandshakes tries both doors with certificates that must not open them.
func TestHandshakes(t *testing.T) {
	d := open(t, map[string]*channel{"chat": hello()})
	stranger := newAgent(t, "evil.example")
	theirs := d.source(stranger, "/apps/demo")
	us := d.tls("/apps/demo", "h2")
	tests := []struct {
		name   string
		change func(*tls.Config)
		ok     bool
	}{
		{"valid", func(*tls.Config) {}, true},
		{"no certificate", func(c *tls.Config) { c.GetClientCertificate = nil }, false},
		{"stranger", func(c *tls.Config) {
			c.GetClientCertificate = theirs.ClientTLS(nil).GetClientCertificate
		}, false},
		{"TLS 1.2", func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			config := us.Clone()
			tt.change(config)
			if _, _, _, err := chat(t.Context(), d.dial(config.Clone()), ask()); tt.ok != (err == nil) || (err != nil && status.Code(err) != codes.Unavailable) {
				t.Errorf("Chat = %v, want ok %v", err, tt.ok)
			}
			if _, err := grpc_health_v1.NewHealthClient(d.dial(config.Clone())).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{}); tt.ok != (err == nil) {
				t.Errorf("health Check = %v, want ok %v", err, tt.ok)
			}
			resp, err := d.clientOf(config.Clone()).Get(d.url("/v1/models"))
			if tt.ok != (err == nil) {
				t.Errorf("GET = %v, want ok %v", err, tt.ok)
			}
			if err == nil {
				resp.Body.Close()
			}
		})
	}
}

// TestReflection lists the services as grpcurl does, with an SVID that no rule names.
func TestReflection(t *testing.T) {
	d := open(t, map[string]*channel{"chat": hello()})
	stream, err := reflectionpb.NewServerReflectionClient(d.conn("/batch/job")).ServerReflectionInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Fatal(err)
	}
	m, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range m.GetListServicesResponse().GetService() {
		names = append(names, s.GetName())
	}
	want := "grpc.health.v1.Health grpc.reflection.v1.ServerReflection grpc.reflection.v1alpha.ServerReflection inference.GRPCInferenceService weighbridge.inference.v1.Inference"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("services = %s, want %s", got, want)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
}

func TestHealth(t *testing.T) {
	quiet := &channel{missing: errors.New("not yet")}
	d := open(t, map[string]*channel{"chat": quiet})
	client := grpc_health_v1.NewHealthClient(d.conn("/batch/job"))
	check := func(service string) grpc_health_v1.HealthCheckResponse_ServingStatus {
		resp, err := client.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: service})
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetStatus()
	}
	const inference = "weighbridge.inference.v1.Inference"
	for service, want := range map[string]grpc_health_v1.HealthCheckResponse_ServingStatus{
		"": grpc_health_v1.HealthCheckResponse_SERVING, "liveness": grpc_health_v1.HealthCheckResponse_SERVING,
		"readiness": grpc_health_v1.HealthCheckResponse_NOT_SERVING, inference: grpc_health_v1.HealthCheckResponse_NOT_SERVING,
	} {
		if got := check(service); got != want {
			t.Errorf("Check(%q) = %v, want %v", service, got, want)
		}
	}
	watch, err := client.Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: inference})
	if err != nil {
		t.Fatal(err)
	}
	d.catalog.mu.Lock()
	d.catalog.channels["chat"] = hello()
	d.catalog.mu.Unlock()
	for {
		m, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if m.GetStatus() == grpc_health_v1.HealthCheckResponse_SERVING {
			return
		}
	}
}

// TestServeEndedAtOnce shuts gateways down that may not have begun to serve yet, which is no trouble to tell of.
func TestServeEndedAtOnce(t *testing.T) {
	for range 50 {
		d := open(t, map[string]*channel{"chat": hello()})
		if err := d.stop(); err != nil {
			t.Fatalf("Serve = %v", err)
		}
	}
}

// TestServeDrains shuts down while an answer is in flight: it ends whole, and new requests are refused.
func TestServeDrains(t *testing.T) {
	for _, protocol := range []string{"grpc", "http"} {
		t.Run(protocol, func(t *testing.T) {
			slow := hello()
			slow.entered = make(chan struct{})
			d := open(t, map[string]*channel{"chat": slow})
			answered := make(chan error, 1)
			conn, client := d.conn("/apps/demo"), d.client("/apps/demo")
			go func() {
				if protocol == "grpc" {
					_, _, _, err := chat(context.Background(), conn, ask())
					answered <- err
					return
				}
				resp, err := client.Post(d.url("/v1/chat/completions"), "application/json", strings.NewReader(question))
				if err == nil {
					resp.Body.Close()
					if resp.StatusCode != http.StatusOK {
						err = errors.New(resp.Status)
					}
				}
				answered <- err
			}()
			eventually(t, "the request", func() bool {
				slow.mu.Lock()
				defer slow.mu.Unlock()
				return len(slow.got) == 1
			})
			stopped := make(chan error, 1)
			go func() { stopped <- d.stop() }()
			eventually(t, "the end of listening", func() bool {
				address := map[string]string{"grpc": d.grpc, "http": d.http}[protocol]
				c, err := net.Dial("tcp", address)
				if err == nil {
					c.Close()
				}
				return err != nil
			})
			<-slow.entered // only now the answer may end
			if err := <-answered; err != nil {
				t.Errorf("the answer in flight ended with %v", err)
			}
			if err := <-stopped; err != nil {
				t.Errorf("Serve = %v", err)
			}
			if _, _, _, err := chat(t.Context(), d.conn("/apps/demo"), ask()); status.Code(err) != codes.Unavailable {
				t.Errorf("Chat after the shutdown = %v, want UNAVAILABLE", err)
			}
		})
	}
}

// TestServeCutsOff shuts down under an answer that never ends.
func TestServeCutsOff(t *testing.T) {
	for _, protocol := range []string{"grpc", "http"} {
		t.Run(protocol, func(t *testing.T) {
			endless := &channel{chunks: []backends.Chunk{{Text: "Hello, "}}, block: true}
			d := open(t, map[string]*channel{"chat": endless}, func(c *gateway.Config) { c.Drain = 1 })
			if protocol == "grpc" {
				stream, err := pb.NewInferenceClient(d.conn("/apps/demo")).Chat(t.Context(), ask())
				if err != nil {
					t.Fatal(err)
				}
				if _, err := stream.Recv(); err != nil {
					t.Fatal(err)
				}
			} else {
				resp, err := d.client("/apps/demo").Post(d.url("/v1/chat/completions"), "application/json", strings.NewReader(strings.TrimSuffix(question, "}")+`,"stream":true}`))
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				for lines := bufio.NewScanner(resp.Body); lines.Scan() && !strings.Contains(lines.Text(), "Hello"); {
				}
			}
			if err := d.stop(); err != nil { // it checks the leases, too
				t.Errorf("Serve = %v", err)
			}
			if len(endless.ended) != 1 || !errors.Is(endless.ended[0], context.Canceled) {
				t.Errorf("the runtime's work ended with %v, want context.Canceled", endless.ended)
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	_, err := gateway.New(gateway.Config{})
	for _, want := range []string{"Catalog", "Access", "Identity"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New = %v, want it to name %s", err, want)
		}
	}
}
