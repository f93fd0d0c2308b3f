package gateway_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/gateway"
	"github.com/weighbridge/weighbridge/gateway/receipt/wire"
	pb "github.com/weighbridge/weighbridge/proto/weighbridge/inference/v1"
)

// generate reads the answer to its end.
func generate(ctx context.Context, conn *grpc.ClientConn, req *pb.GenerateRequest) (text string, parts []*pb.GenerateResponse, header metadata.MD, err error) {
	stream, err := pb.NewInferenceClient(conn).Generate(ctx, req)
	if err != nil {
		return "", nil, nil, err
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			header, err := stream.Header()
			return text, parts, header, err
		}
		if err != nil {
			return text, parts, nil, err
		}
		text += m.GetText()
		parts = append(parts, m)
	}
}

// TestGRPCGenerate: a text is continued as it is where the release sets nothing that this would go around, and else is put
// as a question.
func TestGRPCGenerate(t *testing.T) {
	plain, prompted := hello(), hello()
	plain.limits.Plain = true
	prompted.limits = gateway.Limits{SystemPrompt: "Be brief.", MaxTokens: 9}
	d := open(t, map[string]*channel{"chat": plain, "quiet": prompted})
	for _, model := range []string{"chat", "quiet"} {
		text, parts, header, err := generate(t.Context(), d.conn("/apps/demo"), &pb.GenerateRequest{Model: model, Prompt: "Once upon"})
		if err != nil {
			t.Fatalf("Generate of %s = %v", model, err)
		}
		last := parts[len(parts)-1]
		if text != "Hello, world." || last.GetFinishReason() != "stop" || last.GetUsage().GetCompletionTokens() != 3 ||
			parts[0].GetRelease() != release || parts[0].GetWeights() != weights || parts[0].GetLevel() != level {
			t.Errorf("Generate of %s = %v", model, parts)
		}
		if got := header.Get("weighbridge-release"); len(got) != 1 || got[0] != release {
			t.Errorf("header of %s = %v", model, header)
		}
	}
	if got := plain.request(t); got.Prompt != "Once upon" || got.Messages != nil {
		t.Errorf("the runtime got %+v, want the text alone", got)
	}
	want := []backends.Message{{Role: "system", Content: "Be brief."}, {Role: "user", Content: "Once upon"}}
	if got := prompted.request(t); got.Prompt != "" || !reflect.DeepEqual(got.Messages, want) || got.MaxTokens != 9 {
		t.Errorf("the runtime got %+v, want %v", got, want)
	}
}

func TestGRPCEmbed(t *testing.T) {
	d := open(t, map[string]*channel{"chat": hello()})
	client := pb.NewInferenceClient(d.conn("/apps/demo"))
	var header, trailer metadata.MD
	got, err := client.Embed(t.Context(), &pb.EmbedRequest{Model: "chat", Inputs: []string{"one", "three"}}, grpc.Header(&header), grpc.Trailer(&trailer))
	if err != nil {
		t.Fatal(err)
	}
	if e := got.GetEmbeddings(); len(e) != 2 || !reflect.DeepEqual(e[0].GetValues(), []float32{3, 0.5}) || !reflect.DeepEqual(e[1].GetValues(), []float32{5, 0.5}) ||
		got.GetUsage().GetPromptTokens() != 8 || got.GetRelease() != release || got.GetWeights() != weights || got.GetLevel() != level {
		t.Errorf("Embed = %v", got)
	}
	for _, md := range []metadata.MD{header, trailer} {
		if got := md.Get("weighbridge-release"); len(got) != 1 || got[0] != release {
			t.Errorf("metadata = %v, want it to name the release", md)
		}
	}
	for name, req := range map[string]*pb.EmbedRequest{
		"inputs: must hold at least one text":     {Model: "chat"},
		"inputs: must hold at most 2048 texts":    {Model: "chat", Inputs: make([]string, 2049)},
		"permission denied":                       {Model: "private", Inputs: []string{"one"}},
		"channel is not serving, retry later":     {Model: "quiet", Inputs: []string{"one"}},
		"the model server failed, retry later":    {Model: "ghost", Inputs: []string{"one"}},
		"model: not supported: it does not embed": {Model: "ghost", Inputs: []string{"one"}},
	} {
		d.catalog.mu.Lock()
		d.catalog.channels["quiet"] = &channel{missing: errors.New("no approval")}
		d.catalog.channels["ghost"] = &channel{fail: map[bool]error{
			true: errors.New("segmentation fault"), false: errorText("it does not embed", backends.ErrUnsupported),
		}[strings.HasPrefix(name, "the model")]}
		d.catalog.mu.Unlock()
		if _, err := client.Embed(t.Context(), req); status.Convert(err).Message() != name {
			t.Errorf("Embed = %v, want %q", err, name)
		}
	}
}

