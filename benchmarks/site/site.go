// Package site makes a site with signed releases, and starts the programs that are measured over it.
//
// The one rule: everything is signed by the commands that its owner would use, every program is started as users start
// it, and none outlives the thread that started it: so a program that uses this begins with [Main].
//
//	s, err := site.New(ctx, site.Config{Stderr: os.Stderr, In: dir, Memory: size})
//	release, err := s.Release(ctx, site.ModelName("model.gguf"), "threads: 1")
//	publication, err := s.Publish(ctx, release, 1)
//	err = s.Deliver(publication)
//	g, err := s.StartGateway()
package site

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
	"github.com/weighbridge/weighbridge/benchmarks/bench"
	"github.com/weighbridge/weighbridge/gateway/identity"
	"github.com/weighbridge/weighbridge/gateway/identity/devworkload"
)

// Main is [bench.Main] for a program that measures over a site.
func Main(p bench.Program) {
	// Children die with the thread that started them, which so must be one that lives as long as this process does.
	runtime.LockOSThread()
	bench.Main(p)
}

// Parts name the programs that are measured.
type Parts struct {
	Weighbridge string
	Llama       string // llama-server
}

// findParts looks for them in the repository, whose root is the working directory.
func findParts(ctx context.Context, stderr io.Writer) (Parts, error) {
	p := Parts{Weighbridge: filepath.Join("bin", "weighbridge")}
	var err error
	if _, err = os.Stat(p.Weighbridge); err != nil {
		return p, fmt.Errorf("find the gateway: %w; run this by make, in the repository's root", err)
	}
	if p.Weighbridge, err = filepath.Abs(p.Weighbridge); err != nil {
		return p, fmt.Errorf("find the gateway: %w", err)
	}
	p.Llama, err = bench.FindPart(ctx, "llama-server", stderr)
	return p, err
}

// A Site is a directory with all that a gateway needs: keys, a trust policy, statements and a configuration.
type Site struct {
	Parts
	Dir         string
	RuntimeArgs []string // how the gateway starts llama-server; see Gateway.Learn

	agent *devworkload.Agent // issues all identities; nil: the gateway does
}

