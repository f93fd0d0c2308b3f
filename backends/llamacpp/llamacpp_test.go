package llamacpp_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/backendtest"
	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
	"github.com/weighbridge/weighbridge/backends/llamacpp"
	"github.com/weighbridge/weighbridge/backends/process"
)

func TestMain(m *testing.M) {
	process.Hook()
	backendtest.Hook()
	if os.Args[0] == "llama-server" { // the name under which this package starts runtimes
		fmt.Fprintln(os.Stderr, standIn())
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// oneThread keeps tests from fighting over the machine.
var oneThread = backends.Spec{Args: map[string]string{"threads": "1"}}

func newServer(t *testing.T, command, dir string) *llamacpp.Server {
	t.Helper()
	s, err := llamacpp.New(llamacpp.Config{
		Command: command, RuntimeDir: dir,
		Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) {
	backendtest.Run(t, backendtest.Suite{
		New:  func(t *testing.T, dir string) backends.Backend { return newServer(t, backendtest.LlamaServer(t), dir) },
		Args: oneThread.Args,

		EmbedArgs: map[string]string{"threads": "1", "embeddings": "true", "pooling": "mean"},

		BrokenTemplate: "{% for m in messages %}",
		PaddedTemplate: "{% for m in messages %}{{ m.content }}{% endfor %}{{ 'x' * 100 }}",
	})
}

// start starts the real llama-server on the model at path.
func start(t *testing.T, path, dir string, spec backends.Spec) *llamacpp.Server {
	t.Helper()
	s := newServer(t, backendtest.LlamaServer(t), dir)
	if err := s.Start(t.Context(), backendtest.Seal(t, path), spec); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Stop(context.Background()) })
	return s
}

// TestGiveBack has a split model found by its parts' names where they are lent, and given back once they were read.
func TestGiveBack(t *testing.T) {
	runtimeDir := t.TempDir()
	dir, _ := backendtest.WriteSplit(t, tinygguf.B)
	s, err := llamacpp.New(llamacpp.Config{
		Command: backendtest.LlamaServer(t), RuntimeDir: runtimeDir, GiveBack: true, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context(), backendtest.Seal(t, dir), oneThread); err != nil {
		t.Fatal(err)
	}
	if got, _, err := backendtest.Ask(t.Context(), s, backendtest.Question("hello")); err != nil || got != tinygguf.B.Sentence {
		t.Errorf("answer is %q, %v; want %q", got, err, tinygguf.B.Sentence)
	}
	if !s.Status().GaveBack {
		t.Error("the status does not say that weights were given back")
	}
	checkNothingLeft(t, s, runtimeDir)
}

// checkNothingLeft stops a server and checks that its directory went with it.
func checkNothingLeft(t *testing.T, s *llamacpp.Server, runtimeDir string) {
	t.Helper()
	if err := s.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(runtimeDir); err != nil || len(left) != 0 {
		t.Errorf("runtime directory holds %v, %v after Stop; want nothing", left, err)
	}
}

// TestPrivate checks who can talk to the runtime: one user, by one key, which is not for others to see.
func TestPrivate(t *testing.T) {
	// So long a directory that the socket's path would not fit in an address.
	runtimeDir := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	if err := os.Mkdir(runtimeDir, 0o755); err != nil {
		t.Fatal(err)
	}
	s := start(t, backendtest.WriteModel(t, tinygguf.A), runtimeDir, oneThread)
	if got, _, err := backendtest.Ask(t.Context(), s, backendtest.Question("hello")); err != nil || got != tinygguf.A.Sentence {
		t.Errorf("answer is %q, %v; want %q", got, err, tinygguf.A.Sentence)
	}

	launches, err := filepath.Glob(filepath.Join(runtimeDir, "*"))
	if err != nil || len(launches) != 1 {
		t.Fatalf("runtime directory holds %q, %v; want one launch", launches, err)
	}
	for _, path := range []string{launches[0], filepath.Join(launches[0], "llama.sock")} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v, want none for others", path, info.Mode())
		}
	}

	t.Chdir(launches[0])
	client := http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		return net.Dial("unix", "llama.sock")
	}}}
	defer client.CloseIdleConnections()
	for _, path := range []string{"/v1/chat/completions", "/completion", "/props", "/slots", "/lora-adapters", "/v1/models"} {
		resp, err := client.Get("http://llama" + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK && path != "/v1/models" { // which names the model to anyone: "model"
			t.Errorf("GET %s without the key: status %d", path, resp.StatusCode)
		}
	}
	for _, path := range []string{
		"/models/load", "/models/unload", "/models", "/lora-adapters", "/slots/0?action=erase", "/slots/0?action=restore", "/props", "/completion", "/infill",
		"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/v1/messages", "/rerank", "/tokenize", "/apply-template", "/tools", "/v1/chat/completions/input_tokens",
	} {
		resp, err := client.Post("http://llama"+path, "application/json", strings.NewReader(`[{"id":0,"scale":0}]`))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode < http.StatusBadRequest {
			t.Errorf("POST %s without the key: status %d", path, resp.StatusCode)
		}
	}
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", s.Status().PID))
	if err != nil || !strings.Contains(string(cmdline), "--api-key-file\x00/proc/self/fd/") || strings.Contains(string(cmdline), "--api-key\x00") {
		t.Errorf("command line is %q, %v; want the key as a file", cmdline, err)
	}
	t.Chdir("/")
	checkNothingLeft(t, s, runtimeDir)
}

