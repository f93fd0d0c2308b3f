package gateway

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/gateway/access"
	pb "github.com/weighbridge/weighbridge/proto/weighbridge/inference/v1"
)

// grpcNames are how our own service spells what a request may hold.
var grpcNames = names{
	messages: "messages", prompt: "prompt", inputs: "inputs", tools: "tools", toolChoice: "tool_choice", maxTokens: "max_tokens",
	temperature: "temperature", topP: "top_p", stop: "stop", toolName: "name", toolSchema: "parameters",
}

// inference is our own service: it decodes, and hands over.
type inference struct {
	pb.UnimplementedInferenceServer
	g *Gateway
}

// Chat implements the service.
func (s *inference) Chat(in *pb.ChatRequest, stream grpc.ServerStreamingServer[pb.ChatResponse]) error {
	ctx := stream.Context()
	r := &request{
		call: callOf(ctx), method: access.MethodChat, api: apiGRPC, names: grpcNames, channel: in.GetModel(), maxTokens: widened(in.MaxTokens),
		temperature: in.Temperature, topP: in.TopP, stop: in.GetStop(), seed: in.Seed, stream: true,
	}
	err := known(in)
	if err == nil {
		err = r.takeChat(in)
	}
	return s.g.answered(ctx, r, err, func() error {
		return s.g.chat(ctx, r, &grpcAnswer{stream: stream, message: func(m *pb.ChatResponse) any { return m }})
	})
}

// Generate implements the service.
func (s *inference) Generate(in *pb.GenerateRequest, stream grpc.ServerStreamingServer[pb.GenerateResponse]) error {
	ctx := stream.Context()
	r := &request{
		call: callOf(ctx), method: access.MethodGenerate, api: apiGRPC, names: grpcNames, channel: in.GetModel(), prompt: in.GetPrompt(),
		maxTokens: widened(in.MaxTokens), temperature: in.Temperature, topP: in.TopP, stop: in.GetStop(), seed: in.Seed, stream: true,
	}
	return s.g.answered(ctx, r, known(in), func() error {
		return s.g.chat(ctx, r, &grpcAnswer{stream: stream, message: func(m *pb.ChatResponse) any {
			return &pb.GenerateResponse{
				Text: m.GetText(), FinishReason: m.GetFinishReason(), Usage: m.GetUsage(), Release: m.GetRelease(), Weights: m.GetWeights(), Level: m.GetLevel(),
			}
		}})
	})
}

// Embed implements the service.
func (s *inference) Embed(ctx context.Context, in *pb.EmbedRequest) (*pb.EmbedResponse, error) {
	r := &request{call: callOf(ctx), method: access.MethodEmbed, api: apiGRPC, names: grpcNames, channel: in.GetModel(), inputs: in.GetInputs()}
	a := &heldAnswer{announce: func(info ServingInfo) { announce(ctx, info) }}
	if err := s.g.answered(ctx, r, known(in), func() error { return s.g.embed(ctx, r, a) }); err != nil {
		return nil, err
	}
	out := &pb.EmbedResponse{
		Usage: &pb.Usage{PromptTokens: int32(a.vectors.PromptTokens)}, Release: a.info.Release, Weights: a.info.Weights, Level: a.info.Level,
	}
	for _, v := range a.vectors.Vectors {
		out.Embeddings = append(out.Embeddings, &pb.Embedding{Values: v})
	}
	return out, nil
}

// ListModels implements the service.
func (s *inference) ListModels(ctx context.Context, in *pb.ListModelsRequest) (*pb.ListModelsResponse, error) {
	c := callOf(ctx)
	err := known(in)
	var infos []ChannelInfo
	if err == nil {
		infos, err = s.g.models(c)
	}
	s.g.logOther(ctx, c, access.MethodModels, err)
	if err != nil {
		return nil, toGRPC(err)
	}
	out := &pb.ListModelsResponse{}
	for _, i := range infos {
		out.Models = append(out.Models, &pb.Model{Model: i.Channel, Release: i.Release, Weights: i.Weights, Level: i.Level, State: i.State})
	}
	return out, nil
}

// answered has a request answered that could be decoded, and records one that could not.
func (g *Gateway) answered(ctx context.Context, r *request, decoding error, ask func() error) error {
	if decoding != nil {
		g.unread(ctx, time.Now(), r, decoding)
		return toGRPC(decoding)
	}
	return toGRPC(ask())
}

func widened(n *int32) *int64 {
	if n == nil {
		return nil
	}
	wide := int64(*n)
	return &wide
}

