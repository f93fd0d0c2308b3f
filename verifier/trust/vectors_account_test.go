package trust_test

import (
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// accounts makes policies with a Sigstore account. Their trusted root vouches for nothing: what is in it is another
// format's matter.
func (m *vectorMaker) accounts() {
	m.t.Helper()
	const root, other = `{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`, `{"mediaType":"another"}`
	id := idOf([]byte(root))
	payload := m.valid("policy", "policy-account", "an identity with a Sigstore account")(trust.NewPolicy(trust.Document{
		Version: 1, Expires: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC),
		Identities: map[string]trust.Identity{"carol": {
			Sigstore: trust.Sigstore{Issuer: "https://accounts.example", Subject: "carol@bank.example", TrustedRoot: id},
		}},
		TrustedRoots: map[statement.ID]jsontext.Value{id: jsontext.Value(root)},
		Roles:        map[string]trust.Role{"producer": {Members: []string{"carol"}}},
		Channels:     map[string]trust.ChannelRules{"chat": {Require: trust.Require{Release: trust.Rule{Role: "producer"}}, Publish: trust.Rule{Role: "producer"}}},
	}))
	subject, roots := `"subject":"carol@bank.example"`, `"trustedRoots":{"`+string(id)+`":`+root+`},`
	for _, b := range []broken{
		{"no-subject", "field", "identities.carol.sigstore.subject", subject, `"subject":""`, "an account of nobody"},
		{"subject-missing", "spelling", "", subject + ",", "", "a field that is always written is missing"},
		{"unknown-root", "field", "identities.carol.sigstore.trustedRoot", roots, "", "a trusted root that is not there"},
		{"root-digest", "field", "trustedRoots." + string(id), root, other, "a trusted root under another's name"},
	} {
		m.put(vector{File: "policy-account-" + b.name + ".json", Kind: "policy", Expect: b.expect, Path: b.path, Why: b.why},
			m.sign("1", resubject(m.t, swap(m.t, payload, b.from, b.to))))
	}
}
