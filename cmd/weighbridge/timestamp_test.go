package main

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

// TestTimestampURL signs an approval under an SVID that has expired since, with a time from an authority, and then with one
// thing wrong with the authority per row.
func TestTimestampURL(t *testing.T) {
	w := trusttest.New(t)
	ca, authority := w.NewCA("domain"), w.NewTimeAuthority("clock")
	authority.Time = time.Now().Add(-2 * time.Hour)
	svid := w.Write("svid.pem", ca.Issue("carol", func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-3*time.Hour), time.Now().Add(-time.Hour)
		c.Subject, c.URIs = pkix.Name{}, []*url.URL{{Scheme: "spiffe", Host: "bank.example", Path: "/ci/evaluator"}}
	}))
	w.SignPolicy(func(d *trust.Document) {
		d.Identities["carol"] = trust.Identity{SPIFFE: "spiffe://bank.example/ci/evaluator", Roots: []string{trust.CertificatePEM(ca.Root.Raw)}}
		d.TimestampAuthorities = []string{trust.CertificatePEM(authority.Root.Raw)}
	})
	model := filepath.Join(w.Dir, "model.gguf")
	writeTestFile(t, model, "weights")
	release := w.Release(model, nil)
	w.Approve(release, "alice", trust.Approval{})
	w.Publish(release, "chat", 1)

	var answer http.HandlerFunc
	server := httptest.NewServer(http.HandlerFunc(func(res http.ResponseWriter, req *http.Request) { answer(res, req) }))
	defer server.Close()
	approve := func(url string) (status int, stderr string) {
		status, _, stderr = runModel(t, "release", "approve", string(release), "--statements", w.Statements, "--key", w.KeyFile("carol"),
			"--certificate", svid, "--timestamp-url", url)
		return status, stderr
	}
	decide := func() int {
		status, _, _ := runModel(t, "decide", "--policy", w.PolicyFile, "--root", filepath.Join(w.Keys, "alice.pub"), "--root",
			filepath.Join(w.Keys, "bob.pub"), "--statements", w.Statements)
		return status
	}
	// other asks the authority for something else than the request does.
	other := func(change func(query []byte) []byte) http.HandlerFunc {
		return func(res http.ResponseWriter, req *http.Request) {
			query, err := io.ReadAll(req.Body)
			if err != nil {
				t.Error(err)
			}
			req.Body = io.NopCloser(bytes.NewReader(change(query)))
			authority.ServeHTTP(res, req)
		}
	}
	unreachable := httptest.NewServer(nil)
	unreachable.Close()
	tests := []struct {
		name   string
		url    string
		answer http.HandlerFunc
		want   string // in what is said; "" signs
	}{
		{"unreachable", unreachable.URL, nil, "refused"},
		{"no URL", "clock", nil, "unsupported protocol scheme"},
		{"an error", server.URL, func(res http.ResponseWriter, _ *http.Request) { res.WriteHeader(http.StatusTeapot) }, "418"},
		{"junk", server.URL, func(res http.ResponseWriter, _ *http.Request) { _, _ = res.Write([]byte("noon")) }, "read its answer"},
		{"without end", server.URL, func(res http.ResponseWriter, _ *http.Request) { _, _ = res.Write(make([]byte, maxStamp+1)) }, "more than"},
		{"another signature", server.URL, other(func(q []byte) []byte { // the hash is the only field of 32 bytes
			at := bytes.Index(q, []byte{0x04, 0x20})
			q[at+2] ^= 1
			return q
		}), "something else"},
		{"another request", server.URL, other(func(q []byte) []byte { q[len(q)-4] ^= 1; return q }), "another request"},
		{"as it should be", server.URL, authority.ServeHTTP, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			answer = tt.answer
			before, err := os.ReadDir(w.Statements)
			if err != nil {
				t.Fatal(err)
			}
			status, stderr := approve(tt.url)
			after, err := os.ReadDir(w.Statements)
			if err != nil {
				t.Fatal(err)
			}
			if tt.want == "" {
				if status != exitDone || decide() != exitDone {
					t.Errorf("status %d, then decide %d: %s", status, decide(), stderr)
				}
				return
			}
			if status != exitFailed || !strings.Contains(stderr, tt.want) || !strings.Contains(stderr, "hint: nothing was signed") {
				t.Errorf("status %d, want %d with %q: %s", status, exitFailed, tt.want, stderr)
			}
			if len(after) != len(before) || decide() != exitRefused {
				t.Errorf("something was written")
			}
		})
	}
}
