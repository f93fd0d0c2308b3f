package catalog_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/gateway/catalog"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

// TestLeaseRunsOut: a site that hears nothing new for longer than its lease stops, or says so, and a new publication ends
// that: the release that was there, at the next epoch.
func TestLeaseRunsOut(t *testing.T) {
	for _, deny := range []bool{true, false} {
		t.Run(map[bool]string{true: "deny", false: "warn"}[deny], func(t *testing.T) {
			s := newWorld(t)
			var later atomic.Int64
			s.now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
			s.lease = trust.Lease{MaxStaleness: time.Hour, Deny: deny}
			a := s.release("a.gguf", 1, nil)
			s.start(gib)
			s.untilServes(a)

			later.Store(int64(2 * time.Hour))
			s.Approve(a, trusttest.Carol, trust.Approval{}) // something to look at, which is nothing new
			st := s.until("the lease has run out", func(st catalog.Status) bool { return strings.Contains(st.Error, "the site's lease") })
			if serves := st.Release != ""; serves == deny {
				t.Errorf("status = %+v, want serving %v", st, !deny)
			}
			s.Publish(a, "chat", 2)
			st = s.until("the next publication", func(st catalog.Status) bool { return st.Epoch == 2 })
			if st.Error != "" || st.Release != string(a) {
				t.Errorf("status = %+v, want release %s and no error", st, a)
			}
		})
	}
}
