package audit

import (
	"crypto"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// originPrefix begins the origin of each log of this program.
const originPrefix = "weighbridge/"

// A Verifier is who a log is believed: its key and the origin that the log signs as. The zero Verifier believes nothing.
type Verifier struct {
	origin string
	key    note.Verifier
}

// NewVerifier takes an Ed25519 public key. The origin is "weighbridge/" and a name of letters, digits and . _ : @ -.
func NewVerifier(key crypto.PublicKey, origin string) (Verifier, error) {
	public, ok := key.(ed25519.PublicKey)
	if !ok {
		return Verifier{}, fmt.Errorf("audit key: it is a %T, and logs are signed by Ed25519 keys", key)
	}
	if err := checkOrigin(origin); err != nil {
		return Verifier{}, err
	}
	encoded, err := note.NewEd25519VerifierKey(origin, public)
	if err != nil {
		return Verifier{}, fmt.Errorf("audit key: %w", err)
	}
	verifier, err := note.NewVerifier(encoded)
	if err != nil {
		return Verifier{}, fmt.Errorf("audit key: %w", err)
	}
	return Verifier{origin, verifier}, nil
}

func checkOrigin(origin string) error {
	name, ok := strings.CutPrefix(origin, originPrefix)
	// A plus sign is what separates the parts of a key's text (https://c2sp.org/signed-note).
	if !ok || len(name) > maxName || !nameForm.MatchString(name) || strings.Contains(name, "+") {
		return fmt.Errorf("audit origin: %.80q is not %s and a name of letters, digits and . _ : @ -", origin, originPrefix)
	}
	return nil
}

// Origin returns the origin.
func (v Verifier) Origin() string { return v.origin }

// Checkpoint returns the tree that a checkpoint names (https://c2sp.org/tlog-checkpoint), if the log signed it. Signatures
// of others, such as witnesses, may stand beside.
func (v Verifier) Checkpoint(signed []byte) (tlog.Tree, error) {
	if v.key == nil {
		return tlog.Tree{}, errors.New("read checkpoint: no key to believe")
	}
	if len(signed) > maxCheckpoint {
		return tlog.Tree{}, fmt.Errorf("read checkpoint: more than %d bytes", maxCheckpoint)
	}
	n, err := note.Open(signed, note.VerifierList(v.key))
	if unsigned := new(note.UnverifiedNoteError); errors.As(err, &unsigned) {
		return tlog.Tree{}, fmt.Errorf("read checkpoint: it is not signed by this key as %s", v.origin)
	} else if err != nil {
		return tlog.Tree{}, fmt.Errorf("read checkpoint: %w", err)
	}
	// Base64 has spare bits at its end, which would let a checkpoint be written in more than one way.
	if _, err := base64.StdEncoding.Strict().DecodeString(n.Sigs[0].Base64); err != nil {
		return tlog.Tree{}, fmt.Errorf("read checkpoint: its signature is not in the one form that is written: %w", err)
	}
	origin, tree, err := parseCheckpoint(n.Text)
	if err != nil {
		return tlog.Tree{}, err
	}
	if origin != v.origin {
		return tlog.Tree{}, fmt.Errorf("read checkpoint: it is of %.80q, want %s", origin, v.origin)
	}
	return tree, nil
}

// parseCheckpoint reads the text of a checkpoint, which it does not verify: origin, size and root. There are no extension
// lines, which no one could check.
func parseCheckpoint(text string) (string, tlog.Tree, error) {
	malformed := errors.New("read checkpoint: malformed")
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || lines[3] != "" {
		return "", tlog.Tree{}, malformed
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || size > maxCount || strconv.FormatInt(size, 10) != lines[1] {
		return "", tlog.Tree{}, malformed
	}
	root, err := tlog.ParseHash(lines[2])
	if err != nil || root.String() != lines[2] {
		return "", tlog.Tree{}, malformed
	}
	return lines[0], tlog.Tree{N: size, Hash: root}, nil
}

// unverified reads a checkpoint without a look at who signed it.
func unverified(signed []byte) (string, tlog.Tree, error) {
	text, _, ok := strings.Cut(string(signed), "\n\n")
	if !ok {
		return "", tlog.Tree{}, errors.New("read checkpoint: malformed")
	}
	return parseCheckpoint(text + "\n")
}

// A signer signs checkpoints. It implements [note.Signer].
type signer struct {
	Verifier
	secret crypto.Signer
}

// Name implements [note.Signer].
func (s signer) Name() string { return s.key.Name() }

// KeyHash implements [note.Signer].
func (s signer) KeyHash() uint32 { return s.key.KeyHash() }

// Sign implements [note.Signer].
func (s signer) Sign(text []byte) ([]byte, error) { return s.secret.Sign(nil, text, crypto.Hash(0)) }

// checkpoint signs the tree, and makes sure that the signature is one: a key may be held by a device.
func (s signer) checkpoint(tree tlog.Tree) ([]byte, error) {
	signed, err := note.Sign(&note.Note{Text: fmt.Sprintf("%s\n%d\n%s\n", s.origin, tree.N, tree.Hash)}, s)
	if err != nil {
		return nil, fmt.Errorf("sign checkpoint: %w", err)
	}
	if _, err := s.Checkpoint(signed); err != nil {
		return nil, fmt.Errorf("sign checkpoint: %w", err)
	}
	return signed, nil
}
