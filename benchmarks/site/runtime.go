package site

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

const (
	// healthEvery is how often a llama-server that loads is asked whether it is ready; it tells no one by itself. The
	// gateway looks less often, which is to its own loss.
	healthEvery = 2 * time.Millisecond

	// startTimeout is how long anything may take to get ready, on the slowest of disks.
	startTimeout = 10 * time.Minute

	llamaSocket = "llama.sock"
)

// A Plain is a llama-server that was started as the gateway starts it, but by itself and on the file.
type Plain struct {
	*Child
	dir    *os.File // its own; held open, so that the socket is reached however long its path is
	output *Tail
}

// StartPlain starts llama-server on a model of the site with the given load mode, and returns how long it took until it
// could serve.
func (s *Site) StartPlain(ctx context.Context, model, mode string) (_ *Plain, took time.Duration, err error) {
	path, err := os.MkdirTemp(s.Dir, "plain-")
	if err != nil {
		return nil, 0, fmt.Errorf("make directory for llama-server: %w", err)
	}
	p := &Plain{output: &Tail{}}
	if p.dir, err = os.Open(path); err != nil {
		return nil, 0, fmt.Errorf("open directory for llama-server: %w", err)
	}
	// Its arguments end before its life does: Stop ends it, in every case.
	cmd := exec.CommandContext(context.Background(), s.Llama, s.PlainArgs(mode, s.Path(model), s.Path(keyFile))...)
	cmd.Dir, cmd.Env = path, []string{} // not nil, which would be ours
	cmd.Stdout, cmd.Stderr = p.output, p.output
	if p.Child, err = StartChild("llama-server", cmd); err != nil {
		p.dir.Close()
		return nil, 0, err
	}
	if err := p.ready(ctx); err != nil {
		p.Stop()
		return nil, 0, err
	}
	return p, time.Since(p.Begun), nil
}

// Socket is where it answers.
func (p *Plain) Socket() string { return filepath.Join(p.dir.Name(), llamaSocket) }

// Stop ends the server and lets its directory go, which goes with the site.
func (p *Plain) Stop() {
	p.Child.Stop()
	p.dir.Close()
}

// ready waits until the server says that it can serve.
func (p *Plain) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", p.dir.Fd(), llamaSocket))
		},
	}}
	look := time.NewTicker(healthEvery)
	defer look.Stop()
	for {
		if healthy(ctx, client) {
			return nil
		}
		select {
		case <-look.C:
		case <-p.done:
			return fmt.Errorf("llama-server ended while it loaded (%s); it wrote:\n%s", p.cmd.ProcessState, p.output)
		case <-ctx.Done():
			return fmt.Errorf("wait for llama-server: %w", context.Cause(ctx))
		}
	}
}

func healthy(ctx context.Context, client *http.Client) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://llama-server/health", nil)
	if err != nil {
		panic("site: internal error: " + err.Error())
	}
	res, err := client.Do(req)
	if err != nil {
		return false // no socket yet
	}
	res.Body.Close()
	return res.StatusCode == http.StatusOK // 503 while it loads
}

// PlainArgs are the arguments of the gateway's own llama-server with the load mode, the paths of model and key, and the
// socket replaced.
func (s *Site) PlainArgs(mode, model, key string) []string {
	return replaceArgs(s.RuntimeArgs, map[string]string{
		"--model": model, "--load-mode": mode, "--host": "./" + llamaSocket, "--api-key-file": key,
	})
}

// replaceArgs replaces the values of the options that are there.
func replaceArgs(args []string, values map[string]string) []string {
	replaced := append([]string{}, args...)
	for i := range len(replaced) - 1 {
		if value, ok := values[replaced[i]]; ok {
			replaced[i+1] = value
		}
	}
	return replaced
}
