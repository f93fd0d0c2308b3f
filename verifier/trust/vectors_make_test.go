package trust_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/verifier/digest"
	"github.com/weighbridge/weighbridge/verifier/oms"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// vectorMaker makes vectors: a valid statement of each kind, and copies of it with one thing broken.
type vectorMaker struct {
	t     *testing.T
	index []vector
	files map[string][]byte
}

func (m *vectorMaker) sign(n string, payload []byte) []byte {
	m.t.Helper()
	signer, err := statement.NewKeySigner(testKey(n))
	if err != nil {
		m.t.Fatal(err)
	}
	// The payload may be one that Sign refuses: sign a harmless one, and then put this one and its signature there.
	harmless, err := statement.New("urn:example", "", strings.Repeat("0", 64), struct{}{})
	if err != nil {
		m.t.Fatal(err)
	}
	line, err := signer.Sign(harmless)
	if err != nil {
		m.t.Fatal(err)
	}
	pae := fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(statement.PayloadType), statement.PayloadType, len(payload), payload)
	line = swap(m.t, line, quote(m.t, harmless), quote(m.t, payload))
	old := ed25519.Sign(testKey(n), fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(statement.PayloadType), statement.PayloadType, len(harmless), harmless))
	return swap(m.t, line, quote(m.t, old), quote(m.t, ed25519.Sign(testKey(n), pae)))
}

