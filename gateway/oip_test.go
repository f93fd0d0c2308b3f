package gateway_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/gateway"
	"github.com/weighbridge/weighbridge/gateway/receipt/wire"
	oip "github.com/weighbridge/weighbridge/proto/inference"
	pb "github.com/weighbridge/weighbridge/proto/weighbridge/inference/v1"
)

type (
	tensor   = oip.ModelInferRequest_InferInputTensor
	contents = oip.InferTensorContents
)

func texts(name string, elements ...string) *tensor {
	out := &tensor{Name: name, Datatype: "BYTES", Shape: []int64{int64(len(elements))}, Contents: &contents{}}
	for _, e := range elements {
		out.Contents.BytesContents = append(out.Contents.BytesContents, []byte(e))
	}
	return out
}

func text(s string) *oip.InferParameter {
	return &oip.InferParameter{ParameterChoice: &oip.InferParameter_StringParam{StringParam: s}}
}

func whole(n int64) *oip.InferParameter {
	return &oip.InferParameter{ParameterChoice: &oip.InferParameter_Int64Param{Int64Param: n}}
}

func number(x float64) *oip.InferParameter {
	return &oip.InferParameter{ParameterChoice: &oip.InferParameter_DoubleParam{DoubleParam: x}}
}

func infer(operation string, inputs ...string) *oip.ModelInferRequest {
	r := &oip.ModelInferRequest{ModelName: "chat", Id: "7", Inputs: []*tensor{texts("text_input", inputs...)}, Parameters: map[string]*oip.InferParameter{}}
	if operation != "" {
		r.Parameters["operation"] = text(operation)
	}
	return r
}

// TestOIPInfer asks in every form, and expects the runtime to get the same and the answer to come back in the form asked.
func TestOIPInfer(t *testing.T) {
	sampled := func(r *oip.ModelInferRequest) {
		r.Parameters["max_tokens"], r.Parameters["temperature"], r.Parameters["top_p"] = whole(5), number(0.5), number(0.25)
		r.Parameters["seed"], r.Parameters["stop"] = whole(42), text("END")
	}
	tensors := func(r *oip.ModelInferRequest) {
		one := []int64{1, 1}
		r.Inputs = append(r.Inputs,
			&tensor{Name: "max_tokens", Datatype: "INT32", Shape: one, Contents: &contents{IntContents: []int32{5}}},
			&tensor{Name: "temperature", Datatype: "FP32", Shape: one, Contents: &contents{Fp32Contents: []float32{0.5}}},
			&tensor{Name: "top_p", Datatype: "FP64", Shape: one, Contents: &contents{Fp64Contents: []float64{0.25}}},
			&tensor{Name: "seed", Datatype: "UINT64", Contents: &contents{Uint64Contents: []uint64{42}}}, texts("stop", "END"))
	}
	raw := func(r *oip.ModelInferRequest) {
		tensors(r)
		for _, in := range r.Inputs {
			in.Contents = nil
		}
		le := binary.LittleEndian
		r.RawInputContents = [][]byte{
			append(le.AppendUint32(nil, 2), "hi"...), le.AppendUint32(nil, 5), le.AppendUint32(nil, math.Float32bits(0.5)),
			le.AppendUint64(nil, math.Float64bits(0.25)), le.AppendUint64(nil, 42), append(le.AppendUint32(nil, 3), "END"...),
		}
	}
	half, quarter, seed := 0.5, 0.25, int64(42)
	messages := []backends.Message{{Role: "user", Content: "hi"}}
	plainly := backends.ChatRequest{Messages: messages, MaxTokens: gateway.DefaultMaxTokens, Whole: true}
	fully := backends.ChatRequest{Messages: messages, MaxTokens: 5, Whole: true, Temperature: &half, TopP: &quarter, Seed: &seed, Stop: []string{"END"}}
	for _, tt := range []struct {
		name, operation string
		change          func(*oip.ModelInferRequest)
		want            backends.ChatRequest
	}{
		{"default", "", func(*oip.ModelInferRequest) {}, plainly},
		{"chat", "chat", func(*oip.ModelInferRequest) {}, plainly},
		{"generate", "generate", func(*oip.ModelInferRequest) {}, backends.ChatRequest{Prompt: "hi", MaxTokens: gateway.DefaultMaxTokens, Whole: true}},
		{"this version", "", func(r *oip.ModelInferRequest) { r.ModelVersion = release }, plainly},
		{"this output", "", func(r *oip.ModelInferRequest) {
			r.Outputs = []*oip.ModelInferRequest_InferRequestedOutputTensor{{Name: "text_output"}}
		}, plainly},
		{"parameters", "", sampled, fully},
		{"tensors", "", tensors, fully},
		{"raw", "", raw, fully},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ch := hello()
			ch.limits.Plain = true
			d := open(t, map[string]*channel{"chat": ch})
			req := infer(tt.operation, "hi")
			tt.change(req)
			var header metadata.MD
			got, err := oip.NewGRPCInferenceServiceClient(d.conn("/apps/demo")).ModelInfer(t.Context(), req, grpc.Header(&header))
			if err != nil {
				t.Fatal(err)
			}
			if reached := ch.request(t); !reflect.DeepEqual(reached, tt.want) {
				t.Errorf("the runtime got %+v, want %+v", reached, tt.want)
			}
			want := &oip.ModelInferResponse{
				ModelName: "chat", ModelVersion: release, Id: "7",
				Outputs: []*oip.ModelInferResponse_InferOutputTensor{{Name: "text_output", Datatype: "BYTES", Shape: []int64{1}}},
				Parameters: map[string]*oip.InferParameter{
					"weights": text(weights), "level": text(level), "finish_reason": text("stop"), "prompt_tokens": whole(7), "completion_tokens": whole(3),
				},
			}
			if tt.name == "raw" {
				want.RawOutputContents = [][]byte{append([]byte{13, 0, 0, 0}, "Hello, world."...)}
			} else {
				want.Outputs[0].Contents = &contents{BytesContents: [][]byte{[]byte("Hello, world.")}}
			}
			if !proto.Equal(got, want) || strings.Join(header.Get("weighbridge-release"), ",") != release {
				t.Errorf("ModelInfer = %v with %v, want %v", got, header, want)
			}
		})
	}
}

