package identity_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/weighbridge/weighbridge/gateway/identity"
	"github.com/weighbridge/weighbridge/gateway/identity/devworkload"
	"github.com/weighbridge/weighbridge/gateway/identity/workload"
)

var partner = spiffeid.RequireTrustDomainFromString("partner.example")

// A site has its identity in files, knows a partner, and signs its JWT-SVIDs with keys that the test has.
type site struct {
	t          *testing.T
	agent      *devworkload.Agent
	source     *identity.Source
	key, other *ecdsa.PrivateKey
}

func newSite(t *testing.T, change func(*identity.Config)) *site {
	s := &site{t: t, agent: newAgent(t, domain), key: newKey(t), other: newKey(t)}
	dir := t.TempDir()
	if err := s.agent.Write(dir, gateway); err != nil {
		t.Fatal(err)
	}
	bundle := func(agent *devworkload.Agent, name string, key *ecdsa.PrivateKey) string {
		b := spiffebundle.FromX509Authorities(agent.Bundle().TrustDomain(), agent.Bundle().X509Authorities())
		b.SetJWTAuthorities(map[string]crypto.PublicKey{"k": key.Public()})
		data, err := b.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	own := devworkload.FilesDir(dir, gateway)
	c := identity.Config{Tokens: true, Files: &identity.Files{
		SVID: filepath.Join(own, devworkload.SVIDFile), Key: filepath.Join(own, devworkload.KeyFile),
		Bundle:  bundle(s.agent, "own.json", s.key),
		Bundles: map[string]string{partner.Name(): bundle(newAgent(t, partner), "partner.json", s.other)},
	}}
	if change != nil {
		change(&c)
	}
	s.source = open(t, c)
	return s
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// A token is what goes into a JWT-SVID.
type token struct {
	alg    jose.SignatureAlgorithm
	key    any
	kid    string
	typ    jose.ContentType
	claims map[string]any
}

func (s *site) sign(change func(*token)) string {
	s.t.Helper()
	v := token{jose.ES256, s.key, "k", "JWT", map[string]any{
		"sub": caller.ID.String(), "aud": []string{gateway.ID.String()}, "exp": time.Now().Add(5 * time.Minute).Unix(),
	}}
	if change != nil {
		change(&v)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: v.alg, Key: jose.JSONWebKey{Key: v.key, KeyID: v.kid}}, new(jose.SignerOptions).WithType(v.typ))
	if err != nil {
		s.t.Fatal(err)
	}
	text, err := jwt.Signed(signer).Claims(v.claims).Serialize()
	if err != nil {
		s.t.Fatal(err)
	}
	return text
}

// headers are the values of one header.
func headers(name string, values ...string) func(string) []string {
	return func(asked string) []string {
		if asked == name {
			return values
		}
		return nil
	}
}

// TestIdentifyToken breaks one thing of a JWT-SVID at a time.
func TestIdentifyToken(t *testing.T) {
	s := newSite(t, nil)
	claim := func(name string, value any) func(*token) {
		return func(v *token) {
			v.claims[name] = value
			if value == nil {
				delete(v.claims, name)
			}
		}
	}
	in := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	public, err := s.key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	signed := func(change func(*token)) []string { return []string{"Bearer " + s.sign(change)} }
	plain := s.sign(nil)
	unsigned := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","kid":"k"}`)) + "." + strings.Split(plain, ".")[1] + "."
	tests := []struct {
		name   string
		values []string
		want   string // the caller; "" for none
	}{
		{"valid", signed(nil), caller.ID.String()},
		{"scheme in other letters", []string{"bearer " + plain}, caller.ID.String()},
		{"one audience, not in a list", signed(claim("aud", gateway.ID.String())), caller.ID.String()},
		{"an hour ahead", signed(claim("exp", in(time.Hour))), caller.ID.String()},
		{"federated", signed(func(v *token) { v.key, v.claims["sub"] = s.other, "spiffe://partner.example/app" }), "spiffe://partner.example/app"},
		{"no header", nil, ""},
		{"two headers", []string{"Bearer " + plain, "Bearer " + plain}, ""},
		{"no scheme", []string{plain}, ""},
		{"other scheme", []string{"Basic " + plain}, ""},
		{"no token", []string{"Bearer "}, ""},
		{"API key", []string{"Bearer sk-123"}, ""},
		{"long", signed(claim("pad", strings.Repeat("x", 9000))), ""},
		{"expired", signed(claim("exp", in(-2*time.Minute))), ""},
		{"no end", signed(claim("exp", nil)), ""},
		{"two hours ahead", signed(claim("exp", in(2*time.Hour))), ""},
		{"not valid yet", signed(claim("nbf", in(10*time.Minute))), ""},
		{"other audience", signed(claim("aud", "spiffe://bank.example/else")), ""},
		{"two audiences", signed(claim("aud", []string{gateway.ID.String(), "spiffe://bank.example/else"})), ""},
		{"no audience", signed(claim("aud", nil)), ""},
		{"no subject", signed(claim("sub", nil)), ""},
		{"subject without SPIFFE", signed(claim("sub", "demo")), ""},
		{"trust domain as subject", signed(claim("sub", "spiffe://bank.example")), ""},
		{"unknown trust domain", signed(claim("sub", "spiffe://evil.example/app")), ""},
		{"one trust domain signs for another", signed(claim("sub", "spiffe://partner.example/app")), ""},
		{"unknown key", signed(func(v *token) { v.kid = "other" }), ""},
		{"no key", signed(func(v *token) { v.kid = "" }), ""},
		{"key of another", signed(func(v *token) { v.key = s.other }), ""},
		{"HMAC with the public key", signed(func(v *token) { v.alg, v.key = jose.HS256, public }), ""},
		{"other type", signed(func(v *token) { v.typ = "at+jwt" }), ""},
		{"unsigned", []string{"Bearer " + unsigned}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := s.source.Identify(identity.Request{Token: true, Header: headers("authorization", tt.values...), Now: time.Now()})
			switch {
			case tt.want == "" && !errors.Is(err, identity.ErrNoToken):
				t.Errorf("Identify = %v, %v, want ErrNoToken", c, err)
			case tt.want != "" && (err != nil || c.ID.String() != tt.want || c.By != identity.ByJWT):
				t.Errorf("Identify = %v, %v, want %s by a JWT-SVID", c, err, tt.want)
			}
			for _, v := range tt.values {
				if _, secret, _ := strings.Cut(v, " "); err != nil && len(secret) > 4 && strings.Contains(err.Error(), secret) {
					t.Errorf("the error holds the token: %v", err)
				}
			}
		})
	}
	header := headers("authorization", signed(nil)...)
	if _, err := s.source.Identify(identity.Request{Header: header, Now: time.Now()}); !errors.Is(err, identity.ErrNoPeer) {
		t.Errorf("Identify of a token where a certificate is asked for = %v, want ErrNoPeer", err)
	}
	late := time.Now().Add(6 * time.Minute)
	if _, err := s.source.Identify(identity.Request{Token: true, Header: header, Now: late}); !errors.Is(err, identity.ErrExpired) {
		t.Errorf("Identify after the end of a token = %v, want ErrExpired", err)
	}
	deaf := newSite(t, func(c *identity.Config) { c.Tokens = false })
	if _, err := deaf.source.Identify(identity.Request{Token: true, Header: header, Now: time.Now()}); !errors.Is(err, identity.ErrNoToken) {
		t.Errorf("Identify without Config.Tokens = %v, want ErrNoToken", err)
	}
}

