package keyless_test

import (
	"bytes"
	"crypto/x509"
	"strings"
	"testing"

	"github.com/weighbridge/weighbridge/verifier/keyless"
	"github.com/weighbridge/weighbridge/verifier/keyless/keylesstest"
	"github.com/weighbridge/weighbridge/verifier/statement"
)

// TestSign signs at an instance over HTTP, and then with one thing wrong in each row.
func TestSign(t *testing.T) {
	text := payload(t, "approved")
	whole := func(i *keylesstest.Instance, by keylesstest.Signing) keyless.SignerConfig {
		return keyless.SignerConfig{Token: keylesstest.Token(carol), SigningConfig: i.Serve(by), TrustedRoot: i.TrustedRoot()}
	}
	tests := []struct {
		name   string
		by     keylesstest.Signing
		change func(*keyless.SignerConfig)
		made   string // why there is no signer
		signed string // why nothing is signed
	}{
		{name: "signed"},
		{name: "no token", change: func(c *keyless.SignerConfig) { c.Token = "" }, made: "identity token"},
		{name: "no trusted root", change: func(c *keyless.SignerConfig) { c.TrustedRoot = nil }, made: "trusted root"},
		{name: "no signing config", change: func(c *keyless.SignerConfig) { c.SigningConfig = nil }, made: "signing config"},
		{name: "no certificate authority", change: withoutList(`"caUrls"`), made: "certificate authority"},
		{name: "no log", change: withoutList(`"rekorTlogUrls"`), made: "transparency log"},
		{name: "no time", change: withoutList(`"tsaUrls"`), signed: "timestamps"},
		{name: "token that is none", change: func(c *keyless.SignerConfig) { c.Token = "token" }, signed: "identity token"},
		{name: "another trusted root", change: func(c *keyless.SignerConfig) { c.TrustedRoot = keylesstest.New(t).TrustedRoot() }, signed: "does not verify by the trusted root"},
		{name: "certificate that is in no log", by: keylesstest.Signing{Without: []keylesstest.Part{keylesstest.SCT}}, signed: "does not verify by the trusted root"},
		{name: "certificate of nobody", by: keylesstest.Signing{Change: func(c *x509.Certificate) { c.EmailAddresses = nil }}, signed: "alternative names"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			instance := keylesstest.New(t)
			config := whole(instance, tt.by)
			if tt.change != nil {
				tt.change(&config)
			}
			s, err := keyless.NewSigner(config)
			if checkWhy(t, "NewSigner", err, tt.made); err != nil {
				return
			}
			bundle, err := s.Sign(text)
			if checkWhy(t, "Sign", err, tt.signed); err != nil {
				if bundle != nil {
					t.Error("a bundle comes with the error")
				}
				return
			}
			signed, err := statement.Parse(bundle)
			if err != nil || !bytes.Equal(signed.Payload(), text) || !s.Made(signed) || s.Account() != carol {
				t.Errorf("signed %q by %s: %v", bundle, s.Account(), err)
			}
			if other := instance.Signed(text, signing(func(s *keylesstest.Signing) { s.Account = flow })); s.Made(other) {
				t.Error("says that it made what another signed")
			}
		})
	}
}

// withoutList takes a list out of a signing config.
func withoutList(name string) func(*keyless.SignerConfig) {
	return func(c *keyless.SignerConfig) {
		from := bytes.Index(c.SigningConfig, []byte(name))
		length := bytes.IndexByte(c.SigningConfig[from:], ']') + 1
		empty := []byte(name + ":[]")
		c.SigningConfig = append(c.SigningConfig[:from:from], append(empty, c.SigningConfig[from+length:]...)...)
	}
}

func checkWhy(t *testing.T, what string, err error, want string) {
	t.Helper()
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("%s = %v, want %q", what, err, want)
	}
}