func TestOIPEmbed(t *testing.T) {
	d := open(t, map[string]*channel{"chat": hello()})
	client := oip.NewGRPCInferenceServiceClient(d.conn("/apps/demo"))
	got, err := client.ModelInfer(t.Context(), infer("embed", "one", "three"))
	want := []*oip.ModelInferResponse_InferOutputTensor{
		{Name: "embedding", Datatype: "FP32", Shape: []int64{2, 2}, Contents: &contents{Fp32Contents: []float32{3, 0.5, 5, 0.5}}},
	}
	if err != nil || len(got.GetOutputs()) != 1 || !proto.Equal(got.GetOutputs()[0], want[0]) || got.GetParameters()["prompt_tokens"].GetInt64Param() != 8 {
		t.Errorf("ModelInfer = %v, %v, want %v", got, err, want)
	}
	req := infer("embed", "one")
	req.Inputs[0].Contents, req.RawInputContents = nil, [][]byte{{3, 0, 0, 0, 'o', 'n', 'e'}}
	got, err = client.ModelInfer(t.Context(), req)
	if raw := []byte{0, 0, 0x40, 0x40, 0, 0, 0, 0x3f}; err != nil || len(got.GetRawOutputContents()) != 1 || !bytes.Equal(got.GetRawOutputContents()[0], raw) {
		t.Errorf("ModelInfer = %v, %v, want %v", got, err, raw)
	}
}

