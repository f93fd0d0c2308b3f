package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
	"github.com/weighbridge/weighbridge/benchmarks/site"
)

// A world is a site whose gateway serves, under callers.
type world struct {
	*site.Site
	gateway *site.Gateway
	callers []*site.Caller

	epoch     int      // of the last publication
	serving   []string // the releases that serve and that is kept warm, in this order
	sentences sync.Map // what each release says
	models    int      // that were written
	total     counts
}

// room for weights is more than all that are ever used, so that the budget is not what is measured.
const room = 2 << 30

// newWorld brings up a gateway, and swaps twice: from then on each swap is like the next one, with one release that serves,
// one that is kept warm, and one that leaves.
func newWorld(ctx context.Context, stderr io.Writer) (_ *world, err error) {
	w := &world{}
	if w.Site, err = site.New(ctx, site.Config{Stderr: stderr, In: os.TempDir(), Memory: room}); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	first, err := w.newRelease(ctx)
	if err != nil {
		return nil, err
	}
	if err := w.Deliver(first.file); err != nil {
		return nil, err
	}
	if w.gateway, err = w.StartGateway(); err != nil {
		return nil, err
	}
	if _, err := w.gateway.Await(ctx, site.MsgServes); err != nil {
		return nil, err
	}
	w.switched(first.release)
	if err := w.gateway.Learn(); err != nil {
		return nil, err
	}
	for range callers {
		c, err := w.gateway.Caller(ctx)
		if err != nil {
			return nil, err
		}
		w.callers = append(w.callers, c)
	}
	second, err := w.newRelease(ctx)
	if err != nil {
		return nil, err
	}
	_, err = w.swap(ctx, second)
	return w, err
}

func (w *world) close() error {
	for _, c := range w.callers {
		c.Close()
	}
	if w.gateway != nil {
		w.gateway.Stop()
	}
	return w.Close()
}

// A change is a signed publication that no gateway has seen yet.
type change struct {
	release string
	file    string
	leaves  bool // a runtime has to leave for it
}

// newRelease writes a model of its own, that says which one it is, and signs all that it takes to serve it.
func (w *world) newRelease(ctx context.Context) (change, error) {
	w.models++
	name := modelName(w.models)
	sentence := fmt.Sprintf("I am version %d.", w.models)
	// The seed has no two of them share weights: each is read, hashed and sealed.
	if err := w.WriteTiny(name, tinygguf.Config{Sentence: sentence, ChatTemplate: tinygguf.ChatTemplate, Seed: uint64(w.models)}); err != nil {
		return change{}, err
	}
	release, err := w.Release(ctx, name, "ctx-size: 1024, parallel: 4, threads: 1")
	if err != nil {
		return change{}, err
	}
	w.sentences.Store(release, sentence)
	w.epoch++
	file, err := w.Publish(ctx, release, w.epoch)
	return change{release: release, file: file, leaves: len(w.serving) > 1}, err
}

func modelName(n int) string { return site.ModelName(fmt.Sprintf("%d.gguf", n)) }

// rollback goes back to a release that is kept warm.
func (w *world) rollback(ctx context.Context, to string) (change, error) {
	w.epoch++
	file, err := w.Rollback(ctx, to, w.epoch)
	return change{release: to, file: file}, err
}

// says returns what a release says.
func (w *world) says(release string) string {
	sentence, _ := w.sentences.Load(release)
	text, _ := sentence.(string)
	return text
}

// switched notes what serves now, and what is warm.
func (w *world) switched(release string) {
	if len(w.serving) > 1 {
		w.serving = w.serving[:1]
	}
	w.serving = append([]string{release}, w.serving...)
}

// swap delivers a publication and returns the time from then until it serves, and what has to leave has left.
func (w *world) swap(ctx context.Context, c change) (site.Window, error) {
	pids, err := w.gateway.Runtimes()
	if err != nil {
		return site.Window{}, err
	}
	leaving, err := watchProcesses(pids)
	if err != nil {
		return site.Window{}, err
	}
	defer leaving.close()
	if err := w.gateway.Forget(); err != nil {
		return site.Window{}, err
	}
	during := site.Window{From: time.Now()}
	if err := w.Deliver(c.file); err != nil {
		return site.Window{}, err
	}
	serves, err := w.gateway.Await(ctx, site.MsgServes)
	if err != nil {
		return site.Window{}, err
	}
	if serves.Attrs["release"] != c.release {
		return site.Window{}, fmt.Errorf("%v serves, want %s", serves.Attrs["release"], c.release)
	}
	w.switched(c.release)
	if c.leaves {
		if err := leaving.awaitOne(); err != nil {
			return site.Window{}, err
		}
	}
	during.To = time.Now()
	return during, nil
}

// leaveLimit is how long a runtime may finish its requests and end; the gateway's own limits are longer.
const leaveLimit = 30 * time.Second

// processes are descriptors of some that run.
type processes []unix.PollFd

func watchProcesses(pids []int) (processes, error) {
	var all processes
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			all.close()
			return nil, fmt.Errorf("watch process %d: %w", pid, os.NewSyscallError("pidfd_open", err))
		}
		all = append(all, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	return all, nil
}

// awaitOne returns once one of them has ended.
func (p processes) awaitOne() error {
	for {
		n, err := unix.Poll(p, int(leaveLimit.Milliseconds()))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("wait for a runtime to end: %w", os.NewSyscallError("poll", err))
		case n == 0:
			return fmt.Errorf("no runtime ended within %s", leaveLimit)
		default:
			return nil
		}
	}
}

func (p processes) close() {
	for _, fd := range p {
		_ = unix.Close(int(fd.Fd)) // it was only watched
	}
}
