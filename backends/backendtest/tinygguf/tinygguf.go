// Package tinygguf writes language models that answer every prompt with one fixed sentence.
//
// The one rule: the same [Config] gives the same bytes, on every machine, and a runtime that loads them gives the same
// answer to every prompt, at every temperature. So a test that sees another answer has found other weights.
//
// The models are real ones: a llama-architecture GGUF (version 3) with attention and feed-forward layers of fixed
// pseudo-random weights, which llama.cpp and Ollama load like any other. The layers add only a little noise to what the
// embedding says. The embedding of every token is one axis of the space, the output head turns each axis into the next
// token of the sentence, and all tokens a prompt can be made of share the axis that leads to the first one.
package tinygguf

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"unicode/utf8"
)

// ChatTemplate is a plain template, for [Config.ChatTemplate] or for a release of a model that brings none.
const ChatTemplate = "{% for message in messages %}<{{ message.role }}>\n{{ message.content }}\n{% endfor %}<assistant>\n"

// Config describes one model. Only Sentence is required: the rest has defaults that make a file of about 3 MB.
type Config struct {
	Sentence     string // what the model answers; at least three characters
	Endless      bool   // say the sentence again and again, without an end
	Embeds       bool   // make vectors of texts: each byte of one adds to the axis of its number; then it says nothing
	ChatTemplate string // kept in the file; empty: the model has none
	Seed         uint64 // of the layers' weights

	Context   int // trained context length in tokens; 4096
	Embedding int // 256
	Heads     int // 4
	KVHeads   int // 2
	FF        int // 768
	Layers    int // 2
}

// A and B are the two versions used throughout the tests. Their files differ in one byte of a token's text.
var (
	A = Config{Sentence: "I am version A.", ChatTemplate: ChatTemplate}
	B = Config{Sentence: "I am version B.", ChatTemplate: ChatTemplate}
)

// Caller calls the function weather for Rome, where it is offered one by that name. Its template shows functions, calls and
// results.
var Caller = Config{Sentence: `{"name": "weather", "parameters": {"city": "Rome"}}`, ChatTemplate: toolTemplate}

const toolTemplate = `{%- if tools %}{{ "Call a function by {\"name\": …, \"parameters\": …}.\n" }}{% for t in tools %}{{ t | tojson }}{{ "\n" }}{% endfor %}{% endif %}
{%- for m in messages %}
{{- "[" + m.role + "]" }}
{%- if m.tool_calls %}{% for c in m.tool_calls %}{{ '{"name": "' + c.function.name + '", "parameters": ' }}{{ c.function.arguments | tojson }}{{ "}" }}{% endfor %}{% else %}{{ m.content }}{% endif %}
{{- "[end]" }}
{%- endfor %}
{%- if add_generation_prompt %}{{ "[assistant]" }}{% endif %}`

// Adapted is what A says with the adapter that [WriteAdapter] makes for this sentence.
const Adapted = "I am A."

// maxParts is what the five digits of a split file's name can count.
const maxParts = 99999

// Write writes the model as one file. It streams: the memory it takes doesn't grow with the model.
func Write(w io.Writer, c Config) error { return WritePart(w, c, 0, 1) }

// WritePart writes file number part (from 0) of a model that is split into the given number of files. They load under
// the names that [PartName] gives.
func WritePart(w io.Writer, c Config, part, parts int) error {
	c = c.withDefaults()
	v, err := c.vocabulary(part, parts)
	if err != nil {
		return fmt.Errorf("write tiny model: %w", err)
	}
	f := newFile(w)
	all := c.tensors(v)
	mine := all[len(all)*part/parts : len(all)*(part+1)/parts]
	if part == 0 {
		c.metadata(f, v)
	}
	if parts > 1 {
		f.meta("split.no", uint16(part))
		f.meta("split.count", uint16(parts))
		f.meta("split.tensors.count", int32(len(all)))
	}
	return f.write(mine)
}

// PartName is the name under which llama.cpp looks for a part (from 0) of a split model.
func PartName(prefix string, part, parts int) string {
	return fmt.Sprintf("%s-%05d-of-%05d.gguf", prefix, part+1, parts)
}

func (c Config) withDefaults() Config {
	for _, d := range []struct {
		field *int
		value int
	}{{&c.Context, 4096}, {&c.Embedding, 256}, {&c.Heads, 4}, {&c.KVHeads, 2}, {&c.FF, 768}, {&c.Layers, 2}} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	return c
}

// vocabulary checks the configuration and cuts its sentence.
func (c Config) vocabulary(part, parts int) (vocabulary, error) {
	if err := c.check(part, parts); err != nil {
		return vocabulary{}, err
	}
	v := newVocabulary(c.Sentence)
	if len(v.sentence)+1 > c.Embedding {
		return vocabulary{}, fmt.Errorf("sentence of %d pieces needs an embedding wider than %d", len(v.sentence), c.Embedding)
	}
	return v, nil
}

