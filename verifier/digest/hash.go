package digest

import (
	"slices"
	"time"

	"github.com/weighbridge/weighbridge/verifier/digest/lanes"
)

// A link is the next bytes of a chain.
type link struct {
	chain *chain
	block *block
	data  []byte
}

// hash is a hasher: it moves chains over the blocks in memory until the check is over.
func (c *check) hash() {
	links := make([]link, 0, 2)
	for {
		links = c.nextLinks(links[:0])
		if len(links) == 0 {
			return
		}
		for _, l := range links {
			if l.chain.hash == nil {
				l.chain.hash = c.alg.New()
			}
		}
		start := time.Now()
		if len(links) == 2 {
			a, b := links[0], links[1]
			lanes.WritePair(a.chain.hash.(*lanes.Hash), a.data, b.chain.hash.(*lanes.Hash), b.data)
		} else {
			links[0].chain.hash.Write(links[0].data)
		}
		end := time.Now()
		for _, l := range links {
			l.chain.advance(len(l.data))
		}
		for _, l := range links {
			c.hashed(l, start, end, end.Sub(start)/time.Duration(len(links)))
		}
	}
}

// nextLinks takes as many chains as a core hashes at once, if so many are ready or will be. It returns none when the
// check is over.
func (c *check) nextLinks(links []link) []link {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.over() {
		if n := min(len(c.ready), c.alg.width()); n > 0 && (n == c.alg.width() || !c.partnerComes(c.ready[0])) {
			for _, ch := range c.ready[:n] {
				b := ch.next()
				b.busy++
				links = append(links, link{ch, b, ch.segment(b)})
			}
			c.ready = slices.Delete(c.ready, 0, n)
			if len(c.ready) > 0 {
				c.hashable.Signal() // one signal may have stood for several chains
			}
			return links
		}
		c.hashable.Wait()
	}
	return nil
}

// partnerComes reports whether a chain that is ready alone should wait for one to be hashed beside it, which costs
// nothing: another stream is being read, and this one is not far behind.
func (c *check) partnerComes(alone *chain) bool {
	s := alone.next().stream
	return s.waiting < behind && c.coming > s.coming
}

// hashed counts a link as hashed.
func (c *check) hashed(l link, start, end time.Time, busy time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := l.chain.reading
	r.result.Hash.add(start, end, busy)
	l.chain.isQueued = false
	if l.block.chains--; l.block.chains == 0 {
		l.block.stream.waiting--
	}
	if r.result.Err == nil && l.chain.at < l.chain.end && l.chain.next() != nil {
		l.chain.isQueued = true
		c.ready = append(c.ready, l.chain)
		c.hashable.Signal()
	}
	c.pass(l.block)
}
