package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weighbridge/weighbridge/backends/backendtest"
	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

// ollamaRelease writes a model, and signs and approves a release of it for Ollama.
func (g *gatewayProcess) ollamaRelease(path, sentence string) statement.ID {
	g.t.Helper()
	writeTiny(g.t, path, tinygguf.Config{Sentence: sentence, ChatTemplate: tinygguf.ChatTemplate})
	id := g.Release(path, func(d *trust.Descriptor) {
		d.Runtime = trust.Runtime{Kind: "ollama", Args: map[string]string{"num_ctx": "256", "num_thread": "1"}}
		d.Behaviour.ChatTemplate = "{{ range .Messages }}<{{ .Role }}>\n{{ .Content }}\n{{ end }}<assistant>\n"
	})
	g.Approve(id, trusttest.Alice, trust.Approval{})
	g.Approve(id, trusttest.Bob, trust.Approval{})
	return id
}

// flip changes the model's sentence in its file, as it would be changed on a disk.
func flip(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	altered := bytes.Replace(data, []byte("B."), []byte("X."), 1)
	if bytes.Equal(altered, data) {
		t.Fatal("the model's file does not hold its sentence")
	}
	if err := os.WriteFile(path, altered, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestServeOllama switches from llama-server to Ollama and back, under one contract. A file that is altered while it
// serves changes nothing, and one that was altered before is refused.
func TestServeOllama(t *testing.T) {
	g := newGateway(t)
	data, err := os.ReadFile(g.config)
	if err != nil {
		t.Fatal(err)
	}
	both := strings.Replace(string(data), "runtimes: {", "runtimes: {ollama: {command: "+backendtest.Ollama(t)+"}, ", 1)
	if err := os.WriteFile(g.config, []byte(both), 0o600); err != nil {
		t.Fatal(err)
	}
	g.start("--init-state")
	i := &island{g, g.World}
	g.await("release serves")
	i.checkAnswer("I am version A.")

	path := filepath.Join(g.Dir, "models", "b.gguf")
	second := g.ollamaRelease(path, "I am version B.")
	g.log.forget()
	g.Publish(second, "chat", 2)
	if got := g.await("release serves")["release"]; got != string(second) {
		t.Fatalf("serves %v, want %s", got, second)
	}
	i.checkAnswer("I am version B.")
	flip(t, path)
	i.checkAnswer("I am version B.")
	status, out := i.do("status", "--json", "--server", g.server())
	if status != exitDone || !strings.Contains(out, `"level": "sealed"`) || !strings.Contains(out, `"sandbox": "`) {
		t.Errorf("status %d, want level sealed and a sandbox: %s", status, out)
	}

	altered := filepath.Join(g.Dir, "models", "altered.gguf")
	third := g.ollamaRelease(altered, "I am version B, changed B.")
	flip(t, altered)
	g.log.forget()
	g.Publish(third, "chat", 3)
	if why := g.await("release is not served")["err"].(string); !strings.Contains(why, "not the signed ones") {
		t.Errorf("the altered release is refused because %q, want its files", why)
	}
	i.checkAnswer("I am version B.")

	g.log.forget()
	fourth := g.publish("c.gguf", "I am version C.", 4)
	if got := g.await("release serves")["release"]; got != fourth {
		t.Errorf("serves %v, want %s", got, fourth)
	}
	i.checkAnswer("I am version C.")

	runtimes := children(t, g.cmd.Process.Pid)
	g.cmd.Process.Kill()
	g.cmd.Wait()
	for _, pid := range runtimes {
		awaitGone(t, pid)
	}
}
