package devworkload_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/weighbridge/weighbridge/gateway/identity/devworkload"
)

func dial(t *testing.T, agent *devworkload.Agent, ids ...devworkload.Identity) *workloadapi.Client {
	t.Helper()
	socket := socketPath(t)
	if err := agent.Serve(socket, ids...); err != nil {
		t.Fatal(err)
	}
	client, err := workloadapi.New(t.Context(), workloadapi.WithAddr("unix://"+socket))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// TestTokens takes JWT-SVIDs as SPIFFE libraries do.
func TestTokens(t *testing.T) {
	other := devworkload.Identity{ID: spiffeid.RequireFromString("spiffe://bank.example/apps/other")}
	client := dial(t, newAgent(t), demo, other)
	const audience = "spiffe://bank.example/gateway"
	svid, err := client.FetchJWTSVID(t.Context(), jwtsvid.Params{Audience: audience})
	if err != nil || svid.ID != demo.ID {
		t.Fatalf("FetchJWTSVID = %v, %v, want one of %s", svid, err, demo.ID)
	}
	svid, err = client.FetchJWTSVID(t.Context(), jwtsvid.Params{Audience: audience, Subject: other.ID})
	if err != nil || svid.ID != other.ID {
		t.Fatalf("FetchJWTSVID of %s = %v, %v", other.ID, svid, err)
	}
	bundles, err := client.FetchJWTBundles(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := jwtsvid.ParseAndValidate(svid.Marshal(), bundles, []string{audience}); err != nil {
		t.Errorf("ParseAndValidate = %v", err)
	}
	if got, err := client.ValidateJWTSVID(t.Context(), svid.Marshal(), audience); err != nil || got.ID != other.ID {
		t.Errorf("ValidateJWTSVID = %v, %v, want %s", got, err, other.ID)
	}
	if _, err := client.ValidateJWTSVID(t.Context(), svid.Marshal(), "spiffe://bank.example/else"); err == nil {
		t.Error("ValidateJWTSVID for another audience = nil, want an error")
	}
	foreign := spiffeid.RequireFromString("spiffe://bank.example/apps/foreign")
	if _, err := client.FetchJWTSVID(t.Context(), jwtsvid.Params{Audience: audience, Subject: foreign}); err == nil {
		t.Error("FetchJWTSVID of an identity that is not offered = nil, want an error")
	}
}

func TestFederate(t *testing.T) {
	agent, td := newAgent(t), spiffeid.RequireTrustDomainFromString("other.example")
	other, err := devworkload.Open(devworkload.Config{TrustDomain: td})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	if err := agent.Federate(other); err != nil {
		t.Fatal(err)
	}
	client := dial(t, agent, demo)
	got, err := client.FetchX509Context(t.Context())
	if err != nil || !got.Bundles.Has(domain) || !got.Bundles.Has(td) {
		t.Errorf("FetchX509Context has bundles %v, %v, want those of %s and %s", got.Bundles, err, domain, td)
	}
	keys, err := client.FetchJWTBundles(t.Context())
	if err != nil || !keys.Has(domain) || !keys.Has(td) {
		t.Errorf("FetchJWTBundles = %v, %v, want those of %s and %s", keys, err, domain, td)
	}
}

// TestAuthorities goes through the change of an authority and holds each step to what verifies then.
func TestAuthorities(t *testing.T) {
	agent := newAgent(t)
	issue := func() (*x509svid.SVID, string) {
		svid, err := agent.Issue(demo)
		if err != nil {
			t.Fatal(err)
		}
		token, err := agent.Token(demo.ID, []string{"x"})
		if err != nil {
			t.Fatal(err)
		}
		return svid, token
	}
	oldSVID, oldToken := issue()
	steps := []struct {
		name     string
		act      func() error
		old, all bool // whether what the old authority signed counts, and whether a new one signs
		roots    int
	}{
		{"prepare", agent.PrepareAuthority, true, false, 2},
		{"activate", agent.ActivateAuthority, true, true, 2},
		{"retire", agent.RetireAuthorities, false, true, 1},
	}
	for _, step := range steps {
		if err := step.act(); err != nil {
			t.Fatal(err)
		}
		bundle := agent.Bundle()
		_, _, x509Err := x509svid.Verify(oldSVID.Certificates, bundle)
		_, jwtErr := jwtsvid.ParseAndValidate(oldToken, bundle, []string{"x"})
		if (x509Err == nil) != step.old || (jwtErr == nil) != step.old || len(bundle.X509Authorities()) != step.roots {
			t.Errorf("%s: the old SVIDs verify: %v, %v, want %v; %d roots, want %d", step.name, x509Err, jwtErr, step.old, len(bundle.X509Authorities()), step.roots)
		}
		svid, token := issue()
		if _, _, err := x509svid.Verify(svid.Certificates, bundle); err != nil {
			t.Errorf("%s: a new SVID does not verify: %v", step.name, err)
		}
		if _, err := jwtsvid.ParseAndValidate(token, bundle, []string{"x"}); err != nil {
			t.Errorf("%s: a new token does not verify: %v", step.name, err)
		}
		if isNew := string(svid.Certificates[0].AuthorityKeyId) != string(oldSVID.Certificates[0].AuthorityKeyId); isNew != step.all {
			t.Errorf("%s: a new authority signs: %v, want %v", step.name, isNew, step.all)
		}
	}
}

func TestWriteToken(t *testing.T) {
	agent, err := devworkload.Open(devworkload.Config{TrustDomain: domain, Audience: "spiffe://bank.example/gateway"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { agent.Close() })
	dir := t.TempDir()
	if err := agent.Write(dir, demo); err != nil {
		t.Fatal(err)
	}
	token, err := os.ReadFile(filepath.Join(devworkload.FilesDir(dir, demo), devworkload.TokenFile))
	if err != nil {
		t.Fatal(err)
	}
	svid, err := jwtsvid.ParseAndValidate(string(token), agent.Bundle(), []string{"spiffe://bank.example/gateway"})
	if err != nil || svid.ID != demo.ID {
		t.Errorf("token.jwt = %v, %v, want a JWT-SVID of %s", svid, err, demo.ID)
	}
}
