package statement

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"fmt"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
)

// VerifyKey returns nil if pub, and the key that the bundle names if it names one, signed exactly this payload. A
// statement that was signed under a certificate is refused: its identity is not a bare key.
func (s *Signed) VerifyKey(pub crypto.PublicKey) error {
	if s.material != MaterialKey {
		return fmt.Errorf("%w: signed under a certificate, not by a bare key", ErrSignature)
	}
	if err := s.checkHint(pub); err != nil {
		return err
	}
	return s.verify(pub)
}

// VerifyLeaf returns nil if the key in the certificate that the bundle shows signed exactly this payload. Whoever makes a
// certificate passes: it is the first half of the proof, and who issued the certificate is the other.
func (s *Signed) VerifyLeaf() error {
	if len(s.certificates) == 0 {
		return fmt.Errorf("%w: signed by a bare key, not under a certificate", ErrSignature)
	}
	return s.verify(s.certificates[0].PublicKey)
}

func (s *Signed) verify(pub crypto.PublicKey) error {
	hash, err := hashFor(pub)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	// DSSE section 2: the signature is over the pre-authentication encoding of type and payload.
	signed := dsse.PAE(PayloadType, s.payload)
	valid := false
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		// In DER alone, as every signer writes it: sigstore's verifier would take r and s side by side too.
		h := hash.New()
		h.Write(signed)
		valid = ecdsa.VerifyASN1(k, h.Sum(nil), s.signature)
	case ed25519.PublicKey:
		valid = ed25519.Verify(k, signed, s.signature)
	}
	if !valid {
		return ErrSignature
	}
	return nil
}
