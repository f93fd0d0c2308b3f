package verifier_test

import (
	"os/exec"
	"strings"
	"testing"

	_ "github.com/weighbridge/weighbridge/verifier/digest"
	_ "github.com/weighbridge/weighbridge/verifier/oms"
	_ "github.com/weighbridge/weighbridge/verifier/seal"
	_ "github.com/weighbridge/weighbridge/verifier/statement"
	_ "github.com/weighbridge/weighbridge/verifier/timestamp"
	_ "github.com/weighbridge/weighbridge/verifier/trust"
)

// TestTrustCoreStaysSmall keeps the code that decides "this is the approved release, and these are its bytes" free of
// the network, of the gateway and of generated code, so that it can be read and audited on its own.
func TestTrustCoreStaysSmall(t *testing.T) {
	const module = "github.com/weighbridge/weighbridge/"
	forbidden := map[string]string{
		"net/http":               "the core never dials out and serves no one",
		"google.golang.org/grpc": "the core never dials out and serves no one",
		module + "gateway":       "whoever calls has no say in what is approved",
		module + "proto":         "statements are parsed strictly, by hand",
		module + "backends":      "what runs the weights has no say in what is approved",
		module + "configs":       "the core is handed what it needs",
	}
	// List only packages that this test imports: a change anywhere in them rebuilds it, so go test can't answer from
	// its cache.
	for _, name := range []string{"verifier", "verifier/digest", "verifier/oms", "verifier/seal", "verifier/statement", "verifier/timestamp", "verifier/trust"} {
		out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", module+name).Output()
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		deps := strings.Fields(string(out))
		if len(deps) < 10 {
			t.Errorf("%s: go list found only %q", name, deps)
		}
		for _, dep := range deps {
			for path, why := range forbidden {
				if dep == path || strings.HasPrefix(dep, path+"/") {
					t.Errorf("%s imports %s: %s", name, dep, why)
				}
			}
		}
	}
}
