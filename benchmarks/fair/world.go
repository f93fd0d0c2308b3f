package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/weighbridge/weighbridge/benchmarks/site"
)

// room is more than the weights need.
const room = 1 << 30

// runtimeArgs: there are more slots than the loud caller may ever fill.
const runtimeArgs = "ctx-size: 2560, parallel: 8, threads: 1"

// Callers, by their names.
const (
	quietCaller = "quiet"
	rated       = "rated"   // loud, and limited by rate
	counted     = "counted" // loud, and limited by requests at once
)

// A world is a site whose gateway serves, under a quiet caller's load, or none.
type world struct {
	*site.Site
	gateway *site.Gateway
	address string
	quiet   []*site.Caller // connections of one caller
	total   counts
}

func newWorld(ctx context.Context, stderr io.Writer) (_ *world, err error) {
	w := &world{}
	limits := map[string]string{
		quietCaller: "",
		rated:       fmt.Sprintf("rate: %d/s, burst: %d", loudRate, loudBurst),
		counted:     fmt.Sprintf("concurrent: %d", loudConcurrent),
	}
	if w.Site, err = site.New(ctx, site.Config{Stderr: stderr, In: os.TempDir(), Memory: room, Callers: limits}); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	if w.gateway, err = w.ServeTiny(ctx, site.ModelName("endless.gguf"), site.Endless, runtimeArgs); err != nil {
		return nil, err
	}
	if w.address, err = w.gateway.Address(ctx, "http"); err != nil {
		return nil, err
	}
	for range connections {
		c, err := w.gateway.CallerOf(ctx, quietCaller)
		if err != nil {
			return nil, err
		}
		w.quiet = append(w.quiet, c)
	}
	return w, w.gateway.Learn()
}

func (w *world) close() error {
	for _, c := range w.quiet {
		c.Close()
	}
	if w.gateway != nil {
		w.gateway.Stop()
	}
	return w.Close()
}

// A loudCaller is a process that asks.
type loudCaller struct {
	*site.Child
	said, failed *bytes.Buffer
}

// startLoud starts one. It has the lowest priority: what it does to be loud is not what is measured.
func (w *world) startLoud(d demand) (*loudCaller, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("start loud caller: %w", err)
	}
	l := &loudCaller{said: &bytes.Buffer{}, failed: &bytes.Buffer{}}
	cmd := exec.CommandContext(context.Background(), "nice", "-n", "19", self, loudCommand, "-site", w.Dir, "-address", w.address, "-caller", d.Caller,
		"-connections", strconv.Itoa(d.Connections), "-every", d.Every.String(), "-tokens", strconv.Itoa(d.Tokens), "-pause", d.Pause.String())
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	cmd.Stdout, cmd.Stderr = l.said, l.failed
	if l.Child, err = site.StartChild("loud caller", cmd); err != nil {
		return nil, err
	}
	return l, nil
}

// end has it stop, and returns what became of its requests, and the processor time that it took for them.
func (l *loudCaller) end() (t tally, cpu time.Duration, err error) {
	used, err := l.End()
	if err != nil {
		return t, 0, err
	}
	if err := json.Unmarshal(l.said.Bytes(), &t); err != nil {
		return t, 0, fmt.Errorf("the loud caller failed: %w: %s", err, bytes.TrimSpace(l.failed.Bytes()))
	}
	return t, used.CPU, nil
}
