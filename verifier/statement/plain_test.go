package statement_test

import (
	"crypto/ed25519"
	"strings"
	"testing"

	"github.com/weighbridge/weighbridge/verifier/statement"
)

// TestIsPlain puts one thing into a bundle that its signature does not cover.
func TestIsPlain(t *testing.T) {
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := statement.NewKeySigner(key)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := statement.New("urn:example", "", strings.Repeat("0", 64), struct{}{})
	if err != nil {
		t.Fatal(err)
	}
	line, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	hints, err := statement.Hints(public)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, from, to string
		want           bool
	}{
		{"as signed", "", "", true},
		{"spaces", `{"mediaType":`, `{ "mediaType": `, true},
		{"another spelling of the hint", hints[0], hints[1], false},
		{"no hint", `"hint":"` + hints[0] + `"`, ``, false},
		{"a log entry", `"tlogEntries":[]`, `"tlogEntries":[{}]`, false},
		{"no list of log entries", `,"tlogEntries":[]`, ``, false},
		{"a key id", `"keyid":""`, `"keyid":"mine"`, false},
		{"no key id", `,"keyid":""`, ``, false},
		{"details of the key", `"publicKey":{`, `"publicKey":{"keyDetails":1,`, false},
	} {
		s, err := statement.Parse([]byte(strings.Replace(string(line), tt.from, tt.to, 1)))
		if err != nil || s.VerifyKey(public) != nil {
			t.Fatalf("%s: Parse = %v, VerifyKey = %v, want a bundle that verifies", tt.name, err, s.VerifyKey(public))
		}
		if got := s.IsPlain(public); got != tt.want {
			t.Errorf("%s: IsPlain = %v, want %v", tt.name, got, tt.want)
		}
	}
}
