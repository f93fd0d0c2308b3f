package ollama_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/backendtest"
	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
)

// watch returns a function that waits until a process has ended.
func watch(t *testing.T, pid int) (ended func() bool) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatalf("watch process %d: %v", pid, err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return func() bool {
		for {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(backendtest.Patience.Milliseconds()))
			if err != unix.EINTR {
				return n == 1
			}
		}
	}
}

// forever is a request to a model that never stops by itself.
func forever() (tinygguf.Config, backends.ChatRequest) {
	req := backendtest.Question("hello")
	req.MaxTokens = 0
	return tinygguf.Config{Sentence: "on and on and on ", Endless: true, ChatTemplate: tinygguf.ChatTemplate}, req
}

// TestRunnerDies kills what Ollama starts itself, which it starts again, from the same memory.
func TestRunnerDies(t *testing.T) {
	model, req := forever()
	path := backendtest.WriteModel(t, model)
	s := start(t, path, t.TempDir(), oneThread)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	first := true
	err := s.Chat(t.Context(), req, func(backends.Chunk) error {
		if first {
			first = false
			return unix.Kill(runner(t, s.Status().PID), unix.SIGKILL)
		}
		return nil
	})
	if !errors.Is(err, backends.ErrInterrupted) {
		t.Errorf("Chat() = %v, want ErrInterrupted", err)
	}
	next := backendtest.Question("hello")
	next.MaxTokens = 1
	if got, _, err := backendtest.Ask(t.Context(), s, next); err != nil || got != "on and" {
		t.Errorf("answer is %q, %v; want it to go on", got, err)
	}
	if err := unix.Kill(runner(t, s.Status().PID), unix.SIGKILL); err != nil { // while idle
		t.Fatal(err)
	}
	if got, _, err := backendtest.Ask(t.Context(), s, next); (err != nil || got != "on and") && !errors.Is(err, backends.ErrInterrupted) {
		t.Errorf("answer is %q, %v; want it to go on, or ErrInterrupted", got, err)
	}
}

// TestEndsAtContext: an answer that fills the context ends there, and nothing of the conversation is dropped for more.
func TestEndsAtContext(t *testing.T) {
	model, req := forever()
	model.Context = 256
	s := start(t, backendtest.WriteModel(t, model), t.TempDir(), oneThread)
	_, last, err := backendtest.Ask(t.Context(), s, req)
	if err != nil || last.FinishReason != "length" || last.Usage == nil || last.Usage.PromptTokens+last.Usage.CompletionTokens > 257 {
		t.Errorf("last chunk is %+v, %v; want length, and no more tokens than the context holds", last, err)
	}
}

// gatewayDir is the environment variable by which TestGatewayToKill is a gateway, with runtimes in that directory.
const gatewayDir = "WEIGHBRIDGE_TEST_GATEWAY_DIR"

// TestGatewayToKill starts Ollama, says its process's number and lives until it is killed.
func TestGatewayToKill(t *testing.T) {
	dir := os.Getenv(gatewayDir)
	if dir == "" {
		t.Skip("is for TestKilledGatewayLeavesNothing")
	}
	s := start(t, backendtest.WriteModel(t, tinygguf.A), dir, oneThread)
	fmt.Println("pid", s.Status().PID)
	<-t.Context().Done()
}

// TestKilledGatewayLeavesNothing kills a gateway: neither Ollama nor its runner survives.
func TestKilledGatewayLeavesNothing(t *testing.T) {
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestGatewayToKill$")
	cmd.Env = append(os.Environ(), gatewayDir+"="+t.TempDir(), "TMPDIR="+t.TempDir(), "WEIGHBRIDGE_OLLAMA="+backendtest.Ollama(t))
	var said backendtest.Lines
	cmd.Stdout = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	said.WaitFor(t, "\n")
	var pid int
	if _, err := fmt.Sscanf(said.Text(), "pid %d", &pid); err != nil {
		t.Fatalf("it said %q: %v", said.Text(), err)
	}
	serveEnded, runnerEnded := watch(t, pid), watch(t, runner(t, pid))
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if !serveEnded() {
		t.Error("ollama survives the gateway")
	}
	if !runnerEnded() {
		t.Error("ollama's runner survives the gateway")
	}
}
