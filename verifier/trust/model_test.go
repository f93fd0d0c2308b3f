package trust_test

import (
	"cmp"
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
	away     map[statement.ID]bool // withheld

	epoch   int64
	pub     statement.ID
	served  []statement.ID
	counted map[statement.ID]bool // accepted
	rests   []modelAct            // what is accepted rests on
}

type modelRelease struct {
	approvals []modelAct
	tests     []modelAct
}

// A modelAct is an approval, with the time at which it ends, or an evaluation, with the time at which it ended.
type modelAct struct {
	id      statement.ID
	who     string
	at      time.Time
	passed  bool
	stamped bool // before bob retired or was compromised
}

type modelPub struct {
	id, release statement.ID
	epoch       int64
	back        bool
	expires     time.Time
}

// counts reports whether what bob signed still does; all others are active for ever.
func (m *model) counts(a modelAct) bool {
	return a.who != "bob" || m.bob == "active" || a.stamped || m.bob == "retired" && m.counted[a.id]
}

// here returns the acts that are not withheld, in the order of their ids.
func (m *model) here(acts []modelAct) []modelAct {
	acts = slices.DeleteFunc(slices.Clone(acts), func(a modelAct) bool { return m.away[a.id] })
	slices.SortFunc(acts, func(a, b modelAct) int { return cmp.Compare(a.id, b.id) })
	return acts
}

// approved are the approvals of a release that count, the first of each identity.
func (m *model) approved(r *modelRelease) (first []modelAct) {
	for _, a := range m.here(r.approvals) {
		again := slices.ContainsFunc(first, func(o modelAct) bool { return o.who == a.who })
		if m.counts(a) && (a.at.IsZero() || m.now.Before(a.at)) && !again {
			first = append(first, a)
		}
	}
	return first
}

// passed is the first evaluation of a release that counts, if any does.
func (m *model) passed(r *modelRelease, back bool) []modelAct {
	inTime := func(a modelAct) bool {
		return !a.at.After(m.now.Add(5*time.Minute)) && (back || m.now.Before(a.at.Add(90*day)))
	}
	var failed time.Time
	for _, a := range m.here(r.tests) {
		if !a.passed && inTime(a) && a.at.After(failed) {
			failed = a.at
		}
	}
	for _, a := range m.here(r.tests) {
		if a.passed && inTime(a) && a.at.After(failed) {
			return []modelAct{a}
		}
	}
	return nil
}

func (m *model) good(id statement.ID, back bool) bool {
	r := m.releases[id]
	return r != nil && !m.gone[id] && !m.away[id] && len(m.approved(r)) >= 2 && len(m.passed(r, back)) == 1
}

// withheld reports whether something is away that the accepted release rests on, and that would count if it were not.
func (m *model) withheld() bool {
	return slices.ContainsFunc(m.rests, func(a modelAct) bool {
		return m.away[a.id] && (a.who != "bob" || m.bob != "compromised" || a.stamped)
	})
}

// stands reports whether a publication of a release has not expired.
func (m *model) stands(id statement.ID) bool {
	return slices.ContainsFunc(m.pubs, func(p modelPub) bool {
		return p.release == id && !m.away[p.id] && (p.expires.IsZero() || m.now.Before(p.expires))
	})
}

