package trust_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// The model is the rules of one channel once more, as plainly as they can be written: no reasons, no indices, no
// statements. TestModel compares it with Decide over random histories.
type model struct {
	now      time.Time
	bob      string // active, retired or compromised
	mode     string // onWithdrawal and onLostQuorum
	releases map[statement.ID]*modelRelease
	pubs     []modelPub
	gone     map[statement.ID]bool // withdrawn

	epoch   int64
	pub     statement.ID
	served  []statement.ID
	counted map[string]bool // "statement identity", accepted
}

type modelRelease struct {
	approvals []modelAct
	tests     []modelAct
}

// A modelAct is an approval, with the time at which it ends, or an evaluation, with the time at which it ended.
type modelAct struct {
	id     statement.ID
	who    string
	at     time.Time
	passed bool
}

type modelPub struct {
	id, release statement.ID
	epoch       int64
	back        bool
	expires     time.Time
}

// counts reports whether what bob signed still does; all others are active for ever.
func (m *model) counts(a modelAct) bool {
	return a.who != "bob" || m.bob == "active" || m.bob == "retired" && m.counted[string(a.id)+" bob"]
}

// approvers are the distinct identities whose approvals of a release count.
func (m *model) approvers(r *modelRelease) (who []string) {
	for _, a := range r.approvals {
		if m.counts(a) && (a.at.IsZero() || m.now.Before(a.at)) && !slices.Contains(who, a.who) {
			who = append(who, a.who)
		}
	}
	return who
}

func (m *model) good(id statement.ID, back bool) bool {
	r := m.releases[id]
	if r == nil || m.gone[id] || len(m.approvers(r)) < 2 {
		return false
	}
	inTime := func(a modelAct) bool {
		return !a.at.After(m.now.Add(5*time.Minute)) && (back || m.now.Before(a.at.Add(90*day)))
	}
	var failed time.Time
	for _, a := range r.tests {
		if !a.passed && inTime(a) && a.at.After(failed) {
			failed = a.at
		}
	}
	return slices.ContainsFunc(r.tests, func(a modelAct) bool { return a.passed && inTime(a) && a.at.After(failed) })
}

// stands reports whether a publication of a release has not expired.
func (m *model) stands(id statement.ID) bool {
	return slices.ContainsFunc(m.pubs, func(p modelPub) bool {
		return p.release == id && (p.expires.IsZero() || m.now.Before(p.expires))
	})
}

// decide returns what serves, what is frozen, and the publication that decides.
func (m *model) decide() (serve, frozen statement.ID, by modelPub) {
	slices.SortFunc(m.pubs, func(a, b modelPub) int { return int(b.epoch - a.epoch) })
	here, expired := false, false
	for _, p := range m.pubs {
		accepted := p.epoch == m.epoch && p.id == m.pub
		twin := slices.ContainsFunc(m.pubs, func(o modelPub) bool { return o.id != p.id && o.epoch == p.epoch })
		late := !p.expires.IsZero() && !m.now.Before(p.expires)
		if accepted {
			here, expired = true, late
		}
		switch {
		case late, p.epoch < m.epoch, p.epoch == m.epoch && !accepted, twin && !accepted, p.epoch > m.epoch+1000,
			p.back && !slices.Contains(m.served, p.release), !m.good(p.release, p.back):
			continue
		}
		return p.release, "", p
	}
	if len(m.served) == 0 {
		return "", "", by
	}
	current := m.served[len(m.served)-1]
	mode := ""
	switch {
	case m.gone[current] && m.mode != "freeze":
		mode = m.mode // onWithdrawal knows no freeze
	case !m.gone[current] && here && !expired:
		mode = m.mode
	}
	switch mode {
	case "freeze":
		return "", current, by
	case "previous":
		for _, id := range slices.Backward(m.served[:len(m.served)-1]) {
			if m.good(id, m.gone[current]) && m.stands(id) {
				return id, "", modelPub{id: m.pub, release: id, epoch: m.epoch}
			}
		}
	}
	return "", "", by
}

// TestModel makes random histories of statements, policies, accepted decisions, withheld and replayed statements, and a
// clock that moves, and holds every decision against the model. The decisions
// are those of a ledger, which TestLedger holds against Decide.
func TestModel(t *testing.T) {
	histories := 60
	if testing.Short() {
		histories = 10
	}
	for n := range histories {
		seed := rand.Uint64()
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			defer func() {
				if t.Failed() {
					t.Logf("seed %d", seed)
				}
			}()
			history(t, rand.New(rand.NewPCG(seed, 1)))
		})
	}
}

