package backends_test

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/weighbridge/weighbridge/backends"
)

func TestEmbedRequestCheck(t *testing.T) {
	tests := []struct {
		name   string
		inputs []string
		valid  bool
	}{
		{"two texts", []string{"a", "é漢🙂"}, true},
		{"as many as may be", slices.Repeat([]string{"a"}, backends.MaxInputs), true},
		{"one more", slices.Repeat([]string{"a"}, backends.MaxInputs+1), false},
		{"none", nil, false},
		{"an empty one", []string{"a", ""}, false},
		{"one that is no text", []string{"secret\xff"}, false},
	}
	for _, tt := range tests {
		err := backends.EmbedRequest{Inputs: tt.inputs}.Check()
		if tt.valid != (err == nil) || err != nil && (!errors.Is(err, backends.ErrInvalidRequest) || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%s: Check() = %v, valid is %v", tt.name, err, tt.valid)
		}
	}
}

func TestEmbeddingsCheck(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(-1))
	tests := []struct {
		name    string
		vectors [][]float32
		want    string
	}{
		{"two", [][]float32{{0, 1}, {math.MaxFloat32, -math.MaxFloat32}}, ""},
		{"one", [][]float32{{0, 1}}, "1 vectors of 2 texts"},
		{"three", [][]float32{{0, 1}, {1, 0}, {1, 1}}, "3 vectors of 2 texts"},
		{"of two lengths", [][]float32{{0, 1}, {1}}, "of 2 and of 1"},
		{"of no numbers", [][]float32{{}, {}}, "zero or not finite"},
		{"one is zero", [][]float32{{0, 1}, {0, 0}}, "zero or not finite"},
		{"one is not a number", [][]float32{{0, nan}, {0, 1}}, "zero or not finite"},
		{"one is infinite", [][]float32{{0, inf}, {0, 1}}, "zero or not finite"},
	}
	for _, tt := range tests {
		if err := (backends.Embeddings{Vectors: tt.vectors}).Check(2); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Check() = %v, want %q", tt.name, err, tt.want)
		}
	}
}
