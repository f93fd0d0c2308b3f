package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
	"github.com/weighbridge/weighbridge/gateway/client"
	"github.com/weighbridge/weighbridge/gateway/identity"
	oip "github.com/weighbridge/weighbridge/proto/inference"
	pb "github.com/weighbridge/weighbridge/proto/weighbridge/inference/v1"
)

// grpcAddress is the gateway's gRPC listener, by the name that its certificate has for tools.
func (g *gatewayProcess) grpcAddress() string {
	g.t.Helper()
	_, port, err := net.SplitHostPort(g.listens()["grpc"].(string))
	if err != nil {
		g.t.Fatal(err)
	}
	return "localhost:" + port
}

// dial returns a connection of gateway/client, with an SVID for callers.
func (g *gatewayProcess) dial() grpc.ClientConnInterface {
	g.t.Helper()
	from := identity.Config{WorkloadAPI: "unix://" + filepath.Join(g.Dir, "spiffe.sock")}
	c, err := client.Dial(g.t.Context(), g.grpcAddress(), client.Options{Identity: from})
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { c.Close() })
	return c.Conn()
}

// grpcurl is a connection on which each call is grpcurl's, a process that learns from reflection what there is.
type grpcurl []string // its command, up to the address

// grpcurl returns one with an SVID in files, where [gatewayProcess.environment] has written them.
func (g *gatewayProcess) grpcurl() grpcurl {
	g.t.Helper()
	file := func(name string) string { return filepath.Join(g.Dir, name+".pem") }
	return grpcurl{part(g.t, "tool", "grpcurl"), "-cacert", file("BUNDLE"), "-cert", file("SVID"), "-key", file("KEY"), "-d", "@", g.grpcAddress()}
}

// Invoke implements grpc.ClientConnInterface.
func (c grpcurl) Invoke(ctx context.Context, method string, in, out any, _ ...grpc.CallOption) error {
	call, _ := c.NewStream(ctx, nil, method)
	if err := call.SendMsg(in); err != nil {
		return err
	}
	return call.RecvMsg(out)
}

// NewStream implements grpc.ClientConnInterface.
func (c grpcurl) NewStream(ctx context.Context, _ *grpc.StreamDesc, method string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	args := append(slices.Clone(c[1:]), strings.TrimPrefix(method, "/"))
	return &grpcurlCall{cmd: exec.CommandContext(ctx, c[0], args...)}, nil
}

// grpcurlCall is a call that grpcurl makes once it has the request.
type grpcurlCall struct {
	grpc.ClientStream // the methods that nobody calls here
	cmd               *exec.Cmd
	answers           *json.Decoder
	err               error // after the answers
}

// grpcurlStatus is what grpcurl adds to a call's status to make its exit status.
const grpcurlStatus = 64

func (s *grpcurlCall) CloseSend() error { return nil }

func (s *grpcurlCall) SendMsg(m any) error {
	request, err := protojson.Marshal(m.(proto.Message))
	if err != nil {
		return err
	}
	var out, errs bytes.Buffer
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = bytes.NewReader(request), &out, &errs
	s.answers, s.err = json.NewDecoder(&out), io.EOF
	err = s.cmd.Run()
	if exit := new(exec.ExitError); errors.As(err, &exit) && exit.ExitCode() > grpcurlStatus {
		s.err = status.Error(codes.Code(exit.ExitCode()-grpcurlStatus), errs.String())
	} else if err != nil {
		return fmt.Errorf("%w: %s", err, errs.String())
	}
	return nil
}

func (s *grpcurlCall) RecvMsg(m any) error {
	var answer json.RawMessage
	if err := s.answers.Decode(&answer); errors.Is(err, io.EOF) {
		return s.err
	} else if err != nil {
		return err
	}
	return protojson.Unmarshal(answer, m.(proto.Message))
}

// checkInference is a session with our own service.
func checkInference(t *testing.T, c pb.InferenceClient, release string) {
	t.Helper()
	ctx := t.Context()
	models, err := c.ListModels(ctx, &pb.ListModelsRequest{})
	if err != nil || len(models.GetModels()) != 3 || models.GetModels()[0].GetRelease() != release {
		t.Errorf("ListModels = %v, %v", models, err)
	}
	question := []*pb.Message{{Role: "user", Content: "Who are you?"}}
	said, pieces, err := heard(c.Chat(ctx, &pb.ChatRequest{Model: "chat", Messages: question}))
	if err != nil || pieces < 2 || said.GetText() != tinygguf.A.Sentence || said.GetFinishReason() != "stop" || said.GetRelease() != release || said.GetUsage().GetCompletionTokens() == 0 {
		t.Errorf("Chat = %v in %d pieces, %v", said, pieces, err)
	}
	stream, err := c.Generate(ctx, &pb.GenerateRequest{Model: "chat", Prompt: "Who are you?"})
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for text, err := range client.Texts(stream) {
		if texts = append(texts, text); err != nil {
			t.Fatalf("Generate: %v", err)
		}
	}
	if strings.Join(texts, "") != tinygguf.A.Sentence || len(texts) < 2 {
		t.Errorf("Generate = %q, want a sentence in pieces", texts)
	}

	weather := []*pb.Tool{{Name: "weather", Parameters: `{"type":"object","properties":{"city":{"type":"string"}}}`}}
	called, _, err := heard(c.Chat(ctx, &pb.ChatRequest{Model: "tools", Messages: question, Tools: weather}))
	call := called.GetToolCall()
	if err != nil || called.GetFinishReason() != "tool_calls" || call.GetName() != "weather" || strings.ReplaceAll(call.GetArguments(), " ", "") != `{"city":"Rome"}` {
		t.Fatalf("Chat with tools = %v, %v", called, err)
	}
	turns := slices.Concat(question, []*pb.Message{{Role: "assistant", ToolCalls: []*pb.ToolCall{call}}, {Role: "tool", ToolCallId: call.GetId(), Content: "sunny"}})
	after, _, err := heard(c.Chat(ctx, &pb.ChatRequest{Model: "tools", Messages: turns, Tools: weather, ToolChoice: "none"}))
	if err != nil || after.GetText() == "" || after.GetUsage().GetPromptTokens() <= called.GetUsage().GetPromptTokens() {
		t.Errorf("Chat with the result = %v, %v", after, err)
	}

	embedded, err := c.Embed(ctx, &pb.EmbedRequest{Model: "vectors", Inputs: []string{"aaaa", "bbbb"}})
	if v := embedded.GetEmbeddings(); err != nil || len(v) != 2 || len(v[0].GetValues()) < 8 || slices.Equal(v[0].GetValues(), v[1].GetValues()) || embedded.GetUsage().GetPromptTokens() == 0 {
		t.Errorf("Embed = %v, %v", embedded, err)
	}
	if _, err := c.Embed(ctx, &pb.EmbedRequest{Model: "chat", Inputs: []string{"aaaa"}}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("Embed by a model that chats = %v, want INVALID_ARGUMENT", err)
	}
	if _, _, err := heard(c.Chat(ctx, &pb.ChatRequest{Model: "other", Messages: question})); status.Code(err) != codes.PermissionDenied {
		t.Errorf("Chat with another model = %v, want PERMISSION_DENIED", err)
	}
}

