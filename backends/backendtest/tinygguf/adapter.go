package tinygguf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// WriteAdapter writes a LoRA adapter, as one GGUF file, with which a model of c says another sentence, if it is applied at
// scale 1. Only a sentence that is made of the pieces of c's own, each at most once, can be said.
//
// It changes the output head alone: for each axis after which another token has to come, one rank takes the logit of the
// old one away and gives it to the new one.
func WriteAdapter(w io.Writer, c Config, sentence string) error {
	c = c.withDefaults()
	v, err := c.vocabulary(0, 1)
	if err != nil {
		return fmt.Errorf("write tiny adapter: %w", err)
	}
	said, err := v.spell(sentence)
	if err != nil {
		return fmt.Errorf("write tiny adapter: %w", err)
	}
	changes := v.changes(said)
	if len(changes) == 0 || c.Endless {
		return fmt.Errorf("write tiny adapter: %q is what the model says without it, or the model is endless", sentence)
	}
	f := newFile(w)
	f.meta("general.type", "adapter")
	f.meta("general.architecture", "llama")
	f.meta("general.name", "weighbridge tiny test adapter")
	f.meta("adapter.type", "lora")
	f.meta("adapter.lora.alpha", float32(len(changes))) // over the rank: neither more nor less than is written here
	gap := float32(logitGap / math.Sqrt(float64(c.Embedding)))
	return f.write([]tensor{
		{name: "output.weight.lora_a", dims: []int{c.Embedding, len(changes)}, kind: kindF32, data: rows(func(rank int, row []float32) {
			row[changes[rank].axis] = 1
		})},
		{name: "output.weight.lora_b", dims: []int{len(changes), len(v.texts)}, kind: kindF32, data: rows(func(token int, row []float32) {
			for rank, change := range changes {
				switch token {
				case change.from:
					row[rank] = -gap
				case change.to:
					row[rank] = gap
				}
			}
		})},
	})
}

// rows fills rows of single-precision numbers, which are zero before.
func rows(fill func(i int, row []float32)) func() rowFunc {
	return func() rowFunc {
		i := 0
		return func(row []byte) {
			numbers := make([]float32, len(row)/4)
			fill(i, numbers)
			for n, x := range numbers {
				binary.LittleEndian.PutUint32(row[4*n:], math.Float32bits(x))
			}
			i++
		}
	}
}

// A change is another token after an axis.
type change struct{ axis, from, to int }

// changes compares what the model says, piece by piece, with another sentence.
func (v vocabulary) changes(said []int) []change {
	var all []change
	axis := 0 // of any prompt
	for _, token := range append(said, tokenEnd) {
		before := firstPiece + axis
		if axis == len(v.sentence) {
			before = tokenEnd
		}
		if token != before {
			all = append(all, change{axis, before, token})
		}
		axis = v.axisOf(token)
	}
	return all
}

// spell returns the tokens of a sentence's pieces.
func (v vocabulary) spell(sentence string) ([]int, error) {
	var tokens []int
	for rest := sentence; rest != ""; {
		i := slices.IndexFunc(v.sentence, func(p string) bool { return strings.HasPrefix(rest, p) })
		if i < 0 || slices.Contains(tokens, firstPiece+i) {
			return nil, fmt.Errorf("%q is not made of the pieces %q, each at most once", sentence, v.sentence)
		}
		tokens, rest = append(tokens, firstPiece+i), strings.TrimPrefix(rest, v.sentence[i])
	}
	if len(tokens) == 0 {
		return nil, errors.New("the sentence is empty")
	}
	return tokens, nil
}
