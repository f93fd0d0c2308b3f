// Package configs reads the gateway's configuration.
//
// The one rule: a [Gateway] that [Load] returns can be served as it stands. Unknown keys, duplicate keys and values that
// make no sense are errors, and all of them are reported at once, each with its key; a key that this version can't
// honour is refused, never ignored.
package configs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/weighbridge/weighbridge/backends/ollama"
	"github.com/weighbridge/weighbridge/gateway/access"
)

// maxFile bounds a configuration file, in bytes.
const maxFile = 1 << 20

// Gateway is gateway.yaml. Paths in it are relative to the file; after [Load] they are absolute.
type Gateway struct {
	Listen   Listen   `yaml:"listen"`
	Identity Identity `yaml:"identity"`
	Trust    Trust    `yaml:"trust"`

	// Weights are the directories where bytes are looked for, by root digest.
	Weights []string `yaml:"weights"`
	// Runtimes are the model servers that may be started, by the kind that releases name.
	Runtimes Runtimes `yaml:"runtimes"`
	// Channels are the channels served here, out of those the trust policy knows.
	Channels map[string]Channel `yaml:"channels"`
	// Access says which caller may use which channel, on which condition and how much; see [access.Rule], whose fields are
	// the keys with a small first letter. Without a rule nobody may.
	Access []access.Rule `yaml:"access"`
	// Operators say who may use the control API on TCP, which is not in this version. On a unix socket it is who may
	// open the socket.
	Operators []Operator `yaml:"operators"`
	// Lease bounds how long the site may go on without hearing anything new. Absent: for as long as what it has is valid.
	Lease *Lease `yaml:"lease"`
	// Audit is where what the gateway does is recorded, and the key that signs this and its receipts. Absent: in the state
	// directory.
	Audit Audit `yaml:"audit"`
	// Scrub says how stored weights are read again, to hear of rot and tampering before they are needed. Absent: each copy
	// once a day.
	Scrub Scrub `yaml:"scrub"`
	// Offline says that nothing is dialed but what is on this machine: a telemetry collector is not, whatever the
	// environment names.
	Offline bool `yaml:"offline"`
	// Memory bounds the sealed weights held at one time, e.g. 8GiB. Absent: half of the machine's memory.
	Memory Bytes `yaml:"memory"`
}

// Listen holds addresses, host:port, or unix:PATH for control.
type Listen struct {
	GRPC    string `yaml:"grpc"`    // callers, gRPC behind SPIFFE mTLS
	HTTP    string `yaml:"http"`    // callers, the OpenAI API behind SPIFFE mTLS
	Control string `yaml:"control"` // operators
	Metrics string `yaml:"metrics"` // Prometheus, plain HTTP: keep it on loopback
	JWT     *JWT   `yaml:"jwt"`     // callers that can't do mTLS. Absent: there are none
}

// JWT is where callers come in who show a JWT-SVID in each request, as a bearer token, and no certificate. It is for the
// gateway's SPIFFE ID alone and valid for at most an hour. Whoever can read a token can use it until then: mTLS is better.
type JWT struct {
	HTTP string       `yaml:"http"`
	GRPC string       `yaml:"grpc"`
	TLS  *Certificate `yaml:"tls"` // for clients that know no SPIFFE. Absent: the gateway's X.509-SVID
}

// Certificate is a certificate in PEM files, which are read again when they change.
type Certificate struct {
	Certificate string `yaml:"certificate"` // the chain, leaf first
	Key         string `yaml:"key"`
}

// Identity says where the gateway's own X.509-SVID comes from. At most one source is set; none means the address in
// SPIFFE_ENDPOINT_SOCKET. A start waits 30 seconds for the first SVID, with pauses between its questions. Later the source may be
// absent for as long as the last SVID is valid; after that callers are refused, until there is another.
type Identity struct {
	WorkloadAPI string       `yaml:"workloadAPI"` // unix:///… of a SPIFFE agent
	SPIFFEID    string       `yaml:"spiffeID"`    // which SVID, when the agent hands out several. Absent: the one with the hint gateway, or the first
	Files       *Files       `yaml:"files"`
	Development *Development `yaml:"development"`
	// Proxies are the SPIFFE IDs of proxies (Envoy) that end their callers' mTLS. A proxy's caller is who its header
	// x-forwarded-client-cert names last; without the header its requests are refused. From others it is never looked at.
	Proxies []string `yaml:"proxies"`
}

