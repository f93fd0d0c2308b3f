package trust

import (
	"crypto"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/weighbridge/weighbridge/verifier/statement"
)

// GatewayRole is the role of the gateways whose receipts count. Like root it is the role's name that says so.
const GatewayRole = "gateway"

// ErrNotGateway means that a receipt was not signed by a gateway of the policy whose word counts.
var ErrNotGateway = errors.New("not signed by a gateway of the policy")

// A Receipt says that a gateway answered one call with a release. Its statement's subject is the release's id.
type Receipt struct {
	ID          string       `json:"id"`      // by which its caller asks for it: 32 hex digits
	Caller      string       `json:"caller"`  // a SPIFFE ID
	Channel     string       `json:"channel"` // that was asked
	Release     statement.ID `json:"release"` // that answered
	Weights     string       `json:"weights"` // the root of its weights
	Level       string       `json:"level"`   // how these were guarded
	Sandbox     string       `json:"sandbox"` // how much of one its runtime was in
	Publication statement.ID `json:"publication"`
	Fallback    bool         `json:"fallback,omitzero"` // it served in place of one that counted no more
	Policy      statement.ID `json:"policy"`            // digest of the one by which it was decided
	Time        time.Time    `json:"time"`              // of the call, by the gateway's clock
	// Nonce is the SHA-256 of 32 random bytes, and Request and Response are that of these bytes, "request\n" or
	// "response\n", and what went over the wire: who has no nonce can't guess at what was said.
	Nonce    statement.ID `json:"nonce"`
	Request  statement.ID `json:"request"`
	Response statement.ID `json:"response"`
	// Statements is the SHA-256 of the canonical JSON of the list of bundles that the release rests on.
	Statements statement.ID `json:"statements"`
	Log        LogPlace     `json:"log,omitzero"` // where the gateway has recorded it
}

// A LogPlace is a record of a gateway's audit log.
type LogPlace struct {
	Origin string `json:"origin"`
	Index  int64  `json:"index"`
}

// NewReceipt checks the receipt and returns the payload to sign.
func NewReceipt(release statement.ID, r Receipt) ([]byte, error) {
	r.Time = r.Time.UTC()
	if err := r.check(); err != nil {
		return nil, err
	}
	if r.Release != release {
		return nil, Problem{"release", "is not the subject"}
	}
	return statement.New(ReceiptType, "release", release.Hex(), r)
}

// ParseReceipt reads a receipt and the release it is about, whoever signed it.
func ParseReceipt(s *statement.Signed) (release statement.ID, r Receipt, err error) {
	if err := decode(s, ReceiptType, &r); err != nil {
		return "", Receipt{}, fmt.Errorf("receipt: %w", err)
	}
	if err := r.check(); err != nil {
		return "", Receipt{}, fmt.Errorf("receipt: %w: %w", ErrMalformed, err)
	}
	if subjectID(s) != r.Release {
		return "", Receipt{}, fmt.Errorf("receipt: %w: its subject is not the release that it names", ErrMalformed)
	}
	return r.Release, r, nil
}

// Recorded returns the digest under which a gateway records the receipt: that of its predicate without its place in the
// log, which is not known before.
func (r Receipt) Recorded() (statement.ID, error) {
	r.Time, r.Log = r.Time.UTC(), LogPlace{}
	sum, err := digestOf(r)
	if err != nil {
		return "", err
	}
	return statement.ID("sha256:" + sum), nil
}

func (r Receipt) check() error {
	var bad problems
	if raw, err := hex.DecodeString(r.ID); err != nil || len(raw) != receiptID || strings.ToLower(r.ID) != r.ID {
		bad.add("id", "is not %d lower-case hex digits", hex.EncodedLen(receiptID))
	}
	if id, err := spiffeid.FromString(r.Caller); err != nil || id.Path() == "" {
		bad.add("caller", "%.200q is not the SPIFFE ID of a workload", r.Caller)
	}
	if err := checkName(r.Channel); err != nil {
		bad.add("channel", "%v", err)
	}
	for _, digest := range []struct {
		path string
		id   statement.ID
	}{
		{"release", r.Release}, {"weights", statement.ID(r.Weights)}, {"publication", r.Publication}, {"policy", r.Policy},
		{"nonce", r.Nonce}, {"request", r.Request}, {"response", r.Response}, {"statements", r.Statements},
	} {
		if _, err := statement.ParseID(string(digest.id)); err != nil {
			bad.add(digest.path, "%v", err)
		}
	}
	checkWord(&bad, "level", r.Level, levels)
	checkWord(&bad, "sandbox", r.Sandbox, sandboxes)
	if r.Time.IsZero() {
		bad.add("time", "is required")
	}
	checkTime(&bad, "time", r.Time)
	checkLine(&bad, "log.origin", r.Log.Origin, true)
	if r.Log.Index < 0 || r.Log.Index > maxNumber {
		bad.add("log.index", "must be from 0 to %d", int64(maxNumber))
	}
	return bad.err()
}

// ReceiptBy verifies a receipt's signature and returns which gateway made it, and by which key. As with every other
// statement, that of an identity that has retired or was compromised counts only if a trusted time says that it is older.
// What the receipt says is not looked at.
func (p *Policy) ReceiptBy(s *statement.Signed) (who string, key crypto.PublicKey, err error) {
	if s.Material() != statement.MaterialKey {
		return "", nil, fmt.Errorf("%w: it was signed under a certificate, and receipts are signed by keys", ErrNotGateway)
	}
	sig, rule, _, why := p.signer(s)
	if rule == "" {
		why = p.refusesGateway(sig)
	}
	if why != "" {
		return "", nil, fmt.Errorf("%w: %s", ErrNotGateway, why)
	}
	return sig.identity, p.keys[sig.key].public, nil
}

// Gateway returns which gateway has a key, if what it signs with it from now on counts as a receipt.
func (p *Policy) Gateway(id statement.KeyID) (string, error) {
	who := p.IdentityOf(id)
	if who == "" {
		return "", fmt.Errorf("%w: the policy gives key %s to no identity", ErrNotGateway, id)
	}
	if why := p.refusesGateway(signature{identity: who, key: id}); why != "" {
		return "", fmt.Errorf("%w: %s", ErrNotGateway, why)
	}
	return who, nil
}

// refusesGateway says why a signature is not that of a gateway whose receipts count, "" if it is.
func (p *Policy) refusesGateway(sig signature) string {
	state := p.doc.Identities[sig.identity].State
	switch {
	case !p.holds(sig.identity, GatewayRole):
		return fmt.Sprintf("%s is no %s", sig.identity, GatewayRole)
	case !state.Retired.IsZero() && !sig.before(state.Retired), !state.Compromised.IsZero() && !sig.before(state.Compromised):
		return fmt.Sprintf("%s is %s, and no trusted time says that this is older", sig.identity, state)
	}
	return ""
}
