package statement_test

import (
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net/url"
	"testing"

	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"github.com/weighbridge/weighbridge/verifier/statement"
)

// TestAccountOf: a keyless certificate names one issuer and one subject, in each of the ways that there are.
func TestAccountOf(t *testing.T) {
	carol := statement.Account{Issuer: "https://accounts.example", Subject: "carol@bank.example"}
	machine := &url.URL{Scheme: "https", Host: "git.example", Path: "/bank/model"}
	other, err := cryptoutils.MarshalOtherNameSAN("carol", true)
	if err != nil {
		t.Fatal(err)
	}
	der := func(v any) []byte {
		raw, err := asn1.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	v1 := func(value string) pkix.Extension {
		return pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}, Value: []byte(value)}
	}
	v2 := func(value []byte) pkix.Extension {
		return pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}, Value: value}
	}
	issuer := v2(der(carol.Issuer))
	mail := []string{carol.Subject}
	tests := []struct {
		name string
		c    x509.Certificate
		want statement.Account
	}{
		{"address", x509.Certificate{EmailAddresses: mail, ExtraExtensions: []pkix.Extension{issuer}}, carol},
		{"issuer as raw text", x509.Certificate{EmailAddresses: mail, ExtraExtensions: []pkix.Extension{v1(carol.Issuer)}}, carol},
		{"issuer in both ways", x509.Certificate{EmailAddresses: mail, ExtraExtensions: []pkix.Extension{issuer, v1(carol.Issuer)}}, carol},
		{"URI", x509.Certificate{URIs: []*url.URL{machine}, ExtraExtensions: []pkix.Extension{issuer}}, statement.Account{Issuer: carol.Issuer, Subject: machine.String()}},
		{"another name", x509.Certificate{ExtraExtensions: []pkix.Extension{issuer, *other}}, statement.Account{Issuer: carol.Issuer, Subject: "carol"}},
		{"no issuer", x509.Certificate{EmailAddresses: mail}, statement.Account{}},
		{"empty issuer", x509.Certificate{EmailAddresses: mail, ExtraExtensions: []pkix.Extension{v2(der(""))}}, statement.Account{}},
		{"issuer with more behind it", x509.Certificate{EmailAddresses: mail, ExtraExtensions: []pkix.Extension{v2(append(der(carol.Issuer), 0))}}, statement.Account{}},
		{"issuer that is no text", x509.Certificate{EmailAddresses: mail, ExtraExtensions: []pkix.Extension{v2(der(7))}}, statement.Account{}},
		{"two issuers", x509.Certificate{EmailAddresses: mail, ExtraExtensions: []pkix.Extension{issuer, v1("https://other.example")}}, statement.Account{}},
		{"nobody", x509.Certificate{ExtraExtensions: []pkix.Extension{issuer}}, statement.Account{}},
		{"host", x509.Certificate{DNSNames: []string{"bank.example"}, ExtraExtensions: []pkix.Extension{issuer}}, statement.Account{}},
		{"two addresses", x509.Certificate{EmailAddresses: []string{carol.Subject, "mallory@bank.example"}, ExtraExtensions: []pkix.Extension{issuer}}, statement.Account{}},
		{"address and URI", x509.Certificate{EmailAddresses: mail, URIs: []*url.URL{machine}, ExtraExtensions: []pkix.Extension{issuer}}, statement.Account{}},
	}
	key := newKey(t, elliptic.P256())
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.c.SerialNumber = big.NewInt(1)
			made, err := x509.CreateCertificate(rand.Reader, &tt.c, &tt.c, key.Public(), key)
			if err != nil {
				t.Fatal(err)
			}
			c, err := x509.ParseCertificate(made)
			if err != nil {
				t.Fatal(err)
			}
			got, err := statement.AccountOf(c)
			if got != tt.want || (err == nil) != (tt.want != statement.Account{}) {
				t.Errorf("AccountOf = %s, %v, want %s", got, err, tt.want)
			}
		})
	}
}
