package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// signFlags say who signs a statement and where it goes.
type signFlags struct {
	key, password   string
	out, statements string

	certificate string
	chain       []string
	timestamp   string // URL
	policy      string // whose publications are looked at, "" those of anyone
	account     accountFlags
	server      string
	json        bool
}

// add gives a command the flags. With --json what it refuses is one document as well.
func (o *signFlags) add(s streams, cmd *cobra.Command) {
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return refusedJSON(s.out, o.json, map[string]any{}, run(cmd, args))
	}
	f := cmd.Flags()
	f.StringVar(&o.key, "key", "", "private key to sign with (required, unless with a Sigstore account)")
	f.StringVar(&o.password, "password", "", "file that holds the password of an encrypted private key")
	f.StringVar(&o.out, "out", "", "file to write the statement to")
	f.StringVar(&o.statements, "statements", "", "statements directory, to write to (without --out) and to look in")
	f.StringVar(&o.certificate, "certificate", "", "PEM certificate of --key: sign as an X.509 identity")
	f.StringArrayVar(&o.chain, "certificate-chain", nil, "PEM certificates that lead from --certificate to a root; may be repeated")
	f.StringVar(&o.timestamp, "timestamp-url", "", "RFC 3161 authority to get a trusted time from; an SVID's statements count with one only")
	o.account.register(f)
	f.BoolVar(&o.json, "json", false, "print one JSON document")
	f.StringVar(&o.server, "server", "", "submit to a gateway by its control socket")
}

// addPolicy gives a command that looks for publications the flag that says whose.
func (o *signFlags) addPolicy(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.policy, "policy", "", "policy: look only at publications by who may publish (default: whatever lies in --statements)")
}

// hintUnverified tells whoever relies on files that nobody vouched for.
func (o *signFlags) hintUnverified(s streams, what string) {
	if o.policy == "" {
		fmt.Fprintf(s.err, "hint: %s was found among statements whose signatures were not looked at; name --policy, or say it yourself\n", what)
	}
}

// signer checks the flags and reads the key.
func (o *signFlags) signer(s streams, what string) (bundler, error) {
	switch {
	case o.account.given() && (o.key != "" || o.certificate != "" || len(o.chain) > 0 || o.timestamp != ""):
		return nil, fmt.Errorf("%s: --key, certificates and --timestamp-url are not for signing with a Sigstore account", what)
	case o.certificate == "" && len(o.chain) > 0:
		return nil, fmt.Errorf("%s: --certificate-chain needs --certificate", what)
	case o.key == "" && !o.account.given():
		return nil, fmt.Errorf("%s: --key is required", what)
	case o.out == "" && o.statements == "" && o.server == "":
		return nil, fmt.Errorf("%s: one of --out, --statements and --server is required", what)
	}
	if o.account.given() {
		signer, err := o.account.signer()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		return signer, nil
	}
	key, err := readSigningKey(o.key, o.password)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	signer, err := newSigner(s, key, o.certificate, o.chain)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	switch cert := signer.Certificate(); {
	case o.timestamp != "":
		signer = signer.WithStamp(stampFrom(o.timestamp))
	case cert != nil && statement.PurposeOf(cert) == statement.SVID:
		fmt.Fprintf(s.err, "hint: what an SVID signs counts with a trusted time only: name an authority of the policy by --timestamp-url\n")
	}
	return signer, nil
}

// newSigner signs as a bare key or, if a certificate is named, under that.
func newSigner(s streams, key crypto.Signer, certificate string, more []string) (*statement.Signer, error) {
	if certificate == "" {
		return statement.NewKeySigner(key)
	}
	chain, err := readCertificates(append([]string{certificate}, more...))
	if err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	for _, c := range chain {
		if now := time.Now(); now.Before(c.NotBefore) || now.After(c.NotAfter) {
			fmt.Fprintf(s.err, "weighbridge: certificate %s is valid from %s to %s, not now: verifiers will refuse what it signs\n",
				c.Subject, c.NotBefore.UTC().Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339))
		}
	}
	return statement.NewChainSigner(key, chain)
}

// sign signs the payload, writes the statement, whole or not at all, or submits it, and prints its id. A file that holds
// this statement by this key already is left as it is; any other is never replaced.
func (o *signFlags) sign(s streams, what, kind string, signer bundler, payload []byte) error {
	bundle, err := signer.Sign(payload)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	signed, err := statement.Parse(bundle)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if o.server != "" {
		res, err := submitTo(context.Background(), o.server, [][]byte{bundle}, false)
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if o.out == "" && o.statements == "" {
			return tellSubmitted(s, res, false, o.json)
		}
	}
	path, err := o.file(kind, signed, signer)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	same, err := holds(path, signed.ID(), signer)
	if err != nil {
		return withHint(refused(what, err), "choose another --out, or move the file away")
	}
	if !same {
		if err := store.WriteFile(path, bundle, 0o644); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	if o.json {
		return printJSON(s.out, map[string]any{"kind": kind, "statement": signed.ID(), "file": path})
	}
	_, err = fmt.Fprintln(s.out, signed.ID())
	return err
}

// file is where a statement goes. In a statements directory its name is its kind, id and signer: two approvers may sign the
// very same statement.
func (o *signFlags) file(kind string, signed *statement.Signed, signer bundler) (string, error) {
	if o.out != "" {
		return o.out, nil
	}
	name, err := mark(signer, signed)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(o.statements, 0o755); err != nil {
		return "", err
	}
	return filepath.Join(o.statements, fmt.Sprintf("%s-%.16s-%.8s.json", kind, signed.ID().Hex(), name)), nil
}

// holds reports whether a file holds a statement by a signer; it is an error if the file holds anything else.
func holds(path string, id statement.ID, signer bundler) (bool, error) {
	data, err := store.ReadFile(path, statement.MaxBundle)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	if s, err := statement.Parse(data); err == nil && s.ID() == id && signer.Made(s) {
		return true, nil
	}
	return false, fmt.Errorf("%s exists and holds something else", path)
}

// findRelease reads RELEASE: a statement file, or the id of a release. An id is looked up in the statements directory,
// where there is one; release is nil if it is not found there.
func findRelease(what, arg, statements string) (id statement.ID, release *trust.Release, err error) {
	if id, err := statement.ParseID(arg); err == nil {
		if statements == "" || !isDir(statements) {
			return id, nil, nil
		}
		set, _, err := store.ReadStatements([]string{statements})
		if err != nil {
			return "", nil, fmt.Errorf("%s: %w", what, err)
		}
		for _, s := range set {
			if s.ID() == id {
				return parseRelease(what, s)
			}
		}
		return id, nil, nil
	}
	data, err := store.ReadFile(arg, statement.MaxBundle)
	if err != nil {
		return "", nil, withHint(fmt.Errorf("%s: %w", what, err), "RELEASE is a statement file or a release id, sha256: and 64 hex digits")
	}
	s, err := statement.Parse(data)
	if err != nil {
		return "", nil, refused(what, fmt.Errorf("%s: %w", arg, err))
	}
	return parseRelease(what, s)
}

func parseRelease(what string, s *statement.Signed) (statement.ID, *trust.Release, error) {
	release, err := trust.ParseRelease(s)
	if err != nil {
		return "", nil, refused(what, err)
	}
	return s.ID(), release, nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
