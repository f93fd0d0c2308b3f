package main

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/ollama/ollama/api"
	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

// newClientsGateway serves three channels by llama-server: chat answers, tools calls weather for Rome, vectors makes
// embeddings.
func newClientsGateway(t *testing.T) *gatewayProcess {
	t.Helper()
	g := &gatewayProcess{World: trusttest.New(t), t: t}
	g.config = filepath.Join(g.Dir, "gateway.yaml")
	g.SignPolicy(func(d *trust.Document) {
		d.Channels["tools"], d.Channels["vectors"] = trusttest.Rules(), trusttest.Rules()
	})
	for channel, of := range map[string]struct {
		model tinygguf.Config
		args  map[string]string
		tools []string
	}{
		"chat":    {tinygguf.A, nil, nil},
		"tools":   {tinygguf.Caller, nil, []string{"weather"}},
		"vectors": {tinygguf.Config{Sentence: tinygguf.A.Sentence, Embeds: true}, map[string]string{"embeddings": "true", "pooling": "mean"}, nil},
	} {
		path := filepath.Join(g.Dir, "models", channel+".gguf")
		writeTiny(t, path, of.model)
		id := g.Release(path, func(d *trust.Descriptor) {
			d.Runtime.Args = map[string]string{"ctx-size": "2048", "threads": "1"}
			for name, value := range of.args {
				d.Runtime.Args[name] = value
			}
			d.Behaviour.Tools = of.tools
		})
		g.Approve(id, trusttest.Alice, trust.Approval{})
		g.Approve(id, trusttest.Bob, trust.Approval{})
		g.Publish(id, channel, 1)
	}
	g.writeConfig("spiffe://test.example/apps/*")
	config, err := os.ReadFile(g.config)
	if err != nil {
		t.Fatal(err)
	}
	all := strings.NewReplacer("channels: {chat: {}}", "channels: {chat: {}, tools: {}, vectors: {}}",
		"channels: [chat], methods: [chat, models]", "channels: [chat, tools, vectors], methods: [chat, generate, embed, models]").Replace(string(config))
	writeTestFile(t, g.config, all)
	return g
}

// environment is what a session in another language needs: where the gateway is, and an SVID in files.
func (g *gatewayProcess) environment(release string) []string {
	g.t.Helper()
	x, err := workloadapi.FetchX509Context(g.t.Context(), workloadapi.WithAddr("unix://"+filepath.Join(g.Dir, "spiffe.sock")))
	if err != nil {
		g.t.Fatal(err)
	}
	id := x.DefaultSVID()
	svid, key, err := id.Marshal()
	if err != nil {
		g.t.Fatal(err)
	}
	roots, err := x.Bundles.GetX509BundleForTrustDomain(id.ID.TrustDomain())
	if err != nil {
		g.t.Fatal(err)
	}
	bundle, err := roots.Marshal()
	if err != nil {
		g.t.Fatal(err)
	}
	base, err := url.Parse(g.url(""))
	if err != nil {
		g.t.Fatal(err)
	}
	environment := append(os.Environ(), "GATEWAY=https://localhost:"+base.Port(), "ANSWER="+tinygguf.A.Sentence, "RELEASE="+release, "PYTHONDONTWRITEBYTECODE=1")
	for name, data := range map[string][]byte{"SVID": svid, "KEY": key, "BUNDLE": bundle} {
		path := filepath.Join(g.Dir, name+".pem")
		writeTestFile(g.t, path, string(data))
		environment = append(environment, name+"="+path)
	}
	return environment
}

