package catalog_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/gateway/catalog"
	"github.com/weighbridge/weighbridge/gateway/telemetry"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

// scraped makes the site's metrics visible to the returned function, as a Prometheus server would see those of this
// catalog: NAME{labels, sorted} VALUE.
func (s *site) scraped() (metrics func() []string) {
	s.t.Helper()
	tel, err := telemetry.Open(s.t.Context(), telemetry.Config{Log: s.log()})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { tel.Close(context.Background()) })
	s.meter = tel.Meter("weighbridge/catalog")
	ours := regexp.MustCompile(`(?m)^weighbridge_(?:channel|expiry)_.*$`)
	return func() []string {
		w := httptest.NewRecorder()
		tel.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		return ours.FindAllString(w.Body.String(), -1)
	}
}

// checkMetrics wants exactly these.
func checkMetrics(t *testing.T, got []string, want ...string) {
	t.Helper()
	slices.Sort(want)
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("metrics:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// states are the metrics that are always there.
func states(serving, fallback, frozen int) []string {
	var all []string
	for name, value := range map[string]int{"serving": serving, "fallback": fallback, "frozen": frozen} {
		all = append(all, fmt.Sprintf(`weighbridge_channel_%s{channel="chat"} %d`, name, value))
	}
	return all
}

func refusedBy(rules ...string) []string {
	var all []string
	for _, rule := range rules {
		all = append(all, fmt.Sprintf(`weighbridge_channel_refused{channel="chat",rule=%q} 1`, rule))
	}
	return all
}

func endsAt(kind string, at time.Time) string {
	channel := `channel="chat",`
	if kind == "policy" {
		channel = ""
	}
	return fmt.Sprintf(`weighbridge_expiry_time_seconds{%skind=%q} %v`, channel, kind, float64(at.Unix()))
}

// TestMetricsWarnAhead: what ends is told before it does, and that it did afterwards.
func TestMetricsWarnAhead(t *testing.T) {
	s := newWorld(t)
	metrics := s.scraped()
	soon, later := time.Now().Add(24*time.Hour).UTC().Truncate(time.Second), time.Now().Add(48*time.Hour).UTC().Truncate(time.Second)
	s.policy = s.SignPolicy(func(d *trust.Document) {
		d.Identities["evalbot"] = trust.Identity{Keys: []string{s.PublicPEM("evalbot")}}
		d.Roles["evaluator"] = trust.Role{Members: []string{"evalbot"}}
		rules := d.Channels["chat"]
		rules.Require.Evaluation = &trust.Rule{Role: "evaluator", MaxAge: "90d"}
		d.Channels["chat"] = rules
	})
	stage := newStage()
	s.backend = stage.backend
	s.start(gib)
	s.until("nothing decided", func(st catalog.Status) bool { return strings.Contains(st.Error, "publication") })
	policy := endsAt("policy", trusttest.Expires)
	checkMetrics(t, metrics(), slices.Concat(states(0, 0, 0), refusedBy("threshold"), []string{policy})...)

	id := s.Release(s.models+"/a.gguf", nil)
	payload, err := trust.NewEvaluation(id, trust.Evaluation{Result: trust.Passed, FinishedOn: soon.Add(-24 * time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	s.Add(s.Sign("evalbot", payload))
	s.Approve(id, trusttest.Alice, trust.Approval{Expires: later})
	s.Approve(id, trusttest.Bob, trust.Approval{Expires: soon})
	s.PublishAs(trusttest.Shipper, id, trust.Publication{Channel: "chat", Epoch: 1, Expires: later})
	stage.next(t).verdict <- nil
	st := s.untilServes(id)
	if len(st.Ends) != 4 {
		t.Errorf("status = %+v, want four ends", st)
	}
	checkMetrics(t, metrics(), slices.Concat(states(1, 0, 0), []string{
		policy, endsAt("publication", later), endsAt("approval", soon), endsAt("evaluation", soon.Add(89*24*time.Hour)),
	})...)
}

// TestMetricsSayWhy: why a channel does not serve, or not what it should, is in its metrics and in its status.
func TestMetricsSayWhy(t *testing.T) {
	compromised := func(mode string) func(*site, statement.ID) {
		return func(s *site, _ statement.ID) {
			s.policy = s.policyWithout(trusttest.Bob, mode)
			if err := s.cat.Update(s.t.Context(), s.inputs()); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	withdrawn := func(s *site, second statement.ID) { s.Withdraw(trusttest.Bob, second) }
	tests := []struct {
		name    string
		rules   func(*trust.ChannelRules)
		happens func(*site, statement.ID)
		state   []string
		refused []string
		why     string // in the status
	}{
		{"withdrawn", func(*trust.ChannelRules) {}, withdrawn, states(0, 0, 0), refusedBy("threshold", "withdrawn"), "withdrawn"},
		{"withdrawn, and the previous one serves", func(c *trust.ChannelRules) { c.OnWithdrawal = "previous" }, withdrawn,
			states(1, 1, 0), refusedBy("threshold", "withdrawn"), "an older release serves, what is newer no longer counts: 0 of 1 required publications"},
		{"an approver is compromised", func(*trust.ChannelRules) {}, compromised("stop"), states(0, 0, 0), refusedBy("lifecycle", "threshold"),
			"lifecycle: bob is compromised since"},
		{"an approver is compromised, and what serves is frozen", func(*trust.ChannelRules) {}, compromised("freeze"), states(1, 0, 1),
			refusedBy("lifecycle", "threshold"), "lifecycle: bob is compromised since"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newWorld(t)
			metrics := s.scraped()
			stage := newStage()
			s.backend = stage.backend
			s.policy = s.SignPolicy(func(d *trust.Document) {
				d.Roles["revoker"] = trust.Role{Members: []string{trusttest.Bob}}
				rules := d.Channels["chat"]
				rules.Withdraw = &trust.Rule{Role: "revoker"}
				tt.rules(&rules)
				d.Channels["chat"] = rules
			})
			s.start(gib)
			first := s.release("a.gguf", 1, nil)
			stage.next(t).verdict <- nil
			s.untilServes(first)
			second := s.release("b.gguf", 2, nil)
			stage.next(t).verdict <- nil
			s.untilServes(second)
			tt.happens(s, second)
			serves := slices.Contains(tt.state, `weighbridge_channel_serving{channel="chat"} 1`)
			s.until("the reason "+tt.why, func(st catalog.Status) bool {
				return strings.Contains(st.Error, tt.why) && serves == (st.Release != "")
			})
			want := slices.Concat(tt.state, tt.refused, []string{endsAt("policy", trusttest.Expires)})
			checkMetrics(t, metrics(), want...)
		})
	}
}

// A channel that the policy does not know serves nothing for a reason of its own.
func TestMetricsOfAnUnknownChannel(t *testing.T) {
	s := newWorld(t)
	metrics := s.scraped()
	s.policy = s.SignPolicy(func(d *trust.Document) {
		d.Channels = map[string]trust.ChannelRules{"other": d.Channels["chat"]}
	})
	s.start(gib)
	s.until("why", func(st catalog.Status) bool { return strings.Contains(st.Error, "knows no such channel") })
	checkMetrics(t, metrics(), slices.Concat(states(0, 0, 0), refusedBy("scope"), []string{endsAt("policy", trusttest.Expires)})...)
}
