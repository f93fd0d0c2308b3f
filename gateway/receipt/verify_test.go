package receipt_test

import (
	"crypto/ed25519"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/gateway/audit/audittest"
	"github.com/weighbridge/weighbridge/gateway/receipt"
	"github.com/weighbridge/weighbridge/gateway/receipt/receipttest"
	"github.com/weighbridge/weighbridge/verifier/digest"
	"github.com/weighbridge/weighbridge/verifier/oms"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

const (
	request  = `{"model":"chat"}`
	response = "data: [DONE]\n\n"
)

// TestVerify breaks one thing of a receipt at a time. Where it says "signed", the gateway itself lies.
func TestVerify(t *testing.T) {
	future, past := time.Date(2090, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	retires := func(d *trust.Document) {
		d.Identities[trusttest.Bob] = trust.Identity{Keys: d.Identities[trusttest.Bob].Keys, State: trust.State{Retired: past}}
	}
	tests := []struct {
		name   string
		change func(*forgery)
		want   string // "" verifies
	}{
		{"as it was given", func(*forgery) {}, ""},
		{"request and response in it", func(f *forgery) { f.d.Request, f.d.Response = []byte(request), []byte(response) }, ""},
		{"request and response beside it", func(f *forgery) { f.in.Request, f.in.Response = []byte(request), []byte(response) }, ""},
		{"both", func(f *forgery) { f.d.Request, f.in.Request = []byte(request), []byte(request) }, ""},
		{"signed anew", func(f *forgery) { f.resign(func(*trust.Receipt) {}) }, ""},

		{"no policy", func(f *forgery) { f.in.Policy = nil }, "no policy"},
		{"another policy by which the same holds", func(f *forgery) { f.in.Policy = f.PolicyWith(func(d *trust.Document) { d.Expires = future }) }, ""},
		{"a policy with another approver", func(f *forgery) {
			f.in.Policy = f.PolicyWith(func(d *trust.Document) { d.Roles["approver"] = trust.Role{Members: []string{"alice", "carol"}} })
		}, "1 of 2 required approvals by role approver"},
		{"a policy without the channel", func(f *forgery) {
			f.in.Policy = f.PolicyWith(func(d *trust.Document) { d.Channels = map[string]trust.ChannelRules{"embed": trusttest.Rules()} })
		}, "knows no channel chat"},
		{"an approver who retired before, by the policy of then", func(f *forgery) {
			f.in.Policy = f.PolicyWith(retires)
			f.resign(func(r *trust.Receipt) { r.Policy = f.in.Policy.Digest() })
		}, ""},
		{"an approver who retired before, by another policy", func(f *forgery) { f.in.Policy = f.PolicyWith(retires) }, "bob is retired since"},
		{"an approver who was compromised before, by the policy of then", func(f *forgery) {
			f.in.Policy = f.PolicyWith(func(d *trust.Document) {
				d.Identities[trusttest.Bob] = trust.Identity{Keys: d.Identities[trusttest.Bob].Keys, State: trust.State{Compromised: past}}
			})
			f.resign(func(r *trust.Receipt) { r.Policy = f.in.Policy.Digest() })
		}, "bob is compromised since"},
		{"a policy that had ended", func(f *forgery) {
			f.in.Policy = f.PolicyWith(func(d *trust.Document) { d.Expires = time.Now().Add(-time.Hour).UTC() })
		}, "policy version 1 expired"},
		{"a policy without the gateway", func(f *forgery) {
			f.in.Policy = f.SignPolicy(nil)
		}, "to no identity"},
		{"a policy without the role", func(f *forgery) {
			f.in.Policy = f.PolicyWith(func(d *trust.Document) { delete(d.Roles, trust.GatewayRole) })
		}, "gw is no gateway"},
		{"a gateway that has retired", func(f *forgery) { f.policy(trust.State{Retired: future}) }, "gw is retired"},
		{"a gateway that was compromised", func(f *forgery) { f.policy(trust.State{Compromised: future}) }, "gw is compromised"},

		{"another gateway's key", func(f *forgery) {
			_, f.key, _ = ed25519.GenerateKey(nil)
			f.log = audittest.OpenAs(f.t, filepath.Join(f.t.TempDir(), "audit"), f.key)
			f.resign(func(*trust.Receipt) {})
		}, "to no identity"},
		{"signed by a key of another role", func(f *forgery) {
			signed, _ := statement.Parse(f.d.Receipt)
			f.d.Receipt = f.Sign(trusttest.Alice, signed.Payload()).Bundle()
		}, "alice is no gateway"},
		{"the bundle of another kind", func(f *forgery) { f.d.Receipt = slices.Clone(f.d.Statements[0]) }, "trainer is no gateway"},
		{"a key id in the bundle", func(f *forgery) {
			f.d.Receipt = jsontext.Value(strings.Replace(string(f.d.Receipt), `"keyid":""`, `"keyid":"x"`, 1))
		}, "more, or less, than the gateway writes"},
		{"a statement of another kind by the gateway", func(f *forgery) {
			payload, _ := trust.NewApproval(f.Release.ID, trust.Approval{})
			f.d.Receipt = f.SignAsGateway(payload).Bundle()
		}, "predicate type"},

		{"another id", func(f *forgery) { f.d.ID = strings.Repeat("0", 32) }, "its id"},
		{"another nonce", func(f *forgery) { f.d.Nonce[0] ^= 1 }, "nonce"},
		{"another request in it", func(f *forgery) { f.d.Request = []byte(request + " ") }, "the request is not the one"},
		{"another request beside it", func(f *forgery) { f.in.Request = []byte(request + " ") }, "the request is not the one"},
		{"an empty request", func(f *forgery) { f.in.Request = []byte{} }, "the request is not the one"},
		{"another response", func(f *forgery) { f.d.Response = []byte("data: ") }, "the response is not the one"},
		{"request and response swapped", func(f *forgery) { f.d.Request, f.d.Response = []byte(response), []byte(request) }, "the request is not the one"},
		{"two requests", func(f *forgery) { f.d.Request, f.in.Request = []byte(request), []byte("other") }, "not the one that is given"},

		{"the record of another receipt", func(f *forgery) { f.d.Log = f.other().Log }, "not that of this receipt"},
		{"the proof of another record", func(f *forgery) { f.d.Log.Proof = f.other().Log.Proof }, "it proves record"},
		{"a proof that was cut", func(f *forgery) {
			f.resign(func(*trust.Receipt) {}) // so that the log has more than one
			f.d.Log.Proof.Hashes = f.d.Log.Proof.Hashes[:len(f.d.Log.Proof.Hashes)-1]
		}, "is not this one"},
		{"a proof for another size", func(f *forgery) { f.d.Log.Proof.Size++ }, "its checkpoint has"},
		{"a checkpoint of another log", func(f *forgery) {
			f.d.Log.Proof.Checkpoint = string(audittest.OpenAt(f.t, filepath.Join(f.t.TempDir(), "audit")).Checkpoint())
		}, "not signed by this key"},
		{"a checkpoint of another tree", func(f *forgery) { f.d.Log.Proof.Checkpoint = f.other().Log.Proof.Checkpoint }, "its checkpoint has"},
		{"a checkpoint that another has signed as well", func(f *forgery) {
			checkpoint := f.d.Log.Proof.Checkpoint
			_, line, _ := strings.Cut(checkpoint, "\n\n")
			f.d.Log.Proof.Checkpoint += strings.Replace(line, "weighbridge/test", "weighbridge/witness", 1)
		}, "by the gateway alone"},
		{"another origin, signed", func(f *forgery) { f.resign(func(r *trust.Receipt) { r.Log.Origin = "weighbridge/other" }) }, "not signed by this key as weighbridge/other"},
		{"another place in the log, signed", func(f *forgery) {
			signed, _ := statement.Parse(f.d.Receipt)
			_, r, _ := trust.ParseReceipt(signed)
			r.Log.Index += 5
			f.sign(r)
		}, "the gateway signed record"},
		{"what was not logged, signed", func(f *forgery) {
			signed, _ := statement.Parse(f.d.Receipt)
			_, r, _ := trust.ParseReceipt(signed)
			r.Caller = "spiffe://bank.example/apps/other"
			f.sign(r)
		}, "not that of this receipt"},

		{"a statement less", func(f *forgery) { f.d.Statements = f.d.Statements[1:] }, "its statements are not those"},
		{"statements in another order", func(f *forgery) { slices.Reverse(f.d.Statements) }, "its statements are not those"},
		{"an approval less, signed", func(f *forgery) { f.restate(without(f.of(trust.ApprovalType)[0])) }, "1 of 2 required approvals by role approver"},
		{"no publication, signed", func(f *forgery) { f.restate(without(f.of(trust.PublicationType)[0])) }, "lacks the release that answered, or its publication"},
		{"no release, signed", func(f *forgery) { f.restate(without(f.of(trust.ReleaseType)[0])) }, "lacks the release that answered, or its publication"},
		{"a third approval, signed", func(f *forgery) { f.restate(with(f.approval(f.Release.ID, trusttest.Carol))) }, ""},
		{"a stranger's approval, signed", func(f *forgery) { f.restate(with(f.approval(f.Release.ID, "stranger"))) }, "does not verify"},
		{"an approval twice, signed", func(f *forgery) {
			f.restate(func(all []jsontext.Value) []jsontext.Value { return append(all, all[f.of(trust.ApprovalType)[0]]) })
		}, "is in it twice"},
		{"approvals of another release, signed", func(f *forgery) {
			f.restate(without(f.of(trust.ApprovalType)[0]))
			f.restate(with(f.approval(sum(nil), trusttest.Alice)))
		}, "not about this release"},
		{"the withdrawal of another, signed", func(f *forgery) {
			payload, _ := trust.NewWithdrawal(sum(nil), trust.Withdrawal{Of: trust.OfRelease, Reason: "x"})
			f.restate(with(f.Sign(trusttest.Alice, payload)))
		}, "is not needed"},
		{"another release, too, signed", func(f *forgery) {
			d := f.Release.Descriptor
			d.Version = "2"
			payload, _ := trust.NewRelease(d)
			f.restate(with(f.Sign(trusttest.Trainer, payload)))
		}, "is not needed"},
		{"the weights once more, signed", func(f *forgery) {
			f.restate(with(f.Sign("another", f.Release.WeightsStatement().Payload())))
		}, "does not verify"},
		{"other weights, signed", func(f *forgery) {
			payload, _ := oms.NewPayload("other", []oms.Resource{{Name: "x", Algorithm: "sha256", Digest: sum(nil).Hex()}}, oms.Serialization{Method: oms.MethodFiles, HashType: digest.SHA256})
			f.restate(with(f.Sign(trusttest.Trainer, payload)))
		}, "is not needed"},
		{"an approval that can't be read, signed", func(f *forgery) {
			payload, _ := statement.New(trust.ApprovalType, "release", f.Release.ID.Hex(), map[string]string{"note": "x"})
			f.restate(with(f.Sign(trusttest.Carol, payload)))
		}, "does not verify"},
		{"another publication, signed", func(f *forgery) {
			payload, _ := trust.NewPublication(f.Release.ID, trust.Publication{Channel: "chat", Epoch: 8})
			f.restate(with(f.Sign(trusttest.Shipper, payload)))
		}, "is not needed"},
		{"a publication by nobody who may, signed", func(f *forgery) {
			payload, _ := trust.NewPublication(f.Release.ID, trust.Publication{Channel: "chat", Epoch: 8})
			s := f.Sign(trusttest.Carol, payload)
			f.d.Statements = append(without(f.of(trust.PublicationType)[0])(slices.Clone(f.d.Statements)), s.Bundle())
			f.resign(func(r *trust.Receipt) { r.Publication = s.ID() })
		}, "carol is no publisher"},
		{"an altered approval, signed", func(f *forgery) {
			f.restate(func(all []jsontext.Value) []jsontext.Value {
				a, b := f.of(trust.ApprovalType)[0], f.of(trust.ApprovalType)[1]
				first, _ := statement.Parse(all[a])
				second, _ := statement.Parse(all[b])
				all[a] = jsontext.Value(strings.Replace(string(all[a]), base64Of(first.Signature()), base64Of(second.Signature()), 1))
				return all
			})
		}, "does not verify"},
		{"what is no statement, signed", func(f *forgery) {
			f.restate(func(all []jsontext.Value) []jsontext.Value { return append(all, jsontext.Value(`{}`)) })
		}, "malformed statement"},

		{"another channel, signed", func(f *forgery) { f.resign(func(r *trust.Receipt) { r.Channel = "embed" }) }, "knows no channel embed"},
		{"another release, signed", func(f *forgery) { f.resign(func(r *trust.Receipt) { r.Release = sum(nil) }) }, "lacks the release"},
		{"the root of other weights, signed", func(f *forgery) { f.resign(func(r *trust.Receipt) { r.Weights = string(sum(nil)) }) }, "it names the weights"},
		{"a weaker level than the channel wants, signed", func(f *forgery) { f.resign(func(r *trust.Receipt) { r.Level = "measured" }) }, "chat asks for sealed"},
		{"a weaker sandbox than the channel wants, signed", func(f *forgery) {
			f.in.Policy = f.PolicyWith(func(d *trust.Document) {
				rules := d.Channels["chat"]
				rules.MinimumSandbox = "full"
				d.Channels["chat"] = rules
			})
			f.resign(func(r *trust.Receipt) { r.Sandbox = "partial" })
		}, "chat asks for full"},
		{"the publication of something else, signed", func(f *forgery) { f.resign(func(r *trust.Receipt) { r.Publication = sum(nil) }) }, "lacks the release that answered, or its publication"},
		{"the release for the publication, signed", func(f *forgery) { f.resign(func(r *trust.Receipt) { r.Publication = r.Release }) }, "publication:"},
		{"when the policy had ended, signed", func(f *forgery) { f.resign(func(r *trust.Receipt) { r.Time = trusttest.Expires }) }, "policy version 1 expired"},
		{"another policy, signed", func(f *forgery) { f.resign(func(r *trust.Receipt) { r.Policy = sum(nil) }) }, ""},
		{"a fallback that needs none, signed", func(f *forgery) { f.resign(func(r *trust.Receipt) { r.Fallback = true }) }, ""},
	}
	site := receipttest.New(t, nil)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := &forgery{Site: site, t: t, d: parse(t, site.Give(request, response)), in: receipt.Inputs{Policy: site.Policy}, log: site.Log, key: site.Key}
			tt.change(f)
			document, err := f.d.Encode()
			if err != nil {
				t.Fatal(err)
			}
			report, err := receipt.Verify(document, f.in)
			if tt.want == "" {
				checkReport(t, f, report, err)
			} else if !errors.Is(err, receipt.ErrRefused) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Verify = %v, want it refused for %q", err, tt.want)
			}
		})
	}
}