// connection is one whose peer has an SVID of the site.
func (s *site) connection(id string) *tls.ConnectionState {
	s.t.Helper()
	svid, err := s.agent.Issue(devworkload.Identity{ID: spiffeid.RequireFromString(id)})
	if err != nil {
		s.t.Fatal(err)
	}
	return &tls.ConnectionState{HandshakeComplete: true, PeerCertificates: svid.Certificates}
}

// TestIdentifyTokenBesideCertificate refuses tokens of somebody else on connections with a certificate, and no other text.
func TestIdentifyTokenBesideCertificate(t *testing.T) {
	s := newSite(t, nil)
	sub := func(id string) string { return "Bearer " + s.sign(func(v *token) { v.claims["sub"] = id }) }
	tests := []struct {
		name   string
		values []string
		ok     bool
	}{
		{"none", nil, true},
		{"API key", []string{"Bearer sk-123"}, true},
		{"three parts that are no JWT", []string{"Bearer a.b.c"}, true},
		{"Basic", []string{"Basic Zm9vOmJhcg=="}, true},
		{"JWT of no SPIFFE ID", []string{sub("demo")}, true},
		{"own", []string{sub(caller.ID.String())}, true},
		{"other", []string{sub("spiffe://bank.example/apps/other")}, false},
		{"other, in other letters", []string{sub("SPIFFE://bank.example/apps/other")}, false},
		{"other, expired", []string{"Bearer " + s.sign(func(v *token) { v.claims["sub"], v.claims["exp"] = "spiffe://bank.example/x", 1 })}, false},
		{"other beside own", []string{sub(caller.ID.String()), sub("spiffe://bank.example/apps/other")}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := s.source.Identify(identity.Request{Connection: s.connection(caller.ID.String()), Header: headers("authorization", tt.values...), Now: time.Now()})
			if c.ID != caller.ID || (err == nil) != tt.ok || !tt.ok && !errors.Is(err, identity.ErrTwoIdentities) {
				t.Errorf("Identify = %v, %v, want %s, ok %v", c, err, caller.ID, tt.ok)
			}
		})
	}
}

