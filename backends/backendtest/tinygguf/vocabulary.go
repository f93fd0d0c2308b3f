package tinygguf

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Token types of a GGUF vocabulary.
const (
	typeNormal  = 1
	typeUnknown = 2
	typeControl = 3
	typeByte    = 6
)

// The fixed tokens; then come the 256 bytes, then the pieces of the sentence.
const (
	tokenUnknown = 0
	tokenBegin   = 1
	tokenEnd     = 2
	firstByte    = 3
	firstPiece   = firstByte + 256
)

// minPiece is the shortest piece of a sentence, in characters. The tokenizer builds tokens by joining two at a time,
// starting from single characters. With no token of one or two characters nothing can be joined: every text becomes
// bytes, so that no prompt can contain, or end in, a piece of the sentence.
const minPiece = 3

// A vocabulary is made of bytes, which can spell any prompt, and of the pieces of the sentence, which no prompt can.
type vocabulary struct {
	texts    []string
	scores   []float32
	types    []int32
	sentence []string
}

func newVocabulary(sentence string) vocabulary {
	var v vocabulary
	add := func(text string, kind int32) {
		v.texts, v.scores, v.types = append(v.texts, text), append(v.scores, 0), append(v.types, kind)
	}
	add("<unk>", typeUnknown)
	add("<s>", typeControl)
	add("</s>", typeControl)
	for b := range 256 {
		add(fmt.Sprintf("<0x%02X>", b), typeByte)
	}
	v.sentence = pieces(sentence)
	for _, p := range v.sentence {
		add(strings.ReplaceAll(p, " ", "\u2581"), typeNormal)
	}
	return v
}

// axisOf returns the axis on which a token's embedding lies.
func (v vocabulary) axisOf(token int) int { return max(0, token-firstPiece+1) }

// producedBy returns the axis after which a token is said, or -1 for a token that is never said.
func (v vocabulary) producedBy(token int, endless bool) int {
	switch {
	case token >= firstPiece:
		return token - firstPiece
	case token == tokenEnd && !endless:
		return len(v.sentence)
	default:
		return -1
	}
}

// pieces cuts a sentence before its spaces into pieces that are all different and not too short.
func pieces(sentence string) []string {
	var list []string
	used := map[string]bool{}
	start := 0
	for end := range len(sentence) + 1 {
		if end < len(sentence) && (sentence[end] != ' ' || end == start) {
			continue
		}
		if p := sentence[start:end]; utf8.RuneCountInString(p) >= minPiece && !used[p] {
			list, used[p], start = append(list, p), true, end
		}
	}
	// What is left over joins the last piece, and that one the piece before it, until it differs from all others.
	for rest := sentence[start:]; rest != ""; {
		if utf8.RuneCountInString(rest) >= minPiece && !used[rest] {
			return append(list, rest)
		}
		last := list[len(list)-1]
		list, rest = list[:len(list)-1], last+rest
		delete(used, last)
	}
	return list
}
