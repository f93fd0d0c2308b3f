package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

const (
	swaps   = 20
	callers = 16
	// pause is what each caller waits between its requests: together they send some 80 a second.
	pause = 200 * time.Millisecond
)

// TestSwapsUnderLoad replaces the release again and again while callers ask, half of them streaming: no request fails, and
// every answer is the one of the release that its header names.
func TestSwapsUnderLoad(t *testing.T) {
	g := newGateway(t)
	g.SignPolicy(nil)
	g.start("--init-state")
	first := g.await("release serves")["release"].(string)
	writeTiny(t, filepath.Join(g.Dir, "models", "b.gguf"), tinygguf.Config{Sentence: tinygguf.B.Sentence, ChatTemplate: tinygguf.ChatTemplate})
	var sentences sync.Map // by release
	sentences.Store(first, tinygguf.A.Sentence)

	var answers atomic.Int64
	done := make(chan struct{})
	var asking sync.WaitGroup
	client, url := g.client(), g.url("/v1/chat/completions")
	for n := range callers {
		asking.Go(func() {
			turn := time.NewTicker(pause)
			defer turn.Stop()
			for {
				select {
				case <-done:
					return
				case <-turn.C:
				}
				release, text, err := askOnce(client, url, n%2 == 0)
				if err != nil {
					t.Errorf("a request failed: %v", err)
					return
				}
				if want, known := sentences.Load(release); !known || text != want {
					t.Errorf("%q is the answer of %s, want %q", text, release, want)
				}
				answers.Add(1)
			}
		})
	}
	for n := range swaps {
		model, sentence := "b.gguf", tinygguf.B.Sentence
		if n%2 == 1 {
			model, sentence = "a.gguf", tinygguf.A.Sentence
		}
		id := g.Release(filepath.Join(g.Dir, "models", model), func(d *trust.Descriptor) {
			d.Version = fmt.Sprint("swap-", n)
			d.Runtime.Args = map[string]string{"ctx-size": "1024", "parallel": "4", "threads": "1"}
		})
		sentences.Store(string(id), sentence)
		g.Approve(id, trusttest.Alice, trust.Approval{})
		g.Approve(id, trusttest.Bob, trust.Approval{})
		g.log.forget()
		begun := time.Now()
		g.Publish(id, "chat", int64(n+2))
		if got := g.await("release serves")["release"]; got != string(id) {
			t.Fatalf("swap %d: %v serves, want %s", n, got, id)
		}
		t.Logf("swap %d took %s", n, time.Since(begun))
	}
	close(done)
	asking.Wait()
	t.Logf("%d answers", answers.Load())
	if answers.Load() < swaps {
		t.Errorf("only %d answers during %d swaps", answers.Load(), swaps)
	}
}

// askOnce returns the release that answered and what it said.
func askOnce(client *http.Client, url string, stream bool) (release, text string, err error) {
	res, err := client.Post(url, "application/json", strings.NewReader(
		fmt.Sprintf(`{"model":"chat","stream":%t,"messages":[{"role":"user","content":"Who are you?"}]}`, stream)))
	if err != nil {
		return "", "", err
	}
	defer res.Body.Close()
	release = res.Header.Get("weighbridge-release")
	type part struct {
		Choices []struct{ Message, Delta struct{ Content string } }
	}
	whole := false
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		data := strings.TrimPrefix(lines.Text(), "data: ")
		if data == "" {
			continue
		}
		if data == "[DONE]" {
			whole = true
			continue
		}
		var p part
		if err := json.Unmarshal([]byte(data), &p); err != nil || res.StatusCode != http.StatusOK {
			return "", "", fmt.Errorf("%s: %s", res.Status, data)
		}
		for _, c := range p.Choices {
			text += c.Message.Content + c.Delta.Content
		}
	}
	if err := lines.Err(); err != nil {
		return "", "", err
	}
	if stream && !whole {
		return "", "", io.ErrUnexpectedEOF
	}
	return release, strings.TrimSpace(text), nil
}
