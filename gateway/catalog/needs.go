package catalog

import (
	"slices"
	"time"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// A Need is a release that a channel may have to bring up at any moment, and why.
type Need struct {
	Channel string
	Why     Why
	Release *trust.Release
}

// Why says what a release is to a channel.
type Why string

// What a release may be to a channel.
const (
	WhyServing  Why = "serving"  // a restart reads it again
	WhyDecided  Why = "decided"  // it should serve, and does not yet
	WhyPrevious Why = "previous" // it served before, and was not withdrawn: there a rollback leads
	WhyPending  Why = "pending"  // it is published, and serves once somebody signs what it lacks
)

// rereadAfter is how soon statements are looked through again for a release that was not among them: they are all read
// for it.
const rereadAfter = 5 * time.Minute

// Needs lists what the channels of a catalog may need. It must not be used concurrently. Make one with [NewNeeds].
type Needs struct {
	catalog *Catalog
	found   map[statement.ID]*trust.Release // among the statements; nil: it was not there
	readAt  time.Time                       // when they were last looked through

	signed map[statement.ID]*statement.Signed // all releases among them; only during a List that had to look
}

// NewNeeds returns the needs of a catalog.
func NewNeeds(c *Catalog) *Needs { return &Needs{catalog: c} }

// List returns what each channel may need now, by the channel's name. A release is listed once for each channel; one whose
// statement is not there is not, because nothing can bring it up.
func (n *Needs) List() []Need {
	var all []Need
	floor := n.catalog.cfg.State.Floor()
	found := map[statement.ID]*trust.Release{} // what no channel names any more is forgotten
	channels := *n.catalog.channels.Load()
	for _, name := range n.catalog.Channels() {
		if ch := channels[name]; ch != nil {
			all = append(all, n.of(ch, floor, found)...)
		}
	}
	n.found, n.signed = found, nil
	return all
}

// of lists what one channel may need, and notes what it found among the statements.
func (n *Needs) of(ch *channel, floor trust.Floor, found map[statement.ID]*trust.Release) (all []Need) {
	add := func(why Why, r *trust.Release) bool {
		if r == nil || slices.ContainsFunc(all, func(other Need) bool { return other.Release.ID == r.ID }) {
			return false
		}
		all = append(all, Need{ch.name, why, r})
		return true
	}
	if r := ch.current.Load(); r != nil {
		add(WhyServing, r.description)
	}
	t := ch.decided.Load()
	if t == nil {
		return all // nothing is known of it yet
	}
	add(WhyDecided, t.decision.Release)
	for _, id := range slices.Backward(floor.Channels[ch.name].Served) {
		r := n.release(id, found)
		if r != nil && !floor.Withdrew(ch.name, r) && add(WhyPrevious, r) {
			break // older ones can be rolled back to as well; one is kept ready
		}
	}
	for _, p := range t.decision.Pending {
		add(WhyPending, n.release(p.Release, found))
	}
	return all
}

// release returns a release by its id, nil if its statement is not there. Who signed it is not looked at: it is named by
// what was decided, and its id is the digest of what it says.
func (n *Needs) release(id statement.ID, found map[statement.ID]*trust.Release) *trust.Release {
	r, looked := n.found[id]
	if r == nil && (!looked || n.signed != nil || n.catalog.cfg.Now().Sub(n.readAt) >= rereadAfter) {
		if n.signed == nil {
			n.look()
		}
		if s := n.signed[id]; s != nil {
			r, _ = trust.ParseRelease(s) // nil if it is malformed: then nothing can bring it up
		}
	}
	found[id] = r
	return r
}

// look looks through the statements. Of what can't be read the catalog tells.
func (n *Needs) look() {
	n.signed, n.readAt = map[statement.ID]*statement.Signed{}, n.catalog.cfg.Now()
	in := n.catalog.shown.Load()
	if in == nil {
		return
	}
	set, _, _ := new(store.Statements).Read(n.catalog.sources(*in))
	for _, s := range set {
		if s.PredicateType() == trust.ReleaseType {
			n.signed[s.ID()] = s
		}
	}
}
