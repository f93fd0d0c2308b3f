package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/weighbridge/weighbridge/verifier/keyless"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

const (
	maxToken         = 64 << 10            // bytes of an identity token
	maxSigningConfig = 1 << 20             // bytes; the public instance's has 2 KiB
	tokenVariable    = "SIGSTORE_ID_TOKEN" //nolint:gosec // the name of a variable
)

// A bundler makes bundles: with a key, or with an account.
type bundler interface {
	Sign(payload []byte) ([]byte, error)
	// Made reports whether a statement is by the same signer. For an account it is asked once something was signed.
	Made(*statement.Signed) bool
}

// accountFlags say with which Sigstore account to sign.
type accountFlags struct{ token, config, root, trustConfig string }

func (a *accountFlags) register(f *pflag.FlagSet) {
	f.StringVar(&a.config, "signing-config", "", "keyless: signing_config.json of the Sigstore instance; only the services in it are asked")
	f.StringVar(&a.root, "trusted-root", "", "keyless: trusted_root.json of the instance, by which the signature must verify before it is written")
	f.StringVar(&a.trustConfig, "trust-config", "", "keyless: in place of --signing-config and --trusted-root, the trust configuration (ClientTrustConfig) that holds both")
	f.StringVar(&a.token, "identity-token", "", "keyless: file with an OpenID Connect token (default: $"+tokenVariable+")")
}

func (a *accountFlags) given() bool {
	return a.config != "" || a.root != "" || a.trustConfig != "" || a.token != ""
}

// signer reads what the flags name.
func (a *accountFlags) signer() (*keyless.Signer, error) {
	root, config, err := a.instance()
	if err != nil {
		return nil, err
	}
	token := os.Getenv(tokenVariable)
	if a.token != "" {
		data, err := readFlagFile(a.token, maxToken)
		if err != nil {
			return nil, fmt.Errorf("--identity-token: %w", err)
		}
		token = string(data)
	}
	token = strings.TrimSpace(token)
	if token == "" {
		return nil, withHint(errors.New("there is no identity token"), "give --identity-token FILE, or set "+tokenVariable)
	}
	return keyless.NewSigner(keyless.SignerConfig{Token: token, SigningConfig: config, TrustedRoot: root})
}

// instance reads what says where to sign, and by what the signature must verify.
func (a *accountFlags) instance() (trustedRoot, signingConfig []byte, err error) {
	switch {
	case a.trustConfig != "" && (a.config != "" || a.root != ""):
		return nil, nil, errors.New("--trust-config holds what --signing-config and --trusted-root name: give it alone")
	case a.trustConfig != "":
		return readTrustConfig(a.trustConfig)
	case a.config == "" || a.root == "":
		return nil, nil, withHint(errors.New("--signing-config and --trusted-root are required to sign with a Sigstore account"),
			"there is no instance by default: name its signing_config.json and its trusted_root.json")
	}
	if signingConfig, err = readFlagFile(a.config, maxSigningConfig); err != nil {
		return nil, nil, fmt.Errorf("--signing-config: %w", err)
	}
	if trustedRoot, err = readFlagFile(a.root, trust.MaxTrustedRoot); err != nil {
		return nil, nil, fmt.Errorf("--trusted-root: %w", err)
	}
	return trustedRoot, signingConfig, nil
}

// mark tells the signers of one statement apart in the names of files.
func mark(signer bundler, signed *statement.Signed) (string, error) {
	if key, ok := signer.(*statement.Signer); ok {
		id, err := statement.KeyIDOf(key.Public())
		return strings.TrimPrefix(string(id), "sha256:"), err
	}
	account, err := statement.AccountOf(signed.Certificates()[0])
	return fmt.Sprintf("%x", sha256.Sum256([]byte(account.Issuer+"\n"+account.Subject))), err
}

func accountModelSigner(a statement.Account) modelSigner {
	return modelSigner{Kind: "sigstore", Identity: a.Subject, Issuer: a.Issuer}
}
