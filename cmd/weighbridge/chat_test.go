package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/gateway"
	"github.com/weighbridge/weighbridge/gateway/access"
	"github.com/weighbridge/weighbridge/gateway/identity"
	"github.com/weighbridge/weighbridge/gateway/identity/devworkload"
)

// echo is a catalog of one channel that repeats the question.
type echo struct{}

func (echo) Channels() []gateway.ChannelInfo { return nil }

func (echo) Ready() bool { return true }

func (echo) Acquire(_ context.Context, channel string) (gateway.Serving, error) {
	if channel != "chat" {
		return nil, gateway.ErrNotServing
	}
	return echo{}, nil
}

func (echo) Done() {}

func (echo) Embed(context.Context, backends.EmbedRequest) (backends.Embeddings, error) {
	return backends.Embeddings{}, backends.ErrUnsupported
}

func (echo) Count(context.Context, backends.ChatRequest) (int, error) {
	return 0, backends.ErrUnsupported
}

func (echo) Info() gateway.ServingInfo {
	return gateway.ServingInfo{Channel: "chat", Release: "sha256:11", Weights: "sha256:22", Level: "sealed"}
}

func (echo) Enter(context.Context, string) (func(), error) { return func() {}, nil }

func (echo) Chat(_ context.Context, req backends.ChatRequest, emit func(backends.Chunk) error) error {
	return errors.Join(
		emit(backends.Chunk{Text: "you said: "}),
		emit(backends.Chunk{Text: req.Messages[len(req.Messages)-1].Content}),
		emit(backends.Chunk{FinishReason: "stop", Usage: &backends.Usage{PromptTokens: 4, CompletionTokens: 2}}),
	)
}

// startGateway serves echo to the apps of bank.example and returns its address, and the files of their identities.
func startGateway(t *testing.T, change ...func(*gateway.Config)) (address, svids string) {
	t.Helper()
	svids = t.TempDir()
	td := spiffeid.RequireTrustDomainFromString("bank.example")
	agent, err := devworkload.Open(devworkload.Config{TrustDomain: td})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { agent.Close() })
	var ids []devworkload.Identity
	for _, path := range []string{"/gateway", "/apps/demo", "/batch/job"} {
		ids = append(ids, devworkload.Identity{ID: spiffeid.RequireFromPath(td, path)})
	}
	if err := agent.Write(svids, ids...); err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(svids, "gateway")
	us, err := identity.Open(t.Context(), identity.Config{Files: &identity.Files{
		SVID: filepath.Join(own, "svid.pem"), Key: filepath.Join(own, "key.pem"), Bundle: filepath.Join(own, "bundle.pem"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { us.Close() })
	rules, err := access.Parse([]access.Rule{{Caller: "spiffe://bank.example/apps/*", Channels: []string{"chat", "quiet"}, Methods: []string{"chat"}}})
	if err != nil {
		t.Fatal(err)
	}
	config := gateway.Config{Catalog: echo{}, Access: func() *access.Policy { return rules }, Identity: us}
	for _, f := range change {
		f(&config)
	}
	gw, err := gateway.New(config)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- gw.Serve(ctx, gateway.Listeners{GRPC: l}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve = %v", err)
		}
	})
	return l.Addr().String(), svids
}

func TestChat(t *testing.T) {
	address, svids := startGateway(t)
	as := func(path string) []string {
		own := filepath.Join(svids, path)
		return []string{"--server", address, "--svid", filepath.Join(own, "svid.pem"), "--svid-key", filepath.Join(own, "key.pem"), "--bundle", filepath.Join(own, "bundle.pem")}
	}
	tests := []struct {
		name   string
		args   []string
		as     string
		in     string
		exit   int
		stdout string
		stderr string // a part of it; "" for none at all
	}{
		{"prompt", []string{"chat", "good morning"}, "apps/demo", "", exitDone, "you said: good morning\n", "release  sha256:11\nweights  sha256:22\nlevel    sealed\ntokens   4 in, 2 out (stop)\n"},
		{"standard input", []string{"chat", "--quiet"}, "apps/demo", "good\nmorning\n", exitDone, "you said: good\nmorning\n", ""},
		{"right server", []string{"chat", "hi", "--quiet", "--server-id", "spiffe://bank.example/gateway"}, "apps/demo", "", exitDone, "you said: hi\n", ""},
		{"other server", []string{"chat", "hi", "--server-id", "spiffe://bank.example/other"}, "apps/demo", "", exitFailed, "", "unexpected ID \"spiffe://bank.example/gateway\""},
		{"no rule", []string{"chat", "hi"}, "batch/job", "", exitRefused, "", "weighbridge: chat chat: permission denied\nhint: "},
		{"other channel", []string{"other", "hi"}, "apps/demo", "", exitRefused, "", "weighbridge: chat other: permission denied\nhint: "},
		{"serves nothing", []string{"quiet", "hi"}, "apps/demo", "", exitFailed, "", "channel is not serving, retry later"},
		{"wrong field", []string{"chat", "hi", "--temperature", "3"}, "apps/demo", "", exitFailed, "", "temperature: must be from 0 to 2"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			args := append(append([]string{"chat"}, tt.args...), as(tt.as)...)
			if exit := run(args, streams{strings.NewReader(tt.in), &stdout, &stderr}); exit != tt.exit {
				t.Errorf("exit status = %d, want %d", exit, tt.exit)
			}
			if stdout.String() != tt.stdout {
				t.Errorf("standard output = %q, want %q", stdout.String(), tt.stdout)
			}
			if got := stderr.String(); !strings.Contains(got, tt.stderr) || (tt.stderr == "") != (got == "") {
				t.Errorf("standard error = %q, want it to hold %q", got, tt.stderr)
			}
		})
	}
}

// TestChatJSON expects one document, refusals included.
func TestChatJSON(t *testing.T) {
	address, svids := startGateway(t)
	for _, tt := range []struct {
		as   string
		exit int
		want string
	}{
		{"apps/demo", exitDone, `{"finishReason":"stop","level":"sealed","model":"chat","release":"sha256:11","text":"you said: hi","usage":{"completionTokens":2,"promptTokens":4},"weights":"sha256:22"}`},
		{"batch/job", exitRefused, `{"error":{"code":"PermissionDenied","message":"permission denied"},"model":"chat","text":""}`},
	} {
		own := filepath.Join(svids, tt.as)
		var stdout, stderr bytes.Buffer
		exit := run([]string{"chat", "chat", "hi", "--json", "--server", address, "--svid", filepath.Join(own, "svid.pem"), "--svid-key", filepath.Join(own, "key.pem"), "--bundle", filepath.Join(own, "bundle.pem")}, streams{strings.NewReader(""), &stdout, &stderr})
		var document any
		if err := json.Unmarshal(stdout.Bytes(), &document); err != nil {
			t.Fatalf("standard output %q: %v", stdout.String(), err)
		}
		got, err := json.Marshal(document) // sorts the names
		if err != nil {
			t.Fatal(err)
		}
		if exit != tt.exit || string(got) != tt.want {
			t.Errorf("chat --json as %s = %d, %s, want %d, %s", tt.as, exit, got, tt.exit, tt.want)
		}
	}
}
