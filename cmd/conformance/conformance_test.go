package main_test

import (
	"crypto/elliptic"
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

const (
	done    = 0
	refused = 1
	failed  = 2
)

// A request is what the suite asks for one model: the same ignored paths for both commands.
type request struct {
	method string
	model  string
	ignore []string // relative
}

func (r request) args(command, flag, bundle string, more ...string) []string {
	args := []string{command, "--method", r.method, "--model-path", r.model, flag, bundle}
	for _, p := range r.ignore {
		more = append(more, "--ignore-paths", filepath.Join(r.model, p))
	}
	return append(args, more...)
}

func (r request) sign(t *testing.T, bundle string, g group) {
	t.Helper()
	if status, _, stderr := call(t, r.args("sign-model", "--output-bundle", bundle, g.sign(r.method)...)...); status != done {
		t.Fatalf("sign-model: status %d: %s", status, stderr)
	}
}

func (r request) verify(t *testing.T, bundle string, more ...string) (status int, stderr string) {
	t.Helper()
	status, _, stderr = call(t, r.args("verify-model", "--bundle", bundle, more...)...)
	return status, stderr
}

// TestRoundtrip signs and verifies as the suite's roundtrip cases do (conformance/test/test-cases/roundtrip.yaml).
func TestRoundtrip(t *testing.T) {
	chain := newChain(t, valid, valid, valid, nil)
	p := pki{t, t.TempDir()}
	self := p.leaf(nil, valid, func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, c.KeyUsage|x509.KeyUsageCertSign })
	self.chain, self.roots = []string{self.cert}, []string{self.cert}
	tests := []struct {
		name, method, model string
		group               group
		ignore              []string
		want                []string // nil: all files of the model that are not ignored
		inside              bool     // the bundle lies in the model
	}{
		{name: "key-simple", method: "key", model: "simple", group: chain, ignore: []string{"ignore-me"}},
		{name: "key-ignore-paths", method: "key", model: "simple", group: chain, ignore: []string{"ignore-me"}, want: []string{"signme-1", "signme-2"}},
		{name: "key-sig-inside-model", method: "key", model: "simple", group: chain, ignore: []string{"ignore-me"}, inside: true},
		{name: "key-multi-file", method: "key", model: "multi-file", group: chain},
		{name: "key-single-file", method: "key", model: "single-file", group: chain, want: []string{"model.bin"}},
		{name: "key-assets-subdir", method: "key", model: "with-assets-subdir", group: chain},
		{name: "key-binary-content", method: "key", model: "binary-content", group: chain},
		{name: "key-deeply-nested", method: "key", model: "deeply-nested", group: chain},
		{name: "key-deeply-nested-with-git", method: "key", model: "deeply-nested-with-git", group: chain, ignore: []string{".git/HEAD"}},
		{name: "key-default-ignores", method: "key", model: "with-git-dir", group: chain, want: []string{"model.bin"}},
		{name: "key-dotfile-included", method: "key", model: "with-dotfiles", group: chain},
		{name: "key-empty-file", method: "key", model: "with-empty-file", group: chain},
		{name: "key-files-in-hidden-dir", method: "key", model: "hidden-subdir", group: chain},
		{name: "key-git-and-ignore-combined", method: "key", model: "with-git-and-ignore", group: chain,
			ignore: []string{".git/HEAD", ".gitignore", ".gitattributes", "ignored-file.tmp"}},
		{name: "key-ignore-paths-exact-match", method: "key", model: "with-nested-ignore", group: chain,
			ignore: []string{"ignore-me"}, want: []string{"signme-1", "subdir/ignore-me"}},
		{name: "key-multi-git-dirs", method: "key", model: "multi-git-dirs", group: chain, ignore: []string{".git/HEAD", "submodule/.git/HEAD"}},
		{name: "key-multi-gitignore", method: "key", model: "multi-gitignore", group: chain, ignore: []string{".gitignore", "subdir/.gitignore"}},
		{name: "key-nested-git-not-excluded", method: "key", model: "with-nested-gitignore", group: chain},
		{name: "key-special-chars-path", method: "key", model: "special-chars", group: chain},
		{name: "key-unicode-filename", method: "key", model: "unicode-names", group: chain},
		{name: "key-p256", method: "key", model: "simple", group: keyGroup(t, elliptic.P256()), ignore: []string{"ignore-me"}},
		{name: "key-p384", method: "key", model: "simple", group: keyGroup(t, elliptic.P384()), ignore: []string{"ignore-me"}},
		{name: "key-p521", method: "key", model: "simple", group: keyGroup(t, elliptic.P521()), ignore: []string{"ignore-me"}},
		{name: "certificate-simple", method: "certificate", model: "simple", group: chain, ignore: []string{"ignore-me"}},
		{name: "certificate-multi-file", method: "certificate", model: "multi-file", group: chain},
		{name: "certificate-self-signed", method: "certificate", model: "simple", group: self, ignore: []string{"ignore-me"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := tt.want
			if want == nil {
				for name := range models[tt.model] {
					if !slices.Contains(tt.ignore, name) {
						want = append(want, name)
					}
				}
			}
			slices.Sort(want)
			r := request{tt.method, models[tt.model].write(t), tt.ignore}
			bundle := filepath.Join(t.TempDir(), "bundle.sig")
			if tt.inside {
				bundle = filepath.Join(r.model, "bundle.sig")
			}
			r.sign(t, bundle, tt.group)
			first := checkBundle(t, bundle, tt.method, r.model)
			if !slices.Equal(first, want) {
				t.Errorf("signed %q, want %q", first, want)
			}
			if status, stderr := r.verify(t, bundle, tt.group.verify(tt.method)...); status != done {
				t.Errorf("verify-model: status %d: %s", status, stderr)
			}
			// key-simple-deterministic, for every model.
			r.sign(t, bundle, tt.group)
			if again := checkBundle(t, bundle, tt.method, r.model); !slices.Equal(again, first) {
				t.Errorf("signed again: %q, want %q", again, first)
			}
		})
	}
}

