package gateway

import (
	"errors"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	oip "github.com/weighbridge/weighbridge/proto/inference"
)

// FuzzDecodeInfer holds the decoder to an outcome for every message: a request that asks for something, or an error that
// names a field and repeats no text.
func FuzzDecodeInfer(f *testing.F) {
	seed := func(m *oip.ModelInferRequest) {
		wire, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(wire)
	}
	const secret = "a text that nobody else may read"
	input := func(datatype string, c *oip.InferTensorContents) []*oip.ModelInferRequest_InferInputTensor {
		return []*oip.ModelInferRequest_InferInputTensor{{Name: inputText, Datatype: datatype, Shape: []int64{1}, Contents: c}}
	}
	seed(&oip.ModelInferRequest{ModelName: "chat", Inputs: input(typeBytes, &oip.InferTensorContents{BytesContents: [][]byte{[]byte(secret)}})})
	seed(&oip.ModelInferRequest{Inputs: input(typeFP32, &oip.InferTensorContents{BytesContents: [][]byte{[]byte(secret)}})})
	seed(&oip.ModelInferRequest{Inputs: input(typeBytes, nil), RawInputContents: [][]byte{append([]byte{32, 0, 0, 0}, secret...)}})
	seed(&oip.ModelInferRequest{Parameters: map[string]*oip.InferParameter{"operation": textParameter(secret), "seed": countParameter(-1)}})
	f.Fuzz(func(t *testing.T, wire []byte) {
		var in oip.ModelInferRequest
		if proto.Unmarshal(wire, &in) != nil {
			t.Skip()
		}
		r, err := decodeInfer(&in)
		if err == nil {
			if len(r.messages)+len(r.inputs) == 0 && r.method != "generate" {
				t.Errorf("decodeInfer(%v) asks for nothing", &in)
			}
			_ = r.check()
			return
		}
		var field *fieldError
		if !errors.As(err, &field) || outcomeOf(err).http != 400 || strings.Contains(err.Error(), secret) {
			t.Errorf("decodeInfer(%v) = %v, want a field's error", &in, err)
		}
	})
}
