package oms_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/weighbridge/weighbridge/verifier/oms"
	"github.com/weighbridge/weighbridge/verifier/statement"
)

// What the subject is named changes nothing, but it has a name.
func TestParseManifestSubject(t *testing.T) {
	predicate := strings.NewReplacer("SUMA", sumA, "SUMB", sumB).Replace(files)
	for member, accept := range map[string]bool{`"name":"quite other",`: true, `"name":"",`: false, `"name":null,`: false, ``: false} {
		payload := fmt.Sprintf(`{"_type":"https://in-toto.io/Statement/v1","subject":[{%s"digest":{"sha256":%q}}],`+
			`"predicateType":"https://model_signing/signature/v1.0","predicate":%s}`, member, rootOf(sumA, sumB), predicate)
		bundle, err := signer.Sign([]byte(payload))
		if err != nil {
			t.Fatal(err)
		}
		s, err := statement.Parse(bundle)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := oms.ParseManifest(s); (err == nil) != accept {
			t.Errorf("ParseManifest of a subject with %q = %v, want accepted: %v", member, err, accept)
		}
	}
}
