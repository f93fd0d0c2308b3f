package main

import (
	"crypto/ed25519"
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/verifier/digest"
	"github.com/weighbridge/weighbridge/verifier/oms"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// What the decision is made of: as much as a large organization gathers in years.
const (
	identities = 100 // 5 producers, 5 evaluators, 5 publishers, the rest approvers
	channels   = 10
	releases   = 1000
	approvals  = 7 // of each release
)

// now is the time of all decisions.
var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// A world is a policy, its statements, and the floor of a gateway that has served the newest release of each channel.
type world struct {
	policy  *trust.Policy
	signers []*statement.Signer
	set     []*statement.Signed
	next    *statement.Signed // one more: the approval of a release that is published
	floor   trust.Floor
	err     error
}

func newWorld() (*world, error) {
	w := &world{}
	doc := trust.Document{
		Version: 1, Expires: now.AddDate(1, 0, 0), Identities: map[string]trust.Identity{},
		Roles: map[string]trust.Role{}, Channels: map[string]trust.ChannelRules{},
	}
	members := map[string][]string{}
	for i := range identities {
		key := ed25519.NewKeyFromSeed([]byte(fmt.Sprintf("%-32d", i)))
		signer, err := statement.NewKeySigner(key)
		w.check(err)
		w.signers = append(w.signers, signer)
		text, err := trust.PublicPEM(key.Public())
		w.check(err)
		name := fmt.Sprintf("identity-%d", i)
		doc.Identities[name] = trust.Identity{Keys: []string{text}}
		role := []string{"producer", "evaluator", "publisher", "approver"}[min(i/5, 3)]
		members[role] = append(members[role], name)
	}
	for role, names := range members {
		doc.Roles[role] = trust.Role{Members: names}
	}
	for i := range channels {
		doc.Channels[channel(i)] = trust.ChannelRules{
			Mode: "enforce", OnWithdrawal: "previous", OnLostQuorum: "previous", MinimumLevel: "sealed",
			Require: trust.Require{
				Release: trust.Rule{Role: "producer"}, Evaluation: &trust.Rule{Role: "evaluator", MaxAge: "90d"},
				Approval: &trust.Rule{Role: "approver", Count: 2},
			},
			Publish: trust.Rule{Role: "publisher"}, Separate: []string{"producer", "evaluator", "approver", "publisher"},
		}
	}
	payload, err := trust.NewPolicy(doc)
	w.check(err)
	if w.err != nil {
		return nil, w.err
	}
	w.policy, err = trust.ParsePolicy(w.sign(0, payload, nil), nil)
	w.check(err)
	w.fill()
	return w, w.err
}

func channel(i int) string { return fmt.Sprintf("channel-%d", i) }

func (w *world) check(err error) {
	if w.err == nil {
		w.err = err
	}
}

func (w *world) sign(who int, payload []byte, err error) *statement.Signed {
	w.check(err)
	if w.err != nil {
		return nil
	}
	bundle, err := w.signers[who].Sign(payload)
	w.check(err)
	s, err := statement.Parse(bundle)
	w.check(err)
	return s
}

// fill signs ten statements about each release: it, an evaluation, approvals and a publication.
func (w *world) fill() {
	payload, err := oms.NewPayload("model", []oms.Resource{{Name: "model.gguf", Algorithm: "sha256", Digest: strings.Repeat("ab", 32)}},
		oms.Serialization{Method: oms.MethodFiles, HashType: digest.SHA256})
	weights := w.sign(0, payload, err)
	if w.err != nil {
		return
	}
	manifest, err := oms.ParseManifest(weights)
	w.check(err)
	for i := range releases {
		if w.err != nil {
			return
		}
		payload, err := trust.NewRelease(trust.Descriptor{
			Model: "model", Version: fmt.Sprint(i), Weights: trust.Weights{Root: manifest.Root(), Statement: jsontext.Value(weights.Bundle())},
			Runtime: trust.Runtime{Kind: "llamacpp"}, Behaviour: trust.Behaviour{Output: trust.Output{MaxTokens: 64}},
		})
		release := w.sign(i%5, payload, err)
		if w.err != nil {
			return
		}
		w.set = append(w.set, release)
		payload, err = trust.NewEvaluation(release.ID(), trust.Evaluation{Result: trust.Passed, FinishedOn: now.Add(-time.Hour)})
		w.set = append(w.set, w.sign(5+i%5, payload, err))
		for a := range approvals {
			payload, err = trust.NewApproval(release.ID(), trust.Approval{Ticket: fmt.Sprint(a)})
			w.set = append(w.set, w.sign(15+(i*approvals+a)%(identities-15), payload, err))
		}
		payload, err = trust.NewPublication(release.ID(), trust.Publication{Channel: channel(i % channels), Epoch: int64(i/channels + 1)})
		w.set = append(w.set, w.sign(10+i%5, payload, err))
		payload, err = trust.NewApproval(release.ID(), trust.Approval{Ticket: "one more"})
		w.next = w.sign(15+(i*approvals+approvals)%(identities-15), payload, err)
	}
	if w.err != nil {
		return
	}
	for name, c := range trust.Decide(w.policy, w.set, now, trust.Floor{}).Channels {
		if c.Serve == "" {
			w.check(fmt.Errorf("%s serves nothing: %v", name, c.Missing))
		}
		w.floor = w.floor.Accept(name, c, w.policy, now)
	}
}
