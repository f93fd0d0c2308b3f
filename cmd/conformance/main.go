// Command conformance is the adapter through which the OpenSSF Model Signing conformance suite
// (github.com/sampras343/model-signing-conformance) tests this implementation:
//
//	go build -o bin/ ./cmd/weighbridge ./cmd/conformance
//	pytest test/ --entrypoint=/path/to/bin/conformance      (in a checkout of the suite)
//
// The one rule: it decides nothing. It puts the suite's flags into those of "weighbridge model" and runs that program,
// so the suite tests the same program that operators run, flags and messages included. The program is the one that
// $WEIGHBRIDGE names, else the one beside the adapter, else the one on the PATH.
//
// Cases that are known to fail, each for --xfail; TestDifferences and TestSignRefuses pin them:
//
//   - historical-v0.2.0-certificate: a layout that verifiers MAY read (OMS v1.0 sections 5.1 and 11.2).
//   - certificate-no-code-signing-eku_fail: sign-model refuses the certificate, and the suite misses a bundle to verify.
//
// The suite looks at the exit status alone, and at whether it is zero. The adapter hands on what weighbridge returns:
// 0 signed or verified, 1 refused, 2 could not run. Flags of another method are read and have no effect: the suite's cases
// of a wrong key name a wrong root beside it, whatever the method.
//
// With --method sigstore the instance is production, that of --use-staging, or that of --trust-config, the same flag as
// model_signing's (a ClientTrustConfig), which the suite does not use. The public instances are those of configs/sigstore:
// verifying asks no network, and so knows no key that an instance took since. Signing asks the instance, with the suite's
// --identity-token, else $SIGSTORE_ID_TOKEN; without either the answer is 2, and --skip-sigstore leaves those cases out.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

const exitFailed = 2 // as weighbridge: neither done nor refused

// errUsage is a command line that the protocol has no meaning for.
var errUsage = errors.New("usage: conformance sign-model|verify-model --method key|certificate|sigstore --model-path PATH ..., or conformance capabilities")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status, err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "conformance: %v\n", err)
	}
	os.Exit(status)
}

// run carries out one request of the suite and returns the exit status. An error is one of the adapter; weighbridge
// reports its own.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (int, error) {
	if len(args) == 1 && args[0] == "capabilities" {
		return capabilities(ctx, stdout, stderr)
	}
	dir, err := os.MkdirTemp("", "conformance")
	if err != nil {
		return exitFailed, fmt.Errorf("make a directory for the instance's files: %w", err)
	}
	defer os.RemoveAll(dir)
	translated, err := translate(args, dir)
	if err != nil {
		return exitFailed, err
	}
	return weighbridge(ctx, translated, stdout, stderr)
}

// weighbridge runs the program and returns its exit status.
func weighbridge(ctx context.Context, c command, stdout, stderr io.Writer) (int, error) {
	program, err := find()
	if err != nil {
		return exitFailed, err
	}
	cmd := exec.CommandContext(ctx, program, c.args...) // whoever runs the suite names the program to test
	if c.token != "" {
		cmd.Env = append(os.Environ(), "SIGSTORE_ID_TOKEN="+c.token)
	}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	err = cmd.Run()
	if exit := new(exec.ExitError); errors.As(err, &exit) && exit.Exited() {
		return exit.ExitCode(), nil
	}
	if err != nil {
		return exitFailed, fmt.Errorf("run %s: %w", program, err) // a signal is no answer: never 0
	}
	return 0, nil
}

// find returns the path of the program that is tested.
func find() (string, error) {
	if program := os.Getenv("WEIGHBRIDGE"); program != "" {
		return program, nil
	}
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find weighbridge: %w", err)
	}
	beside := filepath.Join(filepath.Dir(self), "weighbridge")
	if program, err := exec.LookPath(beside); err == nil { // not a directory of that name
		return program, nil
	}
	program, err := exec.LookPath("weighbridge")
	if err != nil {
		return "", fmt.Errorf("find weighbridge: it is neither in $WEIGHBRIDGE nor beside %s: %w", self, err)
	}
	return program, nil
}

// capabilities tells the suite's benchmarks what the adapter takes beyond the required flags.
func capabilities(ctx context.Context, stdout, stderr io.Writer) (int, error) {
	var version strings.Builder
	status, err := weighbridge(ctx, command{args: []string{"version"}}, &version, stderr)
	if err != nil || status != 0 {
		return exitFailed, err
	}
	first, _, _ := strings.Cut(version.String(), "\n")
	_, err = fmt.Fprintf(stdout, `{"flags":["--hash-algorithm","--shard-size"],"hash_algorithms":["sha256","blake2b","blake3"],`+
		`"benchmark_model":false,"client_version":%q}`+"\n", strings.TrimPrefix(first, "weighbridge "))
	if err != nil {
		return exitFailed, fmt.Errorf("write capabilities: %w", err)
	}
	return 0, nil
}
