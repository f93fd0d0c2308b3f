package main_test

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/weighbridge/weighbridge/configs/sigstore"
	"github.com/weighbridge/weighbridge/verifier/keyless/keylesstest"
	statements "github.com/weighbridge/weighbridge/verifier/statement" // the test has a type of that name
)

// historical is whose the suite's keyless bundles are.
var historical = []string{"--identity", "stefanb@us.ibm.com", "--identity-provider", "https://sigstore.verify.ibm.com/oauth2"}

// instanceConfig writes a trust configuration for a public instance whose trusted root is changed.
func instanceConfig(t *testing.T, instance string, change func(root object)) string {
	t.Helper()
	data, err := sigstore.Files.ReadFile(instance + "/trusted_root.json")
	if err != nil {
		t.Fatal(err)
	}
	var root object
	unmarshal(t, data, &root)
	change(root)
	path := filepath.Join(t.TempDir(), "trust_config.json")
	put(t, path, string(marshal(t, object{"mediaType": "application/vnd.dev.sigstore.clienttrustconfig.v0.1+json", "trustedRoot": root})))
	return path
}

// TestHistoricalSigstore verifies what people signed at the production instance, years after their certificates expired
// and without a network; then with one thing about the instance or the account wrong per row.
func TestHistoricalSigstore(t *testing.T) {
	as := func(identity, issuer string) []string {
		return []string{"--identity", identity, "--identity-provider", issuer}
	}
	by := func(instance string, change func(object)) []string {
		return append(slices.Clone(historical), "--trust-config", instanceConfig(t, instance, change))
	}
	same := func(object) {}
	without := func(list string) func(object) { return func(root object) { root[list] = []any{} } }
	ended := func(list string, at string) func(object) {
		return func(root object) {
			for _, one := range root[list].([]any) {
				entry := one.(object)
				if key, there := entry["publicKey"]; there {
					entry = key.(object)
				}
				entry["validFor"].(object)["end"] = at
			}
		}
	}
	tests := []struct {
		name, bundle string
		flags        []string
		want         int
		says         string
	}{
		{"v0.3.1", "v0.3.1", historical, done, ""},
		{"v1.0.0", "v1.0.0", historical, done, ""},
		{"v1.0.1", "v1.0.1", historical, done, ""},
		{"v1.1.0", "v1.1.0", historical, done, ""},
		{"trust config", "v1.1.0", by("production", same), done, ""},
		{"trusted root before it had a clock", "v1.1.0", by("production", without("timestampAuthorities")), done, ""},
		{"wrong identity", "v1.1.0", as("stefanb@us.ibm.co", historical[3]), refused, `issued to "stefanb@us.ibm.com"`},
		{"identity in capitals", "v1.1.0", as("Stefanb@us.ibm.com", historical[3]), refused, `issued to "stefanb@us.ibm.com"`},
		{"identity as a pattern", "v1.1.0", as(".*", historical[3]), refused, `issued to "stefanb@us.ibm.com"`},
		{"wrong issuer", "v1.1.0", as(historical[1], "https://accounts.google.com"), refused, "want"},
		{"issuer with a slash", "v1.1.0", as(historical[1], historical[3]+"/"), refused, "want"},
		{"of staging", "v1.1.0", append(slices.Clone(historical), "--use-staging"), refused, "log"},
		{"of staging by trust config", "v1.1.0", by("staging", same), refused, "log"},
		{"of a private instance", "v1.1.0", append(slices.Clone(historical), "--trust-config", privateConfig(t, keylesstest.New(t), nil)), refused, "log"},
		{"authority that had ended", "v1.1.0", by("production", ended("certificateAuthorities", "2025-01-01T00:00:00Z")), refused, "certificate"},
		{"certificate log that had ended", "v1.1.0", by("production", ended("ctlogs", "2025-01-01T00:00:00Z")), refused, "SCT"},
		{"log that had ended", "v1.1.0", by("production", ended("tlogs", "2025-01-01T00:00:00Z")), refused, "log"},
		{"log that ended since", "v1.1.0", by("production", ended("tlogs", "2025-10-10T02:12:21Z")), done, ""},
		{"no certificate log", "v1.1.0", by("production", without("ctlogs")), failed, "certificate transparency log"},
		{"no log", "v1.1.0", by("production", without("tlogs")), failed, "transparency log"},
		{"key method", "v1.1.0", []string{"--method", "key", "--public-key", "testdata/signing-key-pub.pem"}, refused, "certificate"},
		{"certificate method", "v1.1.0", []string{"--method", "certificate", "--cert-chain", productionCA(t)}, refused, "no X.509 chain"},
	}
	model := model{"signme-1": "signme-1", "signme-2": "signme-2"}.write(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := request{"sigstore", model, nil}
			status, _, stderr := callOffline(t, r.args("verify-model", "--bundle", filepath.Join("testdata", tt.bundle+"-sigstore.sig"), tt.flags...)...)
			if status != tt.want || !strings.Contains(stderr, tt.says) {
				t.Errorf("verify-model %q: status %d, want %d with %q: %s", tt.flags, status, tt.want, tt.says, stderr)
			}
		})
	}
	r := request{"sigstore", models["simple"].write(t), []string{"ignore-me"}} // other content under the same names
	if status, _, stderr := callOffline(t, r.args("verify-model", "--bundle", "testdata/v1.1.0-sigstore.sig", historical...)...); status != refused || !strings.Contains(stderr, "signme-1") {
		t.Errorf("sigstore-tampered-content: status %d, want %d: %s", status, refused, stderr)
	}
}

