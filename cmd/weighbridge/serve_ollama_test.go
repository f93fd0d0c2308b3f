package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
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

// attachedGateway is a gateway on an Ollama that runs already, with a release for it, on a channel of that level.
func attachedGateway(t *testing.T, foreign *backendtest.ForeignOllama, level string) (*gatewayProcess, statement.ID) {
	t.Helper()
	g := &gatewayProcess{World: trusttest.New(t), t: t}
	g.config = filepath.Join(g.Dir, "gateway.yaml")
	g.SignPolicy(func(p *trust.Document) {
		rules := p.Channels["chat"]
		rules.MinimumLevel = level
		p.Channels["chat"] = rules
	})
	g.writeConfig("spiffe://test.example/apps/*")
	data, err := os.ReadFile(g.config)
	if err != nil {
		t.Fatal(err)
	}
	writeTestFile(t, g.config, strings.Replace(string(data), "runtimes: {", `runtimes: {ollama: {attached: "`+foreign.URL()+`"}, `, 1))
	release := g.ollamaRelease(filepath.Join(g.Dir, "models", "b.gguf"), "I am version B.")
	g.Publish(release, "chat", 1)
	return g, release
}

// modelsAt returns the names of what Ollama has.
func modelsAt(t *testing.T, foreign *backendtest.ForeignOllama) (names []string) {
	t.Helper()
	list, err := foreign.Client().List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range list.Models {
		names = append(names, m.Name)
	}
	return names
}

// TestServeAttachedOllama serves by an Ollama that runs already, where the policy lets it, and says so in each place. A
// gateway that is killed leaves its model there; the next life removes it, and at its end its own.
func TestServeAttachedOllama(t *testing.T) {
	foreign := backendtest.NewForeignOllama(t, t.TempDir())
	foreign.Start()

	strict, _ := attachedGateway(t, foreign, "sealed")
	strict.start("--init-state")
	if why := strict.await("release is not served")["err"].(string); !strings.Contains(why, `"attached", and the channel asks for sealed`) {
		t.Errorf("the release is refused because %q, want its level", why)
	}
	if blobs, err := os.ReadDir(filepath.Join(foreign.Store(), "blobs")); err != nil || len(blobs) != 0 || len(modelsAt(t, foreign)) != 0 {
		t.Errorf("ollama was given %v, %v", blobs, err)
	}
	strict.cmd.Process.Kill()

	g, release := attachedGateway(t, foreign, "attached")
	g.start("--init-state")
	g.await("release serves")
	c := g.client()
	g.check(c, string(release), "I am version B.")
	res, err := c.Get(g.url("/v1/models"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	models, _ := io.ReadAll(res.Body)
	answer, err := c.Post(g.url("/v1/chat/completions"), "application/json", strings.NewReader(`{"model":"chat","messages":[{"role":"user","content":"hello"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	status, out := (&island{g, g.World}).do("status", "--json", "--server", g.server())
	for what, in := range map[string]string{
		"models": string(models), "header": `"` + answer.Header.Get("weighbridge-level") + `"`, "status": out,
	} {
		if !strings.Contains(in, `"attached"`) || strings.Contains(in, `"sealed"`) {
			t.Errorf("%s say %s, want level attached", what, in)
		}
	}
	if status != exitDone || !strings.Contains(out, `"sandbox": "none"`) {
		t.Errorf("status %d: %s, want sandbox none", status, out)
	}
	_, out = (&island{g, g.World}).do("status", "--server", g.server())
	for _, want := range []string{"ollama serves (ready, not started here)", "chat: its sandbox: it was not started here"} {
		if !strings.Contains(out, want) {
			t.Errorf("status says %s, want %q", out, want)
		}
	}

	left := modelsAt(t, foreign)
	g.cmd.Process.Kill()
	g.cmd.Wait()
	g.start()
	g.await("release serves")
	g.check(g.client(), string(release), "I am version B.")
	if now := modelsAt(t, foreign); len(left) != 1 || len(now) != 1 || now[0] == left[0] {
		t.Errorf("ollama has the models %v, and had %v before the gateway was killed; want one each, and not the same", now, left)
	}
	g.cmd.Process.Signal(syscall.SIGTERM)
	g.await("gateway stopped")
	if now := modelsAt(t, foreign); len(now) != 0 {
		t.Errorf("ollama has the models %v after the gateway has stopped", now)
	}
}
