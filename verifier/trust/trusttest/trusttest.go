// Package trusttest builds small signed worlds for tests: identities with real keys, a policy that real root keys
// signed, signed weights, and the statements of a release, on disk as the gateway and the commands read them.
//
// The one rule: nothing here is a shortcut around verification. Every file is what a person with the same keys would
// have signed, so a test that passes with it exercises the real checks.
//
//	w := trusttest.New(t)
//	w.SignPolicy(nil)
//	release := w.Release(modelDir, nil)
//	w.Approve(release, "alice", trust.Approval{})
//	w.Approve(release, "bob", trust.Approval{})
//	w.Publish(release, "chat", 1)
//	// w.PolicyFile, w.Statements and w.Anchor() are what a gateway is configured with.
package trusttest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/verifier/digest"
	"github.com/weighbridge/weighbridge/verifier/oms"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// Identities of the policy that [World.SignPolicy] signs: trainer is the producer, alice, bob and carol are approvers,
// shipper is the publisher, and alice and bob are the root, both of them needed.
const (
	Trainer = "trainer"
	Alice   = "alice"
	Bob     = "bob"
	Carol   = "carol"
	Shipper = "shipper"
)

// Expires is when the default policy ends.
var Expires = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)

// A World is a directory of keys, a policy and statements. It belongs to one test.
type World struct {
	Dir        string // everything below
	Keys       string // NAME.key and NAME.pub of each identity
	Statements string // the statements directory
	PolicyFile string // the signed policy, once there is one

	// Keyless is what [World.Anchor] verifies Sigstore accounts with; nil: nothing.
	Keyless trust.KeylessFrom

	t    testing.TB
	keys map[string]*ecdsa.PrivateKey
}

// New makes an empty world in a directory that goes away with the test.
func New(t testing.TB) *World {
	t.Helper()
	dir := t.TempDir()
	w := &World{
		Dir:        dir,
		Keys:       filepath.Join(dir, "keys"),
		Statements: filepath.Join(dir, "statements"),
		PolicyFile: filepath.Join(dir, "policy.jsonl"),
		t:          t,
		keys:       map[string]*ecdsa.PrivateKey{},
	}
	w.check(os.Mkdir(w.Keys, 0o700))
	w.check(os.Mkdir(w.Statements, 0o755))
	return w
}