// TestIdentifyForwarded breaks one thing of what a proxy says at a time.
func TestIdentifyForwarded(t *testing.T) {
	const proxy, app = "spiffe://bank.example/proxy", "spiffe://bank.example/apps/demo"
	s := newSite(t, func(c *identity.Config) { c.Proxies = []spiffeid.ID{spiffeid.RequireFromString(proxy)} })
	encoded := func(id string) string {
		return url.PathEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.connection(id).PeerCertificates[0].Raw})))
	}
	forgedPEM := url.PathEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: forged(t, app).Certificate[0]})))
	const by = "By=" + proxy + ";Hash=ab;"
	tests := []struct {
		name   string
		peer   string
		values []string
		want   string // the caller; "" for none
	}{
		{"valid", proxy, []string{by + "URI=" + app}, app},
		{"keys in other letters", proxy, []string{"by=" + proxy + ";uri=" + app}, app},
		{"quoted", proxy, []string{`By="` + proxy + `";Subject="CN=a,O=\"b;\"";URI="` + app + `"`}, app},
		{"two DNS names", proxy, []string{by + "URI=" + app + ";DNS=a;DNS=b"}, app},
		{"last of two", proxy, []string{"By=spiffe://bank.example/edge;URI=spiffe://bank.example/other," + by + "URI=" + app}, app},
		{"with its certificate", proxy, []string{by + `Cert="` + encoded(app) + `";URI=` + app}, app},
		{"with its chain", proxy, []string{by + `Chain="` + encoded(app) + `";URI=` + app}, app},
		{"federated", proxy, []string{by + "URI=spiffe://partner.example/app"}, "spiffe://partner.example/app"},

		{"not from a proxy", app, []string{by + "URI=spiffe://bank.example/other"}, app},
		{"not from a proxy, its own", "spiffe://bank.example/other", []string{"By=spiffe://bank.example/other;URI=" + app}, "spiffe://bank.example/other"},

		{"none", proxy, nil, ""},
		{"empty", proxy, []string{""}, ""},
		{"two headers", proxy, []string{by + "URI=" + app, by + "URI=" + app}, ""},
		{"no By", proxy, []string{"URI=" + app}, ""},
		{"By another", proxy, []string{"By=spiffe://bank.example/edge;URI=" + app}, ""},
		{"By us", proxy, []string{"By=" + gateway.ID.String() + ";URI=" + app}, ""},
		{"By two", proxy, []string{"By=" + proxy + ";By=" + proxy + ";URI=" + app}, ""},
		{"no URI", proxy, []string{by + "DNS=demo"}, ""},
		{"two URIs", proxy, []string{by + "URI=" + app + ";URI=" + app}, ""},
		{"URI without SPIFFE", proxy, []string{by + "URI=https://bank.example/apps/demo"}, ""},
		{"URI of a trust domain", proxy, []string{by + "URI=spiffe://bank.example"}, ""},
		{"last without URI", proxy, []string{by + "URI=" + app + "," + by + "DNS=demo"}, ""},
		{"comma at the end", proxy, []string{by + "URI=" + app + ","}, ""},
		{"open quote", proxy, []string{`By=x;Subject="a,` + by + "URI=" + app}, ""},
		{"quote in the middle", proxy, []string{by + `Subject=a"b";URI=` + app}, ""},
		{"text after quotes", proxy, []string{by + `Subject="a"b;URI=` + app}, ""},
		{"two backslashes", proxy, []string{by + `Subject="a\\";DNS=b";URI=` + app}, ""},
		{"pair without value", proxy, []string{by + "URI=" + app + ";x;DNS=a"}, ""},
		{"no pairs", proxy, []string{app}, ""},
		{"value with =", proxy, []string{by + "Subject=CN=a;URI=" + app}, ""},
		{"certificate of another", proxy, []string{by + `Cert="` + encoded("spiffe://bank.example/other") + `";URI=` + app}, ""},
		{"certificate that signs for itself", proxy, []string{by + `Cert="` + forgedPEM + `";URI=` + app}, ""},
		{"certificate that is none", proxy, []string{by + `Cert="x";URI=` + app}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := s.source.Identify(identity.Request{Connection: s.connection(tt.peer), Header: headers("x-forwarded-client-cert", tt.values...), Now: time.Now()})
			switch {
			case tt.want == "" && !errors.Is(err, identity.ErrNoPeer):
				t.Errorf("Identify = %v, %v, want ErrNoPeer", c, err)
			case tt.want != "" && (err != nil || c.ID.String() != tt.want || (c.By == identity.ByProxy) != (tt.peer == proxy)):
				t.Errorf("Identify = %v, %v, want %s", c, err, tt.want)
			}
		})
	}
	connection := s.connection(proxy)
	connection.PeerCertificates[0].NotAfter = connection.PeerCertificates[0].NotAfter.Add(time.Hour)
	shown := identity.Request{Connection: connection, Header: headers("x-forwarded-client-cert", by+`URI=`+app+`;Cert="`+encoded(app)+`"`), Now: time.Now()}
	if c, err := s.source.Identify(shown); err != nil || !c.Until.Before(connection.PeerCertificates[0].NotAfter) {
		t.Errorf("Identify = %v, %v, want it to end with the caller's own certificate", c, err)
	}
	for _, name := range []string{"client-cert", "client-cert-chain", "x-client-spiffe-id", "x-spiffe-id", "x-forwarded-user"} {
		c, err := s.source.Identify(identity.Request{Connection: s.connection(app), Header: headers(name, "spiffe://bank.example/other"), Now: time.Now()})
		if err != nil || c.ID.String() != app {
			t.Errorf("Identify with %s = %v, %v, want %s", name, c, err, app)
		}
	}
	itself := identity.Request{Connection: s.connection(proxy), Header: headers(""), Now: time.Now(), Itself: true}
	if c, err := s.source.Identify(itself); err != nil || c.ID.String() != proxy {
		t.Errorf("Identify of a proxy that asks for itself = %v, %v", c, err)
	}
	itself.Header = headers("x-forwarded-client-cert", by+"URI="+app)
	if c, err := s.source.Identify(itself); err != nil || c.ID.String() != app {
		t.Errorf("Identify of a proxy that may ask for itself and does not = %v, %v, want %s", c, err, app)
	}
}

