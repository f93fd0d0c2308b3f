package gateway

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/gateway/access"
	oip "github.com/weighbridge/weighbridge/proto/inference"
)

// oipNames are how the Open Inference Protocol spells what a request may hold. It offers no tools.
var oipNames = names{
	messages: inputText, prompt: inputText, inputs: inputText, tools: "tools", toolChoice: "tool_choice", maxTokens: "max_tokens",
	temperature: "temperature", topP: "top_p", stop: "stop",
}

// What every request holds, and what says how it is to be read.
const (
	inputText      = "text_input"
	inputOperation = "operation"
)

// An oipInput is something that a request may hold, by its name.
type oipInput struct {
	name      string
	parameter bool   // it may be a parameter
	datatype  string // of the tensor that it may be; "": none
	size      int64  // of that; -1: any
	embed     bool   // embed takes it, too
	take      func(*request, oipValue) error
}

// oipInputs are all that a request may hold. The first says how the others are to be read.
var oipInputs = []oipInput{
	{inputOperation, true, "", 0, true, func(r *request, v oipValue) error {
		texts, err := v.texts()
		if err != nil || !slices.Contains([]string{access.MethodChat, access.MethodGenerate, access.MethodEmbed}, texts[0]) {
			return errors.New("must be chat, generate or embed")
		}
		r.method = texts[0]
		return nil
	}},
	{inputText, false, typeBytes, -1, true, func(r *request, v oipValue) error {
		texts, err := v.texts()
		switch {
		case err != nil:
			return err
		case r.method == access.MethodEmbed:
			r.inputs = texts
		case len(texts) != 1:
			return errors.New("must be one text")
		case r.method == access.MethodGenerate:
			r.prompt = texts[0]
		default:
			r.messages = []backends.Message{{Role: "user", Content: texts[0]}}
		}
		return nil
	}},
	{"max_tokens", true, typeInt32, 1, false, func(r *request, v oipValue) (err error) {
		r.maxTokens, err = v.integer()
		return err
	}},
	{"temperature", true, typeFP32, 1, false, func(r *request, v oipValue) (err error) {
		r.temperature, err = v.number()
		return err
	}},
	{"top_p", true, typeFP32, 1, false, func(r *request, v oipValue) (err error) {
		r.topP, err = v.number()
		return err
	}},
	{"seed", true, typeInt64, 1, false, func(r *request, v oipValue) (err error) {
		r.seed, err = v.integer()
		return err
	}},
	{"stop", true, typeBytes, -1, false, func(r *request, v oipValue) (err error) {
		r.stop, err = v.texts()
		return err
	}},
}

// decodeInfer reads a ModelInfer. It returns a request in any case, for the log.
func decodeInfer(in *oip.ModelInferRequest) (*request, error) {
	r := &request{api: apiOIP, names: oipNames, method: access.MethodChat, channel: in.GetModelName(), release: in.GetModelVersion()}
	if err := known(in); err != nil {
		return r, err
	}
	values, err := oipValues(in)
	if err != nil {
		return r, err
	}
	for _, i := range oipInputs {
		v, given := values[i.name]
		switch {
		case !given:
		case r.method == access.MethodEmbed && !i.embed:
			return r, invalid(i.name, "is not for operation embed")
		default:
			if err := i.take(r, v); err != nil {
				return r, invalid(i.name, "%v", err) // a text of ours
			}
		}
	}
	if _, given := values[inputText]; !given {
		return r, invalid(inputText, "is required")
	}
	return r, checkOutputs(in, r.method)
}

// checkOutputs refuses to be asked for other tensors than there will be.
func checkOutputs(in *oip.ModelInferRequest, method string) error {
	output := outputText
	if method == access.MethodEmbed {
		output = outputVector
	}
	for i, o := range in.GetOutputs() {
		field := fmt.Sprintf("outputs[%d].", i)
		if o.GetName() != output {
			return invalid(field+"name", "must be %s", output)
		}
		if err := noParameters(field, o.GetParameters()); err != nil {
			return err
		}
	}
	return nil
}

// noParameters refuses parameters, by the name of the first.
func noParameters(field string, parameters map[string]*oip.InferParameter) error {
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		return invalid(field+parameterName(name), "is unknown or not supported")
	}
	return nil
}

// parameterName is the name of a caller's, as it may be shown.
func parameterName(name string) string {
	return fieldName(jsontext.Pointer("/parameters").AppendToken(name))
}

// oipValues finds the parameters and tensors of a request by their names, and refuses those that we don't know.
func oipValues(in *oip.ModelInferRequest) (map[string]oipValue, error) {
	values := map[string]oipValue{}
	find := func(name string) *oipInput {
		if i := slices.IndexFunc(oipInputs, func(i oipInput) bool { return i.name == name }); i >= 0 {
			return &oipInputs[i]
		}
		return &oipInput{} // neither a parameter nor a tensor
	}
	for _, name := range slices.Sorted(maps.Keys(in.GetParameters())) {
		if !find(name).parameter {
			return nil, invalid(parameterName(name), "is unknown or not supported")
		}
		values[name] = oipValue{parameter: in.GetParameters()[name]}
	}
	raw := in.GetRawInputContents()
	if len(raw) > 0 && len(raw) != len(in.GetInputs()) {
		return nil, invalid("raw_input_contents", "must hold the elements of every input")
	}
	for n, tensor := range in.GetInputs() {
		field := fmt.Sprintf("inputs[%d].", n)
		if find(tensor.GetName()).datatype == "" {
			return nil, invalid(fieldName(jsontext.Pointer("/inputs").AppendToken(tensor.GetName())), "is unknown or not supported")
		}
		if err := noParameters(field, tensor.GetParameters()); err != nil {
			return nil, err
		}
		if _, twice := values[tensor.GetName()]; twice {
			return nil, invalid(field+"name", "%s is given twice", tensor.GetName())
		}
		v := oipValue{tensor: tensor}
		if len(raw) > 0 {
			if tensor.GetContents() != nil {
				return nil, invalid(field+"contents", "must be left out beside raw_input_contents")
			}
			v.raw = raw[n]
			v.isRaw = true
		}
		values[tensor.GetName()] = v
	}
	return values, nil
}
