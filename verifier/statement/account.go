package statement

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
)

// An Account is whom a Sigstore instance issues a certificate to: the subject, such as an e-mail address or the URI of a
// workflow, that an OpenID Connect issuer vouched for.
type Account struct{ Issuer, Subject string }

func (a Account) String() string { return fmt.Sprintf("%.200q of %.200q", a.Subject, a.Issuer) }

// Names of extensions: Fulcio's for the issuer, as raw text and as a DER string, and RFC 5280's for who holds the
// certificate.
var (
	oidIssuer          = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}
	oidIssuerV2        = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}
	oidAlternativeName = asn1.ObjectIdentifier{2, 5, 29, 17}
)

// Tags of a GeneralName (RFC 5280 section 4.2.1.6).
const (
	tagOtherName = 0
	tagEmail     = 1
	tagURI       = 6
)

// AccountOf returns the account of a keyless certificate, which names one issuer and one subject. With two, verifiers
// disagree on which one counts.
func AccountOf(c *x509.Certificate) (Account, error) {
	var a Account
	if raw, there := extension(c, oidIssuer); there {
		a.Issuer = string(raw)
	}
	if raw, there := extension(c, oidIssuerV2); there {
		var issuer string
		if rest, err := asn1.Unmarshal(raw, &issuer); err != nil || len(rest) > 0 {
			return Account{}, errors.New("the certificate's issuer is not a text")
		}
		if a.Issuer != "" && a.Issuer != issuer {
			return Account{}, fmt.Errorf("the certificate names two issuers, %.200q and %.200q", a.Issuer, issuer)
		}
		a.Issuer = issuer
	}
	raw, _ := extension(c, oidAlternativeName)
	var names []asn1.RawValue
	if rest, err := asn1.Unmarshal(raw, &names); err != nil || len(rest) > 0 || len(names) != 1 || names[0].Class != asn1.ClassContextSpecific {
		return Account{}, fmt.Errorf("the certificate has %d alternative names, want exactly one", len(names))
	}
	switch names[0].Tag {
	case tagEmail, tagURI:
		a.Subject = string(names[0].Bytes)
	case tagOtherName: // Fulcio's, for names that are neither
		var err error
		if a.Subject, err = cryptoutils.UnmarshalOtherNameSAN(c.Extensions); err != nil {
			return Account{}, fmt.Errorf("the certificate's alternative name: %w", err)
		}
	}
	if a.Issuer == "" || a.Subject == "" {
		return Account{}, errors.New("the certificate names no issuer, or nobody whom it vouches for")
	}
	return a, nil
}

func isKeyless(c *x509.Certificate) bool {
	_, v1 := extension(c, oidIssuer)
	_, v2 := extension(c, oidIssuerV2)
	return v1 || v2
}

// extension returns an extension's value. crypto/x509 refuses certificates that have one twice.
func extension(c *x509.Certificate, id asn1.ObjectIdentifier) (value []byte, there bool) {
	for _, e := range c.Extensions {
		if e.Id.Equal(id) {
			return e.Value, true
		}
	}
	return nil, false
}
