package receipt

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/weighbridge/weighbridge/gateway/audit"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// A Draft becomes the receipt of one call. It belongs to the call's goroutine. A nil Draft is that of a call which asked
// for no receipt: its methods do nothing.
type Draft struct {
	issuer            *Issuer
	nonce             [nonceSize]byte
	request, response hash.Hash
	receipt           trust.Receipt
	grounds           *grounds
	entry             *entry // nil before Begin
}

// Served is what answers a call.
type Served struct {
	Channel, Release, Weights, Level, Sandbox string
	Grounds                                   *trust.Grounds
}

// Draft begins a receipt for a call. Its error is [ErrUnlisted].
func (i *Issuer) Draft(caller string) (*Draft, error) {
	if err := i.check(); err != nil {
		return nil, err
	}
	d := &Draft{issuer: i}
	var id [16]byte
	_, _ = rand.Read(d.nonce[:]) // neither fails
	_, _ = rand.Read(id[:])
	d.receipt.ID, d.receipt.Caller = hex.EncodeToString(id[:]), caller
	d.receipt.Nonce = sumOf(d.nonce[:])
	d.request, d.response = contentHash(d.nonce[:], requestLabel), contentHash(d.nonce[:], responseLabel)
	return d, nil
}

// ID returns the random id by which the caller asks for the receipt, "" of a nil Draft.
func (d *Draft) ID() string {
	if d == nil {
		return ""
	}
	return d.receipt.ID
}

// Request takes the exact bytes of the request.
func (d *Draft) Request() io.Writer { return d.request }

// Response takes the exact bytes of the response.
func (d *Draft) Response() io.Writer { return d.response }

// Begin says what is about to answer. On an error, which may be [ErrFull], the call is not to be answered.
func (d *Draft) Begin(by Served) error {
	if d == nil {
		return nil
	}
	if by.Grounds == nil {
		return errors.New("receipt: what the release rests on is not known")
	}
	var err error
	if d.grounds, err = d.issuer.groundsOf(by.Channel, by.Grounds); err != nil {
		return fmt.Errorf("receipt: %w", err)
	}
	r := &d.receipt
	r.Channel, r.Release, r.Weights, r.Level, r.Sandbox = by.Channel, statement.ID(by.Release), by.Weights, by.Level, by.Sandbox
	r.Publication, r.Policy, r.Fallback, r.Statements = by.Grounds.Publication, by.Grounds.Policy, by.Grounds.Fallback, d.grounds.digest
	r.Time = d.issuer.cfg.Now().UTC().Truncate(time.Millisecond)
	if d.entry, err = d.issuer.store.begin(r.Caller, r.ID); err != nil {
		return err
	}
	return nil
}

// End says how the call ended. With a whole answer the receipt is recorded, in the background: nothing waits for that.
func (d *Draft) End(err error) {
	switch {
	case d == nil || d.entry == nil:
	case err != nil:
		d.issuer.store.end(d.entry, nil, ErrNone)
	default:
		d.issuer.active.Go(func() {
			document, err := d.record()
			if err != nil {
				d.issuer.cfg.Logger.Error("a receipt was not recorded", "id", d.receipt.ID, "caller", d.receipt.Caller, "err", err)
				err = ErrUnrecorded
			}
			d.issuer.store.end(d.entry, document, err)
		})
	}
}

// record makes the receipt durable in the log, and then signs where it is.
func (d *Draft) record() (*Document, error) {
	i, r := d.issuer, d.receipt
	r.Request, r.Response = digestOf(d.request), digestOf(d.response)
	record, err := recordOf(r)
	if err != nil {
		return nil, err
	}
	entry, err := record.Entry()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), recordLimit)
	defer cancel()
	index, err := i.cfg.Log.Append(ctx, record)
	if err != nil {
		return nil, err
	}
	proof, err := i.cfg.Log.Prove(index)
	if err != nil {
		return nil, err
	}
	r.Log = trust.LogPlace{Origin: i.cfg.Origin, Index: index}
	payload, err := trust.NewReceipt(r.Release, r)
	if err != nil {
		return nil, err
	}
	bundle, err := i.signer.Sign(payload)
	if err != nil {
		return nil, err
	}
	return &Document{
		APIVersion: apiVersion, Kind: kind, ID: r.ID, Receipt: bundle, Nonce: d.nonce[:], Log: Logged{entry, proof}, Statements: d.grounds.statements,
	}, nil
}

// recordOf is what the log says of a receipt.
func recordOf(r trust.Receipt) (audit.Record, error) {
	recorded, err := r.Recorded()
	if err != nil {
		return audit.Record{}, err
	}
	return audit.Record{
		Time: r.Time, Kind: audit.KindReceipt, Channel: r.Channel, Release: r.Release, Statement: recorded, Caller: r.Caller, Level: r.Level,
	}, nil
}

// What the digest of a content begins with, after the nonce: so that nobody can show a request as a response.
const (
	requestLabel  = "request\n"
	responseLabel = "response\n"
)

func contentHash(nonce []byte, label string) hash.Hash {
	h := sha256.New()
	h.Write(nonce)
	h.Write([]byte(label))
	return h
}

func digestOf(h hash.Hash) statement.ID {
	return statement.ID("sha256:" + hex.EncodeToString(h.Sum(nil)))
}

func sumOf(data []byte) statement.ID {
	sum := sha256.Sum256(data)
	return statement.ID("sha256:" + hex.EncodeToString(sum[:]))
}
