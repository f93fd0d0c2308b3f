package main

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/verifier/keyless/keylesstest"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

// dialed returns how often something in the network namespace of the test's thread found no route, or sent a packet: a
// program that dials and lives with the failure shows here.
func dialed(t *testing.T) (counted string) {
	t.Helper()
	for _, file := range []string{"/proc/thread-self/net/snmp", "/proc/thread-self/net/snmp6"} {
		text, err := os.ReadFile(file)
		if os.IsNotExist(err) { // no IPv6
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		var names []string
		for line := range strings.Lines(string(text)) {
			fields := strings.Fields(line)
			switch {
			case fields[0] == "Ip:" && names == nil:
				names = fields
			case fields[0] == "Ip:":
				for i, name := range names {
					if name == "OutRequests" || name == "OutNoRoutes" {
						counted += " Ip" + name + " " + fields[i]
					}
				}
			case fields[0] == "Ip6OutNoRoutes":
				counted += " " + strings.Join(fields, " ")
			}
		}
	}
	return counted
}

// TestVerifyOffline verifies what accounts and SVIDs signed, years after their certificates expired, by the program in a
// network namespace without routes, and refuses it with one thing wrong per row. It dials nothing there.
func TestVerifyOffline(t *testing.T) {
	w, instance := trusttest.New(t), keylesstest.New(t)
	w.Keyless = newKeyless
	ca, clock, stranger := w.NewCA("house"), w.NewTimeAuthority("clock"), w.NewTimeAuthority("stranger")
	svid := ca.Issue("dave", func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = longAgo.Add(-time.Minute), longAgo.Add(time.Hour)
		c.Subject, c.ExtKeyUsage, c.URIs = pkix.Name{}, nil, []*url.URL{{Scheme: "spiffe", Host: "bank.example", Path: "/ci/evaluator"}}
	})
	leaf := ca.Issue("trainer", func(c *x509.Certificate) { c.NotBefore, c.NotAfter = longAgo.Add(-time.Minute), longAgo.Add(time.Hour) })
	file := func(name string) string { return filepath.Join(w.Dir, name) }
	w.Write("house.crt", ca.Root)
	w.Write("clock.crt", clock.Root)
	writeTestFile(t, file("root.json"), string(instance.TrustedRoot()))
	w.SignPolicy(func(d *trust.Document) {
		id, root, err := trust.TrustedRootID(instance.TrustedRoot())
		if err != nil {
			t.Fatal(err)
		}
		d.TrustedRoots = map[statement.ID]jsontext.Value{id: root}
		d.TimestampAuthorities = []string{trust.CertificatePEM(clock.Root.Raw)}
		d.Identities[trusttest.Carol] = trust.Identity{Sigstore: trust.Sigstore{Issuer: carolAccount.Issuer, Subject: carolAccount.Subject, TrustedRoot: id}}
		d.Identities["dave"] = trust.Identity{SPIFFE: "spiffe://bank.example/ci/evaluator", Roots: []string{trust.CertificatePEM(ca.Root.Raw)}}
		d.Roles["approver"] = trust.Role{Members: []string{trusttest.Carol, "dave"}}
	})
	model := file("model.gguf")
	writeTestFile(t, model, "weights")
	release := w.Release(model, nil)
	w.Publish(release, "chat", 1)
	approval, err := trust.NewApproval(release, trust.Approval{})
	if err != nil {
		t.Fatal(err)
	}
	weights := payloadOf(t, model+".sig")
	account := func(change func(*keylesstest.Signing)) keylesstest.Signing {
		s := keylesstest.Signing{Account: carolAccount, At: longAgo}
		change(&s)
		return s
	}
	var (
		v1       = account(func(*keylesstest.Signing) {})
		v2       = account(func(s *keylesstest.Signing) { s.Rekor = 2 })
		late     = account(func(s *keylesstest.Signing) { s.Rekor, s.Stamped = 2, longAgo.Add(keylesstest.Valid) })
		unlogged = account(func(s *keylesstest.Signing) { s.Without = []keylesstest.Part{keylesstest.Entry} })
		mallory  = account(func(s *keylesstest.Signing) { s.Account.Subject = "mallory@bank.example" })
	)
	// Every command is prepared before the network is left behind.
	type run struct {
		name   string
		args   []string
		status int
	}
	var runs []run
	for _, tt := range []struct {
		name   string
		by     *keylesstest.Instance
		s      keylesstest.Signing
		status int
	}{
		{"account", instance, v1, exitDone},
		{"account in a log of version 2", instance, v2, exitDone},
		{"account, stamped late", instance, late, exitRefused},
		{"account in no log", instance, unlogged, exitRefused},
		{"another account", instance, mallory, exitRefused},
		{"account of another instance", keylesstest.New(t), v1, exitRefused},
	} {
		signature := file(tt.name + ".sig")
		writeTestFile(t, signature, string(tt.by.Sign(weights, tt.s)))
		runs = append(runs, run{tt.name, []string{"model", "verify", model, "--signature", signature, "--trusted-root", file("root.json"),
			"--identity", carolAccount.Subject, "--identity-provider", carolAccount.Issuer}, tt.status})
	}
	for _, tt := range []struct {
		name   string
		by     *trusttest.TimeAuthority
		at     time.Time
		over   func(*statement.Signed) []byte
		status int
	}{
		{"stamped", clock, longAgo, (*statement.Signed).Signature, exitDone},
		{"stamped after the certificate expired", clock, longAgo.Add(2 * time.Hour), (*statement.Signed).Signature, exitRefused},
		{"stamped before the certificate was valid", clock, longAgo.Add(-time.Hour), (*statement.Signed).Signature, exitRefused},
		{"stamped by a stranger", stranger, longAgo, (*statement.Signed).Signature, exitRefused},
		{"stamped over something else", clock, longAgo, (*statement.Signed).Payload, exitRefused},
		{"not stamped", nil, longAgo, nil, exitRefused},
	} {
		stamped := func(s *statement.Signed) *statement.Signed {
			if tt.by == nil {
				return s
			}
			made, err := statement.Parse(trusttest.WithTimestamp(s.Bundle(), tt.by.Stamp(tt.over(s), tt.at)))
			if err != nil {
				t.Fatal(err)
			}
			return made
		}
		signature := file(tt.name + ".sig")
		writeTestFile(t, signature, string(stamped(w.SignUnder(trusttest.Trainer, weights, leaf)).Bundle()))
		runs = append(runs, run{"weights " + tt.name, []string{"model", "verify", model, "--signature", signature, "--certificate-chain", file("house.crt"),
			"--verification-time", "timestamp", "--timestamp-authority", file("clock.crt")}, tt.status})

		// The same of an approval under an SVID, beside the account's, of which both are needed.
		statements := file("statements " + tt.name)
		if err := os.CopyFS(statements, os.DirFS(w.Statements)); err != nil {
			t.Fatal(err)
		}
		writeTestFile(t, filepath.Join(statements, "carol.json"), string(instance.Sign(approval, v2)))
		writeTestFile(t, filepath.Join(statements, "dave.json"), string(stamped(w.SignUnder("dave", approval, svid)).Bundle()))
		runs = append(runs, run{"approval " + tt.name, []string{"decide", "--policy", w.PolicyFile, "--root", filepath.Join(w.Keys, "alice.pub"),
			"--root", filepath.Join(w.Keys, "bob.pub"), "--statements", statements}, tt.status})
	}

	enterIsland(t)
	before := dialed(t)
	there := island{&gatewayProcess{World: w, t: t}, w}
	for _, r := range runs {
		if status, out := there.do(r.args...); status != r.status {
			t.Errorf("%s: status %d, want %d: %s", r.name, status, r.status, out)
		}
	}
	if after := dialed(t); after != before {
		t.Errorf("something was dialed:%s, before:%s", after, before)
	}
	if c, err := net.Dial("udp", "192.0.2.1:53"); err == nil {
		c.Close()
		t.Error("there is a network")
	}
	if dialed(t) == before {
		t.Error("dialing is not counted, so nothing was shown")
	}
}
