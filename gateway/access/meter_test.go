package access_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/weighbridge/weighbridge/gateway/access"
)

const teller = "spiffe://bank.example/apps/teller"

// A site is a meter with a clock that stands still, and rules that can be replaced.
type site struct {
	t      *testing.T
	now    time.Time
	meter  *access.Meter
	policy *access.Policy
}

func newSite(t *testing.T, rules ...access.Rule) *site {
	s := &site{t: t, now: time.Unix(1700000000, 0)}
	s.meter = access.NewMeter(func() time.Time { return s.now })
	s.rules(rules...)
	return s
}

func (s *site) rules(rules ...access.Rule) {
	s.t.Helper()
	var err error
	if s.policy, err = access.Parse(rules); err != nil {
		s.t.Fatal(err)
	}
}

func limited(l access.Limits) access.Rule {
	r := rule("spiffe://bank.example/apps/*")
	r.Limits = &l
	return r
}

func (s *site) enter(caller string, expected access.Tokens) (*access.Pass, error) {
	s.t.Helper()
	grants, err := s.policy.Grants(act(caller, "chat", "chat"))
	if err != nil {
		s.t.Fatal(err)
	}
	return s.meter.Enter(spiffeid.RequireFromString(caller), grants, expected)
}

// serve wants a request to be let in, and ends it.
func (s *site) serve(caller string, used access.Tokens) {
	s.t.Helper()
	pass, err := s.enter(caller, access.Tokens{})
	if err != nil {
		s.t.Fatalf("Enter(%s) = %v, want it let in", caller, err)
	}
	pass.End(used)
}

// refuse wants a request to be refused by a limit, until a time that is true.
func (s *site) refuse(caller, limit string, retry time.Duration) {
	s.t.Helper()
	_, err := s.enter(caller, access.Tokens{})
	over := new(access.LimitError)
	if !errors.As(err, &over) || over.Limit != limit || (over.Retry-retry).Abs() > time.Microsecond {
		s.t.Fatalf("Enter(%s) = %v, want it refused by %s for %s", caller, err, limit, retry)
	}
	if limit == "concurrent" {
		return
	}
	s.now = s.now.Add(over.Retry - time.Millisecond)
	if _, err := s.enter(caller, access.Tokens{}); err == nil {
		s.t.Errorf("Enter = nil just before %s has passed", over.Retry)
	}
	s.now = s.now.Add(2 * time.Millisecond)
}

func TestMeterRate(t *testing.T) {
	s := newSite(t, limited(access.Limits{Rate: "60/m", Burst: "3"}))
	for range 3 {
		s.serve(teller, access.Tokens{})
	}
	s.refuse(teller, "rate", time.Second)
	s.serve(teller, access.Tokens{})
	s.refuse(teller, "rate", time.Second-time.Millisecond)
	s.serve("spiffe://bank.example/apps/other", access.Tokens{})
	s.now = s.now.Add(time.Hour) // no more than the burst comes back
	for range 3 {
		s.serve(teller, access.Tokens{})
	}
	s.refuse(teller, "rate", time.Second)
}

