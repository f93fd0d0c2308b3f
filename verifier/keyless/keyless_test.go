package keyless_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"

	"github.com/weighbridge/weighbridge/verifier/keyless"
	"github.com/weighbridge/weighbridge/verifier/keyless/keylesstest"
	"github.com/weighbridge/weighbridge/verifier/statement"
)

var (
	now   = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	carol = statement.Account{Issuer: "https://accounts.example", Subject: "carol@bank.example"}
	flow  = statement.Account{Issuer: "https://token.actions.example", Subject: "https://git.example/bank/model/.github/workflows/train.yml@refs/heads/main"}
)

// signing is carol's, at the time of the test, but for one thing.
func signing(change func(*keylesstest.Signing)) keylesstest.Signing {
	s := keylesstest.Signing{Account: carol, At: now}
	if change != nil {
		change(&s)
	}
	return s
}

func without(parts ...keylesstest.Part) keylesstest.Signing {
	return signing(func(s *keylesstest.Signing) { s.Without = parts })
}

func issued(change func(*x509.Certificate)) keylesstest.Signing {
	return signing(func(s *keylesstest.Signing) { s.Change = change })
}

func broken(change func(*protobundle.VerificationMaterial)) keylesstest.Signing {
	return signing(func(s *keylesstest.Signing) {
		s.Broken = func(b *protobundle.Bundle) { change(b.GetVerificationMaterial()) }
	})
}

func version2(parts ...keylesstest.Part) keylesstest.Signing {
	return signing(func(s *keylesstest.Signing) { s.Rekor, s.Without = 2, parts })
}

func stamped(after time.Duration, parts ...keylesstest.Part) keylesstest.Signing {
	return signing(func(s *keylesstest.Signing) { s.Stamped, s.Without = now.Add(after), parts })
}

