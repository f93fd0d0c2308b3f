package main

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/weighbridge/weighbridge/verifier"
	"github.com/weighbridge/weighbridge/verifier/digest"
	"github.com/weighbridge/weighbridge/verifier/oms"
	"github.com/weighbridge/weighbridge/verifier/statement"
)

func newModelCmd(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "model",
		Short: "Digest, sign and verify model weights (OpenSSF Model Signing)",
		Long: `Digest, sign and verify model weights in the format of OpenSSF Model Signing v1.0.

PATH is a model's directory, or the file of a model that is a single file. The flags are those of model_signing,
whose bundles these commands read and whose verifier reads theirs; underscores in flags are taken for hyphens.`,
		Example: "  weighbridge model verify ./model --signature model.sig --public-key trainer.pub",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.SetGlobalNormalizationFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		return pflag.NormalizedName(strings.ReplaceAll(name, "_", "-"))
	})
	cmd.AddCommand(newModelDigestCmd(s), newModelSignCmd(s), newModelVerifyCmd(s))
	return cmd
}

// modelScope are the flags that say which files of a model count.
type modelScope struct {
	ignore   []string
	git      bool
	noGit    bool
	symlinks bool
}

func (m *modelScope) register(f *pflag.FlagSet) {
	f.StringArrayVar(&m.ignore, "ignore-paths", nil, "leave out this file or directory (repeatable)")
	f.BoolVar(&m.git, "ignore-git-paths", true, "leave out .git, .github, .gitignore and .gitattributes at the top")
	f.BoolVar(&m.noGit, "no-ignore-git-paths", false, "the same as --ignore-git-paths=false")
	f.BoolVar(&m.symlinks, "allow-symlinks", false, "follow symbolic links")
}

func (m *modelScope) ignoreGit() bool { return m.git && !m.noGit }

// ignored returns the --ignore-paths relative to the model. As with model_signing they are seen from the working
// directory; one that lies elsewhere from there is taken to be relative to the model.
func (m *modelScope) ignored(s streams, model string) []string {
	var rel []string
	for _, p := range m.ignore {
		r, ok := verifier.Within(model, p)
		if clean := filepath.Clean(p); !ok && filepath.IsLocal(clean) && clean != "." {
			r, ok = clean, true
		}
		if !ok {
			fmt.Fprintf(s.err, "weighbridge: --ignore-paths %s lies outside the model and has no effect\n", p)
			continue
		}
		rel = append(rel, r)
	}
	return rel
}

// modelMethod are the flags that say how a model is hashed.
type modelMethod struct {
	shardSize string
	files     bool
	hash      string
}

func (m *modelMethod) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&m.shardSize, "shard-size", "", "hash files in shards of this size, such as 64MiB")
	f.BoolVar(&m.files, "files", false, "hash whole files (the default)")
	f.StringVar(&m.hash, "hash", string(digest.SHA256), "hash algorithm: sha256, blake2b or blake3")
	cmd.MarkFlagsMutuallyExclusive("files", "shard-size")
}

// options adds the method to what is hashed.
func (m *modelMethod) options(o verifier.DigestOptions) (verifier.DigestOptions, error) {
	var err error
	if o.Algorithm, err = digest.ParseAlgorithm(m.hash); err != nil {
		return o, fmt.Errorf("--hash: %w", err)
	}
	o.Method = oms.MethodFiles
	if m.shardSize != "" {
		o.Method = oms.MethodShards
		if o.ShardSize, err = parseShardSize(m.shardSize); err != nil {
			return o, fmt.Errorf("--shard-size: %w", err)
		}
	}
	return o, nil
}

// parseShardSize reads bytes with an optional unit: 64MiB, 1GB, 1000000.
func parseShardSize(s string) (int64, error) {
	digits := strings.TrimRight(s, "KMGTiBkb ")
	unit, known := map[string]int64{
		"": 1, "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
		"KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40,
	}[strings.ToUpper(strings.TrimSpace(s[len(digits):]))]
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || !known || n < 1 || n > oms.MaxFileSize/unit {
		return 0, fmt.Errorf("%q is not a size such as 64MiB, 1GB or 1000000", s)
	}
	return n * unit, nil
}

