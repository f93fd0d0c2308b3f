package backendtest

import (
	"errors"
	"strings"
	"testing"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
	"github.com/weighbridge/weighbridge/verifier/seal"
)

// dangerous are names of options of model servers, llama.cpp's first, by what they could do. No kind allows any.
var dangerous = map[string][]string{
	"load something else": {
		"model", "m", "models-dir", "models-preset", "model-url", "hf-repo", "hf-file", "hf-token", "docker-repo", "lora", "lora-scaled", "lora-init-without-apply",
		"control-vector", "control-vector-scaled", "mmproj", "mmproj-url", "no-mmproj", "model-draft", "spec-draft-model", "hf-repo-draft", "model-vocoder", "override-kv",
		"adapter", "adapters", "from", "files", "projector", "draft_model",
	},
	"change what is said": {
		"chat-template", "chat-template-file", "chat-template-kwargs", "jinja", "no-jinja", "skip-chat-parsing", "system-prompt", "system-prompt-file", "reasoning-format",
		"reasoning-budget", "grammar", "grammar-file", "json-schema", "json-schema-file", "logit-bias", "in-prefix", "in-suffix", "spm-infill", "special", "prefill-assistant",
		"no-prefill-assistant", "predict", "n-predict", "keep", "temp", "top-k", "top-p", "min-p", "seed", "samplers", "repeat-penalty", "mirostat", "ignore-eos", "rope-scaling",
		"rope-freq-base", "yarn-orig-ctx", "context-shift", "override-tensor", "embd-normalize", "attention", "reranking",
		"template", "system", "format", "raw", "suffix", "think", "truncate", "shift", "num_predict", "num_keep", "temperature", "top_k", "top_p", "stop", "license", "messages",
	},
	"be reached, or reach others": {
		"host", "port", "path", "api-prefix", "api-key", "api-key-file", "ssl-key-file", "ssl-cert-file", "alias", "rpc", "ui", "webui", "no-ui", "ui-mcp-proxy", "tools",
		"slots", "no-slots", "slot-save-path", "props", "metrics", "media-path", "threads-http", "timeout", "offline", "cors-origins", "agent",
		"origins", "insecure", "remote", "keep_alive", "models", "debug",
	},
	"share or keep what is asked": {
		"cache-ram", "cache-prompt", "cache-reuse", "ctx-checkpoints", "cache-idle-slots", "prompt-cache", "lookup-cache-static", "lookup-cache-dynamic", "slot-prompt-similarity",
		"log-file", "log-verbosity", "log-prompts-dir", "verbose", "log-prefix", "num_parallel", "multiuser_cache",
	},
	"name another place": {
		"load-mode", "mlock", "no-mmap", "device", "list-devices", "fit", "check-tensors", "tensor-split", "help", "version", "completion-bash", "env", "config", "",
		"-m", "--model", "ctx-size=1 --model", "MODEL", "LLAMA_ARG_MODEL", "OLLAMA_MODELS",
	},
}

// refusesArgs checks that nothing of that starts: whatever a release says of them, and beside what is allowed.
func (s Suite) refusesArgs(t *testing.T) {
	w := Seal(t, WriteModel(t, tinygguf.A))
	for what, names := range dangerous {
		for _, name := range names {
			for _, value := range []string{"1", "true"} {
				spec := s.spec()
				spec.Args = map[string]string{name: value}
				for n, v := range s.Args {
					spec.Args[n] = v
				}
				s.checkRefused(t, w, spec, "runtime.args."+name+": is not allowed", what)
			}
		}
	}
	for name := range s.Args {
		for _, value := range []string{"", " 1", "1 --model x", "1\x00", "-1", "/etc/passwd", "1e9", "99999999999"} {
			spec := s.spec()
			spec.Args = map[string]string{name: value}
			s.checkRefused(t, w, spec, "runtime.args."+name, "take what is no such value")
		}
	}
	check(t, w.Close())
}

// checkRefused checks that a backend does not start by what would let it do something, and that it says why.
func (s Suite) checkRefused(t *testing.T, w *seal.Weights, spec backends.Spec, want, what string) {
	t.Helper()
	b := s.New(t, t.TempDir())
	if err := b.Start(t.Context(), w, spec); !errors.Is(err, backends.ErrFailed) || !strings.Contains(err.Error(), want) {
		t.Errorf("Start() with %q could %s: %v, want ErrFailed with %q", spec.Args, what, err, want)
	}
	check(t, b.Stop(t.Context()))
}

// refusesTemplate checks that a template which can't be used does not leave the model's own in its place.
func (s Suite) refusesTemplate(t *testing.T) {
	w := Seal(t, WriteModel(t, tinygguf.A))
	spec := s.spec()
	spec.ChatTemplate = s.BrokenTemplate
	s.checkRefused(t, w, spec, "", "serve by another template")
	check(t, w.Close())
}
