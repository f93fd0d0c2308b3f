package main

import (
	"crypto"
	"crypto/ecdsa"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/weighbridge/weighbridge/verifier"
	"github.com/weighbridge/weighbridge/verifier/keyless"
	"github.com/weighbridge/weighbridge/verifier/oms"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store"
)

// hintAbove is the size from which whole files are slow to verify and shards worth their entries.
const hintAbove = 1_000_000_000 // bytes

type modelSignFlags struct {
	signature, key, password, certificate, timestamp string
	chain                                            []string
	account                                          accountFlags
	scope                                            modelScope
	method                                           modelMethod
	json, quiet                                      bool
}

func newModelSignCmd(s streams) *cobra.Command {
	var f modelSignFlags
	cmd := &cobra.Command{
		Use:   "sign PATH --signature OUT (--private-key KEY | --identity-token FILE --signing-config FILE --trusted-root FILE)",
		Short: "Sign a model's files",
		Long: `Sign the digests of all files of a model. The default, whole files and SHA-256, is what every verifier reads.

The signature file itself is not signed when it lies in the model. Symbolic links are refused unless --allow-symlinks
signs what they lead to.

With --signing-config the signature is made with a Sigstore account, for whoever the identity token names: the services
in that file issue a certificate for a key that is used once, log the signature and put a time on it.`,
		Example: `  weighbridge model sign ./model --signature ./model.sig --private-key trainer.key
  weighbridge model sign ./model --signature ./model.sig --private-key leaf.key \
    --signing-certificate leaf.crt --certificate-chain intermediate.crt
  weighbridge model sign ./model --signature ./model.sig --identity-token token \
    --signing-config signing_config.json --trusted-root trusted_root.json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, s, args[0]) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.signature, "signature", "", "write the signature to this file")
	flags.StringVar(&f.key, "private-key", "", "sign with this EC key (PEM)")
	flags.StringVar(&f.password, "password", "", "file with the password of the private key")
	flags.StringVar(&f.certificate, "signing-certificate", "", "sign as this certificate (PEM), which is the private key's")
	flags.StringArrayVar(&f.chain, "certificate-chain", nil, "certificates (PEM) that lead from the signing certificate to a root (repeatable)")
	flags.StringVar(&f.timestamp, "timestamp-url", "", "RFC 3161 authority to get a trusted time from")
	flags.BoolVar(&f.json, "json", false, "print one JSON document")
	flags.BoolVar(&f.quiet, "quiet", false, "print nothing when all is well")
	f.account.register(flags)
	f.scope.register(flags)
	f.method.register(cmd)
	if err := cmd.MarkFlagRequired("signature"); err != nil {
		panic("model sign: internal error: " + err.Error())
	}
	return cmd
}

func (f *modelSignFlags) run(cmd *cobra.Command, s streams, path string) error {
	// Everything that can be wrong with the flags is found before hours are spent on hashing.
	signer, who, err := f.signer(s)
	if err != nil {
		return err
	}
	o, err := f.method.options(verifier.DigestOptions{
		IgnorePaths: f.scope.ignored(s, path), IgnoreGit: f.scope.ignoreGit(), AllowSymlinks: f.scope.symlinks,
		Signature: f.signature,
	})
	if err != nil {
		return err
	}
	var stop func()
	o.Progress, stop = startProgress(s, path, f.quiet)
	l, err := verifier.Digest(cmd.Context(), path, o)
	stop()
	if err != nil {
		return err
	}
	root, err := l.Root()
	if err != nil {
		return err
	}
	payload, err := l.Payload()
	if err != nil {
		return err
	}
	bundle, err := signer.Sign(payload)
	if err != nil {
		return err
	}
	if account, ok := signer.(*keyless.Signer); ok {
		who = accountModelSigner(account.Account()) // which the services say
	}
	if err := store.WriteFile(f.signature, bundle, 0o644); err != nil {
		return fmt.Errorf("write signature: %w", err)
	}
	for _, name := range l.Loadable {
		fmt.Fprintf(s.err, "weighbridge: %s: %q is left out of the signature, but a runtime could load it: verifiers may refuse the model\n", path, name)
	}
	if l.Bytes > hintAbove && l.Serialization.Method == oms.MethodFiles && !f.quiet {
		fmt.Fprintln(s.err, "hint: --shard-size 64MiB lets verifiers check large files in parallel and say which bytes are bad")
	}
	switch {
	case f.json:
		return printJSON(s.out, struct {
			Root      string      `json:"root"`
			Signature string      `json:"signature"`
			Signer    modelSigner `json:"signer"`
			Files     int         `json:"files"`
			Resources int         `json:"resources"`
			Bytes     int64       `json:"bytes"`
		}{root, f.signature, who, l.Files, len(l.Resources), l.Bytes})
	case f.quiet:
		return nil
	}
	_, err = fmt.Fprintf(s.out, "signed %s (%s, %d bytes) as %s: %s\n", root, countFiles(l.Files), l.Bytes, who, f.signature)
	return err
}

// signer loads the key and, if given, the certificates to sign with, or what it takes to sign with an account.
func (f *modelSignFlags) signer(s streams) (bundler, modelSigner, error) {
	switch {
	case f.account.given() && (f.key != "" || f.certificate != "" || len(f.chain) > 0 || f.timestamp != ""):
		return nil, modelSigner{}, errors.New("--private-key, certificates and --timestamp-url are not for signing with a Sigstore account")
	case f.account.given():
		signer, err := f.account.signer()
		return signer, modelSigner{}, err
	case f.key == "":
		return nil, modelSigner{}, errors.New("--private-key is required, or --identity-token, --signing-config and --trusted-root")
	}
	key, err := f.privateKey()
	if err != nil {
		return nil, modelSigner{}, err
	}
	if f.certificate == "" && len(f.chain) > 0 {
		return nil, modelSigner{}, errors.New("--certificate-chain needs --signing-certificate")
	}
	signer, err := newSigner(s, key, f.certificate, f.chain)
	if err != nil {
		return nil, modelSigner{}, err
	}
	if f.timestamp != "" {
		signer = signer.WithStamp(stampFrom(f.timestamp))
	}
	if cert := signer.Certificate(); cert != nil {
		if err := statement.CodeSigning.Check(cert); err != nil { // an SVID signs no weights
			return nil, modelSigner{}, err
		}
		return signer, certificateModelSigner(cert), nil
	}
	who, err := keyModelSigner(key.Public())
	return signer, who, err
}

func (f *modelSignFlags) privateKey() (crypto.Signer, error) {
	key, err := readSigningKey(f.key, f.password)
	if err != nil {
		return nil, fmt.Errorf("--private-key: %w", err)
	}
	if _, ok := key.Public().(*ecdsa.PublicKey); !ok {
		return nil, withHint(fmt.Errorf("private key %s: %w", f.key, errWeightsKey), "make one: weighbridge key new NAME --type ecdsa-p256")
	}
	return key, nil
}