func TestMeterConcurrent(t *testing.T) {
	s := newSite(t, limited(access.Limits{Concurrent: "2"}))
	first, err := s.enter(teller, access.Tokens{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err = s.enter(teller, access.Tokens{}); err != nil {
		t.Fatal(err)
	}
	s.refuse(teller, "concurrent", time.Second)
	s.serve("spiffe://bank.example/apps/other", access.Tokens{})
	first.End(access.Tokens{})
	s.serve(teller, access.Tokens{})
}

// TestMeterFull looks for room before it is known what a request takes, and takes none.
func TestMeterFull(t *testing.T) {
	one := access.Limits{Rate: "1/m"}
	listing := rule("spiffe://bank.example/apps/*")
	listing.Methods = []string{access.MethodModels}
	tests := []struct {
		name  string
		rules []access.Rule
		uses  int    // requests that were let in
		want  string // the limit; "" if there is room
		of    int    // the rule
	}{
		{"rate", []access.Rule{limited(one)}, 1, "rate", 0},
		{"concurrent", []access.Rule{limited(access.Limits{Concurrent: "1"})}, 1, "concurrent", 0},
		{"all rules, of which one has room sooner", []access.Rule{limited(access.Limits{Rate: "1/h"}), limited(one)}, 2, "rate", 1},
		{"tokens", []access.Rule{limited(access.Limits{Tokens: access.TokenLimits{Prompt: access.Windows{Minute: "1"}}})}, 1, "", 0},
		{"another rule without limits", []access.Rule{limited(one), rule("spiffe://bank.example/apps/*")}, 2, "", 0},
		{"another rule that was not used", []access.Rule{limited(one), limited(access.Limits{Rate: "1/h"})}, 1, "", 0},
		{"another rule without limits, of another method", []access.Rule{listing, limited(one)}, 1, "rate", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newSite(t, tt.rules...)
			caller := spiffeid.RequireFromString(teller)
			full := func() error {
				grants, err := s.policy.Naming(caller, "chat")
				if err != nil {
					t.Fatal(err)
				}
				return s.meter.Full(caller, grants)
			}
			if err := full(); err != nil {
				t.Fatalf("Full before anything was used = %v, want room", err)
			}
			for range tt.uses {
				if _, err := s.enter(teller, access.Tokens{Prompt: 1}); err != nil {
					t.Fatal(err)
				}
			}
			over := new(access.LimitError)
			if err := full(); (tt.want != "") != errors.As(err, &over) || over.Limit != tt.want || over.Rule != tt.of {
				t.Errorf("Full = %v by rule %d, want %q by rule %d", err, over.Rule, tt.want, tt.of)
			}
			s.now = s.now.Add(time.Minute)
			if err := full(); (err == nil) == (tt.want == "concurrent") {
				t.Errorf("Full = %v a minute later", err)
			}
		})
	}
}

func TestMeterTokens(t *testing.T) {
	tests := []struct {
		limit  string
		limits access.TokenLimits
		used   access.Tokens
		retry  time.Duration
	}{
		{"tokens.prompt.minute", access.TokenLimits{Prompt: access.Windows{Minute: "60"}}, access.Tokens{Prompt: 70}, 10 * time.Second},
		{"tokens.prompt.day", access.TokenLimits{Prompt: access.Windows{Day: "86400"}}, access.Tokens{Prompt: 86405}, 5 * time.Second},
		{"tokens.completion.minute", access.TokenLimits{Completion: access.Windows{Minute: "120"}}, access.Tokens{Completion: 130}, 5 * time.Second},
		{"tokens.completion.day", access.TokenLimits{Completion: access.Windows{Day: "24"}}, access.Tokens{Completion: 25}, time.Hour},
	}
	for _, tt := range tests {
		t.Run(tt.limit, func(t *testing.T) {
			s := newSite(t, limited(access.Limits{Tokens: tt.limits}))
			s.serve(teller, access.Tokens{})
			s.serve(teller, tt.used)
			s.refuse(teller, tt.limit, tt.retry)
			s.serve(teller, access.Tokens{})
		})
	}
}

// TestMeterSetsAside keeps requests that run at the same time from taking together more than there is.
func TestMeterSetsAside(t *testing.T) {
	s := newSite(t, limited(access.Limits{Tokens: access.TokenLimits{Completion: access.Windows{Day: "1000"}}}))
	var passes []*access.Pass
	for range 3 {
		pass, err := s.enter(teller, access.Tokens{Completion: 300})
		if err != nil {
			t.Fatal(err)
		}
		passes = append(passes, pass)
	}
	if _, err := s.enter(teller, access.Tokens{Completion: 300}); err == nil {
		t.Error("a fourth request was let in, want it refused: 900 of 1000 tokens are set aside")
	}
	for _, p := range passes {
		p.End(access.Tokens{Completion: 10})
	}
	pass, err := s.enter(teller, access.Tokens{Completion: 970})
	if err != nil {
		t.Fatalf("Enter = %v, want it let in: 30 of 1000 tokens are used", err)
	}
	pass.End(access.Tokens{Completion: 970})
	// More than all there ever is takes all of it, and can be let in once it is all there.
	if _, err := s.enter(teller, access.Tokens{Completion: 5000}); err == nil {
		t.Error("Enter = nil with everything used")
	}
	s.now = s.now.Add(24 * time.Hour)
	if _, err := s.enter(teller, access.Tokens{Completion: 5000}); err != nil {
		t.Errorf("Enter = %v with nothing used", err)
	}
}

// TestMeterTakesTheNextRule lets a caller in by whichever of its rules has room.
func TestMeterTakesTheNextRule(t *testing.T) {
	s := newSite(t, limited(access.Limits{Rate: "1/m"}), limited(access.Limits{Rate: "2/m"}))
	for i, want := range []int{0, 1, 1} {
		pass, err := s.enter(teller, access.Tokens{})
		if err != nil || pass.Rule() != want {
			t.Fatalf("Enter %d = %v, %v, want it let in by rule %d", i, pass, err, want)
		}
		pass.End(access.Tokens{})
	}
	s.refuse(teller, "rate", 30*time.Second) // the one that has room first
	s.rules(limited(access.Limits{Rate: "1/d"}), rule("spiffe://bank.example/apps/*"))
	for range 10 {
		s.serve(teller, access.Tokens{})
	}
}

// TestMeterOutlivesRules keeps what was used over other limits, methods and neighbours of a rule.
func TestMeterOutlivesRules(t *testing.T) {
	day := access.Limits{Tokens: access.TokenLimits{Prompt: access.Windows{Day: "24"}}}
	s := newSite(t, limited(day))
	s.serve(teller, access.Tokens{Prompt: 24 + 24})
	more := limited(access.Limits{Rate: "5/s", Tokens: access.TokenLimits{Prompt: access.Windows{Day: "48"}}})
	more.Methods = []string{"embed", "chat"}
	s.rules(rule("spiffe://bank.example/batch/*"), more)
	s.serve(teller, access.Tokens{Prompt: 24})
	s.refuse(teller, "tokens.prompt.day", 12*time.Hour)
	s.rules(rule("spiffe://bank.example/apps/teller"))
	s.serve(teller, access.Tokens{})
	s.rules(limited(day))
	if _, err := s.enter(teller, access.Tokens{}); err == nil {
		t.Error("Enter = nil after the rule went and came back, want what was used not to be forgotten")
	}
}

// TestMeterSettlesByTheOldRule counts what came back before the rules changed by the old limit, and what comes after by the new.
func TestMeterSettlesByTheOldRule(t *testing.T) {
	minute := func(n string) access.Rule {
		return limited(access.Limits{Tokens: access.TokenLimits{Prompt: access.Windows{Minute: n}}})
	}
	s := newSite(t, minute("60"))
	s.serve(teller, access.Tokens{Prompt: 70})
	s.now = s.now.Add(20 * time.Second)
	s.rules(minute("6"))
	s.refuse(teller, "tokens.prompt.minute", 440*time.Second)
}

// TestMeterKeepsWhoIsActive drops no account of a caller with a request, however many others come.
func TestMeterKeepsWhoIsActive(t *testing.T) {
	s := newSite(t, limited(access.Limits{Concurrent: "1"}))
	if _, err := s.enter(teller, access.Tokens{}); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		s.serve(fmt.Sprintf("%s/%d", teller, i), access.Tokens{})
	}
	s.refuse(teller, "concurrent", time.Second)
}