func quote(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// swap replaces the one place where from stands.
func swap(t *testing.T, data []byte, from, to string) []byte {
	t.Helper()
	if n := strings.Count(string(data), from); n != 1 {
		t.Fatalf("%q stands %d times in %s, want once", from, n, data)
	}
	return []byte(strings.Replace(string(data), from, to, 1))
}

func (m *vectorMaker) put(v vector, data []byte) {
	m.t.Helper()
	if v.Expect != "envelope" {
		v.ID = idOf([]byte(payloadsOf(m.t, data)[0]))
	}
	if v.Keys == nil {
		v.Keys = []string{"test-key-1"}
	}
	if m.files[v.File] != nil {
		m.t.Fatalf("%s is made twice", v.File)
	}
	m.index, m.files[v.File] = append(m.index, v), data
}

// valid keeps a payload as NAME.json and returns it.
func (m *vectorMaker) valid(kind, name, why string) func(payload []byte, err error) []byte {
	return func(payload []byte, err error) []byte {
		m.t.Helper()
		if err != nil {
			m.t.Fatal(err)
		}
		m.put(vector{File: name + ".json", Kind: kind, Expect: "valid", Why: why}, m.sign("1", payload))
		return payload
	}
}

// broken is one change of a valid payload: the text from, which stands in it once, becomes the text to.
// Where nothing else is said the result is canonical, so that nothing but the one thing can be what is refused.
type broken struct{ name, expect, path, from, to, why string }

func (m *vectorMaker) broken(kind string, payload []byte, rows []broken) {
	m.t.Helper()
	for _, b := range rows {
		changed := swap(m.t, payload, b.from, b.to)
		if kind == "policy" && b.name != "subject" { // whose subject is the predicate
			changed = resubject(m.t, changed)
		}
		m.put(vector{File: kind + "-" + b.name + ".json", Kind: kind, Expect: b.expect, Path: b.path, Why: b.why}, m.sign("1", changed))
	}
}

// resubject gives a policy's payload the SHA-256 of its predicate for its subject.
func resubject(t *testing.T, payload []byte) []byte {
	t.Helper()
	var w struct {
		Predicate jsontext.Value `json:"predicate"`
		Subject   []struct {
			Digest map[string]string `json:"digest"`
		} `json:"subject"`
	}
	if err := json.Unmarshal(payload, &w); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(w.Predicate)
	return swap(t, payload, w.Subject[0].Digest["sha256"], hex.EncodeToString(sum[:]))
}

func makeVectors(t *testing.T) ([]vector, map[string][]byte) {
	t.Helper()
	m := &vectorMaker{t: t, files: map[string][]byte{}}
	weights := m.weights()
	release := m.release(weights)
	m.adapters(weights)
	m.approval(release)
	m.publication(release)
	m.evaluation(release)
	m.withdrawal(release, weights)
	m.receipt(release)
	m.policy()
	m.accounts()
	m.envelope(release)
	return m.index, m.files
}

func idOf(payload []byte) statement.ID {
	sum := sha256.Sum256(payload)
	return statement.ID("sha256:" + hex.EncodeToString(sum[:]))
}

// weights makes the manifests and returns the bundle of one.
func (m *vectorMaker) weights() []byte {
	sum := func(text string) string { return idOf([]byte(text)).Hex() }
	files := []oms.Resource{
		{Name: "config.json", Algorithm: "sha256", Digest: sum("{}")},
		{Name: "model.gguf", Algorithm: "sha256", Digest: sum("weights")},
	}
	payload := m.valid("weights", "weights-files", "two files, whole, and one left out")(
		oms.NewPayload("tiny", files, oms.Serialization{Method: oms.MethodFiles, HashType: digest.SHA256, IgnorePaths: []string{"README.md"}}))
	shards := []oms.Resource{
		{Name: "model.gguf:0:4", Algorithm: "sha256", Digest: sum("weig")},
		{Name: "model.gguf:4:7", Algorithm: "sha256", Digest: sum("hts")},
	}
	sharded := m.valid("weights", "weights-shards", "one file in two shards")(
		oms.NewPayload("tiny", shards, oms.Serialization{Method: oms.MethodShards, HashType: digest.SHA256, ShardSize: 4}))
	m.broken("weights", payload, []broken{
		{"not-canonical", "tolerated", "", `"_type":`, ` "_type": `, "a manifest's payload need not be canonical"},
		{"resource-annotations", "tolerated", "", `"name":"model.gguf"`, `"name":"model.gguf","annotations":{}`, "more in a resource is passed over, as OMS wants"},
		{"unknown-field", "manifest", "", `"serialization":`, `"more":1,"serialization":`, "an unknown member of the predicate"},
		{"predicate-type", "manifest", "", `signature/v1.0`, `signature/v0.1`, "the layout before OMS 1.0"},
		{"subject", "manifest", "", payloadRoot(payload), strings.Repeat("0", 64), "the subject is not the root"},
		{"no-subject-name", "manifest", "", `"name":"tiny"`, `"name":""`, "the subject has no name"},
		{"dot-dot", "manifest", "", `"name":"model.gguf"`, `"name":"../model.gguf"`, "a name leads out of the model"},
		{"listed-twice", "manifest", "", `"name":"model.gguf"`, `"name":"config.json"`, "a file is listed twice"},
		{"ignored-and-listed", "manifest", "", `"README.md"`, `"model.gguf"`, "a file is listed and ignored"},
		{"no-allow-symlinks", "manifest", "", `"allow_symlinks":false,`, ``, "allow_symlinks is missing"},
		{"algorithm", "manifest", "", `"hash_type":"sha256"`, `"hash_type":"sha512"`, "an unknown hash"},
	})
	m.put(vector{File: "weights-shard-gap.json", Kind: "weights", Expect: "manifest", Why: "the shards leave a gap"},
		m.sign("1", swap(m.t, sharded, "model.gguf:4:7", "model.gguf:5:7")))
	return m.sign("1", payload)
}

// payloadRoot returns the hex digest of a payload's subject.
func payloadRoot(payload []byte) string {
	_, rest, _ := strings.Cut(string(payload), `"subject":[{"digest":{"sha256":"`)
	return rest[:64]
}

func (m *vectorMaker) approval(release []byte) {
	about, until := idOf(release), time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	m.valid("approval", "approval", "of a release everywhere and for ever")(trust.NewApproval(about, trust.Approval{}))
	payload := m.valid("approval", "approval-full", "every field")(
		trust.NewApproval(about, trust.Approval{Channels: []string{"chat", "embed"}, Expires: until, Ticket: "OPS-12"}))
	m.broken("approval", payload, []broken{
		{"offset", "field", "expires", `"2027-01-01T00:00:00Z"`, `"2027-01-01T01:00:00+01:00"`, "a time that is not in UTC"},
		{"no-subject-name", "tolerated", "", `,"name":"release"`, ``, "the subject's name is informational"},
		{"predicate-type", "predicate-type", "", `weighbridge:approval:v1`, `weighbridge:approval:v2`, "another predicate type"},
		{"not-canonical", "canonical", "", `"channels":["chat","embed"],"expires":"2027-01-01T00:00:00Z"`, `"expires":"2027-01-01T00:00:00Z","channels":["chat","embed"]`, "members out of order"},
		{"escape", "canonical", "", `OPS-12`, `OPS\u002d12`, "a character escaped that need not be"},
		{"unknown-field", "unknown-field", "", `"ticket"`, `"note":"","ticket"`, "an unknown field"},
		{"case", "unknown-field", "", `"channels"`, `"Channels"`, "a field in another case"},
		{"empty-list", "spelling", "", `["chat","embed"]`, `[]`, "a default spelled out"},
		{"null", "spelling", "", `"OPS-12"`, `null`, "a null"},
		{"fraction", "spelling", "", `00:00:00Z`, `00:00:00.0Z`, "a fraction of no seconds"},
		{"wrong-kind", "wrong-kind", "", `"OPS-12"`, `12`, "a number for a text"},
		{"unsorted", "field", "channels", `["chat","embed"]`, `["embed","chat"]`, "a list out of order"},
		{"twice", "field", "channels", `["chat","embed"]`, `["chat","chat"]`, "a channel listed twice"},
	})
}

func (m *vectorMaker) publication(release []byte) {
	about := idOf(release)
	first := m.valid("publication", "publication", "no more than is required")(trust.NewPublication(about, trust.Publication{Channel: "chat", Epoch: 1}))
	m.valid("publication", "publication-full", "every field, and the highest epoch")(trust.NewPublication(about, trust.Publication{
		Channel: "chat", Epoch: 1<<53 - 1, Previous: idOf(first), Expires: time.Date(2027, 1, 1, 0, 0, 0, 500, time.UTC), Reason: "a reason may be given for any"}))
	back := m.valid("publication", "publication-rollback", "a rollback")(trust.NewPublication(about, trust.Publication{
		Channel: "chat", Epoch: 3, Previous: idOf(first), Rollback: true, Reason: "2 is slow"}))
	m.broken("publication", first, []broken{
		{"predicate-type", "predicate-type", "", `weighbridge:publication:v1`, `weighbridge:approval:v1`, "another predicate type"},
		{"not-canonical", "canonical", "", `"epoch":1`, `"epoch":1.0`, "a number in another form"},
		{"unknown-field", "unknown-field", "", `"channel"`, `"canary":5,"channel"`, "an unknown field"},
		{"false", "spelling", "", `"epoch":1`, `"epoch":1,"rollback":false`, "a default spelled out"},
		{"null", "spelling", "", `"epoch":1`, `"epoch":1,"previous":null`, "a null"},
		{"no-epoch", "spelling", "", `,"epoch":1`, ``, "a required field is missing"},
		{"epoch-0", "field", "epoch", `"epoch":1`, `"epoch":0`, "no epoch is 0"},
		{"epoch-2-53", "field", "epoch", `"epoch":1`, `"epoch":9007199254740992`, "an epoch that JSON can't carry exactly everywhere"},
		{"epoch-text", "wrong-kind", "", `"epoch":1`, `"epoch":"1"`, "a text for a number"},
		{"channel", "field", "channel", `"chat"`, `"chat/../x"`, "no name of a channel"},
		{"previous", "field", "previous", `"epoch":1`, `"epoch":1,"previous":"sha256:00"`, "no id"},
	})
	m.put(vector{File: "publication-rollback-no-reason.json", Kind: "publication", Expect: "field", Path: "reason", Why: "a rollback without its reason"},
		m.sign("1", swap(m.t, back, `"reason":"2 is slow",`, ``)))
}

func (m *vectorMaker) evaluation(release []byte) {
	about := idOf(release)
	payload := m.valid("evaluation", "evaluation", "passed")(trust.NewEvaluation(about, trust.Evaluation{
		Result: trust.Passed, PassedTests: []string{"gsm8k", "refusals"}, FinishedOn: time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)}))
	m.valid("evaluation", "evaluation-full", "failed, and every field; what is in configuration is the signer's own")(trust.NewEvaluation(about, trust.Evaluation{
		Result: trust.Failed, URL: "https://ci.example/12", PassedTests: []string{"gsm8k"}, WarnedTests: []string{"latency"}, FailedTests: []string{"refusals"},
		Configuration: []jsontext.Value{jsontext.Value(`{"name":"suite 3","seed":7}`), jsontext.Value(`null`)},
		FinishedOn:    time.Date(2026, 6, 1, 12, 0, 0, 250_000_000, time.UTC)}))
	m.broken("evaluation", payload, []broken{
		{"offset", "field", "finishedOn", `12:00:00Z`, `12:00:00-02:00`, "a time that is not in UTC"},
		{"predicate-type", "predicate-type", "", `test-result/v0.1`, `test-result/v0.2`, "another predicate type"},
		{"not-canonical", "canonical", "", `"result":`, "\n\"result\":", "a line break"},
		{"unknown-field", "unknown-field", "", `"passedTests"`, `"note":"","passedTests"`, "an unknown field"},
		{"empty-list", "spelling", "", `"finishedOn"`, `"failedTests":[],"finishedOn"`, "a default spelled out"},
		{"null", "spelling", "", `"configuration":[]`, `"configuration":null`, "a null for a list"},
		{"no-configuration", "spelling", "", `"configuration":[],`, ``, "a required list is missing"},
		{"result", "field", "result", `"PASSED"`, `"passed"`, "an unknown result"},
		{"finished-on", "field", "finishedOn", `2026-06-01T12:00:00Z`, `0001-01-01T00:00:00Z`, "no time at which it ended"},
		{"unsorted", "field", "passedTests", `["gsm8k","refusals"]`, `["refusals","gsm8k"]`, "a list out of order"},
	})
}

