package backendtest

import (
	"bufio"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/ollama/ollama/api"
)

// A ForeignOllama is an Ollama that was not started by a backend, with a store and an address of its own.
type ForeignOllama struct {
	t       testing.TB
	dir     string
	address string
	cmd     *exec.Cmd
	reading sync.WaitGroup
}

// NewForeignOllama returns one that does not run yet, with its store in dir. When the test ends it is killed.
func NewForeignOllama(t testing.TB, dir string) *ForeignOllama {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	f := &ForeignOllama{t: t, dir: dir, address: l.Addr().String()}
	check(t, l.Close())
	t.Cleanup(f.Kill)
	return f
}

// URL is where it listens.
func (f *ForeignOllama) URL() string { return "http://" + f.address }

// Store is the directory of its models.
func (f *ForeignOllama) Store() string { return filepath.Join(f.dir, "models") }

// Client asks it as its users do.
func (f *ForeignOllama) Client() *api.Client {
	return api.NewClient(&url.URL{Scheme: "http", Host: f.address}, http.DefaultClient)
}

// Start starts it, and returns when it listens.
func (f *ForeignOllama) Start() {
	f.t.Helper()
	f.cmd = exec.Command(Ollama(f.t), "serve")
	f.cmd.Env = []string{"HOME=" + f.dir, "OLLAMA_MODELS=" + f.Store(), "OLLAMA_HOST=" + f.address, "OLLAMA_NO_CLOUD=1"}
	f.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // its runner goes with it, also when it is killed
	said, err := f.cmd.StderrPipe()
	check(f.t, err)
	check(f.t, f.cmd.Start())
	listens := make(chan bool, 1)
	f.reading.Go(func() {
		defer close(listens)
		lines := bufio.NewScanner(said)
		for lines.Scan() {
			if strings.Contains(lines.Text(), "Listening on") {
				listens <- true
			}
		}
	})
	if !<-listens {
		f.t.Fatal("ollama ended before it listened")
	}
}

// Kill kills it, and its runner, if it runs.
func (f *ForeignOllama) Kill() {
	if f.cmd == nil {
		return
	}
	syscall.Kill(-f.cmd.Process.Pid, syscall.SIGKILL)
	f.reading.Wait()
	f.cmd.Wait()
	f.cmd = nil
}
