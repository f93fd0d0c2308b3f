package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strconv"
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
}

// A list is a flag that may be repeated. Values are taken as they are: a path may hold commas.
type list []string

func (l *list) String() string     { return fmt.Sprint(*l) }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

// translate turns a command line of the protocol into one of weighbridge. Every value goes behind "=", so that none is
// ever taken for a flag.
func translate(args []string) ([]string, error) {
	if len(args) == 0 {
		return nil, errUsage
	}
	switch args[0] {
	case "sign-model":
		return parseSign(args[1:])
	case "verify-model":
		return parseVerify(args[1:])
	}
	return nil, fmt.Errorf("unknown command %q: %w", args[0], errUsage)
}

func parseSign(args []string) ([]string, error) {
	var r request
	f := r.flags("sign-model")
	f.StringVar(&r.output, "output-bundle", "", "")
	f.StringVar(&r.privateKey, "private-key", "", "")
	f.StringVar(&r.signingCert, "signing-cert", "", "")
	f.StringVar(&r.hash, "hash-algorithm", "", "")
	f.Uint64Var(&r.shardSize, "shard-size", 0, "")
	f.String("identity-token", "", "")
	if err := r.parse(f, args); err != nil {
		return nil, err
	}
	err := errors.Join(r.need("output-bundle", r.output), r.need("private-key", r.privateKey))
	out := []string{"model", "sign", "--quiet", "--signature=" + r.output, "--private-key=" + r.privateKey}
	if r.method == "certificate" {
		err = errors.Join(err, r.need("signing-cert", r.signingCert))
		out = append(out, "--signing-certificate="+r.signingCert)
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

func parseVerify(args []string) ([]string, error) {
	var r request
	f := r.flags("verify-model")
	f.StringVar(&r.bundle, "bundle", "", "")
	f.StringVar(&r.publicKey, "public-key", "", "")
	f.BoolVar(&r.ignoreUnsigned, "ignore-unsigned-files", false, "")
	f.String("identity", "", "")
	f.String("identity-provider", "", "")
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
	f.Bool("use-staging", false, "")
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
	case "key", "certificate":
	case "sigstore":
		return errors.New("--method sigstore: keyless signatures are not supported")
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
