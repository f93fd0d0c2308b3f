package receipt_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os/exec"
	"strings"
	"testing"

	"github.com/weighbridge/weighbridge/gateway/audit"
	"github.com/weighbridge/weighbridge/gateway/audit/audittest"
	"github.com/weighbridge/weighbridge/gateway/receipt"
	"github.com/weighbridge/weighbridge/gateway/receipt/receipttest"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

const stranger = "spiffe://bank.example/apps/other"

// TestFetch: only the caller of a call learns anything of its receipt.
func TestFetch(t *testing.T) {
	s := receipttest.New(t, nil)
	given, failed := s.Call(receipttest.Caller, request, response, nil), s.Call(receipttest.Caller, request, "", errors.New("the runtime died"))
	for _, tt := range []struct {
		name, caller, id string
		want             error
	}{
		{"its caller", receipttest.Caller, given, nil},
		{"again", receipttest.Caller, given, nil},
		{"another caller", stranger, given, receipt.ErrUnknown},
		{"no such id", receipttest.Caller, strings.Repeat("0", 32), receipt.ErrUnknown},
		{"no id", receipttest.Caller, "", receipt.ErrUnknown},
		{"a call that failed", receipttest.Caller, failed, receipt.ErrNone},
		{"another's call that failed", stranger, failed, receipt.ErrUnknown},
	} {
		document, err := s.Issuer.Fetch(t.Context(), tt.caller, tt.id)
		if !errors.Is(err, tt.want) || (document == nil) != (tt.want != nil) {
			t.Errorf("%s: Fetch = %d bytes, %v, want %v", tt.name, len(document), err, tt.want)
		}
		if tt.want != nil && err.Error() != tt.want.Error() {
			t.Errorf("%s: Fetch = %q, want just %q", tt.name, err, tt.want)
		}
	}
	if d := parse(t, s.Give(request, response)); d.ID == given || len(d.Request) > 0 {
		t.Errorf("a second receipt is %+v", d)
	}
}