// TestClients has the clients that people have talk to a real gateway and a real llama-server: each API by its own one.
func TestClients(t *testing.T) {
	if testing.Short() {
		t.Skip("needs the clients")
	}
	python, node := part(t, "python-clients"), part(t, "node-clients")
	g := newClientsGateway(t)
	g.start("--init-state")
	release := ""
	for _, channel := range []string{"chat", "tools", "vectors"} {
		serves := g.await("release serves", "channel", channel)
		if channel == "chat" {
			release = serves["release"].(string)
		}
	}
	environment := append(g.environment(release), "CLIENTS="+node)
	for _, session := range [][]string{
		{python, "testdata/clients/session_openai.py"}, {python, "testdata/clients/session_anthropic.py"}, {python, "testdata/clients/session_ollama.py"},
		{filepath.Join(node, "node"), "testdata/clients/session_openai.mjs"},
	} {
		t.Run(filepath.Base(session[1]), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			cmd := exec.CommandContext(ctx, session[0], session[1:]...)
			cmd.Env = environment
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	t.Run("Ollama's for Go", func(t *testing.T) { g.checkOllamaClient(t) })
}

// checkOllamaClient is a session with Ollama's own client for Go.
func (g *gatewayProcess) checkOllamaClient(t *testing.T) {
	t.Helper()
	base, err := url.Parse(g.url(""))
	if err != nil {
		t.Fatal(err)
	}
	client, ctx := api.NewClient(base, g.client()), t.Context()
	var answer, text string
	err = client.Chat(ctx, &api.ChatRequest{Model: "chat", Messages: []api.Message{{Role: "user", Content: "Who are you?"}}}, func(r api.ChatResponse) error {
		answer += r.Message.Content
		return nil
	})
	if err != nil || answer != tinygguf.A.Sentence {
		t.Errorf("Chat() = %q, %v", answer, err)
	}
	err = client.Generate(ctx, &api.GenerateRequest{Model: "chat", Prompt: "Who are you?"}, func(r api.GenerateResponse) error {
		text += r.Response
		return nil
	})
	if err != nil || text != tinygguf.A.Sentence {
		t.Errorf("Generate() = %q, %v", text, err)
	}
	properties := api.NewToolPropertiesMap()
	properties.Set("city", api.ToolProperty{Type: api.PropertyType{"string"}})
	offering := &api.ChatRequest{Model: "tools", Messages: []api.Message{{Role: "user", Content: "Is it warm in Rome?"}}, Tools: api.Tools{
		{Type: "function", Function: api.ToolFunction{Name: "weather", Parameters: api.ToolFunctionParameters{Type: "object", Required: []string{"city"}, Properties: properties}}},
	}}
	var calls []api.ToolCall
	err = client.Chat(ctx, offering, func(r api.ChatResponse) error {
		calls = append(calls, r.Message.ToolCalls...)
		return nil
	})
	if err != nil || len(calls) != 1 || calls[0].Function.Name != "weather" || fmt.Sprint(calls[0].Function.Arguments.ToMap()) != "map[city:Rome]" {
		t.Errorf("Chat() with tools = %+v, %v", calls, err)
	}
	vectors, err := client.Embed(ctx, &api.EmbedRequest{Model: "vectors", Input: []string{"aaaa", "bbbb"}})
	if err != nil || len(vectors.Embeddings) != 2 || reflect.DeepEqual(vectors.Embeddings[0], vectors.Embeddings[1]) {
		t.Errorf("Embed() = %v, %v", vectors, err)
	}
	list, err := client.List(ctx)
	if err != nil || len(list.Models) != 3 || list.Models[0].Size < 1<<20 || len(list.Models[0].Digest) != 64 {
		t.Errorf("List() = %+v, %v", list, err)
	}
	if show, err := client.Show(ctx, &api.ShowRequest{Model: "vectors"}); err != nil || len(show.Capabilities) != 1 || show.Capabilities[0] != "embedding" {
		t.Errorf("Show() = %+v, %v", show, err)
	}
	if v, err := client.Version(ctx); err != nil || v != version {
		t.Errorf("Version() = %q, %v, want %q", v, err, version)
	}
	if err := client.Delete(ctx, &api.DeleteRequest{Model: "chat"}); err == nil {
		t.Error("Delete() = nil, want a refusal")
	}
}