// TestOIPRefuses breaks one thing of a request at a time.
func TestOIPRefuses(t *testing.T) {
	ch := hello()
	ch.limits.MaxTokens = 100
	d := open(t, map[string]*channel{"chat": ch, "private": hello(), "quiet": {missing: errors.New("no approval")}})
	client := oip.NewGRPCInferenceServiceClient(d.conn("/apps/demo"))
	unknown := protowire.AppendVarint(protowire.AppendTag(nil, 99, protowire.VarintType), 1)
	parameter := func(name string, p *oip.InferParameter) func(*oip.ModelInferRequest) {
		return func(r *oip.ModelInferRequest) { r.Parameters[name] = p }
	}
	input := func(in *tensor) func(*oip.ModelInferRequest) {
		return func(r *oip.ModelInferRequest) { r.Inputs = append(r.Inputs, in) }
	}
	for _, tt := range []struct {
		name   string
		change func(*oip.ModelInferRequest)
		code   codes.Code
		want   string
	}{
		{"unknown parameter", parameter("lora", whole(1)), codes.InvalidArgument, "parameters.lora: is unknown or not supported"},
		{"odd parameter", parameter("a\nb", whole(1)), codes.InvalidArgument, `parameters."a\nb": is unknown or not supported`},
		{"text as parameter", parameter("text_input", text("x")), codes.InvalidArgument, "parameters.text_input: is unknown or not supported"},
		{"unknown tensor", input(texts("image", "x")), codes.InvalidArgument, "inputs.image: is unknown or not supported"},
		{"operation as tensor", input(texts("operation", "embed")), codes.InvalidArgument, "inputs.operation: is unknown or not supported"},
		{"unnamed tensor", input(&tensor{}), codes.InvalidArgument, `inputs."": is unknown or not supported`},
		{"unknown field", func(r *oip.ModelInferRequest) { r.ProtoReflect().SetUnknown(unknown) }, codes.InvalidArgument, "field 99: is unknown"},
		{"unknown field of a parameter", func(r *oip.ModelInferRequest) {
			p := whole(1)
			p.ProtoReflect().SetUnknown(unknown)
			r.Parameters["seed"] = p
		}, codes.InvalidArgument, "parameters.seed.field 99: is unknown"},
		{"parameter of a tensor", func(r *oip.ModelInferRequest) {
			r.Inputs[0].Parameters = map[string]*oip.InferParameter{"lora": whole(1)}
		}, codes.InvalidArgument, "inputs[0].parameters.lora: is unknown"},
		{"other operation", parameter("operation", text("rerank")), codes.InvalidArgument, "operation: must be chat, generate or embed"},
		{"operation of another type", parameter("operation", whole(1)), codes.InvalidArgument, "operation: must be chat, generate or embed"},
		{"parameter without a value", parameter("seed", &oip.InferParameter{}), codes.InvalidArgument, "seed: must be a whole number"},
		{"fraction of a token", parameter("max_tokens", number(1.5)), codes.InvalidArgument, "max_tokens: must be a whole number"},
		{"temperature as text", parameter("temperature", text("1")), codes.InvalidArgument, "temperature: must be a number"},
		{"temperature not a number", parameter("temperature", number(math.NaN())), codes.InvalidArgument, "temperature: must be from 0 to 2"},
		{"temperature above all", parameter("temperature", number(3)), codes.InvalidArgument, "temperature: must be from 0 to 2"},
		{"max_tokens above the release's", parameter("max_tokens", whole(101)), codes.InvalidArgument, "max_tokens: is above 100"},
		{"max_tokens below 1", parameter("max_tokens", whole(0)), codes.InvalidArgument, "max_tokens: must be from 1"},
		{"sampling of embed", func(r *oip.ModelInferRequest) {
			r.Parameters["operation"], r.Parameters["seed"] = text("embed"), whole(1)
		},
			codes.InvalidArgument, "seed: is not for operation embed"},
		{"no text", func(r *oip.ModelInferRequest) { r.Inputs = nil }, codes.InvalidArgument, "text_input: is required"},
		{"two texts", func(r *oip.ModelInferRequest) { r.Inputs[0] = texts("text_input", "a", "b") }, codes.InvalidArgument, "text_input: must be one text"},
		{"no element", func(r *oip.ModelInferRequest) { r.Inputs[0] = texts("text_input") }, codes.InvalidArgument, "text_input: must hold at least one text"},
		{"twice", input(texts("text_input", "b")), codes.InvalidArgument, "inputs[1].name: text_input is given twice"},
		{"as parameter and tensor", func(r *oip.ModelInferRequest) {
			r.Parameters["stop"], r.Inputs = text("a"), append(r.Inputs, texts("stop", "b"))
		}, codes.InvalidArgument, "inputs[1].name: stop is given twice"},
		{"other type", func(r *oip.ModelInferRequest) { r.Inputs[0].Datatype = "FP32" }, codes.InvalidArgument, "text_input: must be of type BYTES"},
		{"no UTF-8", func(r *oip.ModelInferRequest) { r.Inputs[0] = texts("text_input", "\xff") }, codes.InvalidArgument, "text_input: must be UTF-8"},
		{"other shape", func(r *oip.ModelInferRequest) { r.Inputs[0].Shape = []int64{2} }, codes.InvalidArgument, "text_input: must have as many elements"},
		{"negative shape", func(r *oip.ModelInferRequest) { r.Inputs[0].Shape = []int64{-1, -1} }, codes.InvalidArgument, "text_input: has no such shape"},
		{"immense shape", func(r *oip.ModelInferRequest) { r.Inputs[0].Shape = []int64{1 << 32, 1 << 32} }, codes.InvalidArgument, "text_input: has no such shape"},
		{"contents of another type beside", func(r *oip.ModelInferRequest) { r.Inputs[0].Contents.IntContents = []int32{1} }, codes.InvalidArgument, "text_input: must have as many elements"},
		{"contents beside raw ones", func(r *oip.ModelInferRequest) { r.RawInputContents = [][]byte{{0, 0, 0, 0}} }, codes.InvalidArgument, "inputs[0].contents: must be left out"},
		{"raw contents of one of two", func(r *oip.ModelInferRequest) {
			r.RawInputContents, r.Inputs = [][]byte{{0, 0, 0, 0}}, append(r.Inputs, texts("stop", "x"))
		}, codes.InvalidArgument, "raw_input_contents: must hold the elements of every input"},
		{"raw text that ends early", func(r *oip.ModelInferRequest) {
			r.Inputs[0].Contents, r.RawInputContents = nil, [][]byte{{255, 255, 255, 255, 'x'}}
		}, codes.InvalidArgument, "text_input: must be texts, each after its length"},
		{"raw number of another size", func(r *oip.ModelInferRequest) {
			r.Inputs = append(r.Inputs, &tensor{Name: "seed", Datatype: "INT64", Shape: []int64{1}})
			r.Inputs[0].Contents, r.RawInputContents = nil, [][]byte{{1, 0, 0, 0, 'x'}, {1, 0, 0, 0}}
		}, codes.InvalidArgument, "seed: must have one element, of 8 bytes"},
		{"other output", func(r *oip.ModelInferRequest) {
			r.Outputs = []*oip.ModelInferRequest_InferRequestedOutputTensor{{Name: "logits"}}
		}, codes.InvalidArgument, "outputs[0].name: must be text_output"},
		{"parameter of an output", func(r *oip.ModelInferRequest) {
			r.Outputs = []*oip.ModelInferRequest_InferRequestedOutputTensor{{Name: "text_output", Parameters: map[string]*oip.InferParameter{"classification": whole(1)}}}
		}, codes.InvalidArgument, "outputs[0].parameters.classification: is unknown"},
		{"other version", func(r *oip.ModelInferRequest) { r.ModelVersion = weights }, codes.NotFound, "another version serves"},
		{"other version of a channel without a rule", func(r *oip.ModelInferRequest) { r.ModelName, r.ModelVersion = "private", weights }, codes.PermissionDenied, "permission denied"},
		{"no rule for the channel", func(r *oip.ModelInferRequest) { r.ModelName = "private" }, codes.PermissionDenied, "permission denied"},
		{"no channel", func(r *oip.ModelInferRequest) { r.ModelName = "" }, codes.PermissionDenied, "permission denied"},
		{"serves nothing", func(r *oip.ModelInferRequest) { r.ModelName = "quiet" }, codes.Unavailable, "channel is not serving, retry later"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req := infer("", "hi")
			tt.change(req)
			got, err := client.ModelInfer(t.Context(), req)
			if s := status.Convert(err); s.Code() != tt.code || !strings.HasPrefix(s.Message(), tt.want) {
				t.Errorf("ModelInfer = %v, %v, want %v %q", got, err, tt.code, tt.want)
			}
		})
	}
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if len(ch.got) > 0 {
		t.Error("a refused request reached the runtime")
	}
}

