package statement

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
)

// A KeyID names a public key: "sha256:" and the hex SHA-256 of its DER SubjectPublicKeyInfo.
type KeyID string

// ParseKeyID accepts "sha256:" followed by 64 lower-case hex digits.
func ParseKeyID(s string) (KeyID, error) {
	if err := checkDigest(s); err != nil {
		return "", fmt.Errorf("key id %w", err)
	}
	return KeyID(s), nil
}

// KeyIDOf returns the name of pub.
func KeyIDOf(pub crypto.PublicKey) (KeyID, error) {
	der, err := cryptoutils.MarshalPublicKeyToDER(pub)
	if err != nil {
		return "", fmt.Errorf("key id: %w", err)
	}
	sum := sha256.Sum256(der)
	return KeyID("sha256:" + hex.EncodeToString(sum[:])), nil
}

// ParsePublicKey reads one PEM public key: ECDSA on P-256, P-384 or P-521, or Ed25519.
func ParsePublicKey(data []byte) (crypto.PublicKey, error) {
	if len(data) > MaxKeyFile {
		return nil, fmt.Errorf("read public key: %d bytes are more than %d", len(data), MaxKeyFile)
	}
	block, rest := pem.Decode(data)
	switch {
	case block == nil:
		return nil, errors.New("read public key: no PEM block in it")
	case block.Type != "PUBLIC KEY":
		return nil, fmt.Errorf("read public key: it is a %s", block.Type)
	}
	if next, _ := pem.Decode(rest); next != nil {
		return nil, errors.New("read public key: more than one PEM block in it")
	}
	pub, err := cryptoutils.UnmarshalPEMToPublicKey(data)
	if err != nil {
		return nil, fmt.Errorf("read public key: %w", err)
	}
	if _, err := hashFor(pub); err != nil {
		return nil, fmt.Errorf("read public key: %w", err)
	}
	return pub, nil
}

// ErrPassword means that a private key is encrypted and no password, or a wrong one, was given.
var ErrPassword = errors.New("private key is encrypted: no password or a wrong one")

// ParsePrivateKey reads one PEM private key of the kinds of [ParsePublicKey]: PKCS#8, SEC 1, encrypted PKCS#8, or
// Sigstore's own encrypted form. The password is nil for a key in the clear.
func ParsePrivateKey(data, password []byte) (crypto.Signer, error) {
	if len(data) > MaxKeyFile {
		return nil, fmt.Errorf("read private key: %d bytes are more than %d", len(data), MaxKeyFile)
	}
	block, rest := pem.Decode(data)
	if block != nil && block.Type == "EC PARAMETERS" { // openssl ecparam -genkey names the curve before the key
		data = rest
		block, _ = pem.Decode(rest)
	}
	var pass cryptoutils.PassFunc
	if password != nil {
		pass = func(bool) ([]byte, error) { return password, nil }
	}
	key, err := cryptoutils.UnmarshalPEMToPrivateKey(data, pass)
	if err != nil {
		if block != nil && (strings.HasPrefix(block.Type, "ENCRYPTED") || block.Headers["DEK-Info"] != "") {
			return nil, ErrPassword
		}
		return nil, fmt.Errorf("read private key: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("read private key: %T can't sign", key)
	}
	if _, err := hashFor(signer.Public()); err != nil {
		return nil, fmt.Errorf("read private key: %w", err)
	}
	return signer, nil
}

// hashFor returns the hash that goes with a key (OMS v1.0 section 6.3: the hash is as strong as the curve), zero for
// Ed25519, which hashes by itself. It is the list of the kinds of key that may sign.
func hashFor(pub crypto.PublicKey) (crypto.Hash, error) {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return crypto.SHA256, nil
		case elliptic.P384():
			return crypto.SHA384, nil
		case elliptic.P521():
			return crypto.SHA512, nil
		}
		return 0, fmt.Errorf("curve %s is not one of P-256, P-384 and P-521", k.Curve.Params().Name)
	case ed25519.PublicKey:
		return crypto.Hash(0), nil
	}
	return 0, fmt.Errorf("%T is neither an ECDSA nor an Ed25519 key", pub)
}

// Hints returns the spellings by which a bundle may name a key: the hex SHA-256 of its PEM (model_signing and this
// project, which writes it), the base64 SHA-256 of its DER (cosign), and the hex of that.
func Hints(pub crypto.PublicKey) ([]string, error) {
	der, err := cryptoutils.MarshalPublicKeyToDER(pub)
	if err != nil {
		return nil, fmt.Errorf("hint: %w", err)
	}
	text, err := cryptoutils.MarshalPublicKeyToPEM(pub)
	if err != nil {
		return nil, fmt.Errorf("hint: %w", err)
	}
	ofDER, ofPEM := sha256.Sum256(der), sha256.Sum256(text)
	return []string{hex.EncodeToString(ofPEM[:]), base64.StdEncoding.EncodeToString(ofDER[:]), hex.EncodeToString(ofDER[:])}, nil
}

// checkHint returns an error if the bundle names a key and it is not pub. An absent hint names no key.
func (s *Signed) checkHint(pub crypto.PublicKey) error {
	hints, err := Hints(pub)
	if err != nil {
		return err
	}
	if s.hint != "" && !slices.Contains(hints, s.hint) {
		return fmt.Errorf("%w: the bundle names another key (hint %.80q)", ErrSignature, s.hint)
	}
	if len(s.rawKey) == 0 {
		return nil
	}
	der, err := cryptoutils.MarshalPublicKeyToDER(pub)
	if err != nil {
		return err
	}
	text, err := cryptoutils.MarshalPublicKeyToPEM(pub)
	if err != nil {
		return err
	}
	if !bytes.Equal(s.rawKey, der) && !bytes.Equal(s.rawKey, text) {
		return fmt.Errorf("%w: the bundle carries another key", ErrSignature)
	}
	return nil
}
