package statement_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"github.com/weighbridge/weighbridge/verifier/statement"
)

const zeroes = "0000000000000000000000000000000000000000000000000000000000000000"

func newKey(t *testing.T, curve elliptic.Curve) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newPayload(t *testing.T) []byte {
	t.Helper()
	payload, err := statement.New("urn:example:v1", "thing", zeroes, map[string]int{"b": 1, "a": 2})
	if err != nil {
		t.Fatal(err)
	}
	return payload
}

func sign(t *testing.T, key crypto.Signer, payload []byte) []byte {
	t.Helper()
	signer, err := statement.NewKeySigner(key)
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	return bundle
}

// withPayload puts other bytes in place of a bundle's payload.
func withPayload(bundle, payload []byte) []byte {
	start := bytes.Index(bundle, []byte(`"payload":"`)) + len(`"payload":"`)
	end := start + bytes.IndexByte(bundle[start:], '"')
	return bytes.Join([][]byte{bundle[:start], []byte(base64.StdEncoding.EncodeToString(payload)), bundle[end:]}, nil)
}

func TestSignAndVerify(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]crypto.Signer{
		"P-256": newKey(t, elliptic.P256()), "P-384": newKey(t, elliptic.P384()),
		"P-521": newKey(t, elliptic.P521()), "Ed25519": ed,
	}
	stranger := newKey(t, elliptic.P256())
	for name, key := range keys {
		t.Run(name, func(t *testing.T) {
			payload := newPayload(t)
			s, err := statement.Parse(sign(t, key, payload))
			if err != nil {
				t.Fatal(err)
			}
			if err := s.VerifyKey(key.Public()); err != nil {
				t.Errorf("VerifyKey(signer) = %v, want nil", err)
			}
			if err := s.VerifyKey(stranger.Public()); !errors.Is(err, statement.ErrSignature) {
				t.Errorf("VerifyKey(stranger) = %v, want %v", err, statement.ErrSignature)
			}
			if sum := sha256.Sum256(payload); s.ID().Hex() != hex.EncodeToString(sum[:]) {
				t.Errorf("ID() = %s, want the payload's SHA-256", s.ID())
			}
			if !s.Canonical() || string(s.Predicate()) != `{"a":2,"b":1}` {
				t.Errorf("Canonical() = %v, Predicate() = %s, want the RFC 8785 form", s.Canonical(), s.Predicate())
			}
			again, err := statement.Parse(s.Bundle())
			if err != nil || again.ID() != s.ID() {
				t.Errorf("Parse(Bundle()) = %v, %v, want the same statement", again, err)
			}
		})
	}
}