// productionCA writes the certificates of the production instance's authority.
func productionCA(t *testing.T) string {
	t.Helper()
	var root struct {
		Authorities []struct {
			CertChain struct{ Certificates []struct{ RawBytes string } }
		} `json:"certificateAuthorities"`
	}
	data, err := sigstore.Files.ReadFile("production/trusted_root.json")
	if err != nil {
		t.Fatal(err)
	}
	unmarshal(t, data, &root)
	var text strings.Builder
	for _, a := range root.Authorities {
		for _, c := range a.CertChain.Certificates {
			text.WriteString("-----BEGIN CERTIFICATE-----\n" + c.RawBytes + "\n-----END CERTIFICATE-----\n")
		}
	}
	path := filepath.Join(t.TempDir(), "ca.pem")
	put(t, path, text.String())
	return path
}

// TestHistoricalSigstoreBroken breaks one thing in a bundle of the production instance per row.
func TestHistoricalSigstoreBroken(t *testing.T) {
	flip := func(where object, name string) {
		data, err := base64.StdEncoding.DecodeString(where[name].(string))
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)/2] ^= 1
		where[name] = base64.StdEncoding.EncodeToString(data)
	}
	type parts struct{ bundle, material, entry, proof, envelope object }
	const v031, v110 = "v0.3.1", "v1.1.0" // the first has the log's time alone, the second an authority's too
	tests := []struct {
		name, bundle string
		change       func(p parts)
		want         int
	}{
		{"as it was", v031, func(parts) {}, done},
		{"as it was, with a stamp", v110, func(parts) {}, done},
		{"no promise, with a stamp", v110, func(p parts) { delete(p.entry, "inclusionPromise") }, done},
		{"no stamp, with a promise", v110, func(p parts) { delete(p.material, "timestampVerificationData") }, done},
		{"no promise, so no time", v031, func(p parts) { delete(p.entry, "inclusionPromise") }, refused},
		{"no promise and no stamp", v110, func(p parts) {
			delete(p.entry, "inclusionPromise")
			delete(p.material, "timestampVerificationData")
		}, refused},
		{"no promise, and another time", v110, func(p parts) {
			delete(p.entry, "inclusionPromise")
			p.entry["integratedTime"] = "1760062941" // a second after the certificate expired
		}, refused},
		{"no proof", v110, func(p parts) { delete(p.entry, "inclusionProof") }, refused},
		{"no checkpoint", v110, func(p parts) { delete(p.proof, "checkpoint") }, refused},
		{"no entry", v110, func(p parts) { p.material["tlogEntries"] = []any{} }, refused},
		{"entry twice", v110, func(p parts) { p.material["tlogEntries"] = []any{p.entry, p.entry} }, refused},
		{"bit of the promise", v031, func(p parts) { flip(p.entry["inclusionPromise"].(object), "signedEntryTimestamp") }, refused},
		{"bit of the promise, with a stamp", v110, func(p parts) { flip(p.entry["inclusionPromise"].(object), "signedEntryTimestamp") }, refused},
		{"bit of the root", v110, func(p parts) { flip(p.proof, "rootHash") }, refused},
		{"bit of the path", v110, func(p parts) {
			hash := object{"": p.proof["hashes"].([]any)[0]}
			flip(hash, "")
			p.proof["hashes"].([]any)[0] = hash[""]
		}, refused},
		{"place in the tree", v110, func(p parts) { p.proof["logIndex"] = "476246823" }, refused},
		{"place in the log", v110, func(p parts) { p.entry["logIndex"] = "598151085" }, refused},
		{"size of the checkpoint", v110, func(p parts) {
			c := p.proof["checkpoint"].(object)
			c["envelope"] = strings.Replace(c["envelope"].(string), "476246825", "476246826", 1)
		}, refused},
		{"time of the entry", v031, func(p parts) { p.entry["integratedTime"] = "1746234603" }, refused},
		{"bit of the entry", v110, func(p parts) { flip(p.entry, "canonicalizedBody") }, refused},
		{"kind of the entry", v110, func(p parts) { p.entry["kindVersion"].(object)["kind"] = "hashedrekord" }, refused},
		{"bit of the log's name", v110, func(p parts) { flip(p.entry["logId"].(object), "keyId") }, refused},
		{"bit of the stamp, with a promise", v110, func(p parts) {
			flip(p.material["timestampVerificationData"].(object)["rfc3161Timestamps"].([]any)[0].(object), "signedTimestamp")
		}, done}, // what nobody trusted says is no time, and the log says one
		{"bit of the stamp, without promise", v110, func(p parts) {
			flip(p.material["timestampVerificationData"].(object)["rfc3161Timestamps"].([]any)[0].(object), "signedTimestamp")
			delete(p.entry, "inclusionPromise")
		}, refused},
		{"bit of the certificate", v110, func(p parts) { flip(p.material["certificate"].(object), "rawBytes") }, refused},
		{"certificate of another signature", v110, func(p parts) {
			p.material["certificate"] = readSigstore(t, v031)["verificationMaterial"].(object)["certificate"]
		}, refused},
		{"entry of another signature", v110, func(p parts) {
			p.material["tlogEntries"] = readSigstore(t, v031)["verificationMaterial"].(object)["tlogEntries"]
		}, refused},
		{"signature of another statement", v110, func(p parts) { p.envelope["signatures"] = readSigstore(t, v031)["dsseEnvelope"].(object)["signatures"] }, refused},
		{"statement of another signature", v110, func(p parts) { p.envelope["payload"] = readSigstore(t, v031)["dsseEnvelope"].(object)["payload"] }, refused},
		{"bit of the signature", v110, func(p parts) { flip(p.envelope["signatures"].([]any)[0].(object), "sig") }, refused},
		{"bit of the statement", v110, func(p parts) { flip(p.envelope, "payload") }, refused},
		{"certificate in a chain", v110, func(p parts) {
			p.material["x509CertificateChain"] = object{"certificates": []any{p.material["certificate"]}}
			delete(p.material, "certificate")
		}, refused},
		{"message signature", v110, func(p parts) {
			p.bundle["messageSignature"] = object{
				"messageDigest": object{"algorithm": "SHA2_256", "digest": "YdSEnZ2QB21iFfTVJfE9ZXSvjj9nrvPm82/ECpT90iY="},
				"signature":     p.envelope["signatures"].([]any)[0].(object)["sig"],
			}
			delete(p.bundle, "dsseEnvelope")
		}, refused},
		// OMS v1.0 section 4 wants v0.3, whose bundles are the ones that must hold a proof.
		{"bundle v0.1", v110, func(p parts) { p.bundle["mediaType"] = "application/vnd.dev.sigstore.bundle+json;version=0.1" }, refused},
		{"bundle v0.2", v110, func(p parts) { p.bundle["mediaType"] = "application/vnd.dev.sigstore.bundle+json;version=0.2" }, refused},
		{"bundle v0.4", v110, func(p parts) { p.bundle["mediaType"] = "application/vnd.dev.sigstore.bundle.v0.4+json" }, refused},
	}
	model := model{"signme-1": "signme-1", "signme-2": "signme-2"}.write(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := readSigstore(t, tt.bundle)
			material := b["verificationMaterial"].(object)
			entry := material["tlogEntries"].([]any)[0].(object)
			tt.change(parts{b, material, entry, entry["inclusionProof"].(object), b["dsseEnvelope"].(object)})
			path := filepath.Join(t.TempDir(), "bundle.sig")
			put(t, path, string(marshal(t, b)))
			r := request{"sigstore", model, nil}
			if status, _, stderr := callOffline(t, r.args("verify-model", "--bundle", path, historical...)...); status != tt.want {
				t.Errorf("verify-model: status %d, want %d: %s", status, tt.want, stderr)
			}
		})
	}
}

