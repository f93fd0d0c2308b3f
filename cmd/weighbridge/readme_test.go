package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/backends/backendtest"
	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
)

// readmeLimit is how long all commands of the README may take together on a busy machine.
const readmeLimit = 3 * time.Minute

// TestReadme runs every command of the README's sh blocks and all of its Python, in order, in one shell, with real parts:
// llama-server on a model whose answer is known, grpcurl, curl and the clients. Its Go is of examples, see checkExamples.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```(sh|python)\n(.*?)```").FindAllStringSubmatch(string(readme), -1)
	if len(blocks) < 8 {
		t.Fatalf("found %d sh blocks in the README, want all of them", len(blocks))
	}
	var script strings.Builder
	script.WriteString("set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\n")
	for _, b := range blocks {
		if text := b[2]; b[1] == "python" {
			fmt.Fprintf(&script, "%s - <<'PYTHON'\n%sPYTHON\n", part(t, "python-clients"), text)
		} else {
			script.WriteString(text)
		}
	}
	dir := t.TempDir()
	writeTiny(t, filepath.Join(dir, "models", "chat.gguf"), tinygguf.Config{Sentence: tinygguf.A.Sentence, ChatTemplate: tinygguf.ChatTemplate})
	tools := filepath.Join(dir, "bin")
	link(t, backendtest.LlamaServer(t), filepath.Join(tools, "llama-server"))
	link(t, part(t, "tool", "grpcurl"), filepath.Join(tools, "grpcurl"))

	cmd := exec.CommandContext(t.Context(), "bash", "-c", onFreePorts(t, script.String()))
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+tools+":"+os.Getenv("PATH"))
	cmd.WaitDelay = readmeLimit
	out, err := cmd.CombinedOutput()
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(dir, "gateway.log"))
		t.Fatalf("the README's commands: %v\n%s\ngateway.log:\n%s", err, out, log)
	}
	// Asked by weighbridge chat, grpcurl and curl; the latter two stream it in pieces.
	if !strings.Contains(string(out), "I am version A.") {
		t.Errorf("no answer by the model in:\n%s", out)
	}
	for _, want := range []string{
		"weighbridge.inference.v1.Inference", "inference.GRPCInferenceService", "data: [DONE]", `"finishReason"`,
		`"done_reason":"stop"`, `"stop_reason":"end_turn"`, `"input_tokens":`, // of Ollama's API and Anthropic's
		`"modelVersion"`, `"SERVING"`, `"content":"I am version A.`, // of the Open Inference Protocol, health, and the proxy
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
}

func writeTiny(t *testing.T, path string, c tinygguf.Config) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := tinygguf.Write(f, c); err != nil {
		t.Fatal(err)
	}
}

// part returns the path of a real part, from the script that fetches and builds them.
func part(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "../../.ci/parts", args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf(".ci/parts %v: %v", args, err)
	}
	return strings.TrimSpace(string(out))
}

func link(t *testing.T, old, new string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(new), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(old, new); err != nil {
		t.Fatal(err)
	}
}

// onFreePorts replaces the ports that the README names by ones that nobody listens on now.
func onFreePorts(t *testing.T, script string) string {
	t.Helper()
	for _, port := range []string{"9443", "9444", "8443", "9090", "11434"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // all are held until the last is known, so that they differ
		script = strings.ReplaceAll(script, port, fmt.Sprint(l.Addr().(*net.TCPAddr).Port))
	}
	return script
}
