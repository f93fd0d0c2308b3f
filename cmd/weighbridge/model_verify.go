package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/weighbridge/weighbridge/verifier"
	"github.com/weighbridge/weighbridge/verifier/oms"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/timestamp"
)

type modelVerifyFlags struct {
	signature, publicKey                         string
	chain, authorities                           []string
	at                                           string
	identity, provider, trustedRoot, trustConfig string
	scope                                        modelScope
	unsigned, noUnsigned                         bool
	json, quiet                                  bool
}

func newModelVerifyCmd(s streams) *cobra.Command {
	var f modelVerifyFlags
	cmd := &cobra.Command{
		Use:   "verify PATH --signature SIG (--public-key PEM | --certificate-chain PEM... | --identity ID --identity-provider ISSUER --trusted-root FILE)",
		Short: "Verify that a model's files are the signed ones",
		Long: `Verify a signature and that the files of a model are exactly the signed ones. Every problem is reported: each file
that is missing or not listed, and each altered file or shard with its byte range and digests.

--certificate-chain names the certificates that are trusted: self-signed ones are roots, others help to build the
chain. The signer's certificate must be an end entity for code signing, and the whole chain valid at the
--verification-time: now, a time such as 2030-01-01T00:00:00Z, or the time that a trusted authority
(--timestamp-authority) put on the signature.

--identity is whom a Sigstore instance issued the certificate to, for the --identity-provider, both compared exactly. All
that verifies it is in --trusted-root (or --trust-config) and in the bundle: certificate, log entry and time. Nothing is
fetched, so the trusted root must be as new as the signature.

Symbolic links are followed only if the signer did and --allow-symlinks is given.`,
		Example: `  weighbridge model verify ./model --signature ./model.sig --public-key trainer.pub
  weighbridge model verify ./model --signature ./model.sig --certificate-chain root.crt --json
  weighbridge model verify ./model --signature ./model.sig --identity carol@bank.example \
    --identity-provider https://accounts.example --trusted-root trusted_root.json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, s, args[0]) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.signature, "signature", "", "the signature file")
	flags.StringVar(&f.publicKey, "public-key", "", "the signer's EC public key (PEM)")
	flags.StringArrayVar(&f.chain, "certificate-chain", nil, "trusted certificates (PEM, repeatable)")
	flags.StringVar(&f.at, "verification-time", "now", "when the certificates must have been valid: now, a time, or timestamp")
	flags.StringArrayVar(&f.authorities, "timestamp-authority", nil, "trusted certificates (PEM) of RFC 3161 authorities (repeatable)")
	flags.StringVar(&f.identity, "identity", "", "keyless: the signer's identity, exactly")
	flags.StringVar(&f.provider, "identity-provider", "", "keyless: the issuer that vouches for the identity, exactly")
	flags.StringVar(&f.trustedRoot, "trusted-root", "", "keyless: trusted_root.json of the Sigstore instance")
	flags.StringVar(&f.trustConfig, "trust-config", "", "keyless: in place of --trusted-root, the trust configuration (ClientTrustConfig) that holds it")
	flags.BoolVar(&f.unsigned, "ignore-unsigned-files", false, "accept files that the signature does not list")
	flags.BoolVar(&f.noUnsigned, "no-ignore-unsigned-files", false, "the same as --ignore-unsigned-files=false")
	flags.BoolVar(&f.json, "json", false, "print one JSON document, refusals included")
	flags.BoolVar(&f.quiet, "quiet", false, "print nothing when all is well")
	f.scope.register(flags)
	if err := cmd.MarkFlagRequired("signature"); err != nil {
		panic("model verify: internal error: " + err.Error())
	}
	return cmd
}

// modelTrust is what the flags say about the signer.
type modelTrust struct {
	key         crypto.PublicKey
	roots       []*x509.Certificate
	at          time.Time // zero: by timestamp
	authorities []*x509.Certificate
	account     *modelAccount
}

func (f *modelVerifyFlags) run(cmd *cobra.Command, s streams, path string) error {
	trust, err := f.trust()
	switch {
	case errors.Is(err, errWeightsKey):
		return f.refuse(s, path, err)
	case err != nil:
		return err
	}
	if _, err := os.Stat(path); err != nil {
		return fmt.Errorf("open model: %w", err)
	}
	bundle, err := f.readSignature()
	if err != nil {
		return err
	}
	signed, err := statement.Parse(bundle)
	if err != nil {
		return f.refuse(s, path, err)
	}
	who, err := trust.check(signed)
	if err != nil {
		return f.refuse(s, path, err)
	}
	manifest, err := oms.ParseManifest(signed)
	if err != nil {
		return f.refuse(s, path, err)
	}
	tell, stop := startProgress(s, path, f.quiet)
	report, err := verifier.Verify(cmd.Context(), path, manifest, verifier.Options{
		IgnorePaths: f.scope.ignored(s, path), IncludeGit: !f.scope.ignoreGit(), AllowSymlinks: f.scope.symlinks,
		IgnoreUnsigned: f.unsigned && !f.noUnsigned, Signature: f.signature, Progress: tell,
	})
	stop()
	if r := new(verifier.Refused); errors.As(err, &r) {
		return f.refuse(s, path, err)
	}
	if err != nil {
		return err
	}
	switch {
	case f.json:
		return printJSON(s.out, struct {
			Verified bool        `json:"verified"`
			Root     string      `json:"root"`
			Signer   modelSigner `json:"signer"`
			Files    int         `json:"files"`
			Bytes    int64       `json:"bytes"`
			Seconds  float64     `json:"seconds"`
		}{true, report.Root, who, report.Files, report.Bytes, report.Seconds})
	case f.quiet:
		return nil
	}
	_, err = fmt.Fprintf(s.out, "verified %s (%s, %d bytes), signed by %s\n", report.Root, countFiles(report.Files), report.Bytes, who)
	return err
}

// readSignature reads the bundle, and of one that is too long as much as the parser needs to refuse it.
func (f *modelVerifyFlags) readSignature() ([]byte, error) {
	file, err := os.Open(f.signature)
	if err != nil {
		return nil, fmt.Errorf("read signature: %w", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, statement.MaxBundle+1))
	if err != nil {
		return nil, fmt.Errorf("read signature: %w", err)
	}
	return data, nil
}

// refuse reports a refusal with every problem and ends the command with status 1.
func (f *modelVerifyFlags) refuse(s streams, path string, err error) error {
	problems := []verifier.Problem{}
	if r := new(verifier.Refused); errors.As(err, &r) {
		problems = r.Problems
	}
	if f.json {
		if err := printJSON(s.out, struct {
			Verified bool               `json:"verified"`
			Reason   string             `json:"reason"`
			Problems []verifier.Problem `json:"problems"`
		}{false, err.Error(), problems}); err != nil {
			return err
		}
	}
	for _, p := range problems {
		fmt.Fprintf(s.err, "weighbridge: %s\n", p)
	}
	out := refused("verify "+path, err)
	if len(problems) > 0 {
		out = withHint(out, "fetch the named files again from where they were signed; a file that is not listed must go")
	}
	return out
}

// trust reads the keys and certificates that the flags name.
func (f *modelVerifyFlags) trust() (t modelTrust, err error) {
	if t.account, err = f.account(); err != nil || t.account != nil {
		return t, err
	}
	switch {
	case (f.publicKey == "") == (len(f.chain) == 0):
		return t, withHint(errors.New("want either --public-key or --certificate-chain, or --identity"), "who must have signed: name the key, the roots of the certificate, or the account")
	case f.publicKey != "" && (f.at != "now" || f.authorities != nil):
		return t, errors.New("--verification-time and --timestamp-authority are for certificates, a bare key has no validity")
	case f.at == "timestamp" && f.authorities == nil:
		return t, withHint(errors.New("--verification-time timestamp needs --timestamp-authority"), "name the certificates of the authorities whose time you trust")
	case f.at != "timestamp" && f.authorities != nil:
		return t, errors.New("--timestamp-authority needs --verification-time timestamp")
	case f.publicKey != "":
		data, err := readFlagFile(f.publicKey, statement.MaxKeyFile)
		if err != nil {
			return t, fmt.Errorf("read public key: %w", err)
		}
		t.key, err = statement.ParsePublicKey(data)
		if block, _ := pem.Decode(data); err != nil && block != nil && block.Type == "PUBLIC KEY" {
			err = fmt.Errorf("%w: %w", errWeightsKey, err) // RSA, another curve: whoever signed, it was not this key
		}
		if err != nil {
			return t, fmt.Errorf("public key %s: %w", f.publicKey, err)
		}
		return t, nil
	}
	if t.roots, err = readCertificates(f.chain); err != nil {
		return t, fmt.Errorf("read certificates: %w", err)
	}
	if t.authorities, err = readCertificates(f.authorities); err != nil {
		return t, fmt.Errorf("read certificates: %w", err)
	}
	switch f.at {
	case "now":
		t.at = time.Now()
	case "timestamp":
	default:
		if t.at, err = time.Parse(time.RFC3339, f.at); err != nil || t.at.IsZero() {
			return t, fmt.Errorf("--verification-time: %q is not now, timestamp, or a time such as 2030-01-01T00:00:00Z", f.at)
		}
	}
	return t, nil
}

// check returns who signed, if it is the one that is trusted.
func (t *modelTrust) check(signed *statement.Signed) (modelSigner, error) {
	if t.key != nil {
		if _, ok := t.key.(*ecdsa.PublicKey); !ok {
			return modelSigner{}, errWeightsKey
		}
		if err := signed.VerifyKey(t.key); err != nil {
			return modelSigner{}, err
		}
		return keyModelSigner(t.key)
	}
	if t.account != nil {
		return t.account.check(signed)
	}
	if signed.Material() != statement.MaterialChain {
		return modelSigner{}, fmt.Errorf("%w: the bundle holds no X.509 chain", statement.ErrSignature)
	}
	at := t.at
	if at.IsZero() {
		var err error
		if at, err = timestamp.Verify(signed.Timestamps(), signed.Signature(), t.authorities); err != nil {
			return modelSigner{}, err
		}
	}
	if err := signed.VerifyChain(t.roots, at); err != nil {
		return modelSigner{}, err
	}
	if err := weightsLeaf(signed); err != nil {
		return modelSigner{}, err
	}
	return certificateModelSigner(signed.Certificates()[0]), nil
}

// weightsLeaf returns nil if the certificate is for a key that signs weights.
func weightsLeaf(signed *statement.Signed) error {
	if _, ok := signed.Certificates()[0].PublicKey.(*ecdsa.PublicKey); !ok {
		return errWeightsKey
	}
	return nil
}