func (m *vectorMaker) withdrawal(release, weights []byte) {
	root := statement.ID("sha256:" + payloadRoot([]byte(payloadsOf(m.t, weights)[0])))
	payload := m.valid("withdrawal", "withdrawal", "of a release")(trust.NewWithdrawal(idOf(release), trust.Withdrawal{Of: trust.OfRelease, Reason: "leaks"}))
	m.valid("withdrawal", "withdrawal-weights", "of weights, by their root")(trust.NewWithdrawal(root, trust.Withdrawal{Of: trust.OfWeights, Reason: "leaks"}))
	m.broken("withdrawal", payload, []broken{
		{"predicate-type", "predicate-type", "", `weighbridge:withdrawal:v1`, `weighbridge:withdrawal:v2`, "another predicate type"},
		{"not-canonical", "canonical", "", `"reason":"leaks"`, `"reason":"leaks" `, "a space"},
		{"unknown-field", "unknown-field", "", `"of"`, `"channel":"chat","of"`, "an unknown field"},
		{"null", "spelling", "", `"leaks"`, `null`, "a null"},
		{"of", "field", "of", `"of":"release"`, `"of":"channel"`, "of something else"},
		{"no-reason", "field", "reason", `"leaks"`, `""`, "no reason"},
	})
}

func (m *vectorMaker) policy() {
	one, two := testPEM(m.t, "1"), testPEM(m.t, "2")
	small := trust.Document{
		Version: 1, Expires: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC),
		Identities: map[string]trust.Identity{"alice": {Keys: []string{one}}},
		Roles:      map[string]trust.Role{"producer": {Members: []string{"alice"}}},
		Channels:   map[string]trust.ChannelRules{"chat": {Require: trust.Require{Release: trust.Rule{Role: "producer"}}, Publish: trust.Rule{Role: "producer"}}},
	}
	payload := m.valid("policy", "policy", "no more than is required")(trust.NewPolicy(small))
	all := trust.Rule{Role: "root", Count: 2}
	full, err := trust.NewPolicy(trust.Document{
		Version: 2, Previous: idOf(payload), Expires: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC),
		Identities: map[string]trust.Identity{
			"alice": {Keys: []string{one}},
			"bob":   {Keys: []string{two}, State: trust.State{Retired: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}},
		},
		Roles: map[string]trust.Role{"root": {Members: []string{"alice", "bob"}, Threshold: 2}, "producer": {Members: []string{"alice"}}},
		Channels: map[string]trust.ChannelRules{"chat": {
			Mode: "warn", OnWithdrawal: "previous", OnLostQuorum: "freeze", MinimumLevel: "measured",
			Require: trust.Require{
				Release: trust.Rule{Role: "producer"}, Weights: &all, Approval: &all,
				Evaluation: &trust.Rule{Role: "root", MaxAge: "90d", Tests: []string{"gsm8k", "refusals"}},
			},
			Publish: trust.Rule{Role: "producer"}, Rollback: &all, Withdraw: &all, Separate: []string{"producer", "root"},
		}},
	})
	if err != nil {
		m.t.Fatal(err)
	}
	m.put(vector{File: "policy-two-signers.jsonl", Kind: "policy", Expect: "valid", Keys: []string{"test-key-1", "test-key-2"}, Why: "every field but rootKeys; two signers, a line each, over identical bytes"},
		slices.Concat(m.sign("1", full), m.sign("2", full)))
	// Each key is an identity's or a root key: the roots are keys 2 and 3, and key 3 signs nothing.
	small.RootKeys = []string{two, testPEM(m.t, "3")}
	roots := m.valid("policy", "policy-root-keys", "root keys of no identity")(trust.NewPolicy(small))
	sorted := slices.Sorted(slices.Values(small.RootKeys))
	a, b := quote(m.t, sorted[0]), quote(m.t, sorted[1])
	m.put(vector{File: "policy-root-keys-unsorted.json", Kind: "policy", Expect: "field", Path: "rootKeys", Why: "root keys out of order"},
		m.sign("1", resubject(m.t, swap(m.t, roots, a+","+b, b+","+a))))
	m.broken("policy", payload, []broken{
		{"predicate-type", "predicate-type", "", `weighbridge:policy:v1`, `weighbridge:policy:v2`, "another predicate type"},
		{"not-canonical", "canonical", "", `"version":1`, `"version":1e0`, "a number in another form"},
		{"unknown-field", "unknown-field", "", `"version":1`, `"serial":0,"version":1`, "an unknown field"},
		{"no-mode", "spelling", "", `"mode":"enforce",`, ``, "a field that is always written is missing"},
		{"threshold-0", "spelling", "", `"members":["alice"]`, `"members":["alice"],"threshold":0`, "a default spelled out"},
		{"null", "spelling", "", `"mode":"enforce",`, `"mode":null,`, "a null"},
		{"empty-state", "spelling", "", `KEY-----\n"]`, `KEY-----\n"],"state":{}`, "an object that says nothing"},
		{"version-0", "field", "version", `"version":1`, `"version":0`, "no version is 0"},
		{"previous-of-first", "field", "previous", `"roles"`, `"previous":"sha256:` + strings.Repeat("0", 64) + `","roles"`, "version 1 has none before it"},
		{"stranger", "field", "roles.producer.members[0]", `"members":["alice"]`, `"members":["mallory"]`, "a member that is no identity"},
		{"key-spelling", "field", "identities.alice.keys[0]", `-----END PUBLIC KEY-----\n`, `-----END PUBLIC KEY-----`, "a key that is not in its one PEM form"},
		{"subject", "subject", "", payloadRoot(payload), strings.Repeat("0", 64), "the subject is not the SHA-256 of the predicate"},
	})
	root := trust.CertificatePEM(m.root("2"))
	small.RootKeys = nil
	small.Identities["dora"] = trust.Identity{Certificate: "CN=Dora,O=Bank", Roots: []string{root}}
	small.TimestampAuthorities = []string{root}
	certified := m.valid("policy", "policy-certificate", "an identity under certificates, and time authorities")(trust.NewPolicy(small))
	name, roots64 := `"certificate":"CN=Dora,O=Bank",`, `"roots":[`+quote(m.t, root)+`]`
	for _, b := range []broken{
		{"no-roots", "field", "identities.dora.roots", name + roots64, strings.TrimSuffix(name, ","), "a name without roots"},
		{"no-name", "field", "identities.dora.certificate", name + roots64, `"keys":[` + quote(m.t, two) + `],` + roots64, "roots without a name"},
		{"root-spelling", "field", "identities.dora.roots[0]", name + `"roots":["`, name + `"roots":["\n`, "a certificate that is not in its one PEM form"},
	} {
		m.put(vector{File: "policy-certificate-" + b.name + ".json", Kind: "policy", Expect: b.expect, Path: b.path, Why: b.why},
			m.sign("1", resubject(m.t, swap(m.t, certified, b.from, b.to))))
	}
}

