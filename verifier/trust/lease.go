package trust

import (
	"fmt"
	"time"
)

// A Lease is how long a site may go on without hearing anything new: no policy, publication or withdrawal that it had not
// accepted before. Who withholds statements from a site can stop it from hearing of what was withdrawn; the lease bounds
// that. It is the site's own, for no statement can say that it is the last. The zero Lease has no end.
type Lease struct {
	MaxStaleness time.Duration
	Deny         bool // when it has run out nothing is served; else it is only told
}

// Apply returns the decision as the lease leaves it. Time is the floor's as in [Decide]: setting the clock back gains
// nothing. What renews a lease is what raises a floor: the next policy, or a publication of the next epoch, even of the
// same release.
func (l Lease) Apply(d Decision, floor Floor, now time.Time) Decision {
	stale := floor.effective(now).Sub(floor.Heard)
	if l.MaxStaleness <= 0 || stale <= l.MaxStaleness {
		return d
	}
	why := fmt.Sprintf("nothing new was heard since %s, which is longer than the site's lease of %s", floor.Heard.UTC().Format(time.RFC3339), l.MaxStaleness)
	out := Decision{Channels: make(map[string]Channel, len(d.Channels))}
	for name, c := range d.Channels {
		switch fresh := c.Serve != "" && c.Epoch > floor.Channels[name].Epoch; {
		case fresh && !l.Deny:
			out.Channels[name] = c // which renews the lease once it serves
			continue
		case fresh:
			// What is not new does not go on until then, or whoever keeps the new release's weights back would keep the
			// old one serving for ever.
			c.Standing, c.Frozen = nil, ""
		case l.Deny:
			c = Channel{Level: c.Level, Withdrawn: c.Withdrawn, Pending: c.Pending, Reasons: c.Reasons, Stale: why}
		default:
			c.Stale = why
		}
		c.Reasons = append(c.Reasons[:len(c.Reasons):len(c.Reasons)], Reason{RuleExpired, floor.PolicyDigest, "", false, why, kindPolicy})
		out.Channels[name] = c.complete()
	}
	return out
}
