package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/weighbridge/weighbridge/configs/sigstore"
)

// A request is a command line of the protocol: all flags of both commands.
type request struct {
	method, model         string
	bundle, output        string
	privateKey, publicKey string
	signingCert           string
	chain, ignore         list
	ignoreUnsigned        bool
	hash                  string
	shardSize             uint64
	identity, provider    string
	token, trustConfig    string
	staging               bool
}

// A command is what to run of weighbridge, and with which identity token, "" for that of the environment.
type command struct {
	args  []string
	token string
}

// A list is a flag that may be repeated. Values are taken as they are: a path may hold commas.
type list []string

func (l *list) String() string     { return fmt.Sprint(*l) }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

// translate turns a command line of the protocol into one of weighbridge. Every value goes behind "=", so that none is
// ever taken for a flag. Files that the command needs are written into dir.
func translate(args []string, dir string) (command, error) {
	if len(args) == 0 {
		return command{}, errUsage
	}
	var r request
	var out []string
	var err error
	switch args[0] {
	case "sign-model":
		out, err = r.parseSign(args[1:], dir)
	case "verify-model":
		out, err = r.parseVerify(args[1:], dir)
	default:
		err = fmt.Errorf("unknown command %q: %w", args[0], errUsage)
	}
	if err != nil {
		return command{}, err
	}
	if r.method != "sigstore" {
		r.token = ""
	}
	return command{out, r.token}, nil
}

func (r *request) parseSign(args []string, dir string) ([]string, error) {
	f := r.flags("sign-model")
	f.StringVar(&r.output, "output-bundle", "", "")
	f.StringVar(&r.privateKey, "private-key", "", "")
	f.StringVar(&r.signingCert, "signing-cert", "", "")
	f.StringVar(&r.hash, "hash-algorithm", "", "")
	f.Uint64Var(&r.shardSize, "shard-size", 0, "")
	f.StringVar(&r.token, "identity-token", "", "")
	if err := r.parse(f, args); err != nil {
		return nil, err
	}
	err := r.need("output-bundle", r.output)
	out := []string{"model", "sign", "--quiet", "--signature=" + r.output}
	switch r.method {
	case "certificate":
		err = errors.Join(err, r.need("signing-cert", r.signingCert))
		out = append(out, "--signing-certificate="+r.signingCert)
		fallthrough
	case "key":
		err = errors.Join(err, r.need("private-key", r.privateKey))
		out = append(out, "--private-key="+r.privateKey)
	case "sigstore":
		instance, failed := r.instance(dir, "trusted-root", "signing-config")
		err = errors.Join(err, failed)
		out = append(out, instance...)
	}
	if err != nil {
		return nil, err
	}
	if r.hash != "" {
		out = append(out, "--hash="+r.hash)
	}
	if r.shardSize != 0 {
		out = append(out, "--shard-size="+strconv.FormatUint(r.shardSize, 10))
	}
	return r.common(out), nil
}

func (r *request) parseVerify(args []string, dir string) ([]string, error) {
	f := r.flags("verify-model")
	f.StringVar(&r.bundle, "bundle", "", "")
	f.StringVar(&r.publicKey, "public-key", "", "")
	f.BoolVar(&r.ignoreUnsigned, "ignore-unsigned-files", false, "")
	f.StringVar(&r.identity, "identity", "", "")
	f.StringVar(&r.provider, "identity-provider", "", "")
	if err := r.parse(f, args); err != nil {
		return nil, err
	}
	err := r.need("bundle", r.bundle)
	out := []string{"model", "verify", "--quiet", "--signature=" + r.bundle}
	switch r.method {
	case "key":
		err = errors.Join(err, r.need("public-key", r.publicKey))
		out = append(out, "--public-key="+r.publicKey)
	case "certificate":
		if r.chain == nil {
			// Nothing trusted, nothing verified: the system's roots are no default for who may sign weights.
			err = errors.Join(err, r.need("cert-chain", ""))
		}
	case "sigstore":
		instance, failed := r.instance(dir, "trusted-root")
		err = errors.Join(err, r.need("identity", r.identity), r.need("identity-provider", r.provider), failed)
		out = append(append(out, "--identity="+r.identity, "--identity-provider="+r.provider), instance...)
	}
	if err != nil {
		return nil, err
	}
	if r.ignoreUnsigned {
		out = append(out, "--ignore-unsigned-files")
	}
	return r.common(out), nil
}

// flags returns the set with what both commands take.
func (r *request) flags(command string) *flag.FlagSet {
	f := flag.NewFlagSet(command, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&r.method, "method", "", "")
	f.StringVar(&r.model, "model-path", "", "")
	f.Var(&r.chain, "cert-chain", "")
	f.Var(&r.ignore, "ignore-paths", "")
	f.BoolVar(&r.staging, "use-staging", false, "")
	f.StringVar(&r.trustConfig, "trust-config", "", "")
	return f
}

// parse reads args and checks what both commands require.
func (r *request) parse(f *flag.FlagSet, args []string) error {
	if err := f.Parse(args); err != nil {
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	if f.NArg() > 0 {
		return fmt.Errorf("%s: unexpected argument %q", f.Name(), f.Arg(0))
	}
	switch r.method {
	case "key", "certificate", "sigstore":
	default:
		return fmt.Errorf("--method: %q is not key, certificate or sigstore", r.method)
	}
	return r.need("model-path", r.model)
}

func (r *request) need(name, value string) error {
	if value != "" {
		return nil
	}
	return fmt.Errorf("--method %s needs --%s", r.method, name)
}

// instance returns the flags that name the Sigstore instance, by those of its files that the command takes.
func (r *request) instance(dir string, flags ...string) ([]string, error) {
	name := "production"
	switch {
	case r.trustConfig != "" && r.staging:
		return nil, errors.New("--use-staging and --trust-config name two instances")
	case r.trustConfig != "":
		return []string{"--trust-config=" + r.trustConfig}, nil
	case r.staging:
		name = "staging"
	}
	var out []string
	for _, f := range flags {
		file := strings.ReplaceAll(f, "-", "_") + ".json"
		data, err := sigstore.Files.ReadFile(name + "/" + file)
		if err != nil {
			panic("conformance: internal error: " + err.Error())
		}
		path := filepath.Join(dir, file)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			return nil, fmt.Errorf("write a file of the %s instance: %w", name, err)
		}
		out = append(out, "--"+f+"="+path)
	}
	return out, nil
}

// common appends the flags that both commands share, and the model. The chain counts only for the method that has one:
// the suite's cases of wrong keys name the wrong key and the wrong root, whatever the method.
func (r *request) common(out []string) []string {
	if r.method == "certificate" {
		for _, c := range r.chain {
			out = append(out, "--certificate-chain="+c)
		}
	}
	for _, p := range r.ignore {
		out = append(out, "--ignore-paths="+p)
	}
	return append(out, "--", r.model)
}