func payload(t *testing.T, name string) []byte {
	t.Helper()
	made, err := statement.New("https://example.com/v1", name, strings.Repeat("ab", 32), map[string]any{"name": name})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// TestVerify has valid bundles, and then one thing broken in each row.
func TestVerify(t *testing.T) {
	instance, stranger := keylesstest.New(t), keylesstest.New(t)
	text := payload(t, "approved")
	elsewhere := func(of *keylesstest.Instance, payload []byte) *protobundle.VerificationMaterial {
		var material *protobundle.VerificationMaterial
		of.Sign(payload, signing(func(s *keylesstest.Signing) {
			s.Broken = func(b *protobundle.Bundle) { material = b.GetVerificationMaterial() }
		}))
		return material
	}
	entries := func(of *keylesstest.Instance, payload []byte) keylesstest.Signing {
		return broken(func(m *protobundle.VerificationMaterial) { m.TlogEntries = elsewhere(of, payload).GetTlogEntries() })
	}
	stamps := func(of *keylesstest.Instance) keylesstest.Signing {
		return signing(func(s *keylesstest.Signing) {
			s.Without = []keylesstest.Part{keylesstest.Promise}
			s.Broken = func(b *protobundle.Bundle) {
				b.GetVerificationMaterial().TimestampVerificationData = elsewhere(of, text).GetTimestampVerificationData()
			}
		})
	}
	tests := []struct {
		name string
		by   *keylesstest.Instance
		s    keylesstest.Signing
		want error
	}{
		{"promise of the log and time of the authority", instance, signing(nil), nil},
		{"time of the authority alone", instance, without(keylesstest.Promise), nil},
		{"time of the log alone", instance, without(keylesstest.Timestamp), nil},
		{"log of version 2", instance, version2(), nil},
		{"certificate with the issuer in the old extension alone", instance, issued(func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{rawIssuer(carol.Issuer)} }), nil},
		{"certificate with the issuer in both extensions", instance, issued(func(c *x509.Certificate) { c.ExtraExtensions = append(c.ExtraExtensions, rawIssuer(carol.Issuer)) }), nil},

		{"another root", stranger, signing(nil), statement.ErrChain},
		{"another issuer", instance, signing(func(s *keylesstest.Signing) { s.Account.Issuer = "https://accounts.other" }), statement.ErrChain},
		{"issuer with a slash more", instance, signing(func(s *keylesstest.Signing) { s.Account.Issuer += "/" }), statement.ErrChain},
		{"two issuers", instance, issued(func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, rawIssuer("https://accounts.other"))
		}), statement.ErrChain},
		{"two issuers, ours last", instance, issued(func(c *x509.Certificate) {
			c.ExtraExtensions = append([]pkix.Extension{rawIssuer("https://accounts.other")}, c.ExtraExtensions...)
		}), statement.ErrChain},
		{"no issuer", instance, issued(func(c *x509.Certificate) { c.ExtraExtensions = nil }), statement.ErrChain},
		{"another subject", instance, signing(func(s *keylesstest.Signing) { s.Account.Subject = "mallory@bank.example" }), statement.ErrChain},
		{"subject of which ours is a part", instance, signing(func(s *keylesstest.Signing) { s.Account.Subject = "not-" + carol.Subject }), statement.ErrChain},
		{"subject that a pattern of ours would match", instance, signing(func(s *keylesstest.Signing) { s.Account.Subject = "carol@bankXexample" }), statement.ErrChain},
		{"subject in capitals", instance, signing(func(s *keylesstest.Signing) { s.Account.Subject = "Carol@bank.example" }), statement.ErrChain},
		{"subject as a URI", instance, issued(func(c *x509.Certificate) {
			c.EmailAddresses, c.URIs = nil, []*url.URL{{Opaque: carol.Subject, Scheme: "mailto"}}
		}), statement.ErrChain},
		{"two addresses", instance, issued(func(c *x509.Certificate) { c.EmailAddresses = append(c.EmailAddresses, "mallory@bank.example") }), statement.ErrChain},
		{"an address and a URI", instance, issued(func(c *x509.Certificate) { c.URIs = []*url.URL{{Scheme: "https", Host: "mallory.example"}} }), statement.ErrChain},
		{"an address and a host", instance, issued(func(c *x509.Certificate) { c.DNSNames = []string{"mallory.example"} }), statement.ErrChain},
		{"no address", instance, issued(func(c *x509.Certificate) { c.EmailAddresses, c.Subject = nil, pkix.Name{CommonName: carol.Subject} }), statement.ErrChain},
		{"certificate for servers", instance, issued(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), statement.ErrChain},
		{"certificate for nothing in particular", instance, issued(func(c *x509.Certificate) { c.ExtKeyUsage = nil }), statement.ErrChain},
		{"certificate that may not sign", instance, issued(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement }), statement.ErrChain},
		{"certificate of another authority", instance, signing(func(s *keylesstest.Signing) { s.CA, s.CT = stranger, instance }), statement.ErrChain},
		{"certificate in the log of strangers", instance, signing(func(s *keylesstest.Signing) { s.CT = stranger }), statement.ErrChain},
		{"certificate that is in no log", instance, without(keylesstest.SCT), statement.ErrChain},
		{"in no log", instance, without(keylesstest.Entry), statement.ErrChain},
		{"in the log of strangers", instance, entries(stranger, text), statement.ErrChain},
		{"entry of another statement", instance, entries(instance, payload(t, "another")), statement.ErrChain},
		{"entry of another signature of the statement", instance, entries(instance, text), statement.ErrChain},
		{"entry twice", instance, broken(func(m *protobundle.VerificationMaterial) { m.TlogEntries = append(m.TlogEntries, m.TlogEntries[0]) }), statement.ErrChain},
		{"entry without proof", instance, broken(func(m *protobundle.VerificationMaterial) { m.TlogEntries[0].InclusionProof = nil }), statement.ErrChain},
		{"entry of a checkpoint of another tree", instance, broken(func(m *protobundle.VerificationMaterial) {
			m.TlogEntries[0].InclusionProof.Checkpoint = elsewhere(instance, payload(t, "another")).GetTlogEntries()[0].GetInclusionProof().GetCheckpoint()
		}), statement.ErrChain},
		{"entry with an altered body", instance, broken(func(m *protobundle.VerificationMaterial) {
			m.TlogEntries[0].CanonicalizedBody = append(m.TlogEntries[0].GetCanonicalizedBody(), ' ')
		}), statement.ErrChain},
		{"entry of another kind than it says", instance, broken(func(m *protobundle.VerificationMaterial) { m.TlogEntries[0].KindVersion.Kind = "intoto" }), statement.ErrChain},
		{"entry of another version than it says", instance, broken(func(m *protobundle.VerificationMaterial) { m.TlogEntries[0].KindVersion.Version = "0.0.2" }), statement.ErrChain},
		{"entry with an altered time", instance, broken(func(m *protobundle.VerificationMaterial) {
			m.TlogEntries[0].IntegratedTime++
			m.TimestampVerificationData = nil
		}), statement.ErrChain},
		{"entry of version 2 of another statement", instance, signing(func(s *keylesstest.Signing) {
			s.Rekor = 2
			s.Broken = func(b *protobundle.Bundle) {
				var entries []*protorekor.TransparencyLogEntry
				instance.Sign(text, signing(func(other *keylesstest.Signing) {
					other.Rekor = 2
					other.Broken = func(b *protobundle.Bundle) { entries = b.GetVerificationMaterial().GetTlogEntries() }
				}))
				b.GetVerificationMaterial().TlogEntries = entries
			}
		}), statement.ErrChain},
		{"no time", instance, without(keylesstest.Promise, keylesstest.Timestamp), statement.ErrChain},
		{"no time in the log of version 2", instance, version2(keylesstest.Timestamp), statement.ErrChain},
		{"time by an authority of strangers", instance, stamps(stranger), statement.ErrChain},
		{"time of another signature", instance, stamps(instance), statement.ErrChain},
		{"stamped when the certificate had expired", instance, stamped(keylesstest.Valid, keylesstest.Promise), statement.ErrChain},
		{"stamped before the certificate was valid", instance, stamped(-time.Hour, keylesstest.Promise), statement.ErrChain},
		{"logged when the certificate had expired", instance, issued(func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) }), statement.ErrChain},
		{"a chain in place of the certificate", instance, broken(func(m *protobundle.VerificationMaterial) {
			m.Content = &protobundle.VerificationMaterial_X509CertificateChain{X509CertificateChain: &protocommon.X509CertificateChain{
				Certificates: []*protocommon.X509Certificate{m.GetCertificate()},
			}}
		}), statement.ErrChain},
		{"a key in place of the certificate", instance, broken(func(m *protobundle.VerificationMaterial) {
			m.Content = &protobundle.VerificationMaterial_PublicKey{PublicKey: &protocommon.PublicKeyIdentifier{}}
		}), statement.ErrChain},
		{"altered", instance, signing(func(s *keylesstest.Signing) {
			s.Broken = func(b *protobundle.Bundle) { b.GetDsseEnvelope().Payload = payload(t, "altered") }
		}), statement.ErrSignature},
		{"certificate of another signature", instance, broken(func(m *protobundle.VerificationMaterial) { m.Content = elsewhere(instance, text).GetContent() }), statement.ErrSignature},
	}
	v, err := keyless.New(instance.TrustedRoot())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			at, err := v.Verify(tt.by.Signed(text, tt.s), carol)
			if !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
				t.Fatalf("Verify = %v, want %v", err, tt.want)
			}
			if err != nil && strings.ContainsAny(err.Error(), "\n!") {
				t.Errorf("error over several lines, or misprinted: %q", err)
			}
			if tt.want == nil && !at.Equal(now) || tt.want != nil && !at.IsZero() {
				t.Errorf("Verify says %s, signed at %s", at, now)
			}
		})
	}
}