// Files are PEM files that something else keeps fresh. A bundle may also be in SPIFFE's own format (JSON), which has the keys of
// JWT-SVIDs too.
type Files struct {
	SVID    string            `yaml:"svid"`    // the chain, leaf first
	Key     string            `yaml:"key"`     // PKCS#8
	Bundle  string            `yaml:"bundle"`  // the trust domain's CA certificates
	Bundles map[string]string `yaml:"bundles"` // those of federated trust domains, by their names
}

// Development starts a Workload API of our own. Its CA lives in memory only: never for production.
type Development struct {
	TrustDomain string `yaml:"trustDomain"`
	Socket      string `yaml:"socket"` // where callers on this machine get SVIDs of the same trust domain
}

// Trust says whose statements count.
type Trust struct {
	Root       Root     `yaml:"root"`
	Policy     string   `yaml:"policy"`     // policy.jsonl
	Statements []string `yaml:"statements"` // watched directories
	State      string   `yaml:"state"`      // the durable floor
}

// Audit says where the audit log is and who signs it.
type Audit struct {
	Dir string `yaml:"dir"` // default: audit in the state directory
	// Key is the gateway's Ed25519 key. The policy lists its public half in the role gateway, or receipts are refused. Default:
	// gateway.key in the state directory, made with it.
	Key string `yaml:"key"`
}

// Lease says what happens when a site has heard nothing new for a while: no policy, publication or withdrawal that it had
// not accepted before.
type Lease struct {
	MaxStaleness string `yaml:"maxStaleness"` // 30d, 36h
	Then         string `yaml:"then"`         // deny, or warn: go on and say so
}

// Root pins the keys that may sign the first trust policy.
type Root struct {
	Keys      []string `yaml:"keys"`      // sha256:… of the DER SubjectPublicKeyInfo
	Threshold Count    `yaml:"threshold"` // how many of them must have signed
}

// Runtimes are the known kinds of model server. At least one is needed.
type Runtimes struct {
	LlamaCPP *LlamaCPP `yaml:"llamacpp"`
	Ollama   *Ollama   `yaml:"ollama"`
}

// commands returns the command of each kind that is configured.
func (r *Runtimes) commands() (all []*string) {
	if r.LlamaCPP != nil {
		all = append(all, &r.LlamaCPP.Command)
	}
	if r.Ollama != nil {
		all = append(all, &r.Ollama.Command)
	}
	return all
}

// Ollama is an installed Ollama, built without libraries beside it, or one that runs already. One of the two is set.
type Ollama struct {
	Command string `yaml:"command"` // a path, or a name looked up in PATH

	// Attached is the address of an Ollama that others started: http://HOST:PORT on this machine, https://HOST or
	// unix:PATH. It is handed the verified weights, and has only its own word for having them still: what it serves has
	// level attached, which a channel's policy must ask for, and no sandbox.
	Attached string `yaml:"attached"`
}

func (o *Ollama) check(is *checks, offline bool) {
	const key = "runtimes.ollama"
	if (o.Command == "") == (o.Attached == "") {
		is.bad(key, "one of command and attached is required, and not both")
	}
	if o.Attached == "" {
		return
	}
	address, err := ollama.ParseAddress(o.Attached)
	switch {
	case err != nil:
		is.bad(key+".attached", "%w", err)
	case offline && !address.Local():
		is.bad(key+".attached", "%q is not on this machine, and offline is true", address)
	}
}

