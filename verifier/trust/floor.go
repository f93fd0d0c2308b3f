package trust

import (
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
	TimeHighWater time.Time               `json:"timeHighWater"` // the latest time at which anything was accepted
	Withdrawn     []Withdrawn             `json:"withdrawn"`
	Channels      map[string]ChannelFloor `json:"channels"`
}

// A Withdrawn release, or weights by root, may never be served again. This version reads no withdrawals; it keeps to
// those that a later version has written.
type Withdrawn struct {
	Release statement.ID `json:"release,omitempty"`
	Weights string       `json:"weights,omitempty"`
}

// A ChannelFloor is what one channel accepted last, and the releases it has served, oldest first.
type ChannelFloor struct {
	Epoch       int64          `json:"epoch"`
	Publication statement.ID   `json:"publication"`
	Served      []statement.ID `json:"served"`
}

// AcceptPolicy returns the floor after accepting a policy at a time.
func (f Floor) AcceptPolicy(p *Policy, now time.Time) Floor {
	f.PolicyVersion, f.PolicyDigest = p.Version(), p.Digest()
	f.TimeHighWater = f.effective(now)
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
	served := slices.Clone(old.Served)
	if !slices.Contains(served, c.Serve) {
		served = append(served, c.Serve)
	}
	if len(served) > maxServed {
		served = served[len(served)-maxServed:]
	}
	f.Channels = maps.Clone(f.Channels)
	if f.Channels == nil {
		f.Channels = map[string]ChannelFloor{}
	}
	f.Channels[channel] = ChannelFloor{c.Epoch, c.Publication, served}
	return f
}

// effective is the time to decide at: a clock that was set back revives nothing.
func (f Floor) effective(now time.Time) time.Time {
	if now.Before(f.TimeHighWater) {
		return f.TimeHighWater
	}
	return now.UTC()
}

func (f Floor) withdrew(r *Release) bool {
	return slices.ContainsFunc(f.Withdrawn, func(w Withdrawn) bool {
		return w.Release == r.ID || w.Weights == r.Weights.Root
	})
}