// heard is a streamed answer as one message, with at most one call, and how many messages had text or a piece of the call.
func heard(stream grpc.ServerStreamingClient[pb.ChatResponse], err error) (whole *pb.ChatResponse, pieces int, _ error) {
	whole = &pb.ChatResponse{}
	for err == nil {
		var m *pb.ChatResponse
		if m, err = stream.Recv(); err != nil {
			break
		}
		text, arguments := whole.GetText()+m.GetText(), whole.GetToolCall().GetArguments()+m.GetToolCall().GetArguments()
		proto.Merge(whole, m)
		if whole.Text = text; whole.GetToolCall() != nil {
			whole.ToolCall.Arguments = arguments
		}
		if m.GetText() != "" || m.GetToolCall() != nil {
			pieces++
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return whole, pieces, err
}

// checkOIP is a session with the Open Inference Protocol, which has no streams.
func checkOIP(t *testing.T, conn grpc.ClientConnInterface, release string) {
	t.Helper()
	c, ctx := oip.NewGRPCInferenceServiceClient(conn), t.Context()
	if ready, err := c.ServerReady(ctx, &oip.ServerReadyRequest{}); err != nil || !ready.GetReady() {
		t.Errorf("ServerReady = %v, %v", ready, err)
	}
	if ready, err := c.ModelReady(ctx, &oip.ModelReadyRequest{Name: "chat", Version: release}); err != nil || !ready.GetReady() {
		t.Errorf("ModelReady = %v, %v", ready, err)
	}
	if about, err := c.ModelMetadata(ctx, &oip.ModelMetadataRequest{Name: "chat"}); err != nil || fmt.Sprint(about.GetVersions()) != "["+release+"]" {
		t.Errorf("ModelMetadata = %v, %v", about, err)
	}
	infer := func(model, version, operation string, inputs ...string) (*oip.ModelInferResponse, error) {
		in := &oip.ModelInferRequest_InferInputTensor{Name: "text_input", Datatype: "BYTES", Shape: []int64{int64(len(inputs))}, Contents: &oip.InferTensorContents{}}
		for _, input := range inputs {
			in.Contents.BytesContents = append(in.Contents.BytesContents, []byte(input))
		}
		return c.ModelInfer(ctx, &oip.ModelInferRequest{
			ModelName: model, ModelVersion: version, Inputs: []*oip.ModelInferRequest_InferInputTensor{in},
			Parameters: map[string]*oip.InferParameter{"operation": {ParameterChoice: &oip.InferParameter_StringParam{StringParam: operation}}},
		})
	}
	for _, operation := range []string{"chat", "generate"} {
		said, err := infer("chat", release, operation, "Who are you?")
		if err != nil || len(said.GetOutputs()) != 1 || string(slices.Concat(said.GetOutputs()[0].GetContents().GetBytesContents()...)) != tinygguf.A.Sentence || said.GetModelVersion() != release {
			t.Errorf("ModelInfer to %s = %v, %v", operation, said, err)
		}
	}

	ours, err := pb.NewInferenceClient(conn).Embed(ctx, &pb.EmbedRequest{Model: "vectors", Inputs: []string{"aaaa", "bbbb"}})
	if err != nil {
		t.Fatal(err)
	}
	rows := slices.Concat(ours.GetEmbeddings()[0].GetValues(), ours.GetEmbeddings()[1].GetValues())
	got, err := infer("vectors", "", "embed", "aaaa", "bbbb")
	if err != nil || fmt.Sprint(got.GetOutputs()[0].GetShape()) != fmt.Sprintf("[2 %d]", len(rows)/2) || !slices.Equal(got.GetOutputs()[0].GetContents().GetFp32Contents(), rows) {
		t.Errorf("ModelInfer to embed = %v, %v, want the vectors of our own service", got, err)
	}
	if _, err := infer("chat", ours.GetRelease(), "chat", "Who are you?"); status.Code(err) != codes.NotFound {
		t.Errorf("ModelInfer of another version = %v, want NOT_FOUND", err)
	}
	if _, err := infer("other", "", "chat", "Who are you?"); status.Code(err) != codes.PermissionDenied {
		t.Errorf("ModelInfer of another model = %v, want PERMISSION_DENIED", err)
	}
}
