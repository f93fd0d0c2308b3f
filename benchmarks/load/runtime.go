package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
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

// A plain is a llama-server that was started as the gateway starts it, but by itself and on the file.
type plain struct {
	*child
	dir    *os.File // its own; held open, so that the socket is reached however long its path is
	output *tail
}

// startPlain starts llama-server with the given load mode and returns how long it took until it could serve.
func (s *site) startPlain(ctx context.Context, mode string) (_ *plain, took time.Duration, err error) {
	path, err := os.MkdirTemp(s.dir, "plain-")
	if err != nil {
		return nil, 0, fmt.Errorf("make directory for llama-server: %w", err)
	}
	p := &plain{output: &tail{}}
	if p.dir, err = os.Open(path); err != nil {
		return nil, 0, fmt.Errorf("open directory for llama-server: %w", err)
	}
	// Its arguments end before its life does: stop ends it, in every case.
	cmd := exec.CommandContext(context.Background(), s.llama, s.plainArgs(mode)...)
	cmd.Dir, cmd.Env = path, []string{} // not nil, which would be ours
	cmd.Stdout, cmd.Stderr = p.output, p.output
	if p.child, err = startChild("llama-server", cmd); err != nil {
		p.dir.Close()
		return nil, 0, err
	}
	if err := p.ready(ctx); err != nil {
		p.stop()
		return nil, 0, err
	}
	return p, time.Since(p.begun), nil
}

// stop ends the server and lets its directory go, which goes with the site.
func (p *plain) stop() {
	p.child.stop()
	p.dir.Close()
}

// ready waits until the server says that it can serve.
func (p *plain) ready(ctx context.Context) error {
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
		panic("load: internal error: " + err.Error())
	}
	res, err := client.Do(req)
	if err != nil {
		return false // no socket yet
	}
	res.Body.Close()
	return res.StatusCode == http.StatusOK // 503 while it loads
}

// plainArgs are the arguments of the gateway's own llama-server with the model as a file, the load mode and the key
// replaced.
func (s *site) plainArgs(mode string) []string {
	return replaceArgs(s.runtimeArgs, map[string]string{
		"--model": s.path(modelName), "--load-mode": mode, "--host": "./" + llamaSocket, "--api-key-file": s.path("api-key"),
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
