package devworkload

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net/url"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// An authority signs X.509-SVIDs with one key and JWT-SVIDs with another.
type authority struct {
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	jwtID  string
	jwtKey *ecdsa.PrivateKey
}

// authorities are those of a trust domain. They never change.
type authorities struct {
	signs *authority
	all   []*authority // whose signatures count, the oldest first
}

func newAuthority(td spiffeid.TrustDomain) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	jwtKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	a := &authority{key: key, jwtID: serial().Text(62), jwtKey: jwtKey}
	a.cert = &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{Organization: []string{"Weighbridge development"}, CommonName: td.Name()},
		URIs:                  []*url.URL{td.ID().URL()},
		NotBefore:             now.Add(-clockSkew),
		NotAfter:              now.Add(authorityLifetime),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	a.cert, err = a.sign(a.cert, &key.PublicKey)
	return a, err
}

func (a *authority) sign(template *x509.Certificate, pub *ecdsa.PublicKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, pub, a.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		panic("devworkload: internal error: " + err.Error()) // crypto/rand does not fail
	}
	return n.Add(n, big.NewInt(1))
}

// Bundle is what verifies the identities of this agent.
func (a *Agent) Bundle() *spiffebundle.Bundle {
	b := spiffebundle.New(a.config.TrustDomain)
	keys := map[string]crypto.PublicKey{}
	for _, authority := range a.authorities.Load().all {
		b.AddX509Authority(authority.cert)
		keys[authority.jwtID] = authority.jwtKey.Public()
	}
	b.SetJWTAuthorities(keys)
	return b
}

// Token makes a JWT-SVID. It is valid for as long as an SVID, and at most for tokenLifetime.
func (a *Agent) Token(id spiffeid.ID, audience []string) (string, error) {
	signs, now := a.authorities.Load().signs, time.Now()
	key := jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: signs.jwtKey, KeyID: signs.jwtID}}
	signer, err := jose.NewSigner(key, new(jose.SignerOptions).WithType("JWT"))
	if err != nil {
		return "", fmt.Errorf("issue JWT-SVID %s: %w", id, err)
	}
	token, err := jwt.Signed(signer).Claims(jwt.Claims{
		Subject: id.String(), Audience: audience, IssuedAt: jwt.NewNumericDate(now),
		Expiry: jwt.NewNumericDate(now.Add(min(a.config.Lifetime, tokenLifetime))),
	}).Serialize()
	if err != nil {
		return "", fmt.Errorf("issue JWT-SVID %s: %w", id, err)
	}
	return token, nil
}

// PrepareAuthority makes another authority. Its signatures count from now on, and it makes none yet.
func (a *Agent) PrepareAuthority() error {
	next, err := newAuthority(a.config.TrustDomain)
	if err != nil {
		return fmt.Errorf("development authority: %w", err)
	}
	return a.replace(func(now authorities) authorities { return authorities{now.signs, append(slices.Clone(now.all), next)} })
}

// ActivateAuthority issues everything anew by the newest authority. What older ones signed counts on.
func (a *Agent) ActivateAuthority() error {
	return a.replace(func(now authorities) authorities { return authorities{now.all[len(now.all)-1], now.all} })
}

// RetireAuthorities ends all authorities but the one that signs.
func (a *Agent) RetireAuthorities() error {
	return a.replace(func(now authorities) authorities { return authorities{now.signs, []*authority{now.signs}} })
}

func (a *Agent) replace(change func(authorities) authorities) error {
	a.mu.Lock()
	next := change(*a.authorities.Load())
	a.authorities.Store(&next)
	a.mu.Unlock()
	return a.Rotate()
}
