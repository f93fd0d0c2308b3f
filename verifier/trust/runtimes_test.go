package trust_test

import (
	"strings"
	"testing"

	"github.com/weighbridge/weighbridge/verifier/trust"
)

func TestCheckArgs(t *testing.T) {
	valid := map[string]string{
		"ctx-size": "4096", "threads": "1", "threads-batch": "8", "batch-size": "512", "ubatch-size": "128", "parallel": "2",
		"flash-attn": "auto", "cache-type-k": "q8_0", "cache-type-v": "f16", "n-gpu-layers": "all", "main-gpu": "0",
		"n-cpu-moe": "0", "numa": "isolate", "split-mode": "layer",
	}
	if err := trust.CheckArgs("llamacpp", valid); err != nil {
		t.Errorf("CheckArgs(%v) = %v", valid, err)
	}
	for _, tt := range []struct{ name, value string }{
		{"model", "x.gguf"}, {"lora", "x"}, {"chat-template", "x"}, {"host", "0.0.0.0"}, {"port", "80"}, {"api-key", "x"}, {"temp", "1"},
		{"slots", ""}, {"rpc", "a:1"}, {"tools", "all"}, {"", ""}, {"--threads", "1"}, {"Threads", "1"}, {"threads ", "1"},
		{"threads", ""}, {"threads", "0"}, {"threads", "-1"}, {"threads", "+1"}, {"threads", "01"}, {"threads", "1 --port 80"}, {"threads", "1025"},
		{"threads", "99999999999999999999"}, {"flash-attn", "1"}, {"flash-attn", "On"}, {"cache-type-k", "f64"}, {"n-gpu-layers", "-1"}, {"n-gpu-layers", "some"},
		{"numa", "0"}, {"numa", ""}, {"pooling", "mean"}, {"embeddings", "false"}, {"embeddings", ""},
	} {
		if err := trust.CheckArgs("llamacpp", map[string]string{tt.name: tt.value}); err == nil {
			t.Errorf("CheckArgs(%q: %q) = nil, want an error", tt.name, tt.value)
		}
	}
	for _, tt := range []struct {
		kind, name, value string
		want              string // of the error; empty: allowed
	}{
		{"llamacpp", "ubatch-size", "512", ""},
		{"llamacpp", "pooling", "mean", ""},
		{"llamacpp", "pooling", "cls", ""},
		{"llamacpp", "pooling", "last", ""},
		{"llamacpp", "pooling", "none", "one of mean, cls, last"},
		{"llamacpp", "pooling", "rank", "one of mean, cls, last"},
		{"llamacpp", "parallel", "1", "one after the other"},
		{"llamacpp", "batch-size", "512", "one after the other"},
		{"ollama", "num_ctx", "512", "runtime.args.embeddings: is not allowed"},
	} {
		err := trust.CheckArgs(tt.kind, map[string]string{"embeddings": "true", tt.name: tt.value})
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("CheckArgs(%s, embeddings, %s: %s) = %v, want %q", tt.kind, tt.name, tt.value, err, tt.want)
		}
	}
	err := trust.CheckArgs("llamacpp", map[string]string{"lora": "x", "threads": "many", "parallel": "1"})
	if err == nil || !strings.Contains(err.Error(), "runtime.args.lora: ") || !strings.Contains(err.Error(), `"many"`) || strings.Contains(err.Error(), "args.parallel:") {
		t.Errorf("CheckArgs() = %v, want both problems and no other", err)
	}
}