// TestIdentifyExpired moves the clock past the end of a caller's certificate, and past that of our own.
func TestIdentifyExpired(t *testing.T) {
	s := newSite(t, nil)
	own, err := s.source.Expires()
	if err != nil {
		t.Fatal(err)
	}
	connection, end := s.connection(caller.ID.String()), own.Add(-time.Minute)
	connection.PeerCertificates[0].NotAfter = end
	ask := func(now time.Time) error {
		_, err := s.source.Identify(identity.Request{Connection: connection, Header: headers(""), Now: now})
		return err
	}
	if err := ask(end.Add(-time.Millisecond)); err != nil {
		t.Errorf("Identify just before the end = %v", err)
	}
	if err := ask(end); !errors.Is(err, identity.ErrExpired) {
		t.Errorf("Identify at the end = %v, want ErrExpired", err)
	}
	if err := ask(own); !errors.Is(err, identity.ErrEnded) || !strings.Contains(err.Error(), own.UTC().Format(time.RFC3339)) {
		t.Errorf("Identify at the end of our own SVID = %v, want ErrEnded with the time", err)
	}
	if got := s.source.Problem(time.Now()); got != "" {
		t.Errorf("Problem = %q, want none", got)
	}
	if got := s.source.Problem(own); !strings.Contains(got, "ended on") {
		t.Errorf("Problem at the end of our own SVID = %q", got)
	}
}

