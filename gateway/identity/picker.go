package identity

import (
	"log/slog"
	"sync"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// picker chooses among the SVIDs of a workload; go-spiffe calls it at each update.
type picker struct {
	id     spiffeid.ID
	hint   string
	log    *slog.Logger
	picked func() // is told that there is an SVID

	mu   sync.Mutex
	seen []string
}

func (p *picker) pick(svids []*x509svid.SVID) (picked *x509svid.SVID) {
	var seen []string
	for _, svid := range svids {
		seen = append(seen, svid.ID.String())
		switch {
		case picked != nil:
		case !p.id.IsZero() && svid.ID == p.id, p.id.IsZero() && p.hint != "" && svid.Hint == p.hint:
			picked = svid
		}
	}
	why := "as asked for"
	if picked == nil && p.id.IsZero() && len(svids) > 0 {
		picked, why = svids[0], "the first of those offered"
	}
	p.mu.Lock()
	p.seen = seen
	p.mu.Unlock()
	if picked == nil {
		p.log.Warn("no usable SVID in the last update", "wanted", p.id, "offered", seen)
		return nil
	}
	p.picked()
	p.log.Info("identity updated", "id", picked.ID, "serial", picked.Certificates[0].SerialNumber, "expires", picked.Certificates[0].NotAfter,
		"chosen", why, "offered", len(svids))
	return picked
}

func (p *picker) offered() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen
}