// root is a certificate of a test key, for itself.
func (m *vectorMaker) root(n string) []byte {
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test root " + n}, NotBefore: now, NotAfter: now.AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(nil, c, c, testKey(n).Public(), testKey(n))
	if err != nil {
		m.t.Fatal(err)
	}
	return der
}

// envelope breaks what is around a statement, and what all statements have in common.
func (m *vectorMaker) envelope(release []byte) {
	payload, err := trust.NewApproval(idOf(release), trust.Approval{})
	if err != nil {
		m.t.Fatal(err)
	}
	line := m.sign("1", payload)
	_, rest, _ := strings.Cut(string(line), `"signatures":[`)
	signature, _, _ := strings.Cut(rest, `]`)
	_, rest, _ = strings.Cut(signature, `"sig":"`)
	raw, _, _ := strings.Cut(rest, `"`)
	bent := "A" + raw[1:]
	if raw[0] == 'A' {
		bent = "B" + raw[1:]
	}
	hints := [2][]string{}
	for i, n := range []string{"1", "2"} {
		if hints[i], err = statement.Hints(testKey(n).Public()); err != nil {
			m.t.Fatal(err)
		}
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now, NotAfter: now.AddDate(1, 0, 0)}
	der, err := x509.CreateCertificate(nil, leaf, leaf, testKey("1").Public(), testKey("1"))
	if err != nil {
		m.t.Fatal(err)
	}
	byKey, byLeaf := `"publicKey":{"hint":"`+hints[0][0]+`"},`, `"certificate":{"rawBytes":`+quote(m.t, der)+`},`
	for _, b := range []broken{
		{"hint-der-base64", "valid", "", hints[0][0], hints[0][1], "the hint as cosign writes it"},
		{"hint-der-hex", "valid", "", hints[0][0], hints[0][2], "the hint in the third spelling"},
		{"no-hint", "valid", "", `"hint":"` + hints[0][0] + `"`, ``, "no hint: each known key is tried"},
		{"no-keyid", "valid", "", `,"keyid":""`, ``, "no keyid, which is informational"},
		{"signature", "signature", "", raw, bent, "another signature"},
		{"other-hint", "signature", "", hints[0][0], hints[1][0], "the hint names another key"},
		{"media-type", "envelope", "", `v0.3+json`, `v0.2+json`, "another version of the bundle"},
		{"payload-type", "envelope", "", `vnd.in-toto+json`, `json`, "another payload type"},
		{"no-signature", "envelope", "", signature, ``, "no signature"},
		{"two-signatures", "envelope", "", signature, signature + "," + signature, "two signatures"},
		{"empty-signature", "envelope", "", raw, ``, "an empty signature"},
		{"certificate", "signature", "", byKey, byLeaf, "under a certificate, so not by the bare key"},
		{"no-material", "envelope", "", byKey, ``, "no signer named"},
		{"two-materials", "envelope", "", byKey, byKey + byLeaf, "two signers named"},
		{"unknown-field", "envelope", "", `"mediaType"`, `"note":"","mediaType"`, "an unknown member of the bundle"},
		{"twice", "envelope", "", `"mediaType"`, `"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","mediaType"`, "a member of the bundle twice"},
	} {
		m.put(vector{File: "envelope-" + b.name + ".json", Kind: "approval", Expect: b.expect, Why: b.why}, swap(m.t, line, b.from, b.to))
	}
	subject := `{"digest":{"sha256":"` + idOf(release).Hex() + `"},"name":"release"}`
	for _, b := range []broken{
		{"type", "envelope", "", `Statement/v1`, `Statement/v0.1`, "another version of the in-toto statement"},
		{"two-subjects", "envelope", "", subject, subject + "," + subject, "two subjects"},
		{"two-digests", "envelope", "", `"sha256":`, `"sha1":"00","sha256":`, "two digests"},
		{"upper-case", "envelope", "", idOf(release).Hex(), strings.ToUpper(idOf(release).Hex()), "a digest in upper case"},
		{"unknown-field", "envelope", "", `"_type":`, `"_note":"","_type":`, "an unknown member of the statement"},
		{"twice", "envelope", "", `"predicate":{}`, `"predicate":{},"predicate":{}`, "a member of the statement twice"},
		{"predicate", "envelope", "", `"predicate":{}`, `"predicate":null`, "no predicate"},
		{"no-type", "envelope", "", `"_type":"https://in-toto.io/Statement/v1","predicate":{}`, `"predicate":{}`, "_type is missing"},
	} {
		m.put(vector{File: "statement-" + b.name + ".json", Kind: "approval", Expect: b.expect, Why: b.why}, m.sign("1", swap(m.t, payload, b.from, b.to)))
	}
}