func rawIssuer(text string) pkix.Extension {
	return pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}, Value: []byte(text)}
}

// TestVerifyWorkflow: subjects of machines are URIs.
func TestVerifyWorkflow(t *testing.T) {
	instance := keylesstest.New(t)
	v, err := keyless.New(instance.TrustedRoot())
	if err != nil {
		t.Fatal(err)
	}
	signed := instance.Signed(payload(t, "approved"), signing(func(s *keylesstest.Signing) { s.Account = flow }))
	if _, err := v.Verify(signed, flow); err != nil {
		t.Errorf("Verify by %s = %v", flow, err)
	}
	shouted := statement.Account{Issuer: flow.Issuer, Subject: strings.Replace(flow.Subject, "https", "HTTPS", 1)}
	for _, other := range []statement.Account{carol, shouted} {
		if _, err := v.Verify(signed, other); !errors.Is(err, statement.ErrChain) {
			t.Errorf("Verify by %s = %v, want %v", other, err, statement.ErrChain)
		}
	}
	// A library that reads URIs would write both in one way.
	signed = instance.Signed(payload(t, "approved"), signing(func(s *keylesstest.Signing) {
		s.Account = flow
		s.Change = func(c *x509.Certificate) { c.URIs[0].Scheme = "HTTPS" }
	}))
	if _, err := v.Verify(signed, flow); !errors.Is(err, statement.ErrChain) {
		t.Errorf("Verify of what %s signed by %s = %v, want %v", shouted, flow, err, statement.ErrChain)
	}
}