func TestParse(t *testing.T) {
	key := newKey(t, elliptic.P256())
	good := sign(t, key, newPayload(t))
	swap := func(old, new string) []byte {
		if !bytes.Contains(good, []byte(old)) {
			t.Fatalf("the bundle does not hold %q: %s", old, good)
		}
		return bytes.Replace(good, []byte(old), []byte(new), 1)
	}
	match := func(pattern, new string) []byte {
		re := regexp.MustCompile(pattern)
		if !re.Match(good) {
			t.Fatalf("the bundle does not match %q: %s", pattern, good)
		}
		return re.ReplaceAllLiteral(good, []byte(new))
	}
	payload := func(old, new string) []byte {
		p := string(newPayload(t))
		if !strings.Contains(p, old) {
			t.Fatalf("the payload does not hold %q: %s", old, p)
		}
		return withPayload(good, []byte(strings.Replace(p, old, new, 1)))
	}
	tests := []struct {
		name   string
		bundle []byte
		ok     bool
	}{
		{"as signed", good, true},
		{"keyid null", swap(`"keyid":""`, `"keyid":null`), true},
		{"keyid absent", swap(`,"keyid":""`, ``), true},
		{"tlogEntries absent", swap(`,"tlogEntries":[]`, ``), true},
		{"indented", swap(`{"mediaType"`, "{\n  \"mediaType\""), true},

		{"empty", nil, false},
		{"array", []byte("[" + string(good) + "]"), false},
		{"two documents", append(bytes.Clone(good), good...), false},
		{"byte order mark", append([]byte("\xef\xbb\xbf"), good...), false},
		{"media type", swap("bundle.v0.3+json", "bundle.v0.9+json"), false},
		{"unknown member", swap(`{"mediaType"`, `{"extra":1,"mediaType"`), false},
		{"duplicate member", swap(`{"mediaType"`, `{"mediaType":"x","mediaType"`), false},
		{"another case", swap(`"mediaType"`, `"MediaType"`), false},
		{"snake case", swap(`"mediaType"`, `"media_type"`), false},
		{"two signers", swap(`"tlogEntries"`, `"certificate":{"rawBytes":""},"tlogEntries"`), false},
		{"no signer", match(`"publicKey":\{.*?\},`, ``), false},
		{"empty chain", match(`"publicKey":\{.*?\}`, `"x509CertificateChain":{"certificates":[]}`), false},
		{"empty certificate", match(`"publicKey":\{.*?\}`, `"certificate":{"rawBytes":""}`), false},
		{"payload type", swap(statement.PayloadType, "text/plain"), false},
		{"two signatures", swap(`"signatures":[`, `"signatures":[{"sig":"AAAA"},`), false},
		{"no signature", match(`"signatures":\[.*?\]`, `"signatures":[]`), false},
		{"empty signature", match(`"sig":".*?"`, `"sig":""`), false},
		{"no envelope", match(`,"dsseEnvelope":.*\}`, `}`), false},
		{"payload of spaces", withPayload(good, []byte("  ")), false},
		{"payload byte order mark", withPayload(good, append([]byte("\xef\xbb\xbf"), newPayload(t)...)), false},
		{"payload twice", withPayload(good, append(newPayload(t), newPayload(t)...)), false},
		{"statement type", payload(statement.StatementType, "https://in-toto.io/Statement/v0.1"), false},
		{"two subjects", payload(`"subject":[`, `"subject":[{"name":"x","digest":{"sha256":"`+zeroes+`"}},`), false},
		{"no subject", payload(`"subject":[{"digest":{"sha256":"`+zeroes+`"},"name":"thing"}]`, `"subject":[]`), false},
		{"digest in upper case", payload(zeroes, strings.Repeat("A", 64)), false},
		{"digest too short", payload(zeroes, zeroes[1:]), false},
		{"two digests", payload(`"sha256":"`, `"sha512":"00","sha256":"`), false},
		{"predicate is a list", payload(`{"a":2,"b":1}`, `[]`), false},
		{"predicate duplicate", payload(`{"a":2,`, `{"a":2,"a":3,`), false},
		{"payload unknown member", payload(`{"_type"`, `{"extra":1,"_type"`), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := statement.Parse(tt.bundle)
			if (err == nil) != tt.ok || (err != nil && !errors.Is(err, statement.ErrMalformed)) {
				t.Errorf("Parse = %v, want accepted %v", err, tt.ok)
			}
		})
	}
}