// takeChat reads the conversation, and what is offered to the model.
func (r *request) takeChat(in *pb.ChatRequest) error {
	for i, t := range in.GetTools() {
		tool := backends.Tool{Name: t.GetName(), Description: t.GetDescription()}
		if t.GetParameters() != "" {
			tool.Parameters = jsontext.Value(t.GetParameters())
			if !tool.Parameters.IsValid() {
				return invalid(fmt.Sprintf("tools[%d].parameters", i), "must be JSON, without a name twice")
			}
		}
		r.tools = append(r.tools, tool)
	}
	switch choice := in.GetToolChoice(); choice {
	case "", "auto":
	case backends.ToolsNone, backends.ToolsRequired:
		r.toolChoice = choice
	default:
		return invalid("tool_choice", "must be auto, none or required")
	}
	if r.oneTool = in.GetOneTool(); r.oneTool && len(r.tools) == 0 {
		return invalid("one_tool", "is for requests with tools")
	}
	for i, m := range in.GetMessages() {
		message := backends.Message{Role: m.GetRole(), Content: m.GetContent(), ToolCallID: m.GetToolCallId()}
		if m.GetRole() == "tool" && m.GetToolCallId() == "" {
			return invalid(fmt.Sprintf("messages[%d].tool_call_id", i), "is required of role tool")
		}
		for j, c := range m.GetToolCalls() {
			if c.GetId() == "" || c.GetName() == "" {
				return invalid(fmt.Sprintf("messages[%d].tool_calls[%d].name", i, j), "and an id are required")
			}
			message.ToolCalls = append(message.ToolCalls, backends.ToolCall{ID: c.GetId(), Name: c.GetName(), Arguments: c.GetArguments()})
		}
		r.messages = append(r.messages, message)
	}
	return nil
}

// announce names in a call's header and trailer what answers it.
func announce(ctx context.Context, info ServingInfo) {
	md := metadata.Pairs(headerRelease, info.Release, headerWeights, info.Weights, headerLevel, info.Level)
	if id := callOf(ctx).receipt.ID(); id != "" {
		md.Set(headerReceiptID, id)
	}
	_ = grpc.SetHeader(ctx, md) // neither fails before an answer was sent
	_ = grpc.SetTrailer(ctx, md)
}

// grpcAnswer sends an answer as a stream of messages.
type grpcAnswer struct {
	stream  grpc.ServerStream
	message func(*pb.ChatResponse) any // as the call has it
	info    *ServingInfo               // nil once a message named it
}

func (a *grpcAnswer) begin(info ServingInfo) {
	a.info = &info
	announce(a.stream.Context(), info)
}

func (a *grpcAnswer) send(c backends.Chunk) error {
	m := &pb.ChatResponse{Text: c.Text, FinishReason: c.FinishReason}
	if t := c.ToolCall; t != nil {
		m.ToolCall = &pb.ToolCall{Id: t.ID, Name: t.Name, Arguments: t.Arguments}
	}
	if c.Usage != nil {
		m.Usage = &pb.Usage{PromptTokens: int32(c.Usage.PromptTokens), CompletionTokens: int32(c.Usage.CompletionTokens)}
	}
	if a.info != nil {
		m.Release, m.Weights, m.Level, a.info = a.info.Release, a.info.Weights, a.info.Level, nil
	}
	if err := a.stream.SendMsg(a.message(m)); err != nil {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	return nil
}

// finish leaves it to gRPC to send an error.
func (a *grpcAnswer) finish(err error) error { return err }

// heldAnswer collects an answer that is one message.
type heldAnswer struct {
	announce func(ServingInfo)
	info     ServingInfo
	got      collected
	vectors  backends.Embeddings
}

func (a *heldAnswer) begin(info ServingInfo) {
	a.info = info
	a.announce(info)
}

func (a *heldAnswer) send(c backends.Chunk) error { return a.got.add(c) }

func (a *heldAnswer) take(e backends.Embeddings) { a.vectors = e }

func (a *heldAnswer) finish(err error) error { return err }

// streamed serves the unary methods of a service as streams of one message, which are the same on the wire. So receipts
// see their bytes as those of all others.
func streamed(desc grpc.ServiceDesc) *grpc.ServiceDesc {
	desc.Streams = slices.Clip(desc.Streams)
	for _, m := range desc.Methods {
		handler := func(server any, stream grpc.ServerStream) error {
			out, err := m.Handler(server, stream.Context(), stream.RecvMsg, nil)
			if err != nil {
				return err
			}
			return stream.SendMsg(out)
		}
		// ServerStreams, since gRPC runs the interceptor, which tells who calls, for true streams alone.
		desc.Streams = append(desc.Streams, grpc.StreamDesc{StreamName: m.MethodName, Handler: handler, ServerStreams: true})
	}
	desc.Methods = nil
	return &desc
}
