package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weighbridge/weighbridge/gateway"
	"github.com/weighbridge/weighbridge/gateway/receipt"
	"github.com/weighbridge/weighbridge/gateway/receipt/receipttest"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

// echoOf is echo, served by the release of a signed site.
type echoOf struct {
	echo
	site *receipttest.Site
}

func (e echoOf) Acquire(context.Context, string) (gateway.Serving, error) { return e, nil }

func (e echoOf) Info() gateway.ServingInfo {
	by := e.site.Served()
	return gateway.ServingInfo{Channel: by.Channel, Release: by.Release, Weights: by.Weights, Level: by.Level, Sandbox: by.Sandbox, Grounds: by.Grounds}
}

// command runs a command line and returns how it ended and what it wrote.
func command(t *testing.T, args ...string) (exit int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	exit = run(args, streams{strings.NewReader(""), &out, &err})
	return exit, out.String(), err.String()
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, to, data)
}

func writeFile(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// chatReceipt asks one question and returns the site, and a directory with nothing in it but the receipt, the policy and
// the root keys.
func chatReceipt(t *testing.T) (*receipttest.Site, string) {
	t.Helper()
	site := receipttest.New(t, nil)
	address, svids := startGateway(t, func(c *gateway.Config) { c.Catalog, c.Receipts = echoOf{site: site}, site.Issuer })
	own, elsewhere := filepath.Join(svids, "apps/demo"), t.TempDir()
	file := filepath.Join(elsewhere, "receipt.json")
	exit, out, errs := command(t, "chat", "chat", "hi", "--server", address, "--receipt", file,
		"--svid", filepath.Join(own, "svid.pem"), "--svid-key", filepath.Join(own, "key.pem"), "--bundle", filepath.Join(own, "bundle.pem"))
	if exit != exitDone || out != "you said: hi\n" || !strings.Contains(errs, "receipt  "+file) {
		t.Fatalf("chat = %d, %q, %q", exit, out, errs)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the receipt is %v, %v, want a file for its owner only", info, err)
	}
	copyFile(t, site.PolicyFile, filepath.Join(elsewhere, "policy.jsonl"))
	for _, name := range []string{trusttest.Alice, trusttest.Bob} {
		copyFile(t, filepath.Join(site.Keys, name+".pub"), filepath.Join(elsewhere, name+".pub"))
	}
	return site, elsewhere
}

func TestReceiptVerify(t *testing.T) {
	site, dir := chatReceipt(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	file := at("receipt.json")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := receipt.Parse(data)
	if err != nil || !strings.Contains(string(whole.Request), "hi") || !strings.Contains(string(whole.Response), "you said: ") {
		t.Fatalf("the receipt holds the request %q and the response %q, %v", whole.Request, whole.Response, err)
	}
	writeFile(t, at("request"), whole.Request)
	writeFile(t, at("response"), whole.Response)
	writeFile(t, at("other"), append(whole.Response, 'x'))
	bare := *whole
	bare.Request, bare.Response = nil, nil
	text, err := bare.Encode()
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, at("bare.json"), text)
	writeFile(t, at("flipped.json"), bytes.Replace(data, []byte("sealed"), []byte("sealee"), 1))
	writeFile(t, at("carol.pub"), []byte(site.PublicPEM(trusttest.Carol)))
	copyFile(t, site.PolicyFile, at("kept"))
	site.SignPolicy(nil) // which lists no gateway
	copyFile(t, site.PolicyFile, at("unlisted.jsonl"))
	site.PolicyWith(func(d *trust.Document) { d.Roles["approver"] = trust.Role{Members: []string{"alice", "carol"}} })
	copyFile(t, site.PolicyFile, at("stricter.jsonl"))
	site.PolicyWith(func(d *trust.Document) { d.Expires = d.Expires.AddDate(1, 0, 0) })
	copyFile(t, site.PolicyFile, at("another.jsonl"))

	tests := []struct {
		name  string
		args  []string // after the policy, unless they name one
		exit  int
		wants []string
	}{
		{"elsewhere, with the policy and the root keys alone", []string{"receipt.json"}, exitDone, []string{
			"verified   receipt " + whole.ID, "caller     " + receipttest.Caller, "channel    chat, epoch 7", string(site.Release.ID) + " (chat-small 1.0.0)", "sealed",
			"approved   by alice, bob", "published  by shipper", "gateway    gw, key sha256:", "log        record 0 of weighbridge/test", "policy     version 1",
			"request    is the one", "response   is the one",
		}},
		{"request and response beside it", []string{"bare.json", "--request", "request", "--response", "response"}, exitDone, []string{"request    is the one", "response   is the one"}},
		{"neither", []string{"bare.json"}, exitDone, []string{"request    NOT CHECKED: give its exact bytes with --request; their digest over the nonce must be sha256:", "response   NOT CHECKED"}},
		{"both ways", []string{"receipt.json", "--request", "request", "--response", "response"}, exitDone, []string{"request    is the one"}},
		{"another response", []string{"bare.json", "--response", "other"}, exitRefused, []string{"the response is not the one that this receipt is for"}},
		{"another response than in it", []string{"receipt.json", "--response", "other"}, exitRefused, []string{"the response in it is not the one that is given"}},
		{"request and response swapped", []string{"bare.json", "--request", "response", "--response", "request"}, exitRefused, []string{"the request is not the one"}},
		{"a byte was flipped", []string{"flipped.json"}, exitRefused, []string{"weighbridge: receipt verify ", "refused"}},
		{"another policy", []string{"receipt.json", "--policy", "another.jsonl"}, exitDone, []string{"the receipt was given under another, sha256:"}},
		{"a policy that it does not meet", []string{"receipt.json", "--policy", "stricter.jsonl"}, exitRefused, []string{"1 of 2 required approvals", "the receipt was given under policy sha256:"}},
		{"a policy without the gateway", []string{"receipt.json", "--policy", "unlisted.jsonl"}, exitRefused, []string{"not signed by a gateway of the policy"}},
		{"another root", []string{"receipt.json", "--root", "carol.pub"}, exitRefused, []string{"2 of 3 required root keys signed it"}},
		{"enough roots", []string{"receipt.json", "--root", "carol.pub", "--root-threshold", "2"}, exitDone, nil},
		{"more roots", []string{"receipt.json", "carol.pub"}, exitRefused, []string{"2 of 3 required root keys"}},
		{"no receipt", []string{"policy.jsonl"}, exitRefused, []string{"malformed receipt"}},
		{"no file", []string{"nothing.json"}, exitFailed, []string{"no such file"}},
		{"no request", []string{"receipt.json", "--request", "nothing"}, exitFailed, []string{"no such file"}},
		{"no policy file", []string{"receipt.json", "--policy", "nothing"}, exitFailed, []string{"no such file"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Chdir(dir)
			for _, asJSON := range []bool{false, true} {
				args := append([]string{"receipt", "verify", tt.args[0], "--policy", "policy.jsonl", "--root", "alice.pub", "--root", "bob.pub"}, tt.args[1:]...)
				if asJSON {
					args = append(args, "--json")
				}
				exit, out, errs := command(t, args...)
				if exit != tt.exit || (errs == "") != (exit == exitDone) {
					t.Errorf("%q = %d, %q, %q, want %d", args, exit, out, errs, tt.exit)
				}
				if asJSON {
					checkReceiptJSON(t, exit, out)
					continue
				}
				for _, want := range tt.wants {
					if !strings.Contains(out+errs, want) {
						t.Errorf("%q wrote %q and %q, want %q", args, out, errs, want)
					}
				}
			}
		})
	}
}

// checkReceiptJSON wants one document, unless the command could not run.
func checkReceiptJSON(t *testing.T, exit int, out string) {
	t.Helper()
	if exit == exitFailed {
		if out != "" {
			t.Errorf("standard output = %q of a command that could not run", out)
		}
		return
	}
	var document struct {
		Verified *bool
		Error    string
		ID       string
		Signers  map[string][]string
	}
	if err := json.Unmarshal([]byte(out), &document); err != nil {
		t.Fatalf("standard output %q: %v", out, err)
	}
	if document.Verified == nil || *document.Verified != (exit == exitDone) || (document.Error == "") != (exit == exitDone) || (len(document.Signers["approvers"]) == 2) != (exit == exitDone) {
		t.Errorf("document = %s at exit status %d", out, exit)
	}
}

// TestChatWithoutReceipt: an answer that can't have a receipt is not given, and one that has none does not look as if.
func TestChatWithoutReceipt(t *testing.T) {
	site := receipttest.New(t, nil)
	address, svids := startGateway(t, func(c *gateway.Config) { c.Catalog, c.Receipts = echoOf{site: site}, site.Issuer })
	own := filepath.Join(svids, "apps/demo")
	file := filepath.Join(t.TempDir(), "receipt.json")
	ask := func(file string) (int, string, string) {
		return command(t, "chat", "chat", "hi", "--server", address, "--receipt", file,
			"--svid", filepath.Join(own, "svid.pem"), "--svid-key", filepath.Join(own, "key.pem"), "--bundle", filepath.Join(own, "bundle.pem"))
	}
	if exit, out, errs := ask(filepath.Join(file, "nowhere")); exit != exitFailed || out != "" || !strings.Contains(errs, "--receipt: ") {
		t.Errorf("chat = %d, %q, %q where nothing can be written", exit, out, errs)
	}
	if exit, out, errs := ask(t.TempDir()); exit != exitFailed || out != "" || !strings.Contains(errs, "is no file") {
		t.Errorf("chat = %d, %q, %q over a directory", exit, out, errs)
	}
	if err := site.Log.Close(); err != nil {
		t.Fatal(err)
	}
	if exit, out, errs := ask(file); exit != exitFailed || out != "you said: hi\n" || !strings.Contains(errs, "the audit log could not be written") {
		t.Errorf("chat = %d, %q, %q without a log", exit, out, errs)
	}
	listed := site.Policy
	site.Policy = site.SignPolicy(nil)
	defer func() { site.Policy = listed }()
	if exit, out, errs := ask(file); exit != exitRefused || out != "" || !strings.Contains(errs, "this gateway gives no receipts") {
		t.Errorf("chat = %d, %q, %q at a gateway that the policy does not list", exit, out, errs)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("there is a file all the same")
	}
}