func TestVerifyKeyRefuses(t *testing.T) {
	key, other := newKey(t, elliptic.P256()), newKey(t, elliptic.P256())
	good := sign(t, key, newPayload(t))
	der, err := cryptoutils.MarshalPublicKeyToDER(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	hint := func(h string) []byte {
		start := bytes.Index(good, []byte(`"hint":"`)) + len(`"hint":"`)
		return bytes.Join([][]byte{good[:start], []byte(h), good[start+64:]}, nil)
	}
	raw := func(b []byte) []byte {
		return bytes.Replace(good, []byte(`{"hint"`), []byte(`{"rawBytes":"`+base64.StdEncoding.EncodeToString(b)+`","hint"`), 1)
	}
	otherDER, err := cryptoutils.MarshalPublicKeyToDER(other.Public())
	if err != nil {
		t.Fatal(err)
	}
	signature := func(change func(r, s *big.Int) []byte) []byte {
		signed, err := statement.Parse(good)
		if err != nil {
			t.Fatal(err)
		}
		var rs struct{ R, S *big.Int }
		if _, err := asn1.Unmarshal(signed.Signature(), &rs); err != nil {
			t.Fatal(err)
		}
		old, other := base64.StdEncoding.EncodeToString(signed.Signature()), base64.StdEncoding.EncodeToString(change(rs.R, rs.S))
		return bytes.Replace(good, []byte(old), []byte(other), 1)
	}
	changed := newPayload(t)
	changed = bytes.Replace(changed, []byte(`"a":2`), []byte(`"a":3`), 1)
	tests := []struct {
		name   string
		bundle []byte
		ok     bool
	}{
		{"as signed", good, true},
		{"no hint", hint(""), true},
		{"hint as cosign writes it", hint(base64.StdEncoding.EncodeToString(sum[:])), true},
		{"the key itself", raw(der), true},
		{"another hint", hint(zeroes), false},
		{"another key", raw(otherDER), false},
		{"payload changed", withPayload(good, changed), false},
		{"signature of another key", sign(t, other, newPayload(t)), false},
		{"signature of r and s side by side", signature(func(r, s *big.Int) []byte {
			return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
		}), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := statement.Parse(tt.bundle)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.VerifyKey(key.Public()); (err == nil) != tt.ok {
				t.Errorf("VerifyKey = %v, want accepted %v", err, tt.ok)
			}
		})
	}
}

func TestParseKeys(t *testing.T) {
	key := newKey(t, elliptic.P256())
	pub, err := cryptoutils.MarshalPublicKeyToPEM(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	rsaPub, err := cryptoutils.MarshalPublicKeyToPEM(rsaKey.Public())
	if err != nil {
		t.Fatal(err)
	}
	p224, err := cryptoutils.MarshalPublicKeyToPEM(newKey(t, elliptic.P224()).Public())
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		pem []byte
		ok  bool
	}{
		"P-256":     {pub, true},
		"two keys":  {append(bytes.Clone(pub), pub...), false},
		"not PEM":   {[]byte("hello"), false},
		"RSA":       {rsaPub, false},
		"P-224":     {p224, false},
		"truncated": {pub[:len(pub)/2], false},
	} {
		if _, err := statement.ParsePublicKey(tt.pem); (err == nil) != tt.ok {
			t.Errorf("ParsePublicKey(%s) = %v, want accepted %v", name, err, tt.ok)
		}
	}

	der, err := cryptoutils.MarshalPrivateKeyToEncryptedDER(key, cryptoutils.StaticPasswordFunc([]byte("secret")))
	if err != nil {
		t.Fatal(err)
	}
	locked := cryptoutils.PEMEncode(cryptoutils.EncryptedSigstorePrivateKeyPEMType, der)
	if _, err := statement.ParsePrivateKey(locked, []byte("secret")); err != nil {
		t.Errorf("ParsePrivateKey(right password) = %v, want nil", err)
	}
	for _, password := range [][]byte{nil, []byte("wrong")} {
		if _, err := statement.ParsePrivateKey(locked, password); !errors.Is(err, statement.ErrPassword) {
			t.Errorf("ParsePrivateKey(password %q) = %v, want %v", password, err, statement.ErrPassword)
		}
	}
}

func TestParseLines(t *testing.T) {
	a, b := newKey(t, elliptic.P256()), newKey(t, elliptic.P256())
	lines := append(sign(t, a, newPayload(t)), sign(t, b, newPayload(t))...)
	all, err := statement.ParseLines(lines)
	if err != nil || len(all) != 2 || all[0].ID() != all[1].ID() {
		t.Fatalf("ParseLines = %v, %v, want two bundles of one statement", all, err)
	}
	for name, data := range map[string][]byte{
		"empty": nil, "blank": []byte(" \n"), "half a line": lines[:len(lines)-20], "a word after it": append(bytes.Clone(lines), "x"...),
	} {
		if _, err := statement.ParseLines(data); !errors.Is(err, statement.ErrMalformed) {
			t.Errorf("ParseLines(%s) = %v, want %v", name, err, statement.ErrMalformed)
		}
	}
}

