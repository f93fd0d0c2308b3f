package gateway

import (
	"context"
	"encoding/binary"
	"math"
	"path"
	"strings"

	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/weighbridge/weighbridge/gateway/access"
	oip "github.com/weighbridge/weighbridge/proto/inference"
)

// apiOIP is the Open Inference Protocol, in the log and in rules.
const apiOIP = "oip"

// Tensors of an answer.
const (
	outputText   = "text_output"
	outputVector = "embedding"
)

// oipExtensions are what we do beyond the protocol: request parameter operation, and metadata weighbridge-receipt.
var oipExtensions = []string{"weighbridge_operation", "weighbridge_receipt"}

// openInference is the service of the Open Inference Protocol. What it asks for is a request like any other.
type openInference struct {
	oip.UnimplementedGRPCInferenceServiceServer
	g      *Gateway
	health *channelHealth
}

// byRule reports whether a method is for callers whom a rule names. Others are for our own trust domain.
func byRule(server any, method string) bool {
	switch server.(type) {
	case *inference:
		return true
	case *openInference:
		return !strings.HasPrefix(path.Base(method), "Server")
	default:
		return false
	}
}

// ServerLive implements the service.
func (s *openInference) ServerLive(_ context.Context, in *oip.ServerLiveRequest) (*oip.ServerLiveResponse, error) {
	return &oip.ServerLiveResponse{Live: true}, toGRPC(known(in))
}

// ServerReady implements the service.
func (s *openInference) ServerReady(ctx context.Context, in *oip.ServerReadyRequest) (*oip.ServerReadyResponse, error) {
	ready := s.health.of(ctx, serviceReadiness) == grpc_health_v1.HealthCheckResponse_SERVING
	return &oip.ServerReadyResponse{Ready: ready}, toGRPC(known(in))
}

// ServerMetadata implements the service.
func (s *openInference) ServerMetadata(_ context.Context, in *oip.ServerMetadataRequest) (*oip.ServerMetadataResponse, error) {
	return &oip.ServerMetadataResponse{Name: provider, Version: s.g.version, Extensions: oipExtensions}, toGRPC(known(in))
}

// ModelReady implements the service.
func (s *openInference) ModelReady(ctx context.Context, in *oip.ModelReadyRequest) (*oip.ModelReadyResponse, error) {
	info, err := s.model(ctx, known(in), in.GetName())
	if err != nil {
		return nil, toGRPC(err)
	}
	ready := s.health.of(ctx, in.GetName()) == grpc_health_v1.HealthCheckResponse_SERVING
	return &oip.ModelReadyResponse{Ready: ready && (in.GetVersion() == "" || in.GetVersion() == info.Release)}, nil
}

// ModelMetadata implements the service.
func (s *openInference) ModelMetadata(ctx context.Context, in *oip.ModelMetadataRequest) (*oip.ModelMetadataResponse, error) {
	info, err := s.model(ctx, known(in), in.GetName())
	if err == nil && in.GetVersion() != "" && in.GetVersion() != info.Release {
		err = errOtherRelease
	}
	if err != nil {
		return nil, toGRPC(err)
	}
	out := &oip.ModelMetadataResponse{Name: info.Channel, Platform: provider}
	if info.Release != "" {
		announce(ctx, ServingInfo{Release: info.Release, Weights: info.Weights, Level: info.Level})
		out.Versions, out.Platform = []string{info.Release}, provider+"_"+info.Level
	}
	for _, i := range oipInputs {
		if i.datatype != "" { // else it is no tensor
			out.Inputs = append(out.Inputs, &oip.ModelMetadataResponse_TensorMetadata{Name: i.name, Datatype: i.datatype, Shape: []int64{i.size}})
		}
	}
	out.Outputs = []*oip.ModelMetadataResponse_TensorMetadata{
		{Name: outputText, Datatype: typeBytes, Shape: []int64{1}}, {Name: outputVector, Datatype: typeFP32, Shape: []int64{-1, -1}},
	}
	return out, nil
}

// model returns a channel that the caller may see, and logs that it was asked for.
func (s *openInference) model(ctx context.Context, err error, name string) (info ChannelInfo, _ error) {
	c := callOf(ctx)
	if err == nil {
		info, err = s.g.model(c, name)
	}
	s.g.logOther(ctx, c, access.MethodModels, err)
	return info, err
}

// ModelInfer implements the service.
func (s *openInference) ModelInfer(ctx context.Context, in *oip.ModelInferRequest) (*oip.ModelInferResponse, error) {
	r, err := decodeInfer(in)
	r.call = callOf(ctx)
	a := &heldAnswer{announce: func(info ServingInfo) { announce(ctx, info) }}
	err = s.g.answered(ctx, r, err, func() error {
		if r.method == access.MethodEmbed {
			return s.g.embed(ctx, r, a)
		}
		return s.g.chat(ctx, r, a)
	})
	if err != nil {
		return nil, err
	}
	return inferred(in, r, a), nil
}

// inferred writes an answer in the form in which it was asked for.
func inferred(in *oip.ModelInferRequest, r *request, a *heldAnswer) *oip.ModelInferResponse {
	out := &oip.ModelInferResponse{ModelName: r.channel, ModelVersion: a.info.Release, Id: in.GetId(), Parameters: map[string]*oip.InferParameter{
		"weights": textParameter(a.info.Weights), "level": textParameter(a.info.Level),
	}}
	tensor := &oip.ModelInferResponse_InferOutputTensor{Contents: &oip.InferTensorContents{}}
	out.Outputs = []*oip.ModelInferResponse_InferOutputTensor{tensor}
	var raw []byte
	if r.method == access.MethodEmbed {
		tensor.Name, tensor.Datatype, tensor.Shape = outputVector, typeFP32, []int64{int64(len(a.vectors.Vectors)), 0}
		for _, v := range a.vectors.Vectors {
			tensor.Shape[1] = int64(len(v))
			tensor.Contents.Fp32Contents = append(tensor.Contents.Fp32Contents, v...)
		}
		for _, x := range tensor.Contents.Fp32Contents {
			raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(x))
		}
		out.Parameters["prompt_tokens"] = countParameter(a.vectors.PromptTokens)
	} else {
		text := []byte(a.got.text.String())
		tensor.Name, tensor.Datatype, tensor.Shape = outputText, typeBytes, []int64{1}
		tensor.Contents.BytesContents = [][]byte{text}
		raw = append(binary.LittleEndian.AppendUint32(raw, uint32(len(text))), text...)
		out.Parameters["finish_reason"] = textParameter(a.got.reason)
		out.Parameters["prompt_tokens"] = countParameter(a.got.used.PromptTokens)
		out.Parameters["completion_tokens"] = countParameter(a.got.used.CompletionTokens)
	}
	if len(in.GetRawInputContents()) > 0 {
		tensor.Contents, out.RawOutputContents = nil, [][]byte{raw}
	}
	return out
}

func textParameter(s string) *oip.InferParameter {
	return &oip.InferParameter{ParameterChoice: &oip.InferParameter_StringParam{StringParam: s}}
}

func countParameter(n int) *oip.InferParameter {
	return &oip.InferParameter{ParameterChoice: &oip.InferParameter_Int64Param{Int64Param: int64(n)}}
}
