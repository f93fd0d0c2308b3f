package gateway

import (
	"errors"
	"slices"

	"github.com/go-json-experiment/json/jsontext"
)

// errAsked means that a caller asks for something by a field by which nothing can be asked for.
var errAsked = errors.New("is not to be asked for")

// nothing is a field that clients always send, or that has one value that changes nothing: it is taken where it asks for
// nothing, as null, false, zero and what is empty do. The field is refused in the words of [reasons] else.
type nothing struct{}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (nothing) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	return oneOf(d, "null", "false", "0", `""`, "[]", "{}")
}

// oneOf reads a value that must be one of these.
func oneOf(d *jsontext.Decoder, allowed ...string) error {
	v, err := d.ReadValue()
	if err != nil {
		return err
	}
	if err := v.Compact(); err != nil {
		return err
	}
	if !slices.Contains(allowed, string(v)) {
		return errAsked
	}
	return nil
}

// What is said of fields that callers know from runtimes or from other APIs.
const (
	ofRelease    = "is set by the release alone"
	ofOperators  = "is not to be asked for here: what serves a channel is decided by signed statements"
	noSampler    = "is not supported: temperature and top_p are what a release allows"
	noContent    = "is not supported: what a model reads here is text"
	noThinking   = "is not supported: an answer is shown as the model writes it"
	noFormat     = "is not supported: what the model writes is not held to a form"
	noDetails    = "is not supported: an answer has no such details"
	noTruncation = "is not supported: what is longer than the model's context is refused, and never cut"
)

// reasons are why fields are refused, by their last name, in whatever API.
var reasons = map[string]string{
	"functions": "is not supported: offer them as tools", "function_call": "is not supported: offer them as tools",
	"strict": "is not supported: what the model writes is not held to the schema",

	"num_ctx": ofRelease, "n_ctx": ofRelease, "ctx_size": ofRelease, "max_model_len": ofRelease, "context_length": ofRelease,
	"num_batch": ofRelease, "num_gpu": ofRelease, "main_gpu": ofRelease, "num_thread": ofRelease, "use_mmap": ofRelease, "use_mlock": ofRelease,
	"lora": ofRelease, "adapter": ofRelease, "adapters": ofRelease, "lora_request": ofRelease, "template": ofRelease, "chat_template": ofRelease,
	"chat_template_kwargs": ofRelease, "raw": ofRelease,

	"keep_alive":    "is not to be asked for: what serves a channel stays until something else does",
	"cache_control": "must be of type ephemeral, which changes no answer", "service_tier": "must be auto or standard_only: all are served alike",
	"container": ofOperators, "mcp_servers": "is not supported: callers offer tools, and carry out themselves what a model calls",

	"files": ofOperators, "from": ofOperators, "modelfile": ofOperators, "quantize": ofOperators,

	"top_k": noSampler, "min_p": noSampler, "typical_p": noSampler, "repeat_penalty": noSampler, "presence_penalty": noSampler,
	"frequency_penalty": noSampler, "repeat_last_n": noSampler, "mirostat": noSampler, "logit_bias": noSampler, "num_keep": noTruncation,

	"images": noContent, "suffix": noContent, "context": "is not supported: give the conversation as messages",
	"think": noThinking, "thinking": noThinking, "format": noFormat, "response_format": noFormat, "grammar": noFormat,
	"truncate": noTruncation, "shift": noTruncation, "dimensions": "is not supported: a vector is as long as the model makes it",
	"logprobs": noDetails, "top_logprobs": noDetails, "_debug_render_only": noDetails, "verbose": noDetails,
}
