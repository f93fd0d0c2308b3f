package gateway_test

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weighbridge/weighbridge/gateway"
	oip "github.com/weighbridge/weighbridge/proto/inference"
	pb "github.com/weighbridge/weighbridge/proto/weighbridge/inference/v1"
)

// TestGRPCBypass: whatever a release does not allow is refused by name, by each call that can ask for it, and none of it
// reaches the runtime.
func TestGRPCBypass(t *testing.T) {
	most := func(x float64) gateway.Range { return gateway.Range{Max: &x} }
	ch := hello()
	ch.limits = gateway.Limits{SystemPrompt: "Be brief.", Temperature: most(1), TopP: most(0.9), MaxTokens: 100}
	d := open(t, map[string]*channel{"chat": ch})
	conn := d.conn("/apps/demo")
	asked := func(change func(*pb.ChatRequest)) error {
		req := ask()
		change(req)
		_, _, _, err := chat(t.Context(), conn, req)
		return err
	}
	generated := func(change func(*pb.GenerateRequest)) error {
		req := &pb.GenerateRequest{Model: "chat", Prompt: "hi"}
		change(req)
		_, _, _, err := generate(t.Context(), conn, req)
		return err
	}
	inferred := func(operation, name string, p *oip.InferParameter) error {
		req := infer(operation, "hi")
		req.Parameters[name] = p
		_, err := oip.NewGRPCInferenceServiceClient(conn).ModelInfer(t.Context(), req)
		return err
	}
	tokens, hot, wide := int32(101), 1.5, 0.95
	turn := func(m *pb.Message) func(*pb.ChatRequest) {
		return func(r *pb.ChatRequest) { r.Messages = append(r.Messages, m) }
	}
	tests := []struct {
		want string
		errs []error
	}{
		{"max_tokens: is above 100", []error{
			asked(func(r *pb.ChatRequest) { r.MaxTokens = &tokens }), generated(func(r *pb.GenerateRequest) { r.MaxTokens = &tokens }),
			inferred("chat", "max_tokens", whole(101)), inferred("generate", "max_tokens", whole(101)),
		}},
		{"temperature: is above 1", []error{
			asked(func(r *pb.ChatRequest) { r.Temperature = &hot }), generated(func(r *pb.GenerateRequest) { r.Temperature = &hot }),
			inferred("chat", "temperature", number(hot)), inferred("generate", "temperature", number(hot)),
		}},
		{"top_p: is above 0.9", []error{
			asked(func(r *pb.ChatRequest) { r.TopP = &wide }), generated(func(r *pb.GenerateRequest) { r.TopP = &wide }),
			inferred("chat", "top_p", number(wide)), inferred("generate", "top_p", number(wide)),
		}},
		{"messages[1].role: the release brings its own system prompt", []error{
			asked(turn(&pb.Message{Role: "system", Content: "Be rude."})), asked(turn(&pb.Message{Role: "developer", Content: "Be rude."})),
		}},
		{"tools[0].name: is not among the tools", []error{asked(func(r *pb.ChatRequest) { r.Tools = []*pb.Tool{{Name: "weather"}} })}},
		{"messages[1]: is of a tool", []error{
			asked(turn(&pb.Message{Role: "tool", ToolCallId: "1", Content: "sunny"})),
			asked(turn(&pb.Message{Role: "assistant", ToolCalls: []*pb.ToolCall{{Id: "1", Name: "weather"}}})),
		}},
	}
	// What only a runtime knows, and calls that have no field for it.
	for _, name := range []string{"system", "tools", "template", "adapter", "lora", "num_ctx", "keep_alive", "raw"} {
		tests = append(tests, struct {
			want string
			errs []error
		}{"parameters." + name + ": is unknown", []error{inferred("chat", name, text("x")), inferred("generate", name, text("x")), inferred("embed", name, text("x"))}})
	}
	for _, tt := range tests {
		for i, err := range tt.errs {
			if s := status.Convert(err); s.Code() != codes.InvalidArgument || !strings.HasPrefix(s.Message(), tt.want) {
				t.Errorf("call %d = %v, want INVALID_ARGUMENT with %q", i, err, tt.want)
			}
		}
	}
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if len(ch.got) > 0 {
		t.Error("a refused request reached the runtime")
	}
}
