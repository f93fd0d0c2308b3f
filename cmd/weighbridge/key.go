package main

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

func newKeyCmd(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "key",
		Short:   "Make signing keys and name them",
		Example: "  weighbridge key new alice",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newKeyNewCmd(s), newKeyIDCmd(s))
	return cmd
}

func newKeyNewCmd(s streams) *cobra.Command {
	var kind, out string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "new NAME",
		Short: "Make a key pair: NAME.key (0600) and NAME.pub; prints the key id",
		Long: `Make a key pair, NAME.key for its owner alone and NAME.pub for the policy, and print the key id.
Existing files are never replaced.`,
		Example: "  weighbridge key new alice --out keys",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			id, err := newKeyPair(args[0], kind, out)
			if err != nil {
				return fmt.Errorf("key new: %w", err)
			}
			if asJSON {
				return printJSON(s.out, map[string]any{"keyId": id})
			}
			_, err = fmt.Fprintln(s.out, id)
			return err
		},
	}
	cmd.Flags().StringVar(&kind, "type", "ecdsa-p256", "ecdsa-p256 or ed25519")
	cmd.Flags().StringVar(&out, "out", ".", "directory to write to")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

// newKeyPair writes the private key first: a crash leaves a key without its public half, which key id can still name,
// and never a public key whose private half nobody has. An error leaves neither.
func newKeyPair(name, kind, dir string) (statement.KeyID, error) {
	if name != filepath.Base(name) || strings.HasPrefix(name, ".") {
		return "", withHint(fmt.Errorf("%q is not a plain name", name), "give the directory by --out")
	}
	var key crypto.Signer
	var err error
	switch kind {
	case "ecdsa-p256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	default:
		return "", fmt.Errorf("--type %q is neither ecdsa-p256 nor ed25519", kind)
	}
	if err != nil {
		return "", err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", err
	}
	public, err := trust.PublicPEM(key.Public())
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	keyFile := filepath.Join(dir, name+".key")
	if err := writeNew(keyFile, private, 0o600); err != nil {
		return "", err
	}
	if err := writeNew(filepath.Join(dir, name+".pub"), []byte(public), 0o644); err != nil {
		return "", errors.Join(err, os.Remove(keyFile))
	}
	return statement.KeyIDOf(key.Public())
}

// writeNew writes a file that must not exist yet, whole or not at all.
func writeNew(path string, data []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, werr := f.Write(data)
	if err := errors.Join(werr, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

func newKeyIDCmd(s streams) *cobra.Command {
	var password string
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "id FILE",
		Short:   "Print a key's id: sha256 of the DER SubjectPublicKeyInfo",
		Long:    "Print the id of a public or private key: sha256: and the hex SHA-256 of its DER SubjectPublicKeyInfo.",
		Example: "  weighbridge key id alice.pub",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			pub, err := readPublicHalf(args[0], password)
			if err != nil {
				return fmt.Errorf("key id: %w", err)
			}
			id, err := statement.KeyIDOf(pub)
			if err != nil {
				return fmt.Errorf("key id: %w", err)
			}
			if asJSON {
				return printJSON(s.out, map[string]any{"keyId": id})
			}
			_, err = fmt.Fprintln(s.out, id)
			return err
		},
	}
	cmd.Flags().StringVar(&password, "password", "", "file that holds the password of an encrypted private key")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

// readPublicHalf reads the public key in a file that holds a public or a private key.
func readPublicHalf(path, password string) (crypto.PublicKey, error) {
	data, err := store.ReadFile(path, statement.MaxKeyFile)
	if err != nil {
		return nil, err
	}
	if bytes.Contains(data, []byte("PRIVATE KEY-----")) {
		key, err := readSigningKey(path, password)
		if err != nil {
			return nil, err
		}
		return key.Public(), nil
	}
	pub, err := statement.ParsePublicKey(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return pub, nil
}

// readSigningKey reads a private key; password names a file, or nothing.
func readSigningKey(path, password string) (crypto.Signer, error) {
	data, err := readFlagFile(path, statement.MaxKeyFile)
	if err != nil {
		return nil, err
	}
	var secret []byte
	if password != "" {
		if secret, err = readFlagFile(password, statement.MaxKeyFile); err != nil {
			return nil, fmt.Errorf("read password: %w", err)
		}
		secret = bytes.TrimRight(secret, "\r\n")
	}
	key, err := statement.ParsePrivateKey(data, secret)
	if err != nil {
		err = fmt.Errorf("%s: %w", path, err)
		if errors.Is(err, statement.ErrPassword) {
			err = withHint(err, "give the file that holds its password: --password FILE")
		}
		return nil, err
	}
	return key, nil
}