// errorText is an error of a kind, with a text.
func errorText(text string, kind error) error { return &textError{text, kind} }

type textError struct {
	text string
	kind error
}

func (e *textError) Error() string { return e.kind.Error() + ": " + e.text }
func (e *textError) Unwrap() error { return e.kind }

// TestGRPCTools: what a release lets callers offer reaches the runtime, and what the model calls comes back in pieces.
func TestGRPCTools(t *testing.T) {
	calling := &channel{limits: gateway.Limits{Tools: []string{"weather"}}, chunks: []backends.Chunk{
		{ToolCall: &backends.ToolCall{ID: "1", Name: "weather", Arguments: `{"city"`}}, {ToolCall: &backends.ToolCall{Arguments: `:"Rome"}`}},
		{FinishReason: "tool_calls", Usage: &backends.Usage{PromptTokens: 7, CompletionTokens: 3}},
	}}
	d := open(t, map[string]*channel{"chat": calling})
	req := ask()
	req.Tools = []*pb.Tool{{Name: "weather", Description: "d", Parameters: `{"type":"object"}`}}
	req.ToolChoice, req.OneTool = "required", true
	req.Messages = append(req.Messages,
		&pb.Message{Role: "assistant", ToolCalls: []*pb.ToolCall{{Id: "0", Name: "weather", Arguments: "{}"}}},
		&pb.Message{Role: "tool", ToolCallId: "0", Content: "sunny"})
	parts, _, _, err := chat(t.Context(), d.conn("/apps/demo"), req)
	if err != nil {
		t.Fatal(err)
	}
	if a, b, last := parts[0].GetToolCall(), parts[1].GetToolCall(), parts[2]; a.GetId() != "1" || a.GetName() != "weather" || a.GetArguments() != `{"city"` ||
		b.GetId() != "" || b.GetArguments() != `:"Rome"}` || last.GetFinishReason() != "tool_calls" {
		t.Errorf("Chat = %v", parts)
	}
	got := calling.request(t)
	tool := backends.Tool{Name: "weather", Description: "d", Parameters: []byte(`{"type":"object"}`)}
	if !reflect.DeepEqual(got.Tools, []backends.Tool{tool}) || got.ToolChoice != backends.ToolsRequired || !got.OneTool {
		t.Errorf("the runtime got %+v, want the tool, and that one is to be called", got)
	}
	want := []backends.Message{
		{Role: "user", Content: "tell me a secret"},
		{Role: "assistant", ToolCalls: []backends.ToolCall{{ID: "0", Name: "weather", Arguments: "{}"}}}, {Role: "tool", ToolCallID: "0", Content: "sunny"},
	}
	if !reflect.DeepEqual(got.Messages, want) {
		t.Errorf("the runtime got %+v, want %+v", got.Messages, want)
	}
}