// decide returns what serves, what is frozen, and the publication that decides.
func (m *model) decide() (serve, frozen statement.ID, by modelPub) {
	slices.SortFunc(m.pubs, func(a, b modelPub) int { return int(b.epoch - a.epoch) })
	expired := false
	for _, p := range m.pubs {
		accepted := p.epoch == m.epoch && p.id == m.pub
		twin := slices.ContainsFunc(m.pubs, func(o modelPub) bool { return o.id != p.id && o.epoch == p.epoch && !m.away[o.id] })
		late := !p.expires.IsZero() && !m.now.Before(p.expires)
		if accepted {
			expired = late
		}
		switch {
		case m.away[p.id], late, p.epoch < m.epoch, p.epoch == m.epoch && !accepted, twin && !accepted, p.epoch > m.epoch+1000,
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
	case !m.gone[current] && !expired && !m.withheld():
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
	s := newScene(t, and(duties, certified(), rules(func(c *trust.ChannelRules) {
		c.OnLostQuorum, c.OnWithdrawal = mode, mode
		if mode == "freeze" {
			c.OnWithdrawal = "stop"
		}
	})))
	m := &model{
		now: s.now, bob: "active", mode: mode, releases: map[statement.ID]*modelRelease{},
		gone: map[statement.ID]bool{}, away: map[statement.ID]bool{}, counted: map[statement.ID]bool{},
	}
	var ids []statement.ID
	any := func() statement.ID { return ids[r.IntN(len(ids))] }
	approve := func(id statement.ID, who string, a trust.Approval) {
		act := modelAct{id: s.approval(id, who, a), who: who, at: a.Expires, stamped: who == "bob" && r.IntN(2) == 0}
		if act.stamped {
			s.stamp(now.Add(-time.Hour))
		}
		m.releases[id].approvals = append(m.releases[id].approvals, act)
	}
	var withheld []*statement.Signed
	var ledger *trust.Ledger
	var policy statement.ID
	for step := range 100 {
		action := r.IntN(17)
		switch {
		case len(ids) == 0:
			action = 0
		case len(s.set) == 0:
			action = 13
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
			approve(id, who, a)
		case 4, 5:
			id, e := any(), trust.Evaluation{Result: trust.Passed, FinishedOn: s.now.Add(time.Duration(r.IntN(20)-18) * day), URL: fmt.Sprint(step)}
			if r.IntN(5) == 0 {
				e.Result = trust.Failed
			}
			m.releases[id].tests = append(m.releases[id].tests, modelAct{id: s.evaluation(id, "tester", e), who: "tester", at: e.FinishedOn, passed: e.Result == trust.Passed})
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
			if r.IntN(2) == 0 {
				m.bob = []string{"active", "retired", "compromised"}[r.IntN(3)]
				state := map[string]trust.State{"retired": {Retired: now}, "compromised": {Compromised: now}}[m.bob]
				s.doc.Identities["bob"] = trust.Identity{Keys: []string{s.PublicPEM("bob")}, State: state}
				s.amend()
			}
		case 12: // one statement is withheld
			one := s.set[r.IntN(len(s.set))].ID()
			if len(m.rests) > 0 && r.IntN(4) > 0 {
				one = m.rests[r.IntN(len(m.rests))].id
			}
			if i := slices.IndexFunc(m.rests, func(a modelAct) bool { return a.who == "bob" }); i >= 0 && r.IntN(2) == 0 {
				one = m.rests[i].id // he is the one whose absence may have a reason
			}
			for _, signed := range s.set {
				if signed.ID() == one {
					withheld = append(withheld, signed)
				}
			}
			s.set = slices.DeleteFunc(s.set, func(signed *statement.Signed) bool { return signed.ID() == one })
			m.away[one] = true
		case 13: // and all come back
			s.set, withheld = append(s.set, withheld...), nil
			clear(m.away)
		default: // a release gets all that it needs, and is published, so that much is served
			id := any()
			for _, who := range [][]string{{"alice", "bob"}, {"alice", "carol"}, {"bob", "carol"}}[r.IntN(3)] {
				approve(id, who, trust.Approval{Ticket: who + fmt.Sprint(step)}) // a statement each
			}
			e := trust.Evaluation{Result: trust.Passed, FinishedOn: s.now, URL: fmt.Sprint(step)}
			m.releases[id].tests = append(m.releases[id].tests, modelAct{id: s.evaluation(id, "tester", e), who: "tester", at: e.FinishedOn, passed: true})
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
			m.accept(got, by.back)
		}
	}
}

// accept is what a gateway remembers of what it serves.
func (m *model) accept(c trust.Channel, back bool) {
	if c.Epoch <= m.epoch {
		return
	}
	m.epoch, m.pub = c.Epoch, c.Publication
	m.served = append(slices.DeleteFunc(m.served, func(id statement.ID) bool { return id == c.Serve }), c.Serve)
	r := m.releases[c.Serve]
	m.rests = slices.Concat(m.approved(r), m.passed(r, back), []modelAct{{id: c.Serve}, {id: c.Publication}})
	for _, a := range m.rests {
		m.counted[a.id] = true
	}
}
