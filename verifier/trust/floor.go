package trust

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/weighbridge/weighbridge/verifier/statement"
)

// A Floor is the small durable memory that makes going back impossible. Its zero value remembers nothing: with it,
// every old publication is new. It is a value: nothing here changes one in place.
type Floor struct {
	PolicyVersion int64                   `json:"policyVersion"`
	PolicyDigest  statement.ID            `json:"policyDigest"`
	TimeHighWater time.Time               `json:"timeHighWater"`  // the latest time at which anything was accepted
	Heard         time.Time               `json:"heard,omitzero"` // when a policy, publication or withdrawal was last new; see [Lease]
	Withdrawn     []Withdrawn             `json:"withdrawn"`
	Channels      map[string]ChannelFloor `json:"channels"`
}

// Check returns what is wrong with a floor that was read, nil if nothing is: one that makes no sense protects nothing.
func (f Floor) Check() error {
	var bad problems
	id := func(path string, id statement.ID) {
		if _, err := statement.ParseID(string(id)); err != nil && id != "" {
			bad.add(path, "%v", err)
		}
	}
	if f.PolicyVersion < 0 || f.PolicyVersion > maxNumber {
		bad.add("policyVersion", "is %d", f.PolicyVersion)
	}
	id("policyDigest", f.PolicyDigest)
	checkTime(&bad, "timeHighWater", f.TimeHighWater)
	checkTime(&bad, "heard", f.Heard)
	for i, w := range f.Withdrawn {
		path := fmt.Sprintf("withdrawn[%d]", i)
		if (w.Release == "") == (w.Weights == "") {
			bad.add(path, "names not just one of release and weights")
		}
		id(path+".release", w.Release)
		id(path+".weights", statement.ID(w.Weights))
	}
	for _, name := range slices.Sorted(maps.Keys(f.Channels)) {
		c, path := f.Channels[name], "channels."+name
		if c.Epoch < 0 || c.Epoch > maxNumber {
			bad.add(path+".epoch", "is %d", c.Epoch)
		}
		id(path+".publication", c.Publication)
		for i, served := range c.Served {
			id(fmt.Sprintf("%s.served[%d]", path, i), served)
		}
		for i, a := range c.Counted {
			id(fmt.Sprintf("%s.counted[%d].statement", path, i), a.Statement)
		}
		for i, a := range c.Rests {
			id(fmt.Sprintf("%s.rests[%d].statement", path, i), a.Statement)
			checkTime(&bad, fmt.Sprintf("%s.rests[%d].at", path, i), a.At)
		}
	}
	return bad.err()
}

// A Withdrawn release, or weights or an adapter by root, may never be served again by a channel.
type Withdrawn struct {
	Channel string       `json:"channel,omitempty"` // whose policy let it be withdrawn; "": every channel
	Release statement.ID `json:"release,omitempty"`
	Weights string       `json:"weights,omitempty"`
}

// A ChannelFloor is what one channel accepted last, and the releases it has served, oldest first.
type ChannelFloor struct {
	Epoch       int64          `json:"epoch"`
	Publication statement.ID   `json:"publication"`
	Served      []statement.ID `json:"served"`
	// Counted are the acts that served releases rested on when they were accepted. They still count when their
	// signers have retired since.
	Counted []Act `json:"counted,omitempty"`
	// Rests are those of them that the accepted publication and its release rest on. One of them that is gone, though it
	// would still count, is withheld: nobody can take a quorum away by taking away a file.
	Rests []TimedAct `json:"rests,omitempty"`
}

// An Act is one identity's signature on one statement.
type Act struct {
	Statement statement.ID `json:"statement"`
	Identity  string       `json:"identity"`
}

// A TimedAct is an act and when it was made: what tells, once its identity is compromised, whether it counts still.
type TimedAct struct {
	Act
	At time.Time `json:"at,omitzero"` // the earliest by the word of a trusted authority or log; zero: nobody says
}