// TestGRPCToolsRefused breaks one thing of a request with tools at a time.
func TestGRPCToolsRefused(t *testing.T) {
	ch := hello()
	ch.limits.Tools = []string{"weather"}
	d := open(t, map[string]*channel{"chat": ch})
	conn := d.conn("/apps/demo")
	refused := 0
	for _, tt := range []struct {
		want   string // "" for an answer
		change func(*pb.ChatRequest)
	}{
		{"", func(*pb.ChatRequest) {}},
		{"", func(r *pb.ChatRequest) { r.ToolChoice = "auto" }},
		{"tools[0].name: is required", func(r *pb.ChatRequest) { r.Tools[0].Name = "" }},
		{"tools[0].name: is not among the tools that this release allows: it allows weather", func(r *pb.ChatRequest) { r.Tools[0].Name = "rm" }},
		{"tools[1].name: is the name of an earlier tool too", func(r *pb.ChatRequest) { r.Tools = append(r.Tools, r.Tools[0]) }},
		{"tools[0].parameters: must be a JSON schema", func(r *pb.ChatRequest) { r.Tools[0].Parameters = "[]" }},
		{"tools[0].parameters: must be JSON", func(r *pb.ChatRequest) { r.Tools[0].Parameters = `{"a":1,"a":2}` }},
		{"tool_choice: must be auto, none or required", func(r *pb.ChatRequest) { r.ToolChoice = "weather" }},
		{"tool_choice: is for requests with tools", func(r *pb.ChatRequest) { r.ToolChoice, r.Tools = "required", nil }},
		{"one_tool: is for requests with tools", func(r *pb.ChatRequest) { r.OneTool, r.Tools = true, nil }},
		{"messages[0].tool_calls: is for role assistant", func(r *pb.ChatRequest) {
			r.Messages[0].ToolCalls = []*pb.ToolCall{{Id: "0", Name: "weather"}}
		}},
		{"messages[1].tool_calls[0].name: and an id are required", func(r *pb.ChatRequest) {
			r.Messages = append(r.Messages, &pb.Message{Role: "assistant", ToolCalls: []*pb.ToolCall{{Name: "weather"}}})
		}},
		{"messages[0].tool_call_id: is for role tool", func(r *pb.ChatRequest) { r.Messages[0].ToolCallId = "0" }},
		{"messages[0].tool_call_id: is required of role tool", func(r *pb.ChatRequest) { r.Messages[0].Role = "tool" }},
	} {
		req := ask()
		req.Tools = []*pb.Tool{{Name: "weather"}}
		tt.change(req)
		_, _, _, err := chat(t.Context(), conn, req)
		if tt.want == "" && err == nil {
			continue
		}
		refused++
		if s := status.Convert(err); tt.want == "" || s.Code() != codes.InvalidArgument || !strings.HasPrefix(s.Message(), tt.want) {
			t.Errorf("Chat = %v, want %q", err, tt.want)
		}
	}
	d.stop()
	if n := strings.Count(d.log.String(), `"outcome":"invalid_argument"`); n != refused {
		t.Errorf("%d of %d refusals are in the log:\n%s", n, refused, d.log)
	}
}

// TestGRPCReceiptOfEmbed: calls of one message have receipts, too.
func TestGRPCReceiptOfEmbed(t *testing.T) {
	d, s := openWithReceipts(t, map[string]*channel{"chat": hello()})
	client := pb.NewInferenceClient(d.conn("/apps/demo"))
	var request, response bytes.Buffer
	var header metadata.MD
	ctx := metadata.AppendToOutgoingContext(t.Context(), "weighbridge-receipt", "1")
	_, err := client.Embed(ctx, &pb.EmbedRequest{Model: "chat", Inputs: []string{"one"}}, grpc.ForceCodecV2(wire.Recorder(&request, &response)), grpc.Header(&header))
	if err != nil || len(header.Get("x-receipt-id")) != 1 {
		t.Fatalf("Embed = %v, %v", header, err)
	}
	got, err := client.GetReceipt(t.Context(), &pb.GetReceiptRequest{Id: header.Get("x-receipt-id")[0]})
	if err != nil {
		t.Fatal(err)
	}
	checkReceipt(t, s, got.GetReceipt(), request.Bytes(), response.Bytes())
}
