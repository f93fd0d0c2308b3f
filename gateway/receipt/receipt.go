// Package receipt gives callers receipts for their calls, and verifies them.
//
// The one rule: a receipt is a document in which every byte is bound, by a gateway's signature or by what that covers, so
// that [Verify] says yes to no other receipt, request or answer than the one that was given. Verify is a pure function of
// bytes and needs nobody: not the gateway, not its log, not the network.
//
//	draft, err := issuer.Draft(caller) // before the request is read
//	io.Copy(draft.Request(), …)        // the exact bytes, as they pass
//	err = draft.Begin(served)          // who answers, before anything is answered
//	io.Copy(draft.Response(), …)
//	draft.End(err)                     // never waits
//	document, err := issuer.Fetch(ctx, caller, draft.ID())
//
// A receipt says: this caller asked this channel at this time, this release answered from weights that were guarded like
// this, by this publication and policy; here are the statements by which that policy allowed it, and the record of it in
// the gateway's audit log. It holds no word of what was said but digests over a random nonce, which the caller alone gets.
//
// What it doesn't show: that a gateway gave a receipt for every call, or that it withheld no later statement, such as a
// withdrawal that it had heard of. The time is the gateway's own.
//
// An [Issuer] keeps receipts in memory, for their callers to fetch, within the bounds in limits.go; a gateway that ends
// forgets them. What was recorded stays in the log.
package receipt

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weighbridge/weighbridge/gateway/audit"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

var (
	// ErrUnlisted means that the policy in force does not list this gateway among those whose receipts count. The call that
	// asked for one is refused before it is answered.
	ErrUnlisted = errors.New("this gateway gives no receipts: the policy in force does not list its key in the role " + trust.GatewayRole)
	// ErrFull means that as many receipts wait to be recorded as may. The call that asked for one is refused: later perhaps.
	ErrFull = errors.New("too many receipts wait to be recorded")
	// ErrUnknown means that this caller has no such receipt here, or no longer.
	ErrUnknown = errors.New("no such receipt")
	// ErrNone means that the call ended in an error, and that there is no receipt for it.
	ErrNone = errors.New("there is no receipt: the call ended in an error")
	// ErrNotReady means that the receipt is not recorded yet. It may be asked for again.
	ErrNotReady = errors.New("the receipt is not recorded yet")
	// ErrUnrecorded means that the call was answered, and that the receipt could not be recorded in the audit log. There will
	// be none. The text around it is for the log.
	ErrUnrecorded = errors.New("there is no receipt: the audit log could not be written")
)

// A Log is where receipts are recorded: an [audit.Log]. Its methods may be called concurrently.
type Log interface {
	// Append returns the record's index once it is durable under a signed checkpoint.
	Append(ctx context.Context, r audit.Record) (int64, error)
	// Prove shows that the record of that index is in the log.
	Prove(index int64) (audit.Proof, error)
}

// Config says who gives receipts. All fields but Now and Logger are required.
type Config struct {
	Key    crypto.Signer        // Ed25519, of the gateway; it signs the log as well
	Origin string               // of the log
	Log    Log                  // of the gateway
	Policy func() *trust.Policy // in force; asked at each call, and nil gives no receipts
	Now    func() time.Time     // nil: the system's clock
	Logger *slog.Logger         // nil: nobody is told
}

// An Issuer gives receipts. Its methods may be called concurrently. Make one with [New].
type Issuer struct {
	cfg    Config
	signer *statement.Signer
	key    statement.KeyID
	store  *store
	listed atomic.Pointer[listing]
	active sync.WaitGroup // receipts that are being recorded

	mu     sync.Mutex
	latest map[string]*grounds // by channel: receipts of one release share the memory of its statements
}

// A listing is whether a policy lists this gateway.
type listing struct {
	policy *trust.Policy
	err    error
}

// New returns an issuer, to be closed when the last call has ended.
func New(c Config) (*Issuer, error) {
	var errs []error
	for _, required := range []struct {
		field   string
		missing bool
	}{{"Key", c.Key == nil}, {"Log", c.Log == nil}, {"Policy", c.Policy == nil}} {
		if required.missing {
			errs = append(errs, fmt.Errorf("%s is required", required.field))
		}
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("receipts: %w", errors.Join(errs...))
	}
	if _, err := audit.NewVerifier(c.Key.Public(), c.Origin); err != nil {
		return nil, fmt.Errorf("receipts: %w", err)
	}
	signer, err := statement.NewKeySigner(c.Key)
	if err != nil {
		return nil, fmt.Errorf("receipts: %w", err)
	}
	key, err := statement.KeyIDOf(c.Key.Public())
	if err != nil {
		return nil, fmt.Errorf("receipts: %w", err)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return &Issuer{cfg: c, signer: signer, key: key, store: newStore(c.Now), latest: map[string]*grounds{}}, nil
}

// Close waits until every receipt of a call that has ended is recorded, or could not be.
func (i *Issuer) Close() { i.active.Wait() }

// check returns nil if what this gateway signs counts as a receipt, and tells operators once for each policy if not.
func (i *Issuer) check() error {
	policy := i.cfg.Policy()
	if l := i.listed.Load(); l != nil && l.policy == policy {
		return l.err
	}
	l := &listing{policy: policy}
	why := errors.New("no policy is in force")
	if policy != nil {
		_, why = policy.Gateway(i.key)
	}
	if why != nil {
		l.err = fmt.Errorf("%w: %w", ErrUnlisted, why)
		i.cfg.Logger.Warn("calls that ask for a receipt are refused", "err", l.err)
	}
	i.listed.Store(l)
	return l.err
}

// Fetch returns the document of a receipt to the caller of its call. One that is being recorded is waited for, for a while.
func (i *Issuer) Fetch(ctx context.Context, caller, id string) ([]byte, error) {
	e := i.store.get(caller, id)
	if e == nil {
		return nil, ErrUnknown
	}
	late := time.NewTimer(fetchWait)
	defer late.Stop()
	select {
	case <-e.done:
	case <-late.C:
		return nil, ErrNotReady
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if e.err != nil {
		return nil, e.err
	}
	return e.document.Encode()
}

// groundsOf returns the statements of one call as its receipt shows them.
func (i *Issuer) groundsOf(channel string, of *trust.Grounds) (*grounds, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	last := i.latest[channel]
	if last != nil && last.of == of {
		return last, nil
	}
	g, err := newGrounds(of)
	if err != nil {
		return nil, err
	}
	if last != nil && last.digest == g.digest {
		g.statements = last.statements
	}
	i.latest[channel] = g
	return g, nil
}