// Withdraw returns the floor after a channel's withdrawals were heard of. It reports whether that changed anything.
func (f Floor) Withdraw(c Channel, p *Policy, now time.Time) (Floor, bool) {
	var more []Withdrawn
	for _, w := range c.Withdrawn {
		if !slices.Contains(f.Withdrawn, w) {
			more = append(more, w)
		}
	}
	if more == nil {
		return f, false
	}
	f = f.AcceptPolicy(p, now)
	f.Heard = f.TimeHighWater
	f.Withdrawn = append(slices.Clone(f.Withdrawn), more...)
	return f, true
}

// Withdrew reports whether a release, its weights or one of its adapters was withdrawn from the channel.
func (f Floor) Withdrew(channel string, r *Release) bool { return withdrew(f.Withdrawn, channel, r) }

// Withdrew is [Floor.Withdrew] by the withdrawals that a decision counted, which a floor may not remember yet.
func (c Channel) Withdrew(channel string, r *Release) bool { return withdrew(c.Withdrawn, channel, r) }

func withdrew(all []Withdrawn, channel string, r *Release) bool {
	return slices.ContainsFunc(all, func(w Withdrawn) bool { return w.takes(channel, r) })
}

// Covers reports whether f forbids everything that other does: whether replacing other by f goes back nowhere.
func (f Floor) Covers(other Floor) bool {
	switch {
	case f.PolicyVersion < other.PolicyVersion,
		f.PolicyVersion == other.PolicyVersion && f.PolicyDigest != other.PolicyDigest,
		f.TimeHighWater.Before(other.TimeHighWater):
		return false
	}
	for _, w := range other.Withdrawn {
		if !slices.Contains(f.Withdrawn, w) {
			return false
		}
	}
	for name, theirs := range other.Channels {
		mine := f.Channels[name]
		if mine.Epoch < theirs.Epoch || mine.Epoch == theirs.Epoch && mine.Publication != theirs.Publication {
			return false
		}
	}
	return true
}

// AcceptPolicy returns the floor after accepting a policy at a time. What was decided by an older policy, and is kept only
// now, does not bring that one back.
func (f Floor) AcceptPolicy(p *Policy, now time.Time) Floor {
	f.TimeHighWater = f.effective(now)
	if p.Version() > f.PolicyVersion {
		f.PolicyVersion, f.PolicyDigest = p.Version(), p.Digest()
		f.Heard = f.TimeHighWater
	}
	return f
}

// Accept returns the floor after a channel began to serve what was decided for it. A decision to serve nothing, or to
// serve a publication that is not above the floor, leaves the channel as it is: a floor never goes down.
func (f Floor) Accept(channel string, c Channel, p *Policy, now time.Time) Floor {
	f = f.AcceptPolicy(p, now)
	old := f.Channels[channel]
	if c.Serve == "" || c.Epoch <= old.Epoch {
		return f
	}
	served := slices.DeleteFunc(slices.Clone(old.Served), func(id statement.ID) bool { return id == c.Serve })
	served = append(served, c.Serve) // the newest last, also where it serves again
	counted := slices.Clone(old.Counted)
	for _, a := range c.Counted {
		if !slices.Contains(counted, a.Act) {
			counted = append(counted, a.Act)
		}
	}
	if len(counted) > maxCounted {
		counted = counted[len(counted)-maxCounted:]
	}
	if len(served) > maxServed {
		served = served[len(served)-maxServed:]
	}
	f.Channels = maps.Clone(f.Channels)
	if f.Channels == nil {
		f.Channels = map[string]ChannelFloor{}
	}
	f.Heard = f.TimeHighWater
	f.Channels[channel] = ChannelFloor{c.Epoch, c.Publication, served, counted, slices.Clone(c.Counted)}
	return f
}

// effective is the time to decide at: a clock that was set back revives nothing.
func (f Floor) effective(now time.Time) time.Time {
	if now.Before(f.TimeHighWater) {
		return f.TimeHighWater
	}
	return now.UTC()
}

// takes reports whether a withdrawal is of the release, of its weights or of one of its adapters, on the channel.
func (w Withdrawn) takes(channel string, r *Release) bool {
	if w.Channel != "" && w.Channel != channel {
		return false
	}
	return w.Release == r.ID || w.Weights == r.Weights.Root ||
		slices.ContainsFunc(r.adapters, func(a SignedAdapter) bool { return w.Weights == a.Root })
}
