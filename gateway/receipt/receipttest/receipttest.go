// Package receipttest builds gateways that give receipts, for tests.
//
// The one rule: what vouches for a receipt is real: a policy that root keys signed, a release that people approved, and
// the audit log of a gateway that the policy lists. Only the model is a few bytes.
package receipttest

import (
	"crypto/ed25519"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/gateway/audit"
	"github.com/weighbridge/weighbridge/gateway/audit/audittest"
	"github.com/weighbridge/weighbridge/gateway/receipt"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

// Gateway is the identity of the gateway.
const Gateway = "gw"

// Caller is whose calls [Site.Give] gives receipts for.
const Caller = "spiffe://bank.example/apps/demo"

// A Site is a signed world in which channel chat serves a release, and a gateway that the policy lists.
type Site struct {
	*trusttest.World
	Policy  *trust.Policy
	Key     ed25519.PrivateKey // of the gateway
	Log     *audit.Log
	Issuer  *receipt.Issuer
	Release *trust.Release
	Grounds *trust.Grounds

	t testing.TB
}

// New makes a site by the default policy, as edit changes it.
func New(t testing.TB, edit func(*trust.Document)) *Site {
	t.Helper()
	s := &Site{World: trusttest.New(t), t: t}
	_, key, err := ed25519.GenerateKey(nil)
	s.check(err)
	s.Key = key
	s.Policy = s.PolicyWith(edit)
	s.Log = audittest.OpenAs(t, filepath.Join(s.Dir, "audit"), key)
	s.publish()
	s.Issuer, err = receipt.New(receipt.Config{
		Key: key, Origin: audittest.Origin, Log: s.Log, Policy: func() *trust.Policy { return s.Policy },
	})
	s.check(err)
	t.Cleanup(s.Issuer.Close)
	return s
}

func (s *Site) check(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// PolicyWith signs the policy that lists the gateway, as edit changes it.
func (s *Site) PolicyWith(edit func(*trust.Document)) *trust.Policy {
	s.t.Helper()
	text, err := trust.PublicPEM(s.Key.Public())
	s.check(err)
	return s.SignPolicy(func(d *trust.Document) {
		d.Identities[Gateway] = trust.Identity{Keys: []string{text}}
		d.Roles[trust.GatewayRole] = trust.Role{Members: []string{Gateway}}
		if edit != nil {
			edit(d)
		}
	})
}

// publish has channel chat serve a release.
func (s *Site) publish() {
	s.t.Helper()
	model := filepath.Join(s.Dir, "model.gguf")
	s.check(os.WriteFile(model, []byte("weights"), 0o644))
	id := s.World.Release(model, nil)
	s.Approve(id, trusttest.Alice, trust.Approval{})
	s.Approve(id, trusttest.Bob, trust.Approval{Ticket: "OPS-1"})
	s.Publish(id, "chat", 7)
	set, _, err := store.ReadStatements([]string{s.Statements})
	s.check(err)
	ledger := trust.NewLedger(s.Policy)
	ledger.Follow(set)
	now := time.Now()
	c := ledger.Decide(now, trust.Floor{}).Channels["chat"]
	if c.Serve != id {
		s.t.Fatalf("chat serves %q, want %s: %+v", c.Serve, id, c.Missing)
	}
	s.Release, s.Grounds = c.Release, ledger.Grounds("chat", c, now)
}

// Served is what answers on channel chat.
func (s *Site) Served() receipt.Served {
	return receipt.Served{
		Channel: "chat", Release: string(s.Release.ID), Weights: s.Release.Weights.Root, Level: "sealed", Sandbox: "full", Grounds: s.Grounds,
	}
}

// Call makes a call of a caller and returns the id of its receipt; err is how the call ended.
func (s *Site) Call(caller, request, response string, err error) string {
	s.t.Helper()
	draft, drafted := s.Issuer.Draft(caller)
	s.check(drafted)
	_, _ = draft.Request().Write([]byte(request))
	s.check(draft.Begin(s.Served()))
	_, _ = draft.Response().Write([]byte(response))
	draft.End(err)
	return draft.ID()
}

// Give makes a call and returns its receipt.
func (s *Site) Give(request, response string) []byte {
	s.t.Helper()
	document, err := s.Issuer.Fetch(s.t.Context(), Caller, s.Call(Caller, request, response, nil))
	s.check(err)
	return document
}

// SignAsGateway signs a payload as the gateway, and writes nothing.
func (s *Site) SignAsGateway(payload []byte) *statement.Signed {
	s.t.Helper()
	signer, err := statement.NewKeySigner(s.Key)
	s.check(err)
	bundle, err := signer.Sign(payload)
	s.check(err)
	signed, err := statement.Parse(bundle)
	s.check(err)
	return signed
}