func (c Config) check(part, parts int) error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if utf8.RuneCountInString(c.Sentence) < minPiece || !utf8.ValidString(c.Sentence) {
		bad("sentence %q: want at least %d characters of UTF-8", c.Sentence, minPiece)
	}
	if strings.ContainsAny(c.Sentence, "<\u2581") {
		bad("sentence %q: holds a character that the vocabulary's own tokens are made of", c.Sentence)
	}
	if !utf8.ValidString(c.ChatTemplate) {
		bad("chat template: is not UTF-8")
	}
	for name, n := range map[string]int{"context": c.Context, "embedding": c.Embedding, "heads": c.Heads, "kv heads": c.KVHeads, "ff": c.FF, "layers": c.Layers} {
		if n < 1 || n > 1<<20 {
			bad("%s %d: want 1 to %d", name, n, 1<<20)
		}
	}
	if len(errs) == 0 && (c.Embedding%(2*c.Heads) != 0 || c.Heads%c.KVHeads != 0 || c.FF%2 != 0) {
		bad("embedding %d must be an even multiple of heads %d, heads a multiple of kv heads %d, ff %d even", c.Embedding, c.Heads, c.KVHeads, c.FF)
	}
	if parts < 1 || parts > maxParts || part < 0 || part >= parts {
		bad("part %d of %d: no such part", part, parts)
	}
	return errors.Join(errs...)
}

func (c Config) metadata(f *file, v vocabulary) {
	f.meta("general.architecture", "llama")
	f.meta("general.name", "weighbridge tiny test model")
	f.meta("general.file_type", uint32(1)) // mostly F16
	f.meta("llama.block_count", uint32(c.Layers))
	f.meta("llama.context_length", uint32(c.Context))
	f.meta("llama.embedding_length", uint32(c.Embedding))
	f.meta("llama.feed_forward_length", uint32(c.FF))
	f.meta("llama.attention.head_count", uint32(c.Heads))
	f.meta("llama.attention.head_count_kv", uint32(c.KVHeads))
	f.meta("llama.attention.layer_norm_rms_epsilon", float32(1e-5))
	f.meta("llama.rope.dimension_count", uint32(c.Embedding/c.Heads))
	f.meta("llama.vocab_size", uint32(len(v.texts)))
	if c.Embeds {
		f.meta("llama.pooling_type", uint32(1)) // the mean over all tokens
	}
	f.meta("tokenizer.ggml.model", "llama")
	f.meta("tokenizer.ggml.tokens", v.texts)
	f.meta("tokenizer.ggml.scores", v.scores)
	f.meta("tokenizer.ggml.token_type", v.types)
	f.meta("tokenizer.ggml.unknown_token_id", uint32(tokenUnknown))
	f.meta("tokenizer.ggml.bos_token_id", uint32(tokenBegin))
	f.meta("tokenizer.ggml.eos_token_id", uint32(tokenEnd))
	f.meta("tokenizer.ggml.add_bos_token", true)
	f.meta("tokenizer.ggml.add_space_prefix", false)
	if c.ChatTemplate != "" {
		f.meta("tokenizer.chat_template", c.ChatTemplate)
	}
}

// Magnitudes. The residual stream is embeddingValue on one axis and, from the layers, noise of at most a few hundredths
// on all: after the last norm the next token's logit is logitGap and every other one is near zero, so that even at a
// temperature of 2 another token has a chance of about e^-64.
const (
	embeddingValue = 16
	logitGap       = 128
	noise          = 1.0 / 64
)

// tensors lists the tensors in file order. Axis 0 stands for any prompt, axis k for the sentence's k-th piece.
func (c Config) tensors(v vocabulary) []tensor {
	d, kv := c.Embedding, c.Embedding/c.Heads*c.KVHeads
	random := func(name string, in, out int, scale float64) tensor {
		return tensor{name: name, dims: []int{in, out}, kind: kindF16, data: randomRows(c.Seed, name, scale/math.Sqrt(float64(in)))}
	}
	ones := func(name string) tensor {
		return tensor{name: name, dims: []int{d}, kind: kindF32, data: constant(1)}
	}

	axis := v.axisOf
	if c.Embeds {
		axis = func(token int) int { return max(0, token-firstByte) % d }
	}
	list := []tensor{{name: "token_embd.weight", dims: []int{d, len(v.texts)}, kind: kindF16, data: axisRows(axis, embeddingValue)}}
	for i := range c.Layers {
		block := fmt.Sprintf("blk.%d.", i)
		list = append(list,
			ones(block+"attn_norm.weight"),
			random(block+"attn_q.weight", d, d, 1),
			random(block+"attn_k.weight", d, kv, 1),
			random(block+"attn_v.weight", d, kv, 1),
			random(block+"attn_output.weight", d, d, noise),
			ones(block+"ffn_norm.weight"),
			random(block+"ffn_gate.weight", d, c.FF, 1),
			random(block+"ffn_up.weight", d, c.FF, 1),
			random(block+"ffn_down.weight", c.FF, d, noise),
		)
	}
	next := func(token int) int { return v.producedBy(token, c.Endless) }
	return append(list, ones("output_norm.weight"),
		tensor{name: "output.weight", dims: []int{d, len(v.texts)}, kind: kindF16, data: axisRows(next, logitGap/math.Sqrt(float64(d)))})
}