// TestMeterClockGoesBack takes nothing from anybody for it.
func TestMeterClockGoesBack(t *testing.T) {
	s := newSite(t, limited(access.Limits{Rate: "3/s"}))
	s.serve(teller, access.Tokens{})
	s.now = s.now.Add(-time.Hour)
	s.serve(teller, access.Tokens{})
	s.serve(teller, access.Tokens{})
	s.refuse(teller, "rate", time.Second/3)
}

// TestMeterIsBounded has more callers than it keeps account of, of which all have used something.
func TestMeterIsBounded(t *testing.T) {
	s := newSite(t, limited(access.Limits{Rate: "1/h"}))
	for i := range 70_000 {
		s.serve(fmt.Sprintf("%s/%d", teller, i), access.Tokens{})
	}
	if n := s.meter.Accounts(); n > 1<<16 {
		t.Errorf("the meter has %d accounts, want at most %d", n, 1<<16)
	}
	s.refuse(teller+"/69999", "rate", time.Hour)
	s.now = s.now.Add(2 * time.Hour)
	for i := range 10_000 {
		s.serve(fmt.Sprintf("%s/next/%d", teller, i), access.Tokens{})
	}
	if n := s.meter.Accounts(); n > 11_000 {
		t.Errorf("the meter has %d accounts, want those gone on which nothing is used", n)
	}
}

// TestMeterConcurrently is for the race detector, and counts.
func TestMeterConcurrently(t *testing.T) {
	s := newSite(t, limited(access.Limits{Rate: "100/d", Concurrent: "8"}))
	grants, err := s.policy.Grants(act(teller, "chat", "chat"))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	served := 0
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				if pass, err := s.meter.Enter(spiffeid.RequireFromString(teller), grants, access.Tokens{}); err == nil {
					pass.End(access.Tokens{})
					mu.Lock()
					served++
					mu.Unlock()
				} else if !strings.Contains(err.Error(), "100 requests a day") {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if served != 100 {
		t.Errorf("%d requests were served, want 100", served)
	}
}
