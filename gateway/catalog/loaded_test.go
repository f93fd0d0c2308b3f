package catalog

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/weighbridge/weighbridge/verifier"
	"github.com/weighbridge/weighbridge/verifier/oms"
	"github.com/weighbridge/weighbridge/verifier/seal"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

// TestLoadedLevel is in this package since an adapter that is measured beside weights that are sealed would have to be
// the larger one.
func TestLoadedLevel(t *testing.T) {
	w := trusttest.New(t)
	path := filepath.Join(w.Dir, "file")
	if err := os.WriteFile(path, []byte("more than fits"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.SignModel(path)
	signed, err := statement.Parse(w.Adapter(path, "").Statement)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := oms.ParseManifest(signed)
	if err != nil {
		t.Fatal(err)
	}
	admit := func(limit int64) *seal.Weights {
		one, err := verifier.Admit(t.Context(), seal.NewPool(limit), path, manifest, seal.Options{Measured: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { one.Close() })
		return one
	}
	sealed, measured := admit(1<<20), admit(1)
	tests := []struct {
		name string
		of   loaded
		want seal.Level
	}{
		{"sealed", loaded{sealed, []*seal.Weights{sealed}}, seal.Sealed},
		{"measured weights", loaded{measured, []*seal.Weights{sealed}}, seal.Measured},
		{"a measured adapter", loaded{sealed, []*seal.Weights{sealed, measured}}, seal.Measured},
		{"no adapter", loaded{sealed, nil}, seal.Sealed},
	}
	for _, tt := range tests {
		if got := tt.of.level(); got != tt.want {
			t.Errorf("%s: level() = %s, want %s", tt.name, got, tt.want)
		}
	}
}

// TestProgressOfSeveral: what is read later comes on top of what was read before.
func TestProgressOfSeveral(t *testing.T) {
	p := newProgress("chat", "")
	p.read(10, 10)
	p.next()
	p.read(5, 100)
	if got := p.load(); got.Bytes != 15 || got.Total != 110 {
		t.Errorf("read %d of %d, want 15 of 110", got.Bytes, got.Total)
	}
}