// TestOIPMetadata: the server is there for the whole trust domain, a channel for those who may see it.
func TestOIPMetadata(t *testing.T) {
	d := open(t, map[string]*channel{"chat": hello(), "quiet": {missing: errors.New("no approval")}, "private": hello()}, func(c *gateway.Config) { c.Version = "1.2.3" })
	app, other := oip.NewGRPCInferenceServiceClient(d.conn("/apps/demo")), oip.NewGRPCInferenceServiceClient(d.conn("/batch/job"))
	if live, err := other.ServerLive(t.Context(), &oip.ServerLiveRequest{}); err != nil || !live.GetLive() {
		t.Errorf("ServerLive = %v, %v", live, err)
	}
	if ready, err := other.ServerReady(t.Context(), &oip.ServerReadyRequest{}); err != nil || !ready.GetReady() {
		t.Errorf("ServerReady = %v, %v", ready, err)
	}
	if m, err := other.ServerMetadata(t.Context(), &oip.ServerMetadataRequest{}); err != nil || m.GetName() != "weighbridge" || m.GetVersion() != "1.2.3" || len(m.GetExtensions()) != 2 {
		t.Errorf("ServerMetadata = %v, %v", m, err)
	}
	for _, tt := range []struct {
		client        oip.GRPCInferenceServiceClient
		name, version string
		ready         bool
		code          codes.Code // of ModelReady
		metadata      codes.Code
	}{
		{app, "chat", "", true, codes.OK, codes.OK},
		{app, "chat", release, true, codes.OK, codes.OK},
		{app, "chat", weights, false, codes.OK, codes.NotFound},
		{app, "quiet", "", false, codes.OK, codes.OK},
		{app, "private", "", false, codes.PermissionDenied, codes.PermissionDenied},
		{app, "ghost", "", false, codes.PermissionDenied, codes.PermissionDenied},
		{other, "chat", "", false, codes.PermissionDenied, codes.PermissionDenied},
	} {
		if ready, err := tt.client.ModelReady(t.Context(), &oip.ModelReadyRequest{Name: tt.name, Version: tt.version}); status.Code(err) != tt.code || ready.GetReady() != tt.ready {
			t.Errorf("ModelReady of %s %q = %v, %v", tt.name, tt.version, ready, err)
		}
		if m, err := tt.client.ModelMetadata(t.Context(), &oip.ModelMetadataRequest{Name: tt.name, Version: tt.version}); status.Code(err) != tt.metadata {
			t.Errorf("ModelMetadata of %s %q = %v, %v", tt.name, tt.version, m, err)
		}
	}
	var header metadata.MD
	m, err := app.ModelMetadata(t.Context(), &oip.ModelMetadataRequest{Name: "chat"}, grpc.Header(&header))
	if err != nil || m.GetName() != "chat" || !reflect.DeepEqual(m.GetVersions(), []string{release}) || m.GetPlatform() != "weighbridge_sealed" || len(m.GetInputs()) != 6 ||
		m.GetInputs()[0].GetName() != "text_input" || len(m.GetOutputs()) != 2 || strings.Join(header.Get("weighbridge-weights"), ",") != weights {
		t.Errorf("ModelMetadata = %v, %v with %v", m, err, header)
	}
}

