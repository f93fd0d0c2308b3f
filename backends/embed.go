package backends

import (
	"errors"
	"fmt"
	"math"
	"unicode/utf8"
)

// MaxInputs is how many texts one request may have embedded.
const MaxInputs = 2048

// An EmbedRequest asks for a vector for each of its texts.
type EmbedRequest struct {
	Inputs []string
}

// Check returns what no model can embed, as an ErrInvalidRequest.
func (r EmbedRequest) Check() error {
	if n := len(r.Inputs); n == 0 || n > MaxInputs {
		return fmt.Errorf("%w: it has %d texts to embed, want 1 to %d", ErrInvalidRequest, n, MaxInputs)
	}
	for i, text := range r.Inputs {
		if text == "" || !utf8.ValidString(text) {
			return fmt.Errorf("%w: text %d is empty, or not UTF-8", ErrInvalidRequest, i)
		}
	}
	return nil
}

// Embeddings are the vectors of an [EmbedRequest]'s texts, in their order, and of one length.
type Embeddings struct {
	Vectors      [][]float32
	PromptTokens int // of all texts together
}

// Check holds what a runtime answered to what it was asked: one vector for each text, all as long, of finite numbers that
// are not all zero, which is what runtimes give out where they have nothing.
func (e Embeddings) Check(texts int) error {
	if len(e.Vectors) != texts {
		return fmt.Errorf("runtime made %d vectors of %d texts", len(e.Vectors), texts)
	}
	for _, v := range e.Vectors {
		if len(v) != len(e.Vectors[0]) {
			return fmt.Errorf("runtime made vectors of %d and of %d numbers", len(e.Vectors[0]), len(v))
		}
		sum := 0.0
		for _, x := range v {
			sum += math.Abs(float64(x))
		}
		// Written so that NaN, which makes the sum one, is refused too.
		if !(sum > 0 && sum <= math.MaxFloat64) {
			return errors.New("runtime made a vector that is zero or not finite")
		}
	}
	return nil
}