// TestEarliest: of several times the earliest counts, since the signature was there by then.
func TestEarliest(t *testing.T) {
	instance := keylesstest.New(t)
	v, err := keyless.New(instance.TrustedRoot())
	if err != nil {
		t.Fatal(err)
	}
	for _, after := range []time.Duration{-30 * time.Second, 30 * time.Second} {
		at, err := v.Verify(instance.Signed(payload(t, "approved"), stamped(after)), carol)
		if want := now.Add(min(after, 0)); err != nil || !at.Equal(want) {
			t.Errorf("stamped %s after it was logged: %s, %v, want %s", after, at, err, want)
		}
	}
}

// TestNew: a trusted root by which nothing could verify is refused at once.
func TestNew(t *testing.T) {
	whole := string(keylesstest.New(t).TrustedRoot())
	drop := func(name string) string {
		from := strings.Index(whole, `"`+name+`":`)
		return whole[:from] + `"ignored` + whole[from+1:]
	}
	for _, tt := range []struct{ name, text, want string }{
		{"whole", whole, ""},
		{"empty", "", "read trusted root"},
		{"a bundle's media type", strings.Replace(whole, "trustedroot+json", "bundle+json", 1), "media type"},
		{"unknown field", drop("ctlogs"), "unknown field"},
		{"nothing in it", `{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`, "certificate authority"},
	} {
		v, err := keyless.New([]byte(tt.text))
		if tt.want == "" && (err != nil || v == nil) || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: New = %v, want %q", tt.name, err, tt.want)
		}
	}
}

// TestOffline verifies where there is no network: in a namespace without one, with a client that fails the test.
func TestOffline(t *testing.T) {
	const inside = "WEIGHBRIDGE_TEST_OFFLINE"
	if os.Getenv(inside) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestOffline$", "-test.v")
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
		out, err := cmd.CombinedOutput()
		if errors.Is(err, syscall.EPERM) {
			t.Skip("this machine lets nobody make a network namespace")
		}
		if err != nil || !strings.Contains(string(out), "--- PASS: TestOffline") {
			t.Errorf("in a namespace without a network: %v\n%s", err, out)
		}
		return
	}
	if c, err := net.Dial("udp", "192.0.2.1:53"); err == nil {
		c.Close()
		t.Fatal("there is a network")
	}
	http.DefaultTransport = roundTripper(func(r *http.Request) (*http.Response, error) {
		t.Errorf("asked for %s", r.URL)
		return nil, errors.ErrUnsupported
	})
	instance := keylesstest.New(t)
	v, err := keyless.New(instance.TrustedRoot())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []keylesstest.Signing{signing(nil), version2(), without(keylesstest.Entry), without(keylesstest.SCT)} {
		_, err := v.Verify(instance.Signed(payload(t, "approved"), s), carol)
		if (err == nil) != (len(s.Without) == 0) {
			t.Errorf("without %q: Verify = %v", s.Without, err)
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