func history(t *testing.T, r *rand.Rand) {
	mode := []string{"stop", "previous", "freeze"}[r.IntN(3)]
	s := newScene(t, and(duties, rules(func(c *trust.ChannelRules) {
		c.OnLostQuorum, c.OnWithdrawal = mode, mode
		if mode == "freeze" {
			c.OnWithdrawal = "stop"
		}
	})))
	m := &model{now: s.now, bob: "active", mode: mode, releases: map[statement.ID]*modelRelease{}, gone: map[statement.ID]bool{}, counted: map[string]bool{}}
	var ids []statement.ID
	any := func() statement.ID { return ids[r.IntN(len(ids))] }
	var ledger *trust.Ledger
	var policy statement.ID
	for step := range 100 {
		action := r.IntN(15)
		if len(ids) == 0 {
			action = 0
		}
		switch action {
		case 0:
			if len(ids) < 6 {
				id := s.releaseBy("trainer", func(d *trust.Descriptor) { d.Version = fmt.Sprint(len(ids)) })
				ids = append(ids, id)
				m.releases[id] = &modelRelease{}
			}
		case 1, 2, 3:
			who, a, id := []string{"alice", "bob", "carol"}[r.IntN(3)], trust.Approval{Ticket: fmt.Sprint(step)}, any()
			if r.IntN(4) == 0 {
				a.Expires = s.now.Add(time.Duration(r.IntN(60)) * day)
			}
			m.releases[id].approvals = append(m.releases[id].approvals, modelAct{id: s.approval(id, who, a), who: who, at: a.Expires})
		case 4, 5:
			id, e := any(), trust.Evaluation{Result: trust.Passed, FinishedOn: s.now.Add(time.Duration(r.IntN(20)-18) * day), URL: fmt.Sprint(step)}
			if r.IntN(5) == 0 {
				e.Result = trust.Failed
			}
			m.releases[id].tests = append(m.releases[id].tests, modelAct{s.evaluation(id, "tester", e), "tester", e.FinishedOn, e.Result == trust.Passed})
		case 6, 7, 8:
			p := modelPub{release: any(), epoch: max(1, m.epoch+int64(r.IntN(4))-1), back: r.IntN(3) == 0}
			if r.IntN(20) == 0 {
				p.epoch += 2000
			}
			if r.IntN(4) == 0 {
				p.expires = s.now.Add(time.Duration(r.IntN(60)) * day)
			}
			doc, who := trust.Publication{Channel: "chat", Epoch: p.epoch, Expires: p.expires, Reason: fmt.Sprint(step)}, "shipper"
			if p.back {
				doc.Rollback, who = true, "night"
			}
			p.id = s.publication(p.release, who, doc)
			m.pubs = append(m.pubs, p)
		case 9:
			s.now = s.now.Add(time.Duration(r.IntN(10)*r.IntN(10)) * day)
			m.now = s.now
		case 10:
			if r.IntN(2) == 0 {
				id := any()
				s.withdrawal(id, "warden", trust.OfRelease)
				m.gone[id] = true
			}
		case 11:
			if r.IntN(4) == 0 {
				m.bob = []string{"active", "retired", "compromised"}[r.IntN(3)]
				state := map[string]trust.State{"retired": {Retired: now}, "compromised": {Compromised: now}}[m.bob]
				s.doc.Identities["bob"] = trust.Identity{Keys: []string{s.PublicPEM("bob")}, State: state}
				s.amend()
			}
		default: // a release gets all that it needs, and is published, so that much is served
			id := any()
			for _, who := range [][]string{{"alice", "bob"}, {"alice", "carol"}, {"bob", "carol"}}[r.IntN(3)] {
				m.releases[id].approvals = append(m.releases[id].approvals, modelAct{id: s.approval(id, who, trust.Approval{Ticket: fmt.Sprint(step)}), who: who})
			}
			e := trust.Evaluation{Result: trust.Passed, FinishedOn: s.now, URL: fmt.Sprint(step)}
			m.releases[id].tests = append(m.releases[id].tests, modelAct{s.evaluation(id, "tester", e), "tester", e.FinishedOn, true})
			p := modelPub{release: id, epoch: m.epoch + 1}
			if r.IntN(4) == 0 {
				p.expires = s.now.Add(time.Duration(r.IntN(30)) * day)
			}
			p.id = s.publication(id, "shipper", trust.Publication{Channel: "chat", Epoch: p.epoch, Expires: p.expires, Reason: fmt.Sprint(step)})
			m.pubs = append(m.pubs, p)
		}
		if by := s.policy.Digest(); by != policy {
			ledger, policy = trust.NewLedger(s.policy), by
		}
		ledger.Follow(s.set)
		got := ledger.Decide(s.now, s.floor).Channels["chat"]
		serve, frozen, by := m.decide()
		if got.Serve != serve || got.Frozen != frozen || serve != "" && (got.Epoch != by.epoch || got.Publication != by.id) {
			t.Fatalf("step %d: serves %q (frozen %q) at epoch %d, the model says %q (frozen %q) at %d; reasons:\n%s",
				step, got.Serve, got.Frozen, got.Epoch, serve, frozen, by.epoch, reasons(got))
		}
		if f, changed := s.floor.Withdraw(got, s.policy, s.now); changed {
			s.floor = f
		}
		if got.Serve != "" && r.IntN(4) > 0 {
			s.floor = s.floor.Accept("chat", got, s.policy, s.now)
			m.accept(got)
		}
	}
}

// accept is what a gateway remembers of what it serves.
func (m *model) accept(c trust.Channel) {
	if c.Epoch <= m.epoch {
		return
	}
	m.epoch, m.pub = c.Epoch, c.Publication
	m.served = append(slices.DeleteFunc(m.served, func(id statement.ID) bool { return id == c.Serve }), c.Serve)
	for _, a := range m.releases[c.Serve].approvals {
		if m.counts(a) && (a.at.IsZero() || m.now.Before(a.at)) {
			m.counted[string(a.id)+" "+a.who] = true
		}
	}
}
