package receipt

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/gateway/audit"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

const (
	apiVersion = "weighbridge/v1"
	kind       = "Receipt"
)

// ErrMalformed means that a document is not in the one form in which receipts are written. It was damaged or altered.
var ErrMalformed = errors.New("malformed receipt")

// A Document is a receipt as a caller keeps it: all that [Verify] needs but the policy. FORMAT.md of package trust says
// what each field is.
type Document struct {
	APIVersion string           `json:"apiVersion"`
	Kind       string           `json:"kind"`
	ID         string           `json:"id"`
	Receipt    jsontext.Value   `json:"receipt"` // the bundle
	Nonce      []byte           `json:"nonce"`
	Log        Logged           `json:"log"`
	Statements []jsontext.Value `json:"statements"`       // bundles
	Request    []byte           `json:"request,omitzero"` // exact bytes, if a client has added them
	Response   []byte           `json:"response,omitzero"`
}

// Logged is the record of a receipt, and that the gateway's log holds it.
type Logged struct {
	Entry jsontext.Value `json:"entry"`
	Proof audit.Proof    `json:"proof"`
}

// Parse reads a document, in which nothing is verified. It takes what [Document.Encode] writes, and nothing else.
func Parse(data []byte) (*Document, error) {
	if len(data) > MaxDocument {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrMalformed, MaxDocument)
	}
	d := &Document{}
	if err := statement.Unmarshal(data, d); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	switch {
	case d.APIVersion != apiVersion || d.Kind != kind:
		return nil, fmt.Errorf("%w: it is a %.40q of %.40q, want a %s of %s", ErrMalformed, d.Kind, d.APIVersion, kind, apiVersion)
	case len(d.Nonce) != nonceSize:
		return nil, fmt.Errorf("%w: its nonce has %d bytes, want %d", ErrMalformed, len(d.Nonce), nonceSize)
	case len(d.Statements) > maxStatements:
		return nil, fmt.Errorf("%w: more than %d statements", ErrMalformed, maxStatements)
	}
	again, err := d.Encode()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if !bytes.Equal(again, data) {
		return nil, fmt.Errorf("%w: it is not in the one form that is written", ErrMalformed)
	}
	return d, nil
}

// Encode writes the document in its one form: canonical JSON (RFC 8785).
func (d *Document) Encode() ([]byte, error) {
	data, err := canonical(d)
	if err != nil {
		return nil, fmt.Errorf("write receipt: %w", err)
	}
	return data, nil
}

// size is about what the document takes beside its statements, 0 of none.
func (d *Document) size() int64 {
	if d == nil {
		return 0
	}
	return int64(len(d.Receipt) + len(d.Log.Entry) + len(d.Log.Proof.Checkpoint) + sha256.Size*len(d.Log.Proof.Hashes))
}

// canonical returns the JSON of v in the form of RFC 8785.
func canonical(v any) (jsontext.Value, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	text := jsontext.Value(data)
	if err := text.Canonicalize(); err != nil {
		return nil, err
	}
	return text, nil
}

// grounds are the statements that a release rests on, as documents hold them.
type grounds struct {
	of         *trust.Grounds
	statements []jsontext.Value
	digest     statement.ID
}

func newGrounds(of *trust.Grounds) (*grounds, error) {
	g := &grounds{of: of}
	for _, s := range of.Statements {
		bundle := jsontext.Value(s.Bundle())
		if err := bundle.Canonicalize(); err != nil {
			return nil, err
		}
		g.statements = append(g.statements, bundle)
	}
	var err error
	g.digest, err = digestOfStatements(g.statements)
	return g, err
}

// digestOfStatements binds every byte of a list of bundles, those too that no signature covers.
func digestOfStatements(bundles []jsontext.Value) (statement.ID, error) {
	data, err := canonical(bundles)
	if err != nil {
		return "", err
	}
	return sumOf(data), nil
}