func newModelDigestCmd(s streams) *cobra.Command {
	var scope modelScope
	var method modelMethod
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "digest PATH",
		Short: "Print the root digest of a model",
		Long: `Print the root digest of a model: the SHA-256 over the digests of all its files, in the order of their names.
It is what a signature of the model, made with the same flags, is over.`,
		Example: "  weighbridge model digest ./model\n  weighbridge model digest ./model --shard-size 64MiB --hash blake3",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := method.options(verifier.DigestOptions{
				IgnorePaths: scope.ignored(s, args[0]), IgnoreGit: scope.ignoreGit(), AllowSymlinks: scope.symlinks,
			})
			if err != nil {
				return err
			}
			var stop func()
			o.Progress, stop = startProgress(s, args[0], false)
			l, err := verifier.Digest(cmd.Context(), args[0], o)
			stop()
			if err != nil {
				return err
			}
			root, err := l.Root()
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(s.out, struct {
					Root      string `json:"root"`
					Files     int    `json:"files"`
					Resources int    `json:"resources"`
					Bytes     int64  `json:"bytes"`
				}{root, l.Files, len(l.Resources), l.Bytes})
			}
			_, err = fmt.Fprintln(s.out, root)
			return err
		},
	}
	scope.register(cmd.Flags())
	method.register(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

// errTooLong means that a file is longer than whatever it should be.
var errTooLong = errors.New("too long")

// readFlagFile reads a small file that a flag names; it may be a pipe, as in --private-key <(vault …).
func readFlagFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s: %w: more than %d bytes", path, errTooLong, limit)
	}
	return data, nil
}

// readCertificates reads every certificate of PEM files, in order.
func readCertificates(paths []string) ([]*x509.Certificate, error) {
	var all []*x509.Certificate
	for _, path := range paths {
		data, err := readFlagFile(path, maxCertificateFile)
		if err != nil {
			return nil, err
		}
		before := len(all)
		for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
			if block.Type != "CERTIFICATE" {
				continue
			}
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("%s: certificate %d: %w", path, len(all)-before+1, err)
			}
			all = append(all, c)
		}
		if len(all) == before {
			return nil, withHint(fmt.Errorf("%s: no certificate in it", path), "the file must hold PEM blocks of type CERTIFICATE")
		}
	}
	return all, nil
}

const maxCertificateFile = 4 << 20 // bytes of a PEM file: a system's whole set of roots has some hundred KiB

// modelSigner names who signed weights, in the JSON of model sign and model verify.
type modelSigner struct {
	Kind     string `json:"kind"` // key, certificate or sigstore
	Identity string `json:"identity"`
	KeyID    string `json:"keyId,omitempty"`
	Subject  string `json:"subject,omitempty"`
	Issuer   string `json:"issuer,omitempty"`
}

func (m modelSigner) String() string { return m.Kind + " " + m.Identity }

func keyModelSigner(pub crypto.PublicKey) (modelSigner, error) {
	id, err := statement.KeyIDOf(pub)
	if err != nil {
		return modelSigner{}, err
	}
	return modelSigner{Kind: "key", Identity: string(id), KeyID: string(id)}, nil
}

func certificateModelSigner(leaf *x509.Certificate) modelSigner {
	m := modelSigner{Kind: "certificate", Subject: leaf.Subject.String(), Issuer: leaf.Issuer.String()}
	var names []string
	names = append(names, leaf.EmailAddresses...)
	for _, u := range leaf.URIs {
		names = append(names, u.String())
	}
	names = append(slices.Concat(names, leaf.DNSNames), m.Subject)
	m.Identity = names[0]
	return m
}

func countFiles(n int) string {
	if n == 1 {
		return "1 file"
	}
	return fmt.Sprintf("%d files", n)
}

var errWeightsKey = errors.New("weights are signed with EC keys (P-256, P-384 or P-521)")
