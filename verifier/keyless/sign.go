package keyless

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/sign"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/weighbridge/weighbridge/verifier/statement"
)

// signTimeout is for one service's answer: it answers at once or not at all.
const signTimeout = 30 * time.Second

// A SignerConfig says with whose account to sign, and where. All of it is required: there is no instance by default.
type SignerConfig struct {
	Token         string // OpenID Connect identity token of the account's holder
	SigningConfig []byte // signing_config.json: whom to ask for the certificate, the log entry and the time
	TrustedRoot   []byte // by which a bundle must verify before it leaves
}

// A Signer signs with an account. Unlike a [Verifier] it asks the services that its configuration names, and only those,
// when it signs. It must not be used concurrently.
type Signer struct {
	token    string
	fulcio   string
	logs     []root.Service
	clocks   []root.Service
	verifier *Verifier
	account  statement.Account // of what was signed last
}

// NewSigner checks the configuration. It asks nobody.
func NewSigner(c SignerConfig) (*Signer, error) {
	s := &Signer{token: c.Token}
	var errs []error
	if c.Token == "" {
		errs = append(errs, errors.New("there is no identity token"))
	}
	var err error
	if s.verifier, err = New(c.TrustedRoot); err != nil {
		errs = append(errs, err)
	}
	config, err := root.NewSigningConfigFromJSON(c.SigningConfig)
	if err != nil {
		return nil, errors.Join(append(errs, fmt.Errorf("read signing config: %w", err))...)
	}
	now := time.Now()
	fulcio, err := root.SelectService(config.FulcioCertificateAuthorityURLs(), sign.FulcioAPIVersions, now)
	if err != nil {
		errs = append(errs, fmt.Errorf("signing config: certificate authority: %w", err))
	}
	s.fulcio = fulcio.URL
	if s.logs, err = root.SelectServices(config.RekorLogURLs(), config.RekorLogURLsConfig(), sign.RekorAPIVersions, now); err != nil {
		errs = append(errs, fmt.Errorf("signing config: transparency log: %w", err))
	}
	if len(config.TimestampAuthorityURLs()) > 0 { // a log of version 1 says a time itself
		if s.clocks, err = root.SelectServices(config.TimestampAuthorityURLs(), config.TimestampAuthorityURLsConfig(), sign.TimestampAuthorityAPIVersions, now); err != nil {
			errs = append(errs, fmt.Errorf("signing config: timestamp authority: %w", err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return s, nil
}

// Account returns whose account signed last: the services say whose the token is.
func (s *Signer) Account() statement.Account { return s.account }

// Made reports whether a statement was signed with the account that signed last.
func (s *Signer) Made(signed *statement.Signed) bool {
	_, err := s.verifier.Verify(signed, s.account)
	return err == nil
}

// Sign returns a bundle over payload, as one line of JSON with a newline, that verifies by the trusted root.
func (s *Signer) Sign(payload []byte) ([]byte, error) {
	key, err := sign.NewEphemeralKeypair(nil)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	options := sign.BundleOptions{
		CertificateProvider:        sign.NewFulcio(&sign.FulcioOptions{BaseURL: s.fulcio, Timeout: signTimeout}),
		CertificateProviderOptions: &sign.CertificateProviderOptions{IDToken: s.token},
		Context:                    context.Background(),
	}
	for _, clock := range s.clocks {
		options.TimestampAuthorities = append(options.TimestampAuthorities, sign.NewTimestampAuthority(&sign.TimestampAuthorityOptions{URL: clock.URL, Timeout: signTimeout}))
	}
	for _, log := range s.logs {
		options.TransparencyLogs = append(options.TransparencyLogs, sign.NewRekor(&sign.RekorOptions{BaseURL: log.URL, Version: log.MajorAPIVersion, Timeout: signTimeout}))
	}
	made, err := sign.Bundle(&sign.DSSEData{Data: payload, PayloadType: statement.PayloadType}, key, options)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	text, err := protojson.Marshal(made)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	// Nothing leaves here that a verifier would refuse, whatever the services answered.
	signed, err := statement.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	account, err := statement.AccountOf(signed.Certificates()[0])
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	if _, err := s.verifier.Verify(signed, account); err != nil {
		return nil, fmt.Errorf("sign: what the services answered does not verify by the trusted root: %w", err)
	}
	s.account = account
	return signed.Bundle(), nil
}