// TestUnlisted: a gateway that the policy in force does not list gives no receipts, and says so once for each policy.
func TestUnlisted(t *testing.T) {
	s := receipttest.New(t, nil)
	var log bytes.Buffer
	var policy *trust.Policy
	issuer, err := receipt.New(receipt.Config{
		Key: s.Key, Origin: audittest.Origin, Log: s.Log, Policy: func() *trust.Policy { return policy }, Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	warned := 0
	for _, step := range []struct {
		policy *trust.Policy
		listed bool
	}{
		{nil, false}, {s.SignPolicy(nil), false}, {s.Policy, true},
		{s.PolicyWith(func(d *trust.Document) {
			gw := d.Identities[receipttest.Gateway]
			gw.State.Retired = trust.Receipt{}.Time.AddDate(2000, 0, 0)
			d.Identities[receipttest.Gateway] = gw
		}), false},
	} {
		policy = step.policy
		for range 3 {
			if _, err := issuer.Draft(receipttest.Caller); (err == nil) != step.listed || err != nil && !errors.Is(err, receipt.ErrUnlisted) {
				t.Errorf("Draft = %v, want an error: %v", err, !step.listed)
			}
		}
		if !step.listed {
			warned++
		}
		if got := strings.Count(log.String(), "level=WARN"); got != warned {
			t.Errorf("%d warnings, want %d:\n%s", got, warned, &log)
		}
	}
}

// TestNew reports every field that is missing.
func TestNew(t *testing.T) {
	s := receipttest.New(t, nil)
	good := receipt.Config{Key: s.Key, Origin: audittest.Origin, Log: s.Log, Policy: func() *trust.Policy { return nil }}
	for _, tt := range []struct {
		name   string
		change func(*receipt.Config)
		want   string
	}{
		{"complete", func(*receipt.Config) {}, ""},
		{"nothing", func(c *receipt.Config) { *c = receipt.Config{} }, "Key is required\nLog is required\nPolicy is required"},
		{"a key that can't sign a log", func(c *receipt.Config) { c.Key = s.World.Key("alice") }, "Ed25519"},
		{"no origin", func(c *receipt.Config) { c.Origin = "" }, "audit origin"},
	} {
		c := good
		tt.change(&c)
		if _, err := receipt.New(c); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: New = %v, want %q", tt.name, err, tt.want)
		}
	}
}

// slow is a log that goes on only when a test lets it.
type slow struct {
	receipt.Log
	asked, goOn chan struct{}
}

func (s slow) Append(ctx context.Context, r audit.Record) (int64, error) {
	s.asked <- struct{}{}
	<-s.goOn
	return s.Log.Append(ctx, r)
}

// TestFetchWaits: a receipt that is asked for before it is recorded is waited for, and nobody else is kept waiting.
func TestFetchWaits(t *testing.T) {
	s := receipttest.New(t, nil)
	log := slow{s.Log, make(chan struct{}), make(chan struct{})}
	issuer, err := receipt.New(receipt.Config{Key: s.Key, Origin: audittest.Origin, Log: log, Policy: func() *trust.Policy { return s.Policy }})
	if err != nil {
		t.Fatal(err)
	}
	s.Issuer = issuer
	id := s.Call(receipttest.Caller, request, response, nil) // which has returned
	<-log.asked
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := issuer.Fetch(gone, receipttest.Caller, id); !errors.Is(err, context.Canceled) {
		t.Errorf("Fetch = %v before it is recorded, want it to wait", err)
	}
	fetched := make(chan error)
	go func() {
		_, err := issuer.Fetch(t.Context(), receipttest.Caller, id)
		fetched <- err
	}()
	close(log.goOn)
	if err := <-fetched; err != nil {
		t.Errorf("Fetch = %v once it is recorded", err)
	}
	issuer.Close()
}

// TestUnrecorded: without a log there is an answer and no receipt.
func TestUnrecorded(t *testing.T) {
	s := receipttest.New(t, nil)
	if err := s.Log.Close(); err != nil {
		t.Fatal(err)
	}
	id := s.Call(receipttest.Caller, request, response, nil)
	if _, err := s.Issuer.Fetch(t.Context(), receipttest.Caller, id); !errors.Is(err, receipt.ErrUnrecorded) || err.Error() != receipt.ErrUnrecorded.Error() {
		t.Errorf("Fetch = %v, want %v", err, receipt.ErrUnrecorded)
	}
}

// TestLogHoldsNoWord: nothing of what was said, nor a digest that could be tried out, is in the log.
func TestLogHoldsNoWord(t *testing.T) {
	s := receipttest.New(t, nil)
	d := parse(t, s.Give(request, response))
	record, err := audit.ParseRecord(d.Log.Entry)
	if err != nil || record.Kind != audit.KindReceipt || record.Caller != receipttest.Caller || record.Release != s.Release.ID || record.Statement == "" {
		t.Errorf("the record is %+v, %v", record, err)
	}
	if record.Why != "" || record.Identity != "" || record.Count != 0 {
		t.Errorf("the record says more than it must: %+v", record)
	}
	again := parse(t, s.Give(request, response))
	for _, same := range [][2]string{{string(d.Nonce), string(again.Nonce)}, {string(d.Receipt), string(again.Receipt)}} {
		if same[0] == same[1] {
			t.Errorf("two calls alike have the same %q", same[0])
		}
	}
}

// TestNoNetwork keeps verifying a receipt free of everything that could dial. The packages that it lists are imported
// here, so that a change in them rebuilds this test.
func TestNoNetwork(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "github.com/weighbridge/weighbridge/gateway/receipt").Output()
	if err != nil {
		t.Fatal(err)
	}
	for dep := range strings.FieldsSeq(string(out)) {
		if dep == "net/http" || strings.HasPrefix(dep, "google.golang.org/grpc") || strings.HasPrefix(dep, "github.com/weighbridge/weighbridge/proto") {
			t.Errorf("gateway/receipt imports %s: receipts are verified without asking anybody", dep)
		}
	}
}
