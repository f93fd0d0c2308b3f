package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"

	"github.com/weighbridge/weighbridge/gateway/identity"
)

// Log messages of the gateway that are waited for. Waiting for a line has no latency of its own, as asking would.
const (
	msgListens = "gateway listens"
	msgServes  = "release serves"
	msgSettled = "weights are settled"
	msgRefused = "release is not served"
	msgDied    = "runtime died, restarting it"
)

// A gateway is `weighbridge serve` over the site, with a state of its own.
type gateway struct {
	*child
	site *site
	log  *eventLog
}

// startGateway starts a gateway that has never served before.
func (s *site) startGateway() (*gateway, error) {
	if err := os.RemoveAll(s.path(stateDir)); err != nil {
		return nil, fmt.Errorf("remove the last gateway's state: %w", err)
	}
	g := &gateway{site: s, log: newEventLog()}
	cmd := exec.CommandContext(context.Background(), s.weighbridge, "serve", "--config", s.path(configFile), "--init-state")
	cmd.Stderr = g.log
	var err error
	g.child, err = startChild("weighbridge serve", cmd)
	return g, err
}

// await waits for the first log line with a message.
func (g *gateway) await(ctx context.Context, msg string) (event, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		e, changed := g.log.find(msg)
		if changed == nil {
			return e, nil
		}
		if e, more := g.log.find(msgRefused); more == nil {
			return event{}, fmt.Errorf("the gateway does not serve the model: %v", e.attrs["err"])
		}
		select {
		case <-changed:
		case <-g.done:
			return event{}, fmt.Errorf("the gateway ended (%s); its log ends with:\n%s", g.cmd.ProcessState, g.log.last)
		case <-ctx.Done():
			return event{}, fmt.Errorf("wait for %q in the gateway's log: %w", msg, context.Cause(ctx))
		}
	}
}

// runtime returns the process number of the gateway's llama-server.
func (g *gateway) runtime() (int, error) {
	pids, err := childrenOf(g.cmd.Process.Pid)
	if err != nil {
		return 0, err
	}
	if len(pids) != 1 {
		return 0, fmt.Errorf("the gateway has %d child processes, want its llama-server alone", len(pids))
	}
	return pids[0], nil
}

// An event is a log line and when it was written.
type event struct {
	at    time.Time
	attrs map[string]any
}

// An eventLog keeps the first line with each message, and wakes whoever waits for one.
type eventLog struct {
	mu      sync.Mutex
	partial []byte
	first   map[string]event
	changed chan struct{} // closed, and replaced, at each new line
	last    tail
}

func newEventLog() *eventLog {
	return &eventLog{first: map[string]event{}, changed: make(chan struct{})}
}

func (l *eventLog) Write(p []byte) (int, error) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last.add(p)
	l.partial = append(l.partial, p...)
	for {
		line, rest, whole := bytes.Cut(l.partial, []byte("\n"))
		if !whole {
			break
		}
		l.partial = rest
		e := event{at: now}
		if json.Unmarshal(line, &e.attrs) != nil {
			continue // not of the log, and so kept in last alone
		}
		msg, _ := e.attrs["msg"].(string)
		if _, known := l.first[msg]; !known {
			l.first[msg] = e
		}
	}
	close(l.changed)
	l.changed = make(chan struct{})
	return len(p), nil
}

// find returns the line, or a channel that is closed when there is more to look at.
func (l *eventLog) find(msg string) (event, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.first[msg]; ok {
		return e, nil
	}
	return event{}, l.changed
}

// A caller asks the gateway over HTTPS, on one connection that stays open.
type caller struct {
	id     *identity.Source
	client *http.Client
	url    string
}

func (g *gateway) caller(ctx context.Context) (*caller, error) {
	listens, err := g.await(ctx, msgListens)
	if err != nil {
		return nil, err
	}
	id, err := identity.Open(ctx, identity.Config{WorkloadAPI: "unix://" + g.site.path(spiffeSocket)})
	if err != nil {
		return nil, fmt.Errorf("get an identity from the gateway: %w", err)
	}
	transport := &http.Transport{TLSClientConfig: id.ClientTLS(tlsconfig.AuthorizeMemberOf(id.TrustDomain()))}
	return &caller{id: id, client: &http.Client{Transport: transport}, url: fmt.Sprintf("https://%v/v1/chat/completions", listens.attrs["http"])}, nil
}

func (c *caller) close() {
	c.client.CloseIdleConnections()
	c.id.Close()
}

// ask asks for one token and returns the status and the answer.
func (c *caller) ask(ctx context.Context, question string) (status int, answer string, err error) {
	body, err := json.Marshal(map[string]any{
		"model": "chat", "max_tokens": 1, "messages": []map[string]string{{"role": "user", "content": question}},
	})
	if err != nil {
		return 0, "", fmt.Errorf("ask: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return 0, "", fmt.Errorf("ask: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := c.client.Do(req)
	if err != nil {
		return 0, "", fmt.Errorf("ask: %w", err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, "", fmt.Errorf("ask: %w", err)
	}
	return res.StatusCode, string(data), nil
}

// tooLong is a question with more tokens than the context of the release holds.
var tooLong = strings.Repeat("?", 1000)

// knock returns how long llama-server takes to refuse a question that is too long. Only a server that is ready does so,
// and it computes nothing for it, while one token of a model as large as this takes longer than a restart does.
func (c *caller) knock(ctx context.Context) (time.Duration, error) {
	begun := time.Now()
	status, answer, err := c.ask(ctx, tooLong)
	took := time.Since(begun)
	if err != nil {
		return 0, err
	}
	if status != http.StatusBadRequest || !strings.Contains(answer, "tokens") {
		return 0, fmt.Errorf("answer to a question that is too long = %d %s, want %d and how many tokens it has", status, answer, http.StatusBadRequest)
	}
	return took, nil
}

// check asks a real question, which only the signed model answers like this.
func (c *caller) check(ctx context.Context, sentence string) error {
	status, data, err := c.ask(ctx, "Who are you?")
	if err != nil {
		return err
	}
	var answer struct {
		Choices []struct {
			Message struct {
				Content string `json:"content"`
			} `json:"message"`
		} `json:"choices"`
	}
	if err := json.Unmarshal([]byte(data), &answer); err != nil || status != http.StatusOK || len(answer.Choices) != 1 {
		return fmt.Errorf("answer = %d %s, want one choice", status, data)
	}
	if text := answer.Choices[0].Message.Content; text == "" || !strings.HasPrefix(sentence, text) {
		return fmt.Errorf("answer = %q, want the beginning of %q: these are other weights", text, sentence)
	}
	return nil
}

// probe starts a gateway once: to find out early if something is wrong with the site, and to learn with which arguments
// it starts llama-server, so that the peers are started with the same.
func (s *site) probe(ctx context.Context) error {
	g, err := s.startGateway()
	if err != nil {
		return err
	}
	defer g.stop()
	if _, err := g.await(ctx, msgServes); err != nil {
		return err
	}
	pid, err := g.runtime()
	if err != nil {
		return err
	}
	if s.runtimeArgs, err = commandLine(pid); err != nil {
		return err
	}
	c, err := g.caller(ctx)
	if err != nil {
		return err
	}
	defer c.close()
	if err := s.write("api-key", "a key that nobody uses\n"); err != nil {
		return fmt.Errorf("write key of llama-server: %w", err)
	}
	return c.check(ctx, modelConfig(1).Sentence)
}
