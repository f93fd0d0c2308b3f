package trust_test

import (
	"slices"
	"testing"

	"github.com/weighbridge/weighbridge/verifier/trust"
)

// A row of the table is one way to fill a scene and what is owed for it. Each refused row names the rule that must be
// among the reasons of a statement that does not count, and the first thing missing: "ROLE HAVE/NEED by COULD,SUPPLY".
type row struct {
	name    string
	policy  func(*scene)
	build   func(*scene)
	serves  bool
	rule    string
	missing string
}

// TestDecide has complete cases and, beside each, one thing broken per row.
func TestDecide(t *testing.T) {
	tests := slices.Concat(completeRows, signatureRows, roleRows, thresholdRows, separationRows, scopeRows, expiredRows, epochRows, lifecycleRows, unknownRows, withdrawnRows, modeRows,
		evaluationRows, rollbackRows, withdrawalRows, certificateRows, trustedTimeRows, svidRows, adapterRows, accountRows)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, tt.policy)
			tt.build(s)
			got := s.decide()
			if serves := got.Serve != ""; serves != tt.serves {
				t.Errorf("serves = %v, want %v; missing %v, reasons:\n%s", serves, tt.serves, got.Missing, reasons(got))
			}
			refused := func(r trust.Reason) bool { return r.Rule == tt.rule && !r.Counted }
			if tt.rule != "" && !slices.ContainsFunc(got.Reasons, refused) {
				t.Errorf("no statement is refused by rule %s; reasons:\n%s", tt.rule, reasons(got))
			}
			var missing string
			if len(got.Missing) > 0 {
				missing = describe(got.Missing[0])
			}
			if missing != tt.missing {
				t.Errorf("missing %q, want %q; reasons:\n%s", missing, tt.missing, reasons(got))
			}
		})
	}
}
