package trust_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

// FuzzParsePolicy: a policy that is accepted is written back to the very bytes that were signed, so nothing in it was
// overlooked, and deciding with it does not panic. The input is the predicate, under a subject that fits it.
func FuzzParsePolicy(f *testing.F) {
	w := trusttest.New(f)
	payload, err := trust.NewPolicy(w.Document())
	if err != nil {
		f.Fatal(err)
	}
	seed := []byte(unsigned(f, payload).Predicate())
	f.Add(seed)
	f.Add(bytes.Replace(seed, []byte(`"count":2`), []byte(`"count":0`), 1))
	f.Fuzz(func(t *testing.T, predicate []byte) {
		value := jsontext.Value(predicate)
		if value.Canonicalize() != nil || value.Kind() != '{' {
			return
		}
		sum := sha256.Sum256(value)
		payload, err := statement.New(trust.PolicyType, "policy", hex.EncodeToString(sum[:]), value)
		if err != nil {
			return
		}
		p, err := trust.ParsePolicy(unsigned(t, payload), nil)
		if err != nil {
			return
		}
		again, err := trust.NewPolicy(p.Document())
		if err != nil || string(again) != string(payload) {
			t.Fatalf("ParsePolicy accepted %s; written back as %s, %v", payload, again, err)
		}
		trust.Decide(p, []*statement.Signed{unsigned(t, payload)}, now, trust.Floor{})
	})
}

// FuzzParseRelease: a release that is accepted, and that this version can enforce, is written back to the bytes that
// were signed. The input is the predicate, under the root of the first one.
func FuzzParseRelease(f *testing.F) {
	w := trusttest.New(f)
	model := filepath.Join(w.Dir, "model.gguf")
	if err := os.WriteFile(model, []byte("weights"), 0o644); err != nil {
		f.Fatal(err)
	}
	w.SignModel(model)
	lora := filepath.Join(w.Dir, "lora.gguf")
	if err := os.WriteFile(lora, []byte("adapter"), 0o644); err != nil {
		f.Fatal(err)
	}
	w.SignModel(lora)
	adapted := w.Descriptor(model)
	adapted.Behaviour.Adapters = []trust.Adapter{w.Adapter(lora, adapted.Weights.Root)}
	with, err := trust.NewRelease(adapted)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(unsigned(f, with).Predicate()))
	payload, err := trust.NewRelease(w.Descriptor(model))
	if err != nil {
		f.Fatal(err)
	}
	first := unsigned(f, payload)
	_, root := first.Subject()
	seed := []byte(first.Predicate())
	f.Add(seed)
	f.Add(bytes.Replace(seed, []byte(`"tools":[]`), []byte(`"tools":["x"]`), 1))
	f.Fuzz(func(t *testing.T, predicate []byte) {
		value := jsontext.Value(predicate)
		if value.Canonicalize() != nil || value.Kind() != '{' {
			return
		}
		r, err := trust.ParseRelease(unsignedOf(t, root, value))
		if err != nil {
			return
		}
		if r.Manifest() == nil || r.Manifest().Root() != "sha256:"+root {
			t.Fatalf("accepted without the manifest of its weights: %s", predicate)
		}
		if len(r.Unenforceable()) > 0 {
			return
		}
		again, err := trust.NewRelease(r.Descriptor)
		if err != nil || string(unsigned(t, again).Predicate()) != string(value) {
			t.Fatalf("ParseRelease accepted %s; written back as %s, %v", value, again, err)
		}
	})
}

// FuzzParseAct: an evaluation, approval, publication, withdrawal or receipt that is accepted is written back to the bytes that
// were signed. The input is the predicate.
func FuzzParseAct(f *testing.F) {
	about := statement.ID("sha256:" + strings.Repeat("0", 64))
	acts := []struct {
		kind string
		seed func() ([]byte, error)
		back func(s *statement.Signed) (parsed error, again []byte, err error)
	}{
		{trust.EvaluationType, func() ([]byte, error) {
			return trust.NewEvaluation(about, trust.Evaluation{Result: trust.Warned, FinishedOn: now, PassedTests: []string{"bias"}, FailedTests: []string{"safety"}})
		}, func(s *statement.Signed) (error, []byte, error) {
			id, e, parsed := trust.ParseEvaluation(s)
			again, err := trust.NewEvaluation(id, e)
			return parsed, again, err
		}},
		{trust.ApprovalType, func() ([]byte, error) {
			return trust.NewApproval(about, trust.Approval{Channels: []string{"a", "b"}, Expires: now, Ticket: "OPS-1"})
		}, func(s *statement.Signed) (error, []byte, error) {
			id, a, parsed := trust.ParseApproval(s)
			again, err := trust.NewApproval(id, a)
			return parsed, again, err
		}},
		{trust.PublicationType, func() ([]byte, error) {
			return trust.NewPublication(about, trust.Publication{Channel: "chat", Epoch: 2, Previous: about, Expires: now, Rollback: true, Reason: "slow"})
		}, func(s *statement.Signed) (error, []byte, error) {
			id, p, parsed := trust.ParsePublication(s)
			again, err := trust.NewPublication(id, p)
			return parsed, again, err
		}},
		{trust.WithdrawalType, func() ([]byte, error) {
			return trust.NewWithdrawal(about, trust.Withdrawal{Of: trust.OfWeights, Reason: "leak"})
		}, func(s *statement.Signed) (error, []byte, error) {
			id, w, parsed := trust.ParseWithdrawal(s)
			again, err := trust.NewWithdrawal(id, w)
			return parsed, again, err
		}},
		{trust.ReceiptType, func() ([]byte, error) { return trust.NewReceipt(about, receipt(about)) }, func(s *statement.Signed) (error, []byte, error) {
			id, r, parsed := trust.ParseReceipt(s)
			again, err := trust.NewReceipt(id, r)
			return parsed, again, err
		}},
	}
	for i, act := range acts {
		payload, err := act.seed()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), []byte(unsigned(f, payload).Predicate()))
	}
	f.Fuzz(func(t *testing.T, kind uint8, predicate []byte) {
		value := jsontext.Value(predicate)
		if value.Canonicalize() != nil || value.Kind() != '{' {
			return
		}
		act := acts[int(kind)%len(acts)]
		payload, err := statement.New(act.kind, "release", strings.Repeat("0", 64), value)
		if err != nil {
			return
		}
		parsed, again, err := act.back(unsigned(t, payload))
		if parsed != nil {
			return
		}
		if err != nil || string(unsigned(t, again).Predicate()) != string(value) {
			t.Fatalf("accepted %s; written back as %s, %v", value, again, err)
		}
	})
}

func unsignedOf(t testing.TB, root string, predicate jsontext.Value) *statement.Signed {
	payload, err := statement.New(trust.ReleaseType, "model", root, predicate)
	if err != nil {
		t.Skip(err)
	}
	return unsigned(t, payload)
}

// unsigned is a well-formed statement with a signature that nobody made.
func unsigned(t testing.TB, payload []byte) *statement.Signed {
	t.Helper()
	text, err := json.Marshal(map[string]any{
		"mediaType":            statement.MediaType,
		"verificationMaterial": map[string]any{"publicKey": map[string]any{"hint": ""}},
		"dsseEnvelope": map[string]any{
			"payload":     payload,
			"payloadType": statement.PayloadType,
			"signatures":  []any{map[string]any{"sig": []byte("none")}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := statement.Parse(text)
	if err != nil {
		t.Skip(err)
	}
	return s
}