func readSigstore(t *testing.T, version string) object {
	t.Helper()
	data, err := os.ReadFile("testdata/" + version + "-sigstore.sig")
	if err != nil {
		t.Fatal(err)
	}
	var b object
	unmarshal(t, data, &b)
	return b
}

// privateConfig writes the trust configuration of a private instance.
func privateConfig(t *testing.T, instance *keylesstest.Instance, signingConfig []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "trust_config.json")
	put(t, path, string(instance.TrustConfig(signingConfig)))
	return path
}

// TestSigstoreRoundtrip signs at a private instance and verifies without a network, as the suite's cases do at staging.
func TestSigstoreRoundtrip(t *testing.T) {
	instance := keylesstest.New(t)
	private := []string{"--trust-config", privateConfig(t, instance, instance.Serve(keylesstest.Signing{}))}
	who := statements.Account{Issuer: "https://accounts.example", Subject: "carol@bank.example"}
	account := append([]string{"--identity", who.Subject, "--identity-provider", who.Issuer}, private...)
	tests := []struct {
		name, model string
		ignore      []string
		inside      bool
	}{
		{"sigstore-simple", "simple", []string{"ignore-me"}, false},
		{"sigstore-ignore-paths", "simple", []string{"ignore-me"}, false},
		{"sigstore-multi-file", "multi-file", nil, false},
		{"sigstore-single-file", "single-file", nil, false},
		{"sigstore-sig-inside-model", "simple", []string{"ignore-me"}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := request{"sigstore", models[tt.model].write(t), tt.ignore}
			bundle := filepath.Join(t.TempDir(), "bundle.sig")
			if tt.inside {
				bundle = filepath.Join(r.model, "bundle.sig")
			}
			sign := r.args("sign-model", "--output-bundle", bundle, append(slices.Clone(private), "--identity-token", keylesstest.Token(who))...)
			if status, _, stderr := call(t, sign...); status != done {
				t.Fatalf("sign-model: status %d: %s", status, stderr)
			}
			checkBundle(t, bundle, "sigstore", r.model)
			verify := func(want int, flags ...string) {
				t.Helper()
				if status, _, stderr := callOffline(t, r.args("verify-model", "--bundle", bundle, flags...)...); status != want {
					t.Errorf("verify-model %q: status %d, want %d: %s", flags, status, want, stderr)
				}
			}
			verify(done, account...)
			verify(refused, append(slices.Clone(account), "--identity", "mallory@bank.example")...)
			verify(refused, append(slices.Clone(account), "--identity-provider", "https://accounts.other")...)
			verify(refused, append(slices.Clone(account), "--trust-config", privateConfig(t, keylesstest.New(t), nil))...)
			verify(refused, account[:4:4]...) // by production
			put(t, filepath.Join(r.model, "injected.bin"), "injected after signing\n")
			verify(refused, account...)
			verify(done, append(slices.Clone(account), "--ignore-unsigned-files")...)
		})
	}
}