// TestParseEach: what is not well-formed takes nothing away from what lies beside it, and says what it would be.
func TestParseEach(t *testing.T) {
	key := newKey(t, elliptic.P256())
	good := sign(t, key, newPayload(t))
	one, err := statement.Parse(good)
	if err != nil {
		t.Fatal(err)
	}
	twice := bytes.Replace(good, []byte(`"signatures":[`), []byte(`"signatures":[{"sig":"AAAA"},`), 1)
	for name, tt := range map[string]struct {
		data string
		all  int
		bad  []statement.ID
	}{
		"good alone":         {string(good), 1, nil},
		"after a second":     {string(twice) + string(good), 1, []statement.ID{one.ID()}},
		"before one":         {string(good) + string(twice), 1, []statement.ID{one.ID()}},
		"beside a duplicate": {`{"a":1,"a":2}` + "\n" + string(good), 1, []statement.ID{""}},
		"before junk":        {string(good) + "}", 1, []statement.ID{""}},
		"nothing":            {" ", 0, nil},
	} {
		all, bad := statement.ParseEach([]byte(tt.data))
		var ids []statement.ID
		for _, b := range bad {
			ids = append(ids, b.Statement)
			if !errors.Is(b, statement.ErrMalformed) {
				t.Errorf("%s: %v, want %v", name, b, statement.ErrMalformed)
			}
		}
		if len(all) != tt.all || !slices.Equal(ids, tt.bad) {
			t.Errorf("%s: ParseEach = %d, %q, want %d, %q", name, len(all), ids, tt.all, tt.bad)
		}
	}
}

// FuzzParse asserts that what is accepted has one reading: its own one-line form parses to the same statement.
// TestUnmarshal wants exact texts: decisions quote them, and the same statements give the same decision everywhere.
func TestUnmarshal(t *testing.T) {
	type inner struct {
		Count int       `json:"count"`
		Until time.Time `json:"until"`
	}
	for data, want := range map[string]string{
		`{"in":{"count":1}}`:           `<nil>`,
		`{"in":{"Count":1}}`:           `unknown field "in/Count"`,
		`{"\u001b":1}`:                 `unknown field "\x1b"`,
		`{"in":{"count":"1"}}`:         `field "in/count": string is of the wrong kind`,
		`{"in":[]}`:                    `field "in": [ is of the wrong kind`,
		`{"in":{"count":1.5}}`:         `field "in/count": invalid syntax`,
		`{"in":{"until":"soon"}}`:      `field "in/until": parsing time "soon" as "2006-01-02T15:04:05Z07:00": cannot parse "soon" as "2006"`,
		`{"in":{"count":1},"in":{}}`:   `jsontext: duplicate object member name "in"`,
		`{"in":{"count":1,"count":2}}`: `jsontext: duplicate object member name "count" within "/in"`,
		"{\"\xff\":1}":                 `jsontext: invalid UTF-8 after offset 2`,
		`{"in":{"count":1}} {"in":{}}`: `jsontext: invalid character '{' after top-level value after offset 19`,
	} {
		var into struct {
			In inner `json:"in"`
		}
		if got := fmt.Sprint(statement.Unmarshal([]byte(data), &into)); got != want {
			t.Errorf("Unmarshal(%s) = %s, want %s", data, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	signer, err := statement.NewKeySigner(key)
	if err != nil {
		f.Fatal(err)
	}
	payload, err := statement.New("urn:example:v1", "thing", zeroes, struct{}{})
	if err != nil {
		f.Fatal(err)
	}
	bundle, err := signer.Sign(payload)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(bundle)
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := statement.Parse(data)
		if err != nil {
			return
		}
		again, err := statement.Parse(s.Bundle())
		if err != nil || again.ID() != s.ID() || again.PredicateType() != s.PredicateType() {
			t.Errorf("Parse(Bundle()) = %v, want the statement itself", err)
		}
		var loose map[string]any
		if err := json.Unmarshal(s.Payload(), &loose); err != nil {
			t.Errorf("accepted payload is not JSON: %v", err)
		}
	})
}