func checkReport(t *testing.T, f *forgery, r receipt.Report, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("Verify = %v, want nil", err)
	}
	requested, responded := f.d.Request != nil || f.in.Request != nil, f.d.Response != nil || f.in.Response != nil
	switch {
	case r.Gateway != receipttest.Gateway || r.Caller != receipttest.Caller || r.Release != f.Release.ID || r.Epoch != 7:
		t.Errorf("Verify = %+v", r)
	case r.RequestChecked != requested || r.ResponseChecked != responded:
		t.Errorf("checked request %v and response %v, want %v and %v", r.RequestChecked, r.ResponseChecked, requested, responded)
	case len(r.Signers.Approvers) < 2 || !slices.Equal(r.Signers.Publishers, []string{trusttest.Shipper}):
		t.Errorf("signers = %+v", r.Signers)
	}
}

// TestVerifyFallback: what a channel falls back on may rest on an evaluation of any age, if the policy has it fall back.
func TestVerifyFallback(t *testing.T) {
	site := receipttest.New(t, nil)
	payload, err := trust.NewEvaluation(site.Release.ID, trust.Evaluation{Result: trust.Passed, FinishedOn: time.Now().AddDate(0, 0, -100)})
	if err != nil {
		t.Fatal(err)
	}
	evaluation := site.Sign("evalbot", payload)
	for _, tt := range []struct {
		name         string
		onWithdrawal string
		fallback     bool
		want         string
	}{
		{"it fell back", "previous", true, ""},
		{"it did not", "previous", false, "more than 90d ago"},
		{"it may not", "stop", true, "more than 90d ago"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := &forgery{Site: site, t: t, d: parse(t, site.Give(request, response)), log: site.Log, key: site.Key}
			f.in.Policy = site.PolicyWith(func(d *trust.Document) {
				d.Identities["evalbot"] = trust.Identity{Keys: []string{site.PublicPEM("evalbot")}}
				d.Roles["evaluator"] = trust.Role{Members: []string{"evalbot"}}
				rules := d.Channels["chat"]
				rules.OnWithdrawal, rules.Require.Evaluation = tt.onWithdrawal, &trust.Rule{Role: "evaluator", MaxAge: "90d"}
				d.Channels["chat"] = rules
			})
			f.d.Statements = with(evaluation)(slices.Clone(f.d.Statements))
			f.resign(func(r *trust.Receipt) { r.Fallback = tt.fallback })
			document, err := f.d.Encode()
			if err != nil {
				t.Fatal(err)
			}
			report, err := receipt.Verify(document, f.in)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) || report.Fallback != (tt.fallback && err == nil) {
				t.Errorf("Verify = %+v, %v, want %q", report, err, tt.want)
			}
		})
	}
}

func parse(t *testing.T, document []byte) *receipt.Document {
	t.Helper()
	d, err := receipt.Parse(document)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
