package trust_test

import (
	"strings"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

func TestIdentityChanges(t *testing.T) {
	w := trusttest.New(t)
	before := w.SignPolicy(nil)
	for _, tt := range []struct {
		name string
		edit func(*trust.Document)
		want string // "" for none
	}{
		{"nothing", func(*trust.Document) {}, ""},
		{"what is no identity's", func(d *trust.Document) { d.Expires = d.Expires.Add(-time.Hour) }, ""},
		{"an identity more", func(d *trust.Document) { d.Identities["dave"] = trust.Identity{Keys: []string{w.PublicPEM("dave")}} }, "dave is new: key " + string(w.KeyID("dave"))},
		{"an identity less", func(d *trust.Document) {
			delete(d.Identities, trusttest.Carol)
			d.Roles["approver"] = trust.Role{Members: []string{trusttest.Alice, trusttest.Bob}}
		}, "carol is gone: role approver, key " + string(w.KeyID(trusttest.Carol))},
		{"another key", func(d *trust.Document) {
			d.Identities[trusttest.Carol] = trust.Identity{Keys: []string{w.PublicPEM("laptop")}}
		}, "carol gained key " + string(w.KeyID("laptop")) + "; lost key " + string(w.KeyID(trusttest.Carol))},
		{"a role more", func(d *trust.Document) {
			d.Roles["publisher"] = trust.Role{Members: []string{trusttest.Shipper, trusttest.Carol}}
		}, "carol gained role publisher"},
		{"a role less", func(d *trust.Document) {
			d.Roles["approver"] = trust.Role{Members: []string{trusttest.Alice, trusttest.Bob}}
		}, "carol lost role approver"},
		{"compromised", func(d *trust.Document) {
			d.Identities[trusttest.Carol] = trust.Identity{
				Keys: d.Identities[trusttest.Carol].Keys, State: trust.State{Compromised: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)},
			}
		}, "carol gained compromised since 2026-01-02T03:04:05Z"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, c := range trust.IdentityChanges(before, w.SignPolicy(tt.edit)) {
				got = append(got, c.Identity+" "+c.What)
			}
			if text := strings.Join(got, "; "); text != tt.want {
				t.Errorf("IdentityChanges = %q, want %q", text, tt.want)
			}
		})
	}
	if first := trust.IdentityChanges(nil, before); len(first) != 5 || !strings.HasPrefix(first[0].What, "is new: ") {
		t.Errorf("IdentityChanges of the first policy = %v, want its five identities", first)
	}
}