// TestYieldEnds: a server that yielded while it started has this process's priority in all its threads, once it serves.
func TestYieldEnds(t *testing.T) {
	spec := oneThread
	spec.Yield = true
	s := start(t, backendtest.WriteModel(t, tinygguf.A), t.TempDir(), spec)
	raw, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		t.Fatal(err)
	}
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", s.Status().PID))
	if err != nil || len(stats) == 0 {
		t.Fatalf("threads of llama-server: %v, %v", stats, err)
	}
	for _, stat := range stats {
		data, err := os.ReadFile(stat)
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(data), ") ") // then as in proc_pid_stat(5), from the third field on
		if got, want := strings.Fields(rest)[16], fmt.Sprint(20-raw); got != want {
			t.Errorf("%s: priority %s, want %s", stat, got, want)
		}
	}
}

func TestTemplateRefuses(t *testing.T) {
	spec := oneThread
	spec.ChatTemplate = "{% for m in messages %}{{ raise_exception('secret') if m.content == 'refuse' else m.content }}{% endfor %}"
	s := start(t, backendtest.WriteModel(t, tinygguf.A), t.TempDir(), spec)
	_, _, err := backendtest.Ask(t.Context(), s, backendtest.Question("refuse"))
	if !errors.Is(err, backends.ErrInvalidRequest) || strings.Contains(err.Error(), "secret") {
		t.Errorf("Chat() = %v, want ErrInvalidRequest without the template's words", err)
	}
}

func TestNewReportsEverything(t *testing.T) {
	_, err := llamacpp.New(llamacpp.Config{})
	for _, want := range []string{"command", "runtime directory", "log"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New() = %v, want an error that names %q", err, want)
		}
	}
}

func TestStartWithoutServer(t *testing.T) {
	w := backendtest.Seal(t, backendtest.WriteModel(t, tinygguf.A))
	script := filepath.Join(t.TempDir(), "llama-server")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nexec llama-server \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for command, want := range map[string]string{
		filepath.Join(t.TempDir(), "none"): "find llama-server",
		script:                             "not scripts",
	} {
		runtimeDir := t.TempDir()
		s := newServer(t, command, runtimeDir)
		if err := s.Start(t.Context(), w, oneThread); !errors.Is(err, backends.ErrFailed) || !strings.Contains(err.Error(), want) {
			t.Errorf("Start() = %v, want ErrFailed with %q", err, want)
		}
		checkNothingLeft(t, s, runtimeDir)
	}
}

func TestModelFiles(t *testing.T) {
	part := func(n int) string { return tinygguf.PartName("dir/m", n, 3) }
	tests := []struct {
		names string
		want  string // empty: an error
	}{
		{".", "."},
		{"model.bin", "model.bin"},
		{"README.md m.gguf config.json", "m.gguf"},
		{part(2) + " " + part(0) + " " + part(1) + " README.md", part(0) + " " + part(1) + " " + part(2)},
		{part(0) + " x", part(0)}, // llama-server will say that others are missing
		{"README.md config.json", ""},
		{"a.gguf b.gguf", ""},
		{part(0) + " " + part(1), ""},
		{part(0) + " " + part(2), ""},
		{part(0) + " " + part(1) + " " + part(2) + " mmproj.gguf", ""},
		{part(0) + " " + part(1) + " " + tinygguf.PartName("dir/other", 2, 3), ""},
		{part(0) + " " + part(1) + " " + tinygguf.PartName("m", 2, 3), ""},
	}
	for _, tt := range tests {
		got, err := llamacpp.ModelFiles(strings.Fields(tt.names))
		if strings.Join(got, " ") != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("ModelFiles(%s) = %q, %v; want %q", tt.names, got, err, tt.want)
		}
	}
}

// TestAsAnotherUser has llama-server find all that it needs, mapped or lent, as a user who owns nothing.
func TestAsAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may start a runtime as somebody else")
	}
	as := &process.User{UID: 54321, GID: 54322}
	for _, giveBack := range []bool{false, true} {
		t.Run(fmt.Sprint("given back ", giveBack), func(t *testing.T) {
			s, err := llamacpp.New(llamacpp.Config{
				Command: backendtest.LlamaServer(t), RuntimeDir: t.TempDir(), GiveBack: giveBack, User: as, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
			})
			if err != nil {
				t.Fatal(err)
			}
			spec := backends.Spec{Args: oneThread.Args, ChatTemplate: tinygguf.ChatTemplate, Adapters: []backends.Adapter{
				{Weights: backendtest.Seal(t, backendtest.WriteAdapter(t, tinygguf.A, tinygguf.Adapted)), Scale: 1},
			}}
			if err := s.Start(t.Context(), backendtest.Seal(t, backendtest.WriteModel(t, tinygguf.A)), spec); err != nil {
				t.Fatal(err)
			}
			defer s.Stop(context.Background())
			if answer, _, err := backendtest.Ask(t.Context(), s, backendtest.Question("hello")); err != nil || answer != tinygguf.Adapted {
				t.Errorf("answer is %q, %v; want %q", answer, err, tinygguf.Adapted)
			}
			status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.Status().PID))
			if err != nil || !strings.Contains(string(status), "\nUid:\t54321\t54321\t54321\t54321\n") {
				t.Errorf("the runtime is another user's than 54321: %v\n%s", err, status)
			}
		})
	}
}
