package trust

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// runtimes are the kinds of runtime that this version can run, each with the whole list of what a release's
// runtime.args may hold: how much of the machine is used, and how. Whatever names a file or an address, opens an
// endpoint, or changes what the model says is not on it: a release has fields of its own for that.
var runtimes = map[string]map[string]argument{
	"llamacpp": {
		"batch-size":    {min: 1, max: 1 << 16},
		"cache-type-k":  cacheTypes,
		"cache-type-v":  cacheTypes,
		"ctx-size":      {min: 1, max: 1 << 24},    // of all parallel requests together
		"embeddings":    {words: []string{"true"}}, // it makes vectors, and does not chat: see Embeds
		"flash-attn":    {words: []string{"on", "off", "auto"}},
		"main-gpu":      {min: 0, max: 63},
		"n-cpu-moe":     {min: 0, max: 4096},
		"n-gpu-layers":  {words: []string{"auto", "all"}, min: 0, max: 4096},
		"numa":          {words: []string{"distribute", "isolate"}},
		"parallel":      {min: 1, max: 256},
		"pooling":       {words: []string{"mean", "cls", "last"}}, // absent: what the weights say
		"split-mode":    {words: []string{"none", "layer", "row"}},
		"threads":       {min: 1, max: 1024},
		"threads-batch": {min: 1, max: 1024},
		"ubatch-size":   {min: 1, max: 1 << 16},
	},
	// Of one request: others wait for it.
	"ollama": {
		"main_gpu":   {min: 0, max: 63},
		"num_batch":  {min: 1, max: 1 << 16},
		"num_ctx":    {min: 1, max: 1 << 24},
		"num_gpu":    {min: 0, max: 4096}, // layers on GPUs; absent: as many as fit
		"num_thread": {min: 1, max: 1024},
		"use_mmap":   {words: []string{"true", "false"}},
	},
}

var cacheTypes = argument{words: []string{"f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"}}

// An argument says which values of one option of a runtime a release may set.
type argument struct {
	words    []string // these, or
	min, max int      // a number in this range, if max is not 0
}

// CheckArgs reports every entry of a release's runtime.args that may not be given to a runtime of this kind.
func CheckArgs(kind string, args map[string]string) error { return checkArgs(kind, args).err() }

func checkArgs(kind string, args map[string]string) problems {
	var bad problems
	allowed := runtimes[kind]
	for _, name := range slices.Sorted(maps.Keys(args)) {
		switch a, known := allowed[name]; {
		case !known:
			bad.add("runtime.args."+name, "is not allowed; allowed are %s", strings.Join(slices.Sorted(maps.Keys(allowed)), ", "))
		case !a.allows(args[name]):
			bad.add("runtime.args."+name, "is %.80q, want %s", args[name], a)
		}
	}
	return append(bad, checkEmbedding(kind, args)...)
}

// checkEmbedding reports arguments that go with making vectors, and others that do not. Vectors are made one after the
// other: computed together, those of one caller would depend, in their last digits, on what others ask.
func checkEmbedding(kind string, args map[string]string) problems {
	var bad problems
	if r := (Runtime{Kind: kind, Args: args}); r.Embeds() {
		for _, name := range []string{"batch-size", "parallel"} {
			if _, set := args[name]; set {
				bad.add("runtime.args."+name, "does not go with embeddings, which are made one after the other, each in one batch (ubatch-size)")
			}
		}
	} else if _, set := args["pooling"]; set && kind == "llamacpp" {
		bad.add("runtime.args.pooling", "is for releases with embeddings: true")
	}
	return bad
}

// Embeds reports whether the runtime is started to make vectors of texts, and does not chat. Ollama does both, as the
// weights allow.
func (r Runtime) Embeds() bool { return r.Kind == "llamacpp" && r.Args["embeddings"] == "true" }

func (a argument) allows(value string) bool {
	if slices.Contains(a.words, value) {
		return true
	}
	n, err := strconv.Atoi(value)
	// Only the plain way to write a number: no sign, no leading zeros.
	return err == nil && a.max != 0 && a.min <= n && n <= a.max && strconv.Itoa(n) == value
}

func (a argument) String() string {
	var s []string
	if len(a.words) > 0 {
		s = append(s, "one of "+strings.Join(a.words, ", "))
	}
	if a.max != 0 {
		s = append(s, fmt.Sprintf("a number from %d to %d", a.min, a.max))
	}
	return strings.Join(s, ", or ")
}

// unenforceable returns what of the descriptor this version can't enforce; [Release.unenforceable] adds to it.
func (d *Descriptor) unenforceable() problems {
	var bad problems
	if _, known := runtimes[d.Runtime.Kind]; known {
		bad = checkArgs(d.Runtime.Kind, d.Runtime.Args)
		if err := CheckTemplate(d.Runtime.Kind, d.Behaviour.ChatTemplate); err != nil {
			bad.add("behaviour.chatTemplate", "%v", err)
		}
		for i, a := range d.Behaviour.Adapters {
			if d.Runtime.Kind == "ollama" && a.Scale != 1 {
				bad.add(adapterPath(i)+".scale", "is %v; ollama applies adapters as they are: 1", a.Scale)
			}
		}
	} else {
		bad.add("runtime.kind", "this version can't enforce it")
	}
	if d.Runtime.Embeds() {
		for _, f := range []struct{ path, text string }{
			{"behaviour.chatTemplate", d.Behaviour.ChatTemplate}, {"behaviour.systemPrompt", d.Behaviour.SystemPrompt}, {"warmup.contains", d.Warmup.Contains},
		} {
			if f.text != "" {
				bad.add(f.path, "is about answers, and a release with embeddings: true makes vectors")
			}
		}
	}
	if len(d.Behaviour.Tools) > 0 && (d.Runtime.Kind != "llamacpp" || d.Runtime.Embeds()) {
		bad.add("behaviour.tools", "this version can't enforce it: it offers tools to models that chat, by llamacpp")
	}
	return bad
}
