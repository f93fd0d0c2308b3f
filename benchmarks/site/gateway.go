package site

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
	"github.com/weighbridge/weighbridge/gateway/identity"
)

// Log messages of the gateway that are waited for. Waiting for a line has no latency of its own, as asking would.
const (
	MsgListens = "gateway listens"
	MsgServes  = "release serves"
	MsgSettled = "weights are settled"
	MsgDied    = "runtime died, restarting it"
	msgRefused = "release is not served"
)

// A Gateway is `weighbridge serve` over a site, with a state of its own.
type Gateway struct {
	*Child
	site *Site
	log  *eventLog
}

// StartGateway starts a gateway that has never served before. A site has one at a time.
func (s *Site) StartGateway() (*Gateway, error) {
	if err := os.RemoveAll(s.Path(stateDir)); err != nil {
		return nil, fmt.Errorf("remove the last gateway's state: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(s.Path(logFile)), 0o755); err != nil {
		return nil, fmt.Errorf("make the directory of the gateway's log: %w", err)
	}
	file, err := os.Create(s.Path(logFile))
	if err != nil {
		return nil, fmt.Errorf("make the gateway's log: %w", err)
	}
	defer file.Close()
	g := &Gateway{site: s, log: newEventLog(file.Name())}
	cmd := exec.CommandContext(context.Background(), s.Weighbridge, "serve", "--config", s.Path(configFile), "--init-state")
	cmd.Stderr = file
	g.Child, err = StartChild("weighbridge serve", cmd)
	return g, err
}

// Endless is a tiny model that never ends by itself, so that a caller says how long an answer is.
var Endless = tinygguf.Config{Sentence: "on and on ", Endless: true, ChatTemplate: tinygguf.ChatTemplate}

// ServeTiny writes a tiny model, has a release of it with these arguments of the runtime approved and published, and
// returns a gateway that serves it.
func (s *Site) ServeTiny(ctx context.Context, model string, c tinygguf.Config, args string) (*Gateway, error) {
	if err := s.WriteTiny(model, c); err != nil {
		return nil, err
	}
	release, err := s.Release(ctx, model, args)
	if err != nil {
		return nil, err
	}
	publication, err := s.Publish(ctx, release, 1)
	if err != nil {
		return nil, err
	}
	if err := s.Deliver(publication); err != nil {
		return nil, err
	}
	g, err := s.StartGateway()
	if err != nil {
		return nil, err
	}
	if _, err := g.Await(ctx, MsgServes); err != nil {
		g.Stop()
		return nil, err
	}
	return g, nil
}

// Await waits for the first log line with a message, since the last Forget.
func (g *Gateway) Await(ctx context.Context, msg string) (Event, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for {
		if e, found, err := g.log.find(msg); found || err != nil {
			return e, err
		}
		if e, found, err := g.log.find(msgRefused); err != nil {
			return Event{}, err
		} else if found {
			return Event{}, fmt.Errorf("the gateway does not serve the model: %v", e.Attrs["err"])
		}
		select {
		case <-tick.C:
		case <-g.done:
			if e, found, err := g.log.find(msg); found || err != nil {
				return e, err // it was the last that it wrote
			}
			return Event{}, fmt.Errorf("the gateway ended (%s); its log ends with:\n%s", g.cmd.ProcessState, &g.log.last)
		case <-ctx.Done():
			return Event{}, fmt.Errorf("wait for %q in the gateway's log: %w", msg, context.Cause(ctx))
		}
	}
}

// Address returns where a door is, such as "http" or "grpc".
func (g *Gateway) Address(ctx context.Context, door string) (string, error) {
	listens, err := g.Await(ctx, MsgListens)
	if err != nil {
		return "", err
	}
	return fmt.Sprint(listens.Attrs[door]), nil
}

// Identity returns one of a caller, which the gateway itself issues.
func (g *Gateway) Identity(ctx context.Context) (*identity.Source, error) {
	id, err := identity.Open(ctx, identity.Config{WorkloadAPI: "unix://" + g.site.Path(spiffeSocket)})
	if err != nil {
		return nil, fmt.Errorf("get an identity from the gateway: %w", err)
	}
	return id, nil
}

// Forget has Await wait for what the gateway logs from now on.
func (g *Gateway) Forget() error { return g.log.forget() }

// Runtime returns the process number of the gateway's llama-server, which must be its only one.
func (g *Gateway) Runtime() (int, error) {
	pids, err := g.Runtimes()
	if err != nil {
		return 0, err
	}
	if len(pids) != 1 {
		return 0, fmt.Errorf("the gateway has %d child processes, want its llama-server alone", len(pids))
	}
	return pids[0], nil
}

// Runtimes returns the process numbers of the gateway's llama-servers.
func (g *Gateway) Runtimes() ([]int, error) { return childrenOf(g.PID()) }

// Learn finds out with which arguments the gateway starts llama-server, for StartPlain.
func (g *Gateway) Learn() error {
	pids, err := g.Runtimes()
	if err != nil {
		return err
	}
	if len(pids) == 0 {
		return errors.New("the gateway has no llama-server")
	}
	if g.site.RuntimeArgs, err = commandLine(pids[0]); err != nil {
		return err
	}
	if err := g.site.write(keyFile, apiKey+"\n"); err != nil {
		return fmt.Errorf("write key of llama-server: %w", err)
	}
	return nil
}

// childrenOf returns the processes that a process has started.
func childrenOf(pid int) ([]int, error) {
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil, fmt.Errorf("list children of process %d: %w", pid, err)
	}
	var all []int
	for _, list := range lists {
		data, err := os.ReadFile(list)
		if errors.Is(err, os.ErrNotExist) {
			continue // a thread that has ended
		} else if err != nil {
			return nil, fmt.Errorf("list children of process %d: %w", pid, err)
		}
		for _, field := range strings.Fields(string(data)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				return nil, fmt.Errorf("list children of process %d: %w", pid, err)
			}
			all = append(all, child)
		}
	}
	return all, nil
}

// commandLine returns the arguments of a process, without its name.
func commandLine(pid int) ([]string, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return nil, fmt.Errorf("read command line: %w", err)
	}
	args := strings.Split(strings.TrimSuffix(string(data), "\x00"), "\x00")
	return args[1:], nil
}