// Files in a site.
const (
	configFile   = "gateway.yaml"
	logFile      = "log/gateway.log" // in a directory of its own: the gateway watches that of its trust policy
	stateDir     = "state"
	statements   = "statements"
	signed       = "signed" // what is to arrive in statements later
	models       = "models"
	keyFile      = "api-key"
	spiffeSocket = "spiffe.sock"
	svids        = "svids" // of the gateway and of callers by name
	trustDomain  = "bench.example"
	apiKey       = "a-key-that-is-no-secret" // of a llama-server that the gateway did not start

	// Channel is the only one of a site.
	Channel = "chat"
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
  warden:   {keys: [warden.pub]}
roles:
  root:      {members: [security], threshold: 1}
  producer:  {members: [trainer]}
  approver:  {members: [alice, bob]}
  publisher: {members: [shipper]}
  operator:  {members: [warden]}
channels:
  chat:
    require:
      release:  {role: producer}
      approval: {role: approver, count: 2}
    publish:  {role: publisher}
    rollback: {role: operator}
    separate: [producer, approver, publisher]
`

const releaseText = `apiVersion: weighbridge/v1
kind: Release
model: bench
version: 1.0.0
weights: {path: ./%[1]s, signature: ./%[1]s.sig}
runtime: {kind: llamacpp, args: {%[2]s}}
behaviour:
  sampling: {temperature: {default: 0.2, max: 1.0}, topP: {default: 0.9, max: 1.0}}
  output: {maxTokens: 256}
`

const configText = `listen: {grpc: 127.0.0.1:0, http: 127.0.0.1:0, control: "unix:./control.sock", metrics: 127.0.0.1:0}
identity: {%s}
trust:
  root: {keys: [%s], threshold: 1}
  policy: policy.jsonl
  statements: [./` + statements + `]
  state: ./` + stateDir + `
weights: [./` + models + `]
runtimes: {llamacpp: {command: %q}}
channels: {chat: {}}
memory: %dMiB
access: [%s]
`

const (
	developmentText = "development: {trustDomain: " + trustDomain + ", socket: ./" + spiffeSocket + "}"
	filesText       = "files: {svid: %[1]s/svid.pem, key: %[1]s/key.pem, bundle: %[1]s/bundle.pem}"
	ruleText        = `{caller: "spiffe://` + trustDomain + `/apps/%s", channels: [` + Channel + `], methods: [chat, models], limits: {%s}}`

	// ampleLimits are counted, and never reached.
	ampleLimits = "rate: 10000/s, concurrent: 512"

	gatewayName = "gateway"
	appsPath    = "/apps/"
)

// Config says what a site is for. In and Memory are required.
type Config struct {
	Stderr io.Writer // is told how parts are built that are not there yet; nil: nobody is
	In     string    // a directory, in which the site gets one of its own
	Memory int64     // for weights, in bytes

	// Callers are those that have identities of their own, by their names, and their limits, as in a rule; "": such as are
	// never reached. nil: all share one, with such limits.
	Callers map[string]string
}

// New finds the parts, and makes keys, a policy and a configuration. The site has no models and no statements yet.
func New(ctx context.Context, c Config) (_ *Site, err error) {
	s := &Site{}
	if s.Parts, err = findParts(ctx, c.Stderr); err != nil {
		return nil, err
	}
	if s.Dir, err = os.MkdirTemp(c.In, "bench-"); err != nil {
		return nil, fmt.Errorf("make site: %w", err)
	}
	defer func() {
		if err != nil {
			s.Close()
			err = fmt.Errorf("make site: %w", err)
		}
	}()
	for _, name := range []string{models, statements, signed} {
		if err := os.Mkdir(s.Path(name), 0o755); err != nil {
			return nil, err
		}
	}
	expires := time.Now().AddDate(0, 0, 7).UTC().Format(time.RFC3339)
	if err := s.write("policy.yaml", fmt.Sprintf(policyText, expires)); err != nil {
		return nil, err
	}
	for _, name := range []string{"root", "trainer", "alice", "bob", "shipper", "warden"} {
		if _, err := s.Says(ctx, "key", "new", name); err != nil {
			return nil, err
		}
	}
	if _, err := s.Says(ctx, "trust", "sign", "policy.yaml", "--key", "root.key", "--out", "policy.jsonl"); err != nil {
		return nil, err
	}
	root, err := s.Says(ctx, "key", "id", "root.pub")
	if err != nil {
		return nil, err
	}
	ids, rules, err := s.identities(c.Callers)
	if err != nil {
		return nil, err
	}
	return s, s.write(configFile, fmt.Sprintf(configText, ids, root, s.Llama, c.Memory>>20, rules))
}

// identities returns where the gateway's own comes from, and the rules for its callers, whose identities it issues.
func (s *Site) identities(callers map[string]string) (ids, rules string, err error) {
	if callers == nil {
		return developmentText, fmt.Sprintf(ruleText, "*", ampleLimits), nil
	}
	td, err := spiffeid.TrustDomainFromString(trustDomain)
	if err != nil {
		return "", "", err
	}
	if s.agent, err = devworkload.Open(devworkload.Config{TrustDomain: td}); err != nil {
		return "", "", err
	}
	paths := []string{"/" + gatewayName}
	var all []string
	for _, name := range slices.Sorted(maps.Keys(callers)) {
		paths = append(paths, appsPath+name)
		all = append(all, fmt.Sprintf(ruleText, name, cmp.Or(callers[name], ampleLimits)))
	}
	for _, path := range paths {
		id, err := spiffeid.FromPath(td, path)
		if err != nil {
			return "", "", err
		}
		if err := s.agent.Write(s.Path(svids), devworkload.Identity{ID: id}); err != nil {
			return "", "", err
		}
	}
	return fmt.Sprintf(filesText, "./"+svids+"/"+gatewayName), strings.Join(all, ", "), nil
}

// Identity returns that of a caller which has one of its own.
func (s *Site) Identity(ctx context.Context, name string) (*identity.Source, error) {
	dir := s.Path(svids + appsPath + name)
	id, err := identity.Open(ctx, identity.Config{Files: &identity.Files{
		SVID: filepath.Join(dir, devworkload.SVIDFile), Key: filepath.Join(dir, devworkload.KeyFile), Bundle: filepath.Join(dir, devworkload.BundleFile),
	}})
	if err != nil {
		return nil, fmt.Errorf("get the identity of %s: %w", name, err)
	}
	return id, nil
}

// ModelName is the path of a model in a site.
func ModelName(file string) string { return models + "/" + file }

// Release signs a model, which is in the site already, and a release of it with these arguments of the runtime, and has
// it approved. It returns the release's id.
func (s *Site) Release(ctx context.Context, model, args string) (string, error) {
	if err := s.write("release.yaml", fmt.Sprintf(releaseText, model, args)); err != nil {
		return "", fmt.Errorf("write release: %w", err)
	}
	if _, err := s.Says(ctx, "model", "sign", model, "--private-key", "trainer.key", "--signature", model+".sig", "--shard-size", "64MiB", "--quiet"); err != nil {
		return "", err
	}
	release, err := s.Says(ctx, "release", "create", "-f", "release.yaml", "--key", "trainer.key", "--statements", statements)
	if err != nil {
		return "", err
	}
	for _, key := range []string{"alice.key", "bob.key"} {
		if _, err := s.Says(ctx, "release", "approve", release, "--channel", Channel, "--key", key, "--statements", statements); err != nil {
			return "", err
		}
	}
	return release, nil
}

// Publish signs the publication of a release and returns its file, which no gateway sees before Deliver.
func (s *Site) Publish(ctx context.Context, release string, epoch int) (string, error) {
	return s.sign(ctx, epoch, "publish", release, "--key", "shipper.key")
}

// Rollback is Publish of a release that served before.
func (s *Site) Rollback(ctx context.Context, release string, epoch int) (string, error) {
	return s.sign(ctx, epoch, "rollback", "--to", release, "--reason", "to measure it", "--key", "warden.key")
}

func (s *Site) sign(ctx context.Context, epoch int, act ...string) (string, error) {
	file := filepath.Join(signed, strconv.Itoa(epoch)+".json")
	_, err := s.Says(ctx, append(append([]string{"release"}, act...), "--channel", Channel, "--epoch", strconv.Itoa(epoch), "--out", file)...)
	return file, err
}

// Deliver moves a signed statement to where gateways look for them, whole.
func (s *Site) Deliver(file string) error {
	if err := os.Rename(s.Path(file), s.Path(filepath.Join(statements, filepath.Base(file)))); err != nil {
		return fmt.Errorf("deliver statement: %w", err)
	}
	return nil
}

// Says runs a command of weighbridge in the site and returns the last line that it prints.
func (s *Site) Says(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, s.Weighbridge, args...)
	cmd.Dir = s.Dir
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

// WriteTiny writes a tiny model.
func (s *Site) WriteTiny(model string, c tinygguf.Config) error {
	f, err := os.Create(s.Path(model))
	if err == nil {
		err = errors.Join(tinygguf.Write(f, c), f.Close())
	}
	if err != nil {
		return fmt.Errorf("write model: %w", err)
	}
	return nil
}

// Path returns where a file of the site is.
func (s *Site) Path(name string) string { return filepath.Join(s.Dir, name) }

func (s *Site) write(name, text string) error {
	return os.WriteFile(s.Path(name), []byte(text), 0o600)
}

// Close removes the site. Whatever was started over it must have ended.
func (s *Site) Close() error {
	if s.agent != nil {
		s.agent.Close()
	}
	if err := os.RemoveAll(s.Dir); err != nil {
		return fmt.Errorf("remove site: %w", err)
	}
	return nil
}
