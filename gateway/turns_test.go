package gateway_test

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/gateway/fair"
	pb "github.com/weighbridge/weighbridge/proto/weighbridge/inference/v1"
)

// TestTurns has two callers at a runtime that answers one request at a time: the loud one's second waits behind the other's
// first, and its third is refused, since there would be no place for others.
func TestTurns(t *testing.T) {
	slow := hello()
	slow.entered = make(chan struct{})
	slow.turns = fair.NewQueue(fair.Config{Slots: 1, Places: 2, Patience: waitLimit})
	d := open(t, map[string]*channel{"chat": slow})
	done := make(chan string, 3)
	send := func(name, path string) {
		conn := d.conn(path)
		go func() {
			if _, _, _, err := chat(t.Context(), conn, ask()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			done <- name
		}()
	}
	send("loud 1", "/apps/loud")
	eventually(t, "the first turn", func() bool { slow.mu.Lock(); defer slow.mu.Unlock(); return len(slow.got) == 1 })
	send("loud 2", "/apps/loud")
	eventually(t, "the first wait", func() bool { return slow.turns.Waiting() == 1 })
	resp, body := d.post(d.client("/apps/loud"), question)
	if e := readError(t, body); resp.StatusCode != http.StatusTooManyRequests || e.Code != "busy" || resp.Header.Get("Retry-After") == "" {
		t.Errorf("POST of the loud caller = %s, %+v, want 429 and when to come back", resp.Status, e)
	}
	send("quiet", "/apps/quiet")
	eventually(t, "the second wait", func() bool { return slow.turns.Waiting() == 2 })
	eventually(t, "metrics of those that are answered, those that wait, and the refusal", func() bool {
		text := d.metricsText()
		return underWay(3, 2).MatchString(text) && strings.Contains(text, `weighbridge_requests_refused_total{limit="turns",rule=""} 1`)
	})
	for _, want := range []string{"loud 1", "quiet", "loud 2"} {
		<-slow.entered
		if got := <-done; got != want {
			t.Errorf("%s was answered, want %s", got, want)
		}
	}
	d.stop()
	if !strings.Contains(d.log.String(), `"wait":`) {
		t.Errorf("the log does not say who waited:\n%s", d.log)
	}
	eventually(t, "metrics of nobody", func() bool { return underWay(0, 0).MatchString(d.metricsText()) })
}

// underWay are metrics by which so many requests are being answered, of which so many wait for a turn.
func underWay(active, waiting int) *regexp.Regexp {
	return regexp.MustCompile(fmt.Sprintf(`(?s)\nweighbridge_requests_active(\{[^}]*\})? %d\n.*\nweighbridge_requests_waiting\{channel="chat"[^}]*\} %d\n`, active, waiting))
}

// TestTurnsDoNotCome refuses who has waited long enough, as a state of ours and not as too much of the caller's.
func TestTurnsDoNotCome(t *testing.T) {
	stuck := hello()
	stuck.turns = fair.NewQueue(fair.Config{Slots: 1, Places: 2, Patience: 10 * time.Millisecond})
	if _, err := stuck.turns.Enter(t.Context(), "somebody"); err != nil {
		t.Fatal(err)
	}
	d := open(t, map[string]*channel{"chat": stuck})
	resp, body := d.post(d.client("/apps/demo"), question)
	if e := readError(t, body); resp.StatusCode != http.StatusServiceUnavailable || e.Code != "overloaded" || resp.Header.Get("Retry-After") != "1" {
		t.Errorf("POST = %s, %+v, want 503 and when to come back", resp.Status, e)
	}
	if _, _, _, err := chat(t.Context(), d.conn("/apps/demo"), ask()); status.Code(err) != codes.Unavailable {
		t.Errorf("Chat = %v, want UNAVAILABLE", err)
	}
}

// TestTurnsAreLeft has a caller go away while it waits: that is no fault of ours.
func TestTurnsAreLeft(t *testing.T) {
	stuck := hello()
	stuck.turns = fair.NewQueue(fair.Config{Slots: 1, Places: 2, Patience: waitLimit})
	if _, err := stuck.turns.Enter(t.Context(), "somebody"); err != nil {
		t.Fatal(err)
	}
	d := open(t, map[string]*channel{"chat": stuck})
	ctx, cancel := context.WithCancel(t.Context())
	conn := d.conn("/apps/demo")
	left := make(chan struct{})
	go func() {
		defer close(left)
		_, _, _, _ = chat(ctx, conn, ask())
	}()
	eventually(t, "the wait", func() bool { return stuck.turns.Waiting() == 1 })
	cancel()
	<-left
	d.stop()
	if !strings.Contains(d.log.String(), `"outcome":"canceled"`) || strings.Contains(d.log.String(), `"level":"WARN"`) {
		t.Errorf("want the leave at INFO in the log:\n%s", d.log)
	}
}

// TestTurnsMoveOn has a request wait for a release that is replaced: it is answered by the one that serves then.
func TestTurnsMoveOn(t *testing.T) {
	old := hello()
	old.turns = fair.NewQueue(fair.Config{Slots: 1, Places: 2, Patience: waitLimit})
	if _, err := old.turns.Enter(t.Context(), "somebody"); err != nil {
		t.Fatal(err)
	}
	d := open(t, map[string]*channel{"chat": old})
	client := d.client("/apps/demo")
	answer := make(chan string, 1)
	go func() {
		_, body := d.post(client, question)
		answer <- body
	}()
	eventually(t, "the wait", func() bool { return old.turns.Waiting() == 1 })
	next := &channel{chunks: []backends.Chunk{{Text: "I am new."}, {FinishReason: "stop"}}}
	d.catalog.mu.Lock()
	d.catalog.channels["chat"] = next
	d.catalog.mu.Unlock()
	old.turns.Close()
	if body := <-answer; !strings.Contains(body, "I am new.") {
		t.Errorf("answer = %s, want the new release's", body)
	}
	old.checkLeases(t)
}

// TestSlowReaderHoldsNobodyUp has a caller who reads nothing of a long answer: another gets the only turn all the same.
func TestSlowReaderHoldsNobodyUp(t *testing.T) {
	long := &channel{turns: fair.NewQueue(fair.Config{Slots: 1, Places: 2, Patience: waitLimit})}
	for range 64 {
		long.chunks = append(long.chunks, backends.Chunk{Text: strings.Repeat("x", 32<<10)})
	}
	d := open(t, map[string]*channel{"chat": long})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := pb.NewInferenceClient(d.conn("/apps/slow")).Chat(ctx, ask())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	leave, err := long.turns.Enter(t.Context(), "other")
	if err != nil {
		t.Fatalf("Enter = %v, want a turn while the slow reader's answer is not through", err)
	}
	leave()
	long.mu.Lock()
	defer long.mu.Unlock()
	if len(long.ended) != 0 {
		t.Errorf("the slow reader's answer has ended with %v, want it to wait for its reader", long.ended)
	}
}
