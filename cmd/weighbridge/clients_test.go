package main

import (
	"context"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"

	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
	pb "github.com/weighbridge/weighbridge/proto/weighbridge/inference/v1"
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
	environment := append(os.Environ(), "GATEWAY=https://localhost:"+base.Port(), "GRPC="+g.grpcAddress(), "ANSWER="+tinygguf.A.Sentence, "RELEASE="+release, "PYTHONDONTWRITEBYTECODE=1")
	for name, data := range map[string][]byte{"SVID": svid, "KEY": key, "BUNDLE": bundle} {
		path := filepath.Join(g.Dir, name+".pem")
		writeTestFile(g.t, path, string(data))
		environment = append(environment, name+"="+path)
	}
	return environment
}

// proxy starts `weighbridge proxy` before the gateway, with an SVID for callers, and returns its address.
func (g *gatewayProcess) proxy() string {
	g.t.Helper()
	server, _ := strings.CutPrefix(g.url(""), "https://")
	p := &gatewayProcess{World: g.World, t: g.t}
	p.launch("proxy", "--listen", "127.0.0.1:0", "--server", server)
	return p.await("proxy listens")["listen"].(string)
}

// TestClients has the clients that people have talk to a real gateway and a real llama-server: each API by its own ones.
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
	session := func(name string, command []string, environment ...string) {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			cmd := exec.CommandContext(ctx, command[0], command[1:]...)
			cmd.Env = environment
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
	proxy := "http://" + g.proxy()
	for name, command := range map[string][]string{
		"OpenAI's for Python":    {python, "testdata/clients/session_openai.py"},
		"Anthropic's for Python": {python, "testdata/clients/session_anthropic.py"},
		"Ollama's for Python":    {python, "testdata/clients/session_ollama.py"},
		"OpenAI's for Node":      {filepath.Join(node, "node"), "testdata/clients/session_openai.mjs"},
	} {
		session(name+" by mTLS", command, environment...)
		session(name+" by proxy", command, append(environment, "GATEWAY="+proxy)...)
	}
	session("Triton's for Python", []string{python, "testdata/clients/session_oip.py"}, environment...)
	for door, at := range map[string]struct {
		base string
		with *http.Client
	}{
		"mTLS":  {g.url(""), g.client()},
		"proxy": {proxy, http.DefaultClient},
	} {
		t.Run("OpenAI's for Go by "+door, func(t *testing.T) { checkOpenAIClient(t, at.base, at.with, release) })
		t.Run("Ollama's for Go by "+door, func(t *testing.T) { checkOllamaClient(t, at.base, at.with) })
	}
	for by, conn := range map[string]grpc.ClientConnInterface{"gateway client": g.dial(), "grpcurl": g.grpcurl()} {
		t.Run("gRPC by "+by, func(t *testing.T) { checkInference(t, pb.NewInferenceClient(conn), release) })
		t.Run("Open Inference Protocol by "+by, func(t *testing.T) { checkOIP(t, conn, release) })
	}
	t.Run("examples", func(t *testing.T) { g.checkExamples(t) })
}

// checkExamples runs each example of gateway/client as a program, with this gateway's addresses in it. The README's Go is
// theirs.
func (g *gatewayProcess) checkExamples(t *testing.T) {
	t.Helper()
	files, err := filepath.Glob("../../gateway/client/example*_test.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("examples: %v, %v", files, err)
	}
	here := strings.NewReplacer("package client_test", "package main", "gateway.example:9443", g.grpcAddress(),
		"https://gateway.example:8443", g.url(""))
	all := ""
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all += string(text)
		program := filepath.Join(t.TempDir(), "main.go")
		writeTestFile(t, program, regexp.MustCompile(`func Example\w*\(`).ReplaceAllString(here.Replace(string(text)), "func main("))
		cmd := exec.CommandContext(t.Context(), "go", "run", program)
		cmd.Env = append(os.Environ(), "SPIFFE_ENDPOINT_SOCKET=unix://"+filepath.Join(g.Dir, "spiffe.sock"))
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != tinygguf.A.Sentence {
			t.Errorf("%s prints %q, %v, want the answer", file, out, err)
		}
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(readme), -1)
	if len(blocks) < 2 {
		t.Errorf("found %d Go blocks in the README, want each client's", len(blocks))
	}
	for _, block := range blocks {
		for line := range strings.Lines(block[1]) {
			if line = strings.TrimSpace(line); line != "…" && !strings.Contains(all, line+"\n") {
				t.Errorf("the README's %q is of no example that runs", line)
			}
		}
	}
}
