package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// A parts names the programs that are measured.
type parts struct {
	weighbridge string
	llama       string // llama-server
	signing     string // model_signing
}

// findParts looks for them in the repository, whose root is the working directory.
func findParts(ctx context.Context, stderr io.Writer) (parts, error) {
	p := parts{weighbridge: filepath.Join("bin", "weighbridge")}
	var err error
	if _, err = os.Stat(p.weighbridge); err != nil {
		return p, fmt.Errorf("find the gateway: %w; run this by make bench-load, in the repository's root", err)
	}
	if p.weighbridge, err = filepath.Abs(p.weighbridge); err != nil {
		return p, fmt.Errorf("find the gateway: %w", err)
	}
	for name, into := range map[string]*string{"llama-server": &p.llama, "model-signing": &p.signing} {
		cmd := exec.CommandContext(ctx, filepath.Join(".ci", "parts"), name)
		cmd.Stderr = stderr
		out, err := cmd.Output()
		if err != nil {
			return p, fmt.Errorf(".ci/parts %s: %w", name, err)
		}
		*into = strings.TrimSpace(string(out))
	}
	return p, nil
}

// A site is a directory with all that a gateway needs: keys, a trust policy, one signed and published release of the
// model, and a configuration.
type site struct {
	parts
	model modelFile
	dir   string

	runtimeArgs []string // how the gateway starts llama-server; see probe
	cold        eviction // what evicting the model came to, for the report
	present     bool     // memory is present when cold cases begin
	huge        string   // the machine's setting for huge pages, for the report
}

// Files in a site.
const (
	modelName    = "models/model.gguf"
	filesSig     = "files.sig" // not beside the model, where the gateway would find two signatures
	configFile   = "gateway.yaml"
	stateDir     = "state"
	spiffeSocket = "spiffe.sock"
	trustDomain  = "bench.example"
)

const policyText = `apiVersion: weighbridge/v1
kind: TrustPolicy
version: 1
expires: %s
identities:
  security: {keys: [root.pub]}
  trainer:  {keys: [trainer.pub]}
  alice:    {keys: [alice.pub]}
  bob:      {keys: [bob.pub]}
  shipper:  {keys: [shipper.pub]}
roles:
  root:      {members: [security], threshold: 1}
  producer:  {members: [trainer]}
  approver:  {members: [alice, bob]}
  publisher: {members: [shipper]}
channels:
  chat:
    require:
      release:  {role: producer}
      approval: {role: approver, count: 2}
    publish:  {role: publisher}
    separate: [producer, approver, publisher]
`

const releaseText = `apiVersion: weighbridge/v1
kind: Release
model: bench
version: 1.0.0
weights: {path: ./` + modelName + `, signature: ./` + modelName + `.sig}
runtime: {kind: llamacpp, args: {ctx-size: 256, threads: 1}}
behaviour:
  sampling: {temperature: {default: 0.2, max: 1.0}, topP: {default: 0.9, max: 1.0}}
  output: {maxTokens: 64}
`

const configText = `listen: {grpc: 127.0.0.1:0, http: 127.0.0.1:0, control: "unix:./control.sock", metrics: 127.0.0.1:0}
identity: {development: {trustDomain: ` + trustDomain + `, socket: ./` + spiffeSocket + `}}
trust:
  root: {keys: [%s], threshold: 1}
  policy: policy.jsonl
  statements: [./statements]
  state: ./` + stateDir + `
weights: [./models]
runtimes: {llamacpp: {command: %q}}
channels: {chat: {}}
memory: %dMiB
access: [{caller: "spiffe://` + trustDomain + `/apps/*", channels: [chat], methods: [chat, models]}]
`

// newSite makes a site in a temporary directory beside the model, which it links and does not copy.
func newSite(ctx context.Context, p parts, m modelFile) (_ *site, err error) {
	s := &site{parts: p, model: m}
	if s.dir, err = os.MkdirTemp(filepath.Dir(m.path), "bench-load-"); err != nil {
		return nil, fmt.Errorf("make site: %w", err)
	}
	defer func() {
		if err != nil {
			s.close()
			err = fmt.Errorf("make site: %w", err)
		}
	}()
	for _, name := range []string{"models", "statements"} {
		if err := os.Mkdir(s.path(name), 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.Link(m.path, s.path(modelName)); err != nil {
		return nil, err
	}
	if err := s.sign(ctx); err != nil {
		return nil, err
	}
	root, err := s.weighbridgeSays(ctx, "key", "id", "root.pub")
	if err != nil {
		return nil, err
	}
	const room = 1 << 10 // MiB above the model's, so that the budget is not what is measured
	return s, s.write(configFile, fmt.Sprintf(configText, root, p.llama, m.size>>20+room))
}

// sign makes keys, policy and statements, by the commands that their owners would use.
func (s *site) sign(ctx context.Context) error {
	expires := time.Now().AddDate(0, 0, 7).UTC().Format(time.RFC3339)
	if err := errors.Join(s.write("policy.yaml", fmt.Sprintf(policyText, expires)), s.write("release.yaml", releaseText)); err != nil {
		return err
	}
	var steps [][]string
	for _, name := range []string{"root", "trainer", "alice", "bob", "shipper"} {
		steps = append(steps, []string{"key", "new", name})
	}
	steps = append(steps,
		[]string{"trust", "sign", "policy.yaml", "--key", "root.key", "--out", "policy.jsonl"},
		[]string{"model", "sign", modelName, "--private-key", "trainer.key", "--signature", modelName + ".sig", "--shard-size", "64MiB", "--quiet"},
		// model_signing does not read shards, so it is given whole files.
		[]string{"model", "sign", modelName, "--private-key", "trainer.key", "--signature", filesSig, "--quiet"},
	)
	for _, step := range steps {
		if _, err := s.weighbridgeSays(ctx, step...); err != nil {
			return err
		}
	}
	release, err := s.weighbridgeSays(ctx, "release", "create", "-f", "release.yaml", "--key", "trainer.key", "--statements", "statements")
	if err != nil {
		return err
	}
	for _, step := range [][]string{
		{"approve", release, "--channel", "chat", "--key", "alice.key"},
		{"approve", release, "--channel", "chat", "--key", "bob.key"},
		{"publish", release, "--channel", "chat", "--key", "shipper.key", "--epoch", "next"},
	} {
		if _, err := s.weighbridgeSays(ctx, append(append([]string{"release"}, step...), "--statements", "statements")...); err != nil {
			return err
		}
	}
	return nil
}

// weighbridgeSays runs a command in the site and returns the last line that it prints.
func (s *site) weighbridgeSays(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, s.weighbridge, args...)
	cmd.Dir = s.dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if err != nil {
		return "", fmt.Errorf("weighbridge %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1], nil
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) write(name, text string) error {
	return os.WriteFile(s.path(name), []byte(text), 0o600)
}

func (s *site) close() { os.RemoveAll(s.dir) }