// TestSingleFile signs and verifies a model that is a file: the suite's historical bundles are of such models.
func TestSingleFile(t *testing.T) {
	g := keyGroup(t, elliptic.P384())
	r := request{"key", filepath.Join(models["single-file"].write(t), "model.bin"), nil}
	bundle := filepath.Join(t.TempDir(), "bundle.sig")
	r.sign(t, bundle, g)
	checkBundle(t, bundle, "key", r.model)
	if status, stderr := r.verify(t, bundle, g.verify("key")...); status != done {
		t.Errorf("verify-model: status %d: %s", status, stderr)
	}
	put(t, r.model, "altered")
	if status, _ := r.verify(t, bundle, g.verify("key")...); status != refused {
		t.Errorf("verify-model of an altered file: status %d, want %d", status, refused)
	}
}

// TestSignRefuses: what the suite says must not be signed (section 6.1 and 6.1.1 of the specification) is not, and
// leaves no bundle behind.
func TestSignRefuses(t *testing.T) {
	g := newChain(t, valid, valid, valid, nil)
	noEKU := newChain(t, valid, valid, valid, func(c *x509.Certificate) { c.ExtKeyUsage = nil })
	other := keyGroup(t, elliptic.P384())
	tests := []struct {
		name, method, model string
		links               map[string]string
		flags               []string
		want                int
	}{
		{"as it should be", "key", "simple", nil, g.sign("key"), done},
		{"key-empty-model-rejected", "key", "empty", nil, g.sign("key"), failed},
		{"key-symlink-default-rejected", "key", "simple", map[string]string{"link-to-signme": "signme-1"}, g.sign("key"), failed},
		{"key-symlink-outside-root", "key", "simple", map[string]string{"outside-link": "/tmp/nonexistent-target"}, g.sign("key"), failed},
		{"key-symlink-cycle", "key", "simple", map[string]string{"cycle-link": "."}, g.sign("key"), failed},
		{"certificate-no-code-signing-eku", "certificate", "simple", nil, noEKU.sign("certificate"), failed},
		{"certificate of another key", "certificate", "simple", nil, append(g.sign("certificate"), "--private-key", other.private), failed},
		{"no such key", "key", "simple", nil, []string{"--private-key", filepath.Join(t.TempDir(), "none.pem")}, failed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := request{tt.method, models[tt.model].write(t), []string{"ignore-me"}}
			for link, target := range tt.links {
				if err := os.Symlink(target, filepath.Join(r.model, link)); err != nil {
					t.Fatal(err)
				}
			}
			bundle := filepath.Join(t.TempDir(), "bundle.sig")
			status, _, stderr := call(t, r.args("sign-model", "--output-bundle", bundle, tt.flags...)...)
			if status != tt.want {
				t.Errorf("sign-model: status %d, want %d: %s", status, tt.want, stderr)
			}
			if _, err := os.Stat(bundle); (err == nil) != (tt.want == done) {
				t.Errorf("bundle: %v, with status %d", err, status)
			}
		})
	}
}