// TestIdentifyAfterFederation keeps a connection for longer than its trust domain is known.
func TestIdentifyAfterFederation(t *testing.T) {
	socket := filepath.Join(socketDir(t), "agent.sock")
	server, err := workload.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	own, other := newAgent(t, domain), newAgent(t, partner)
	svid, err := own.Issue(gateway)
	if err != nil {
		t.Fatal(err)
	}
	set := func(federated ...*spiffebundle.Bundle) {
		if err := server.Set(workload.Issued{SVIDs: []*x509svid.SVID{svid}, Bundle: own.Bundle(), Federated: federated}); err != nil {
			t.Fatal(err)
		}
	}
	set(other.Bundle())
	log := newEvents()
	source := open(t, identity.Config{WorkloadAPI: "unix://" + socket, Log: slog.New(log)})
	ask := func() error {
		r := identity.Request{Connection: (&site{t: t, agent: other}).connection("spiffe://partner.example/app"), Header: headers(""), Now: time.Now()}
		_, err := source.Identify(r)
		return err
	}
	log.await(t, "identity updated")
	if err := ask(); err != nil {
		t.Errorf("Identify = %v", err)
	}
	set()
	log.await(t, "identity updated")
	for ask() == nil { // the source takes the bundles just after the SVID was chosen
		if t.Context().Err() != nil {
			t.Fatal("the caller is still known")
		}
	}
	if err := ask(); !errors.Is(err, identity.ErrNoPeer) {
		t.Errorf("Identify after the end of the federation = %v, want ErrNoPeer", err)
	}
}

func FuzzForwarded(f *testing.F) {
	for _, seed := range []string{`By=a;URI=b`, `By="a";Subject="\"";URI=b`, `By=a,By=b;URI="c"`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, before string) {
		// Whatever stands before it, what the proxy appends is read as its own, or nothing is.
		e, err := identity.LastElement(before + ",By=proxy;URI=caller")
		if err == nil && (len(e["by"]) != 1 || e["by"][0] != "proxy" || len(e["uri"]) != 1 || e["uri"][0] != "caller") {
			t.Errorf("lastElement(%q) = %v", before, e)
		}
	})
}