// LlamaCPP is an installed llama-server.
type LlamaCPP struct {
	Command string `yaml:"command"` // a path, or a name looked up in PATH

	// KeepSealed false gives the sealed weights back once the runtime has read them into memory of its own, such as a
	// GPU's. A runtime that dies then needs them read and verified again. Absent: true.
	KeepSealed *bool `yaml:"keepSealed"`

	// User is who llama-server runs as, by name or number, for a gateway that runs as root. Absent: the gateway's own user.
	User string `yaml:"user"`
}

// Channel holds what this gateway decides about a channel; the rest is the trust policy's.
type Channel struct{}

// Operator allows a SPIFFE ID to use the control API.
type Operator struct {
	Caller string   `yaml:"caller"`
	Allow  []string `yaml:"allow"` // status (and what it is decided by), submit
}

// Load reads and checks the file at path. Its error joins every problem found.
func Load(path string) (*Gateway, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	cfg, err := Parse(data, filepath.Dir(abs))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return cfg, nil
}

// Parse reads and checks a configuration whose relative paths are relative to dir.
func Parse(data []byte, dir string) (*Gateway, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("configuration of %d bytes is longer than %d", len(data), maxFile)
	}
	cfg := &Gateway{}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	var problems []error
	if err := dec.Decode(cfg); err != nil && !errors.Is(err, io.EOF) {
		wrong := new(yaml.TypeError)
		if !errors.As(err, &wrong) {
			return nil, fmt.Errorf("not YAML: %w", err)
		}
		for _, e := range wrong.Errors {
			problems = append(problems, errors.New(plain(e)))
		}
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		problems = append(problems, errors.New("more than one YAML document"))
	}
	cfg.resolve(dir)
	problems = append(problems, cfg.check()...)
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return cfg, nil
}

// planned are keys of later versions.
var planned = map[string]bool{"vllm": true}

// plain turns the YAML library's words about Go types into words about keys.
func plain(problem string) string {
	if line, rest, ok := strings.Cut(problem, ": field "); ok {
		if key, _, ok := strings.Cut(rest, " not found in type "); ok {
			if planned[key] {
				return fmt.Sprintf("%s: %q is not supported by this version; it is refused so that nobody relies on it", line, key)
			}
			return fmt.Sprintf("%s: unknown key %q", line, key)
		}
	}
	return problem
}

// resolve makes paths absolute, so that they mean the same wherever the gateway was started.
func (c *Gateway) resolve(dir string) {
	abs := func(path *string) {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(dir, *path)
		}
	}
	if c.Audit.Dir == "" && c.Trust.State != "" {
		c.Audit.Dir = filepath.Join(c.Trust.State, "audit")
	}
	if c.Audit.Key == "" && c.Trust.State != "" {
		c.Audit.Key = filepath.Join(c.Trust.State, "gateway.key")
	}
	paths := []*string{&c.Trust.Policy, &c.Trust.State, &c.Audit.Dir, &c.Audit.Key}
	for i := range c.Trust.Statements {
		paths = append(paths, &c.Trust.Statements[i])
	}
	for i := range c.Weights {
		paths = append(paths, &c.Weights[i])
	}
	if f := c.Identity.Files; f != nil {
		paths = append(paths, &f.SVID, &f.Key, &f.Bundle)
		for td, path := range f.Bundles {
			abs(&path)
			f.Bundles[td] = path
		}
	}
	if j := c.Listen.JWT; j != nil && j.TLS != nil {
		paths = append(paths, &j.TLS.Certificate, &j.TLS.Key)
	}
	if d := c.Identity.Development; d != nil {
		paths = append(paths, &d.Socket)
	}
	for _, command := range c.Runtimes.commands() {
		if strings.ContainsRune(*command, filepath.Separator) {
			paths = append(paths, command)
		}
	}
	for _, p := range paths {
		abs(p)
	}
	if socket, ok := strings.CutPrefix(c.Listen.Control, "unix:"); ok && socket != "" {
		abs(&socket)
		c.Listen.Control = "unix:" + socket
	}
	if o := c.Runtimes.Ollama; o != nil {
		if socket, ok := strings.CutPrefix(o.Attached, "unix:"); ok && socket != "" {
			abs(&socket)
			o.Attached = "unix:" + socket
		}
	}
}
