package catalog

import "github.com/weighbridge/weighbridge/verifier/trust"

// noteGrounds has r remember by what it serves, each time that this is decided anew. What is served on although it is not
// decided for any more (frozen, or until its successor is up) keeps the grounds that it had.
func (ch *channel) noteGrounds(r *running) {
	if t := ch.wanted; t.grounds != nil && t.decision.Serve == r.release {
		r.grounds.Store(t.grounds)
	}
}

// Sandbox returns how much of a sandbox the runtime is in.
func (s *Serving) Sandbox() string { return s.running.sandbox }

// Grounds returns why the channel serves the release that answers. It must not be changed.
func (s *Serving) Grounds() *trust.Grounds { return s.running.grounds.Load() }
