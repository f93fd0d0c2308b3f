package catalog_test

import (
	"time"

	"github.com/weighbridge/weighbridge/gateway/catalog"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// checkGrounds wants the grounds of what answers to be enough: by them alone the policy that decided serves just that.
func (s *site) checkGrounds(serving *catalog.Serving) {
	s.t.Helper()
	g, id := serving.Grounds(), serving.ID()
	if g == nil {
		s.t.Fatalf("release %s serves without grounds", id)
	}
	if g.Policy != s.policy.Digest() {
		return // another decided, which the test has replaced since
	}
	floor := trust.ChannelFloor{Served: []statement.ID{id}, Counted: s.state.Floor().Channels["chat"].Counted}
	for _, one := range g.Statements {
		if one.ID() == g.Publication {
			_, p, err := trust.ParsePublication(one)
			if err != nil {
				s.t.Fatal(err)
			}
			floor.Epoch = p.Epoch - 1
		}
	}
	c := trust.Decide(s.policy, g.Statements, time.Now(), trust.Floor{Channels: map[string]trust.ChannelFloor{"chat": floor}}).Channels["chat"]
	if c.Serve != id || c.By != g.Publication {
		s.t.Errorf("by its grounds chat serves %q by %q, want %s by %s: %+v", c.Serve, c.By, id, g.Publication, c.Reasons)
	}
}
