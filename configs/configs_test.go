package configs_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/configs"
)

func TestSamplesLoad(t *testing.T) {
	samples, err := filepath.Glob("samples/*.yaml")
	if err != nil || len(samples) < 3 {
		t.Fatalf("Glob = %v, %v, want the samples", samples, err)
	}
	for _, sample := range samples {
		if _, err := configs.Load(sample); err != nil {
			t.Errorf("Load(%s) = %v, want nil", sample, err)
		}
	}
}

func sample(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("samples/development.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestPathsAreRelativeToTheFile(t *testing.T) {
	cfg, err := configs.Parse([]byte(sample(t)), "/site")
	if err != nil {
		t.Fatal(err)
	}
	for got, want := range map[string]string{
		cfg.Trust.Policy: "/site/policy.jsonl", cfg.Trust.State: "/site/state", cfg.Trust.Statements[0]: "/site/statements",
		cfg.Weights[0]: "/site/models", cfg.Listen.Control: "unix:/site/control.sock",
		cfg.Identity.Development.Socket: "/site/spiffe.sock", cfg.Runtimes.LlamaCPP.Command: "llama-server",
	} {
		if got != want {
			t.Errorf("path = %q, want %q", got, want)
		}
	}
}

func TestCommandPaths(t *testing.T) {
	cfg, err := configs.Parse([]byte(strings.Replace(sample(t), "  llamacpp: {command: llama-server}", "  llamacpp: {command: ./a}\n  ollama: {command: bin/b}", 1)), "/site")
	if err != nil || cfg.Runtimes.LlamaCPP.Command != "/site/a" || cfg.Runtimes.Ollama.Command != "/site/bin/b" {
		t.Errorf("commands are %+v, %v; want both in /site", cfg.Runtimes, err)
	}
}

func TestAttachedSocket(t *testing.T) {
	cfg, err := configs.Parse([]byte(strings.Replace(sample(t), "llamacpp: {command: llama-server}", "ollama: {attached: \"unix:run/ollama.sock\"}", 1)), "/site")
	if err != nil || cfg.Runtimes.Ollama.Attached != "unix:/site/run/ollama.sock" || cfg.Runtimes.Ollama.Command != "" {
		t.Errorf("Ollama is %+v, %v; want its socket in /site", cfg.Runtimes.Ollama, err)
	}
}

// Each row breaks one thing of a valid configuration; the error must name its key.
func TestParse(t *testing.T) {
	key := `"sha256:` + strings.Repeat("0", 64) + `"`
	const dev = "development: {trustDomain: dev.example, socket: ./spiffe.sock}"
	tests := []struct{ name, old, new, want string }{
		{"valid", "", "", ""},
		{"unknown key", "listen:", "lisen: {}\nlisten:", `unknown key "lisen"`},
		{"unknown nested key", "  policy:", "  polcy: x\n  policy:", `unknown key "polcy"`},
		{"duplicate key", "weights: [./models]", "weights: [./models]\nweights: [./other]", "already defined"},
		{"two documents", "weights: [./models]", "weights: [./models]\n---\nx: 1", "more than one YAML document"},
		{"no listener", "  grpc: 127.0.0.1:9443\n  http: 127.0.0.1:8443\n", "", "listen: at least one"},
		{"address without port", "127.0.0.1:9443", "127.0.0.1", "listen.grpc"},
		{"one address twice", "127.0.0.1:8443", "127.0.0.1:9443", "listen.http: must differ from listen.grpc"},
		{"control on TCP", "unix:./control.sock", "127.0.0.1:7000", "listen.control"},
		{"control socket without path", "unix:./control.sock", `"unix:"`, "listen.control"},
		{"two identities", "identity:", "identity:\n  workloadAPI: unix:///run/agent.sock", "identity: workloadAPI, files and development exclude each other"},
		{"trust domain", "dev.example, socket", "Dev Example, socket", "identity.development.trustDomain"},
		{"development without socket", ", socket: ./spiffe.sock", "", "identity.development.socket"},
		{"spiffe id", "identity:", "identity:\n  spiffeID: http://x", "identity.spiffeID"},
		{"proxies", "identity:", "identity:\n  proxies: [spiffe://dev.example/ns/edge/sa/envoy]", ""},
		{"proxy without SPIFFE", "identity:", "identity:\n  proxies: [envoy]", "identity.proxies[0]"},
		{"proxies by pattern", "identity:", "identity:\n  proxies: [\"spiffe://dev.example/*\"]", "identity.proxies[0]"},
		{"trust domain as a proxy", "identity:", "identity:\n  proxies: [spiffe://dev.example]", "identity.proxies[0]"},
		{"JWT-SVIDs", "listen:", "listen:\n  jwt: {http: 127.0.0.1:9444, grpc: 127.0.0.1:9445, tls: {certificate: a.pem, key: b.pem}}", ""},
		{"JWT-SVIDs nowhere", "listen:", "listen:\n  jwt: {}", "listen.jwt: at least one"},
		{"JWT-SVIDs beside mTLS", "listen:", "listen:\n  jwt: {grpc: 127.0.0.1:9443}", "listen.jwt.grpc: must differ from listen.grpc"},
		{"JWT-SVIDs, certificate without key", "listen:", "listen:\n  jwt: {http: 127.0.0.1:9444, tls: {certificate: a.pem}}", "listen.jwt.tls.key"},
		{"federated bundle", dev, "files: {svid: a, key: b, bundle: c, bundles: {other.example: d}}", ""},
		{"federated bundle of no trust domain", dev, "files: {svid: a, key: b, bundle: c, bundles: {Other: d}}", "identity.files.bundles"},
		{"federated bundle without file", dev, "files: {svid: a, key: b, bundle: c, bundles: {other.example: \"\"}}", "identity.files.bundles.other.example"},
		{"no root key", "[" + key + "]", "[]", "trust.root.keys"},
		{"root key", key, "abc", "trust.root.keys[0]"},
		{"root key twice", "[" + key + "]", "[" + key + ", " + key + "]", "trust.root.keys: names a key twice"},
		{"threshold zero", "threshold: 1", "threshold: 0", "trust.root.threshold"},
		{"threshold too high", "threshold: 1", "threshold: 2", "trust.root.threshold"},
		{"threshold with a fraction", "threshold: 1", "threshold: 1.9", `"1.9" is not a whole number`},
		{"no policy", "  policy: policy.jsonl\n", "", "trust.policy"},
		{"no statements", "[./statements]", "[]", "trust.statements"},
		{"no state", "  state: ./state\n", "", "trust.state"},
		{"no weights", "[./models]", "[]", "weights"},
		{"no runtime", "  llamacpp: {command: llama-server}", "  {}", "runtimes"},
		{"sealed weights given back", "command: llama-server", "command: llama-server, keepSealed: false", ""},
		{"keepSealed in words", "command: llama-server", "command: llama-server, keepSealed: sometimes", "into bool"},
		{"no command", "command: llama-server", `command: ""`, "runtimes.llamacpp.command"},
		{"both runtimes", "  llamacpp:", "  ollama: {command: ollama}\n  llamacpp:", ""},
		{"Ollama alone", "llamacpp: {command: llama-server}", "ollama: {command: bin/ollama}", ""},
		{"no command of Ollama", "llamacpp: {command: llama-server}", "ollama: {}", "runtimes.ollama: one of command and attached"},
		{"an Ollama that runs already", "llamacpp: {command: llama-server}", "ollama: {attached: \"http://127.0.0.1:11434\"}", ""},
		{"an Ollama twice", "llamacpp: {command: llama-server}", "ollama: {command: ollama, attached: \"http://127.0.0.1:11434\"}", "runtimes.ollama: one of command and attached"},
		{"an Ollama without TLS", "llamacpp: {command: llama-server}", "ollama: {attached: \"http://10.0.0.1:11434\"}", "runtimes.ollama.attached: \"http://10.0.0.1:11434\": plain http is for this machine only"},
		{"an Ollama with TLS", "llamacpp: {command: llama-server}", "ollama: {attached: \"https://gpu.example\"}", ""},
		{"an Ollama elsewhere, offline", "  llamacpp: {command: llama-server}", "  ollama: {attached: \"https://gpu.example\"}\noffline: true", "runtimes.ollama.attached: \"https://gpu.example\" is not on this machine"},
		{"Ollama's weights given back", "llamacpp: {command: llama-server}", "ollama: {command: ollama, keepSealed: false}", `unknown key "keepSealed"`},
		{"runtime of a later version", "llamacpp:", "vllm:", `"vllm" is not supported by this version`},
		{"no channel", "channels:\n  chat: {}", "channels: {}", "channels: is required"},
		{"access to an unknown channel", "channels: [chat]", "channels: [chatt]", `access[0].channels: "chatt"`},
		{"access without a caller", `caller: "spiffe://dev.example/apps/*", `, "", "access[0]"},
		{"access with an unknown method", "[chat, models]", "[chat, erase]", "access[0]"},
		{"access with every limit", "[chat, models]}", "[chat, models], limits: {rate: 10/s, burst: 20, concurrent: 4, tokens: {prompt: {minute: 20000, day: 1M}, completion: {day: 100k}}}}", ""},
		{"access limited to nothing", "[chat, models]}", "[chat, models], limits: {concurrent: 0}}", `access[0].limits.concurrent: "0" is not a whole number above 0`},
		{"access limited to a fraction", "[chat, models]}", "[chat, models], limits: {tokens: {prompt: {day: 1.5}}}}", "access[0].limits.tokens.prompt.day"},
		{"access with an unknown limit", "[chat, models]}", "[chat, models], limits: {requests: 5}}", `unknown key "requests"`},
		{"access on a condition", "[chat, models]}", "[chat, models], when: 'request.maxTokens <= 256'}", ""},
		{"access on a condition with a mistake", "[chat, models]}", "[chat, models], when: 'request.tokens <= 256'}", "access[0].when: column 8: undeclared reference"},
		{"operator", "weights:", "operators: [{caller: nobody, allow: [status]}]\nweights:", "operators[0].caller"},
		{"operator's right", "weights:", "operators: [{caller: spiffe://dev.example/ops, allow: [approve]}]\nweights:", "operators[0].allow"},
		{"memory", "weights:", "memory: lots\nweights:", `"lots" is not a size`},
		{"lease", "weights:", "lease: {maxStaleness: 30d, then: deny}\nweights:", ""},
		{"lease without an end", "weights:", "lease: {then: deny}\nweights:", `lease.maxStaleness: "" is not`},
		{"lease that says nothing", "weights:", "lease: {maxStaleness: 30d}\nweights:", `lease.then: "" is not one of deny and warn`},
		{"scrub", "weights:", "scrub: {every: 7d, rate: 200MiB}\nweights:", ""},
		{"scrub off", "weights:", "scrub: {every: off}\nweights:", ""},
		{"scrub never", "weights:", "scrub: {every: 0}\nweights:", ""},
		{"scrub at the least", "weights:", "scrub: {every: 10s, rate: 1MiB}\nweights:", ""},
		{"scrub all the time", "weights:", "scrub: {every: 9s}\nweights:", `scrub.every: "9s" is less than 10s`},
		{"scrub in words", "weights:", "scrub: {every: often}\nweights:", `scrub.every: "often" is not a duration`},
		{"scrub backwards", "weights:", "scrub: {every: -1h}\nweights:", "scrub.every"},
		{"scrub too slow", "weights:", "scrub: {rate: 1MB}\nweights:", "scrub.rate: 1000000 bytes a second is less than 1MiB"},
		{"offline", "weights:", "offline: true\nweights:", ""},
		{"offline, with an agent that may be elsewhere", "  development: {trustDomain: dev.example, socket: ./spiffe.sock}",
			"  workloadAPI: tcp://10.0.0.1:8081\noffline: true", "identity.workloadAPI"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if !strings.Contains(sample(t), tt.old) {
				t.Fatalf("the sample does not hold %q", tt.old)
			}
			_, err := configs.Parse([]byte(strings.Replace(sample(t), tt.old, tt.new, 1)), "/site")
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("Parse = %v, want nil", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("Parse = %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestParseReportsEverything(t *testing.T) {
	broken := strings.NewReplacer("listen:", "lisen:", "threshold: 1", "threshold: 9", "[chat, models]", "[chat, erase]").Replace(sample(t))
	_, err := configs.Parse([]byte(broken), "/site")
	for _, want := range []string{`unknown key "lisen"`, "trust.root.threshold", "access[0]"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse = %v, want an error with %q", err, want)
		}
	}
}

func TestScrub(t *testing.T) {
	for _, tt := range []struct {
		scrub configs.Scrub
		every time.Duration
		rate  int64
	}{
		{configs.Scrub{}, 24 * time.Hour, 64 << 20},
		{configs.Scrub{Every: "off", Rate: 1 << 20}, 0, 1 << 20},
		{configs.Scrub{Every: "0"}, 0, 64 << 20},
		{configs.Scrub{Every: "2d"}, 48 * time.Hour, 64 << 20},
	} {
		every, err := tt.scrub.Interval()
		if rate := tt.scrub.BytesPerSecond(); err != nil || every != tt.every || rate != tt.rate {
			t.Errorf("%+v: every %s, %v, at %d, want %s at %d", tt.scrub, every, err, rate, tt.every, tt.rate)
		}
	}
}
