package receipt_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/gateway/audit"
	"github.com/weighbridge/weighbridge/gateway/receipt"
	"github.com/weighbridge/weighbridge/gateway/receipt/receipttest"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// A forgery is a receipt in which one thing is about to be broken, and what it is held against.
type forgery struct {
	*receipttest.Site
	t   *testing.T
	d   *receipt.Document
	in  receipt.Inputs
	log *audit.Log
	key ed25519.PrivateKey // that signs anew
}

func sum(data []byte) statement.ID {
	digest := sha256.Sum256(data)
	return statement.ID("sha256:" + hex.EncodeToString(digest[:]))
}

func canonical(t *testing.T, v jsontext.Value) jsontext.Value {
	t.Helper()
	v = slices.Clone(v)
	if err := v.Canonicalize(); err != nil {
		t.Fatal(err)
	}
	return v
}

// resign makes the document anew as a gateway would that lies: what it says is logged and signed.
func (f *forgery) resign(edit func(*trust.Receipt)) {
	f.t.Helper()
	signed, err := statement.Parse(f.d.Receipt)
	if err != nil {
		f.t.Fatal(err)
	}
	_, r, err := trust.ParseReceipt(signed)
	if err != nil {
		f.t.Fatal(err)
	}
	r.Statements = f.digest()
	edit(&r)
	recorded, err := r.Recorded()
	if err != nil {
		f.t.Fatal(err)
	}
	record := audit.Record{Time: r.Time, Kind: audit.KindReceipt, Channel: r.Channel, Release: r.Release, Statement: recorded, Caller: r.Caller, Level: r.Level}
	entry, err := record.Entry()
	if err != nil {
		f.t.Fatal(err)
	}
	if r.Log.Index, err = f.log.Append(f.t.Context(), record); err != nil {
		f.t.Fatal(err)
	}
	proof, err := f.log.Prove(r.Log.Index)
	if err != nil {
		f.t.Fatal(err)
	}
	f.d.ID, f.d.Log = r.ID, receipt.Logged{Entry: entry, Proof: proof}
	f.sign(r)
}

// sign replaces what the gateway signed, and nothing else.
func (f *forgery) sign(r trust.Receipt) {
	f.t.Helper()
	payload, err := trust.NewReceipt(r.Release, r)
	if err != nil {
		f.t.Fatal(err)
	}
	signer, err := statement.NewKeySigner(f.key)
	if err != nil {
		f.t.Fatal(err)
	}
	if f.d.Receipt, err = signer.Sign(payload); err != nil {
		f.t.Fatal(err)
	}
}

func (f *forgery) digest() statement.ID {
	var list strings.Builder
	list.WriteByte('[')
	for i, s := range f.d.Statements {
		if i > 0 {
			list.WriteByte(',')
		}
		list.Write(canonical(f.t, s))
	}
	list.WriteByte(']')
	return sum([]byte(list.String()))
}

// restate changes the statements, and the gateway signs that.
func (f *forgery) restate(edit func([]jsontext.Value) []jsontext.Value) {
	f.t.Helper()
	f.d.Statements = edit(slices.Clone(f.d.Statements))
	f.resign(func(*trust.Receipt) {})
}

// of returns the indices of the statements of a type.
func (f *forgery) of(predicateType string) (all []int) {
	f.t.Helper()
	for i, bundle := range f.d.Statements {
		s, err := statement.Parse(bundle)
		if err != nil {
			f.t.Fatal(err)
		}
		if s.PredicateType() == predicateType {
			all = append(all, i)
		}
	}
	return all
}

func without(at int) func([]jsontext.Value) []jsontext.Value {
	return func(all []jsontext.Value) []jsontext.Value { return slices.Delete(all, at, at+1) }
}

func with(s *statement.Signed) func([]jsontext.Value) []jsontext.Value {
	return func(all []jsontext.Value) []jsontext.Value { return append(all, s.Bundle()) }
}

func (f *forgery) approval(about statement.ID, name string) *statement.Signed {
	f.t.Helper()
	payload, err := trust.NewApproval(about, trust.Approval{})
	if err != nil {
		f.t.Fatal(err)
	}
	return f.Sign(name, payload)
}

func (f *forgery) policy(state trust.State) {
	f.in.Policy = f.PolicyWith(func(d *trust.Document) {
		gw := d.Identities[receipttest.Gateway]
		gw.State = state
		d.Identities[receipttest.Gateway] = gw
	})
}

// other is another receipt of the same gateway.
func (f *forgery) other() *receipt.Document { return parse(f.t, f.Give(request, response)) }