func (w *World) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// Key returns the key of a name, made at its first use, with its files in Keys. A second key of one identity is
// another name.
func (w *World) Key(name string) crypto.Signer {
	w.t.Helper()
	if key, ok := w.keys[name]; ok {
		return key
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	w.check(err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	w.check(err)
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	w.check(os.WriteFile(w.KeyFile(name), private, 0o600))
	w.keys[name] = key
	w.check(os.WriteFile(filepath.Join(w.Keys, name+".pub"), []byte(w.PublicPEM(name)), 0o644))
	return key
}

// KeyFile is where the private key of a name is, or will be.
func (w *World) KeyFile(name string) string { return filepath.Join(w.Keys, name+".key") }

// PublicPEM returns the public key of a name as a policy holds it.
func (w *World) PublicPEM(name string) string {
	w.t.Helper()
	text, err := trust.PublicPEM(w.Key(name).Public())
	w.check(err)
	return text
}

// KeyID returns the id of the key of a name.
func (w *World) KeyID(name string) statement.KeyID {
	w.t.Helper()
	id, err := statement.KeyIDOf(w.Key(name).Public())
	w.check(err)
	return id
}

// Sign signs a payload with the key of a name and writes nothing.
func (w *World) Sign(name string, payload []byte) *statement.Signed {
	w.t.Helper()
	signer, err := statement.NewKeySigner(w.Key(name))
	w.check(err)
	bundle, err := signer.Sign(payload)
	w.check(err)
	s, err := statement.Parse(bundle)
	w.check(err)
	return s
}

// Add writes a statement into the statements directory, the way statements arrive: under a temporary name, renamed.
func (w *World) Add(s *statement.Signed) {
	w.t.Helper()
	sum := sha256.Sum256(s.Bundle())
	name := hex.EncodeToString(sum[:8]) + ".json"
	temporary := filepath.Join(w.Statements, "."+name)
	w.check(os.WriteFile(temporary, s.Bundle(), 0o644))
	w.check(os.Rename(temporary, filepath.Join(w.Statements, name)))
}

// Document returns the default policy: channel chat needs the trainer's release, two approvals and the shipper's
// publication, and keeps the three roles separate.
func (w *World) Document() trust.Document {
	w.t.Helper()
	identities := map[string]trust.Identity{}
	for _, name := range []string{Trainer, Alice, Bob, Carol, Shipper} {
		identities[name] = trust.Identity{Keys: []string{w.PublicPEM(name)}}
	}
	return trust.Document{
		Version:    1,
		Expires:    Expires,
		Identities: identities,
		Roles: map[string]trust.Role{
			"root":      {Members: []string{Alice, Bob}, Threshold: 2},
			"producer":  {Members: []string{Trainer}},
			"approver":  {Members: []string{Alice, Bob, Carol}},
			"publisher": {Members: []string{Shipper}},
		},
		Channels: map[string]trust.ChannelRules{"chat": Rules()},
	}
}

// Rules returns the rules of channel chat in the default policy.
func Rules() trust.ChannelRules {
	return trust.ChannelRules{
		Mode: "enforce",
		Require: trust.Require{
			Release:  trust.Rule{Role: "producer"},
			Approval: &trust.Rule{Role: "approver", Count: 2},
		},
		Publish:      trust.Rule{Role: "publisher"},
		Separate:     []string{"producer", "approver", "publisher"},
		OnWithdrawal: "stop",
		OnLostQuorum: "stop",
		MinimumLevel: "sealed",
	}
}

// SignPolicy signs the default policy, as edit changes it, with the keys of alice and bob, writes it to PolicyFile and
// returns it as accepted by [World.Anchor].
func (w *World) SignPolicy(edit func(*trust.Document)) *trust.Policy {
	w.t.Helper()
	doc := w.Document()
	if edit != nil {
		edit(&doc)
	}
	payload, err := trust.NewPolicy(doc)
	w.check(err)
	bundles := []*statement.Signed{w.Sign(Alice, payload), w.Sign(Bob, payload)}
	w.check(os.WriteFile(w.PolicyFile, slices.Concat(bundles[0].Bundle(), bundles[1].Bundle()), 0o644))
	policy, err := w.Anchor().Accept(bundles, nil, nil)
	w.check(err)
	return policy
}

// Anchor pins the keys of alice and bob, both of them.
func (w *World) Anchor() trust.Anchor {
	w.t.Helper()
	return trust.Anchor{Keys: []statement.KeyID{w.KeyID(Alice), w.KeyID(Bob)}, Threshold: 2, Keyless: w.Keyless}
}

// SignModel signs the weights at path, a file or a directory, as the trainer, and writes the signature where a gateway
// looks for it: PATH.sig beside a file, model.sig in a directory. It returns the signature's path.
func (w *World) SignModel(path string) string {
	w.t.Helper()
	return w.SignModelAs(Trainer, path)
}

// SignModelAs is SignModel with the key of another name, bare or under a certificate.
func (w *World) SignModelAs(name, path string, chain ...*x509.Certificate) string {
	w.t.Helper()
	info, err := os.Stat(path)
	w.check(err)
	signature := path + ".sig"
	if info.IsDir() {
		signature = filepath.Join(path, "model.sig")
	}
	payload, err := oms.NewPayload(filepath.Base(path), w.resources(path, signature), oms.Serialization{Method: oms.MethodFiles, HashType: digest.SHA256})
	w.check(err)
	signed := w.Sign(name, payload)
	if len(chain) > 0 {
		signed = w.SignUnder(name, payload, chain...)
	}
	w.check(os.WriteFile(signature, signed.Bundle(), 0o644))
	return signature
}

func (w *World) resources(root, signature string) []oms.Resource {
	var all []oms.Resource
	w.check(filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || path == signature {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(data)
		all = append(all, oms.Resource{Name: filepath.ToSlash(name), Algorithm: string(digest.SHA256), Digest: hex.EncodeToString(sum[:])})
		return nil
	}))
	slices.SortFunc(all, func(a, b oms.Resource) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// Descriptor returns a small release of the signed weights at path.
func (w *World) Descriptor(path string) trust.Descriptor {
	w.t.Helper()
	root, bundle := w.signature(path)
	return trust.Descriptor{
		Model:   "chat-small",
		Version: "1.0.0",
		Weights: trust.Weights{Root: root, Statement: bundle},
		Runtime: trust.Runtime{Kind: "llamacpp", Args: map[string]string{}},
		Behaviour: trust.Behaviour{
			Sampling: trust.Sampling{Temperature: &trust.Range{Default: 0.2, Max: 1}, TopP: &trust.Range{Default: 0.9, Max: 1}},
			Output:   trust.Output{MaxTokens: 1024},
		},
	}
}

// Adapter returns the signed adapter at path, of the weights with the root base.
func (w *World) Adapter(path, base string) trust.Adapter {
	w.t.Helper()
	root, bundle := w.signature(path)
	return trust.Adapter{Root: root, Base: base, Scale: 1, Statement: bundle}
}

// signature returns the root that the signature beside a model is about, and the signature.
func (w *World) signature(path string) (root string, bundle jsontext.Value) {
	w.t.Helper()
	signature := path + ".sig"
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		signature = filepath.Join(path, "model.sig")
	}
	data, err := os.ReadFile(signature)
	w.check(err)
	s, err := statement.Parse(data)
	w.check(err)
	m, err := oms.ParseManifest(s)
	w.check(err)
	return m.Root(), jsontext.Value(s.Bundle())
}

// Release signs the weights at path if they are not signed yet, and a release of them as the trainer, with the default
// descriptor as edit changes it. It adds the release to the statements and returns its id.
func (w *World) Release(path string, edit func(*trust.Descriptor)) statement.ID {
	w.t.Helper()
	_, beside := os.Stat(path + ".sig")
	_, inside := os.Stat(filepath.Join(path, "model.sig"))
	if beside != nil && inside != nil {
		w.SignModel(path)
	}
	d := w.Descriptor(path)
	if edit != nil {
		edit(&d)
	}
	payload, err := trust.NewRelease(d)
	w.check(err)
	s := w.Sign(Trainer, payload)
	w.Add(s)
	return s.ID()
}

// Approve adds an approval of the release by the key of a name.
func (w *World) Approve(release statement.ID, name string, a trust.Approval) *statement.Signed {
	w.t.Helper()
	payload, err := trust.NewApproval(release, a)
	w.check(err)
	s := w.Sign(name, payload)
	w.Add(s)
	return s
}

// Publish adds the shipper's publication of the release on a channel and returns its id.
func (w *World) Publish(release statement.ID, channel string, epoch int64) statement.ID {
	w.t.Helper()
	return w.PublishAs(Shipper, release, trust.Publication{Channel: channel, Epoch: epoch}).ID()
}

// Withdraw adds a withdrawal of the release by the key of a name.
func (w *World) Withdraw(name string, release statement.ID) *statement.Signed {
	w.t.Helper()
	payload, err := trust.NewWithdrawal(release, trust.Withdrawal{Of: trust.OfRelease, Reason: "a test says so"})
	w.check(err)
	s := w.Sign(name, payload)
	w.Add(s)
	return s
}

// PublishAs adds a publication of the release by the key of a name.
func (w *World) PublishAs(name string, release statement.ID, p trust.Publication) *statement.Signed {
	w.t.Helper()
	payload, err := trust.NewPublication(release, p)
	w.check(err)
	s := w.Sign(name, payload)
	w.Add(s)
	return s
}
