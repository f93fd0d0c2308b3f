package statement

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"github.com/sigstore/sigstore/pkg/signature"
)

// A Signer makes bundles in the name of one key or one X.509 leaf. It may be used concurrently.
type Signer struct {
	key   crypto.Signer
	hint  string              // of a bare key
	chain []*x509.Certificate // leaf first
	stamp Stamp               // nil: no time
}

// A Stamp gets an RFC 3161 response, in DER, for a signature.
type Stamp func(signature []byte) ([]byte, error)

// WithStamp returns a signer that puts a time on each signature.
func (s *Signer) WithStamp(stamp Stamp) *Signer {
	stamped := *s
	stamped.stamp = stamp
	return &stamped
}

// NewKeySigner signs as a bare key.
func NewKeySigner(key crypto.Signer) (*Signer, error) {
	if _, err := hashFor(key.Public()); err != nil {
		return nil, fmt.Errorf("signer: %w", err)
	}
	hints, err := Hints(key.Public())
	if err != nil {
		return nil, fmt.Errorf("signer: %w", err)
	}
	return &Signer{key: key, hint: hints[0]}, nil
}

// NewChainSigner signs as the first certificate of the chain, which must be the key's and fit to sign: for code signing,
// or as an SVID.
func NewChainSigner(key crypto.Signer, chain []*x509.Certificate) (*Signer, error) {
	if len(chain) == 0 || len(chain) > MaxCertificates {
		return nil, fmt.Errorf("signer: a chain of %d certificates, want 1 to %d", len(chain), MaxCertificates)
	}
	if err := PurposeOf(chain[0]).Check(chain[0]); err != nil {
		return nil, fmt.Errorf("signer: %w", err)
	}
	if pub, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !pub.Equal(chain[0].PublicKey) {
		return nil, errors.New("signer: the first certificate is not the private key's")
	}
	return &Signer{key: key, chain: chain}, nil
}

// Certificate returns the certificate that the signer signs under, nil for a bare key.
func (s *Signer) Certificate() *x509.Certificate {
	if len(s.chain) == 0 {
		return nil
	}
	return s.chain[0]
}

// Made reports whether a statement was signed by this signer: by this key, and bare or under this certificate.
func (s *Signer) Made(signed *Signed) bool {
	if s.chain == nil {
		return signed.VerifyKey(s.key.Public()) == nil
	}
	return len(signed.certificates) > 0 && signed.certificates[0].Equal(s.chain[0]) && signed.verify(s.key.Public()) == nil
}

// Public returns the signer's public key.
func (s *Signer) Public() crypto.PublicKey { return s.key.Public() }

// Sign returns a bundle over payload, as one line of JSON with a newline. What it returns, [Parse] accepts.
func (s *Signer) Sign(payload []byte) ([]byte, error) {
	sig, err := s.signature(dsse.PAE(PayloadType, payload))
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	var times *wireTimestamps
	if s.stamp != nil {
		response, err := s.stamp(sig)
		if err != nil {
			return nil, fmt.Errorf("sign: %w", err)
		}
		times = &wireTimestamps{[]wireTimestamp{{response}}}
	}
	line, err := s.bundle(payload, sig, times)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	if _, err := Parse(line); err != nil {
		return nil, fmt.Errorf("sign: %w", err) // nothing leaves here that a verifier would refuse
	}
	return line, nil
}

// bundle writes a signature that was made.
func (s *Signer) bundle(payload, sig []byte, times *wireTimestamps) ([]byte, error) {
	type material struct {
		PublicKey   *wireHint       `json:"publicKey,omitempty"`
		Chain       *wireChain      `json:"x509CertificateChain,omitempty"`
		TlogEntries []struct{}      `json:"tlogEntries"`
		Timestamps  *wireTimestamps `json:"timestampVerificationData,omitempty"`
	}
	type envelope struct {
		Payload     []byte          `json:"payload"`
		PayloadType string          `json:"payloadType"`
		Signatures  []wireSignature `json:"signatures"`
	}
	m := material{TlogEntries: []struct{}{}, Timestamps: times}
	if s.chain == nil {
		m.PublicKey = &wireHint{s.hint}
	} else {
		m.Chain = &wireChain{}
		for _, c := range s.chain {
			m.Chain.Certificates = append(m.Chain.Certificates, wireRaw{c.Raw})
		}
	}
	noKeyID := "" // model_signing writes it empty
	line, err := json.Marshal(struct {
		MediaType string   `json:"mediaType"`
		Material  material `json:"verificationMaterial"`
		Envelope  envelope `json:"dsseEnvelope"`
	}{MediaType, m, envelope{payload, PayloadType, []wireSignature{{sig, &noKeyID}}}})
	if err != nil {
		return nil, err
	}
	return append(line, '\n'), nil
}

// IsPlain reports whether a bundle says what a signer with this bare key writes, and nothing beside it: none of what no
// signature covers, such as a hint in another spelling. Order and spacing of the JSON make no difference.
func (s *Signed) IsPlain(pub crypto.PublicKey) bool {
	hints, err := Hints(pub)
	if err != nil || s.material != MaterialKey {
		return false
	}
	line, err := (&Signer{hint: hints[0]}).bundle(s.payload, s.signature, nil)
	if err != nil {
		return false
	}
	plain, mine := jsontext.Value(line), jsontext.Value(bytes.Clone(s.line))
	return errors.Join(plain.Canonicalize(), mine.Canonicalize()) == nil && bytes.Equal(plain, mine)
}

type wireHint struct {
	Hint string `json:"hint"`
}

func (s *Signer) signature(message []byte) ([]byte, error) {
	hash, err := hashFor(s.key.Public())
	if err != nil {
		return nil, err
	}
	signer, err := signature.LoadSigner(s.key, hash)
	if err != nil {
		return nil, err
	}
	return signer.SignMessage(bytes.NewReader(message))
}