// TestSigstoreToken: the suite's token is the one that signs; a token of the environment signs where the suite has none.
func TestSigstoreToken(t *testing.T) {
	instance := keylesstest.New(t)
	private := []string{"--trust-config", privateConfig(t, instance, instance.Serve(keylesstest.Signing{}))}
	token := func(subject string) string {
		return keylesstest.Token(statements.Account{Issuer: "https://accounts.example", Subject: subject})
	}
	t.Setenv("SIGSTORE_ID_TOKEN", token("env@bank.example"))
	for _, tt := range []struct {
		flags []string
		want  string
	}{
		{private, "env@bank.example"},
		{append(slices.Clone(private), "--identity-token", token("suite@bank.example")), "suite@bank.example"},
	} {
		r := request{"sigstore", models["simple"].write(t), nil}
		bundle := filepath.Join(t.TempDir(), "bundle.sig")
		if status, _, stderr := call(t, r.args("sign-model", "--output-bundle", bundle, tt.flags...)...); status != done {
			t.Fatalf("sign-model: status %d: %s", status, stderr)
		}
		flags := append([]string{"--identity", tt.want, "--identity-provider", "https://accounts.example"}, private...)
		if status, stderr := r.verify(t, bundle, flags...); status != done {
			t.Errorf("verify-model as %s: status %d: %s", tt.want, status, stderr)
		}
	}
}

// TestInstances: the files of the public instances are ones that the commands take.
func TestInstances(t *testing.T) {
	for _, instance := range []string{"production", "staging"} {
		for _, name := range []string{"trusted_root", "signing_config"} {
			data, err := sigstore.Files.ReadFile(instance + "/" + name + ".json")
			if err != nil || !json.Valid(data) {
				t.Errorf("%s of %s: %v", name, instance, err)
			}
		}
	}
}