// TestOIPReceipt: an answer of this protocol has a receipt that our own service returns.
func TestOIPReceipt(t *testing.T) {
	d, s := openWithReceipts(t, map[string]*channel{"chat": hello()})
	conn := d.conn("/apps/demo")
	var request, response bytes.Buffer
	var header metadata.MD
	ctx := metadata.AppendToOutgoingContext(t.Context(), "weighbridge-receipt", "1")
	_, err := oip.NewGRPCInferenceServiceClient(conn).ModelInfer(ctx, infer("", "hi"), grpc.ForceCodecV2(wire.Recorder(&request, &response)), grpc.Header(&header))
	if err != nil || len(header.Get("x-receipt-id")) != 1 {
		t.Fatalf("ModelInfer = %v, %v", header, err)
	}
	got, err := pb.NewInferenceClient(conn).GetReceipt(t.Context(), &pb.GetReceiptRequest{Id: header.Get("x-receipt-id")[0]})
	if err != nil {
		t.Fatal(err)
	}
	checkReceipt(t, s, got.GetReceipt(), request.Bytes(), response.Bytes())
}

// TestOIPHasNoRepository: no call loads or unloads anything.
func TestOIPHasNoRepository(t *testing.T) {
	d := open(t, map[string]*channel{"chat": hello()})
	conn := d.conn("/apps/demo")
	for _, method := range []string{"RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload", "ModelStreamInfer", "ModelConfig"} {
		err := conn.Invoke(t.Context(), "/inference.GRPCInferenceService/"+method, &oip.ServerLiveRequest{}, &oip.ServerLiveResponse{})
		if status.Code(err) != codes.Unimplemented {
			t.Errorf("%s = %v, want UNIMPLEMENTED", method, err)
		}
	}
}