// TestVerifyModel changes the model after it was signed (conformance/test/test-cases/policy-negative.yaml and
// policy-positive.yaml): one thing a row.
func TestVerifyModel(t *testing.T) {
	chain, wrong := newChain(t, valid, valid, valid, nil), newChain(t, valid, valid, valid, nil)
	key, cert := chain.verify("key"), chain.verify("certificate")
	both := func(a, b []string) []string { return slices.Concat(a, b) } // the method says which of them counts
	unsigned := "--ignore-unsigned-files"
	none := func(*testing.T, string) {}
	write := func(name, content string) func(*testing.T, string) {
		return func(t *testing.T, model string) { put(t, filepath.Join(model, name), content) }
	}
	remove := func(name string) func(*testing.T, string) {
		return func(t *testing.T, model string) {
			if err := os.Remove(filepath.Join(model, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	link := func(target, name string) func(*testing.T, string) {
		return func(t *testing.T, model string) {
			if err := os.Symlink(target, filepath.Join(model, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	toLink := func(t *testing.T, model string) {
		remove("signme-2")(t, model)
		put(t, filepath.Join(filepath.Dir(model), "elsewhere"), models["simple"]["signme-2"])
		link("../elsewhere", "signme-2")(t, model)
	}
	tests := []struct {
		name, signed, verified string
		change                 func(t *testing.T, model string)
		flags                  []string
		want                   int
	}{
		{"key-simple", "key", "key", none, key, done},
		{"certificate-simple", "certificate", "certificate", none, cert, done},
		{"certificate, intermediate trusted too", "certificate", "certificate", none, append(slices.Clone(cert), "--cert-chain", chain.chain[0]), done},
		{"tampered-content", "key", "key", write("signme-1", "TAMPERED CONTENT\n"), key, refused},
		{"tampered-content, certificate", "certificate", "certificate", write("signme-1", "TAMPERED CONTENT\n"), cert, refused},
		{"tampered-with-ignore-unsigned", "key", "key", write("signme-1", "TAMPERED CONTENT\n"), append(slices.Clone(key), unsigned), refused},
		{"missing-file", "key", "key", remove("signme-2"), key, refused},
		{"missing-file-with-ignore-unsigned", "key", "key", remove("signme-2"), append(slices.Clone(key), unsigned), refused},
		{"extra-file", "key", "key", write("injected.bin", "injected after signing\n"), key, refused},
		{"extra-file, certificate", "certificate", "certificate", write("injected.bin", "injected after signing\n"), cert, refused},
		{"ignore-unsigned-files", "key", "key", write("extra.bin", "extra file added after signing\n"), append(slices.Clone(key), unsigned), done},
		{"extra file in an ignored path's namesake", "key", "key", write("subdir/ignore-me", "x"), key, refused},
		{"added link", "key", "key", link("signme-1", "link"), key, refused},
		{"added link out of the model", "key", "key", link("/etc/hostname", "link"), key, refused},
		{"file became a link to the same bytes", "key", "key", toLink, key, refused},
		{"file became a link, with ignore-unsigned", "key", "key", toLink, append(slices.Clone(key), unsigned), refused},
		{"wrong-key", "key", "key", none, wrong.verify("key"), refused},
		{"wrong-key, as the suite calls it", "key", "key", none, both(wrong.verify("key"), wrong.verify("certificate")), refused},
		{"wrong-key, with a right root", "key", "key", none, both(wrong.verify("key"), cert), refused},
		{"right key, with a wrong root", "key", "key", none, both(key, wrong.verify("certificate")), done},
		{"wrong-ca, as the suite calls it", "certificate", "certificate", none, both(wrong.verify("key"), wrong.verify("certificate")), refused},
		{"wrong-ca, with the right key", "certificate", "certificate", none, both(wrong.verify("certificate"), key), refused},
		{"right root, with a wrong key", "certificate", "certificate", none, both(cert, wrong.verify("key")), done},
		{"wrong-ca", "certificate", "certificate", none, wrong.verify("certificate"), refused},
		{"key-verify-as-certificate", "key", "certificate", none, cert, refused},
		{"certificate-verify-as-key", "certificate", "key", none, key, refused},
		{"key-verify-as-sigstore", "key", "sigstore", none, []string{"--identity", "test@example.com", "--identity-provider", "https://accounts.example.com"}, refused},
		{"certificate-verify-as-sigstore", "certificate", "sigstore", none, []string{"--identity", "test@example.com", "--identity-provider", "https://accounts.example.com"}, refused},
		{"no such key", "key", "key", none, []string{"--public-key", filepath.Join(t.TempDir(), "none.pem")}, failed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := request{tt.signed, models["simple"].write(t), []string{"ignore-me"}}
			bundle := filepath.Join(t.TempDir(), "bundle.sig")
			r.sign(t, bundle, chain)
			tt.change(t, r.model)
			r.method = tt.verified
			if status, stderr := r.verify(t, bundle, tt.flags...); status != tt.want {
				t.Errorf("verify-model: status %d, want %d: %s", status, tt.want, stderr)
			}
		})
	}
}

// TestVerifyTime: every certificate of the chain must be valid now (section 8.2).
func TestVerifyTime(t *testing.T) {
	tests := []struct {
		name            string
		root, mid, leaf span
		want            int
	}{
		{"certificate-simple", valid, valid, valid, done},
		{"certificate-expired", valid, valid, expired, refused},
		{"certificate-not-yet-valid", valid, valid, notYetValid, refused},
		{"certificate-expired-intermediate", valid, expired, valid, refused},
		{"certificate-not-yet-valid-intermediate", valid, notYetValid, valid, refused},
		{"certificate-expired-root", expired, valid, valid, refused},
		{"certificate-expired-intermediate-expired-leaf", valid, expired, expired, refused},
		{"certificate-all-expired", expired, expired, expired, refused},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := newChain(t, tt.root, tt.mid, tt.leaf, nil)
			r := request{"certificate", models["simple"].write(t), []string{"ignore-me"}}
			bundle := filepath.Join(t.TempDir(), "bundle.sig")
			r.sign(t, bundle, g)
			if status, stderr := r.verify(t, bundle, g.verify("certificate")...); status != tt.want {
				t.Errorf("verify-model: status %d, want %d: %s", status, tt.want, stderr)
			}
		})
	}
}

// TestVerifyBundle breaks the bundle (conformance/config/bundle-transforms.yaml).
func TestVerifyBundle(t *testing.T) {
	g := keyGroup(t, elliptic.P384())
	type object = map[string]any
	envelope := func(change func(bundle, envelope object)) func(*testing.T, []byte) []byte {
		return func(t *testing.T, data []byte) []byte {
			var b object
			unmarshal(t, data, &b)
			change(b, b["dsseEnvelope"].(object))
			return marshal(t, b)
		}
	}
	payload := func(change func(statement object)) func(*testing.T, []byte) []byte {
		return func(t *testing.T, data []byte) []byte {
			var b bundle
			var s, all object
			unmarshal(t, data, &b)
			unmarshal(t, data, &all)
			unmarshal(t, b.DSSEEnvelope.Payload, &s)
			change(s)
			all["dsseEnvelope"].(object)["payload"] = marshal(t, s)
			return marshal(t, all)
		}
	}
	constant := func(s string) func(*testing.T, []byte) []byte {
		return func(*testing.T, []byte) []byte { return []byte(s) }
	}
	tests := []struct {
		name   string
		change func(*testing.T, []byte) []byte
		want   int
	}{
		{"as it was", envelope(func(_, _ object) {}), done},
		{"wrong-mediatype", envelope(func(b, _ object) { b["mediaType"] = "application/json" }), refused},
		{"older mediatype", envelope(func(b, _ object) { b["mediaType"] = "application/vnd.dev.sigstore.bundle.v0.1+json" }), refused},
		{"wrong-payload-type", envelope(func(_, e object) { e["payloadType"] = "application/octet-stream" }), refused},
		{"no-signature", envelope(func(_, e object) { e["signatures"] = []any{} }), refused},
		{"keyid absent", envelope(func(_, e object) { delete(e["signatures"].([]any)[0].(object), "keyid") }), done},
		{"keyid null", envelope(func(_, e object) { e["signatures"].([]any)[0].(object)["keyid"] = nil }), done},
		{"tlogEntries absent", envelope(func(b, _ object) { delete(b["verificationMaterial"].(object), "tlogEntries") }), done},
		{"wrong-statement-type", payload(func(s object) { s["_type"] = "https://in-toto.io/Statement/v0.1" }), refused},
		{"wrong-predicate", payload(func(s object) { s["predicateType"] = "https://example.com/wrong-predicate/v1.0" }), refused},
		{"no-predicate", payload(func(s object) { delete(s, "predicate") }), refused},
		{"no-subject", payload(func(s object) { s["subject"] = []any{} }), refused},
		{"empty-resources", payload(func(s object) { s["predicate"].(object)["resources"] = []any{} }), refused},
		{"missing-serialization", payload(func(s object) { delete(s["predicate"].(object), "serialization") }), refused},
		{"empty", constant(""), refused},
		{"corrupted", constant(`{"garbage": true}`), refused},
		{"missing-envelope", constant(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"publicKey":{"hint":"00"},"tlogEntries":[]}}`), refused},
		{"truncated", func(_ *testing.T, data []byte) []byte { return data[:100] }, refused},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := request{"key", models["simple"].write(t), []string{"ignore-me"}}
			bundle := filepath.Join(t.TempDir(), "bundle.sig")
			r.sign(t, bundle, g)
			data, err := os.ReadFile(bundle)
			if err != nil {
				t.Fatal(err)
			}
			put(t, bundle, string(tt.change(t, data)))
			if status, stderr := r.verify(t, bundle, g.verify("key")...); status != tt.want {
				t.Errorf("verify-model: status %d, want %d: %s", status, tt.want, stderr)
			}
		})
	}
}
