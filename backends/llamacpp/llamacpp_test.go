package llamacpp_test

import (
	"log/slog"
	"os"
	"testing"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/backendtest"
	"github.com/weighbridge/weighbridge/backends/llamacpp"
	"github.com/weighbridge/weighbridge/backends/process"
)

func TestMain(m *testing.M) {
	process.Hook()
	os.Exit(m.Run())
}

// oneThread keeps tests from fighting over the machine.
var oneThread = map[string]string{"threads": "1"}

func newServer(t *testing.T, dir string) *llamacpp.Server {
	t.Helper()
	s, err := llamacpp.New(llamacpp.Config{
		Command: backendtest.LlamaServer(t), RuntimeDir: dir,
		Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) {
	backendtest.Run(t, backendtest.Suite{
		New:  func(t *testing.T) backends.Backend { return newServer(t, t.TempDir()) },
		Args: oneThread,
	})
}
