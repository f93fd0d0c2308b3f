package main

import (
	"errors"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/verifier/keyless"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// newKeyless makes the verifier of a Sigstore instance that the policy trusts.
func newKeyless(trustedRoot []byte) (trust.Keyless, error) {
	v, err := keyless.New(trustedRoot)
	if err != nil {
		return nil, err
	}
	return v, nil
}

// sigstoreFile is an account in POLICY.yaml.
type sigstoreFile struct {
	Issuer  string `yaml:"issuer"`  // exactly as in the certificates: https://accounts.google.com
	Subject string `yaml:"subject"` // exactly as in the certificates: an e-mail address, the URI of a workflow
}

// account returns the Sigstore account of an identity, and puts the trusted root into the document.
func (f *yamlFile) account(path string, in identityFile, doc *trust.Document) trust.Sigstore {
	switch {
	case in.Sigstore == nil && in.TrustedRoot == "":
		return trust.Sigstore{}
	case in.Sigstore == nil:
		f.add(path+".trustedRoot", "stands without sigstore: {issuer, subject}")
		return trust.Sigstore{}
	case in.TrustedRoot == "":
		f.add(path+".sigstore", "needs trustedRoot: FILE beside it, the trusted_root.json of the Sigstore instance")
		return trust.Sigstore{}
	}
	id, root, err := readTrustedRoot(f.resolve(in.TrustedRoot))
	if err != nil {
		f.add(path+".trustedRoot", "%v", err)
		return trust.Sigstore{}
	}
	if doc.TrustedRoots == nil {
		doc.TrustedRoots = map[statement.ID]jsontext.Value{}
	}
	doc.TrustedRoots[id] = root
	return trust.Sigstore{Issuer: in.Sigstore.Issuer, Subject: in.Sigstore.Subject, TrustedRoot: id}
}

// readTrustedRoot reads a trusted root that can verify something.
func readTrustedRoot(path string) (statement.ID, jsontext.Value, error) {
	data, err := store.ReadFile(path, trust.MaxTrustedRoot)
	if err != nil {
		return "", nil, err
	}
	id, root, err := trust.TrustedRootID(data)
	if err != nil {
		return "", nil, fmt.Errorf("%s: %w", path, err)
	}
	if _, err := keyless.New(root); err != nil {
		return "", nil, fmt.Errorf("%s: %w", path, err)
	}
	return id, root, nil
}

// modelAccount is the Sigstore account that must have signed a model.
type modelAccount struct {
	statement.Account
	verifier *keyless.Verifier
}

// account reads the flags about a Sigstore account, nil if there are none.
func (f *modelVerifyFlags) account() (*modelAccount, error) {
	a := &modelAccount{Account: statement.Account{Issuer: f.provider, Subject: f.identity}}
	switch {
	case f.identity == "" && f.provider == "" && f.trustedRoot == "" && f.trustConfig == "":
		return nil, nil //nolint:nilnil // none is asked for, which is no error here
	case f.identity == "" || f.provider == "" || (f.trustedRoot == "") == (f.trustConfig == ""):
		return nil, withHint(errors.New("--identity, --identity-provider and either --trusted-root or --trust-config go together"),
			"nothing is fetched: --trusted-root is the trusted_root.json of the Sigstore instance")
	case f.publicKey != "" || len(f.chain) > 0:
		return nil, errors.New("want one of --public-key, --certificate-chain and --identity")
	case f.at != "now" || f.authorities != nil:
		return nil, errors.New("--verification-time and --timestamp-authority are for --certificate-chain: an account's certificate is judged at the time in the bundle")
	}
	if f.trustConfig != "" {
		root, _, err := readTrustConfig(f.trustConfig)
		if err != nil {
			return nil, err
		}
		if a.verifier, err = keyless.New(root); err != nil {
			return nil, fmt.Errorf("--trust-config %s: %w", f.trustConfig, err)
		}
		return a, nil
	}
	data, err := readFlagFile(f.trustedRoot, trust.MaxTrustedRoot)
	if err != nil {
		return nil, fmt.Errorf("--trusted-root: %w", err)
	}
	if a.verifier, err = keyless.New(data); err != nil {
		return nil, fmt.Errorf("--trusted-root %s: %w", f.trustedRoot, err)
	}
	return a, nil
}

// readTrustConfig reads the file of --trust-config, the trusted root and the signing config of an instance in one.
func readTrustConfig(path string) (trustedRoot, signingConfig []byte, err error) {
	data, err := readFlagFile(path, trust.MaxTrustedRoot+maxSigningConfig)
	if err != nil {
		return nil, nil, fmt.Errorf("--trust-config: %w", err)
	}
	if trustedRoot, signingConfig, err = keyless.SplitTrustConfig(data); err != nil {
		return nil, nil, fmt.Errorf("--trust-config %s: %w", path, err)
	}
	return trustedRoot, signingConfig, nil
}

// check returns who signed, if it is the account.
func (a *modelAccount) check(signed *statement.Signed) (modelSigner, error) {
	if _, err := a.verifier.Verify(signed, a.Account); err != nil {
		return modelSigner{}, err
	}
	if err := weightsLeaf(signed); err != nil {
		return modelSigner{}, err
	}
	return accountModelSigner(a.Account), nil
}
