package llamacpp

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// An argument says which values of one llama-server option a release may set.
type argument struct {
	words    []string // these, or
	min, max int      // a number in this range, if max is not 0
}

var cacheTypes = argument{words: []string{"f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"}}

// arguments is the whole list of what a release's runtime.args may hold: how much of the machine is used, and how.
// Whatever names a file or an address, opens an endpoint, or changes what the model says is not on it: a release has
// fields of its own for that.
var arguments = map[string]argument{
	"batch-size":    {min: 1, max: 1 << 16},
	"cache-type-k":  cacheTypes,
	"cache-type-v":  cacheTypes,
	"ctx-size":      {min: 1, max: 1 << 24}, // of all parallel requests together
	"flash-attn":    {words: []string{"on", "off", "auto"}},
	"main-gpu":      {min: 0, max: 63},
	"n-cpu-moe":     {min: 0, max: 4096},
	"n-gpu-layers":  {words: []string{"auto", "all"}, min: 0, max: 4096},
	"numa":          {words: []string{"distribute", "isolate"}},
	"parallel":      {min: 1, max: 256},
	"split-mode":    {words: []string{"none", "layer", "row"}},
	"threads":       {min: 1, max: 1024},
	"threads-batch": {min: 1, max: 1024},
	"ubatch-size":   {min: 1, max: 1 << 16},
}

// CheckArgs reports every entry of a release's runtime.args that may not be given to llama-server.
func CheckArgs(args map[string]string) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(args)) {
		a, known := arguments[name]
		switch {
		case !known:
			allowed := strings.Join(slices.Sorted(maps.Keys(arguments)), ", ")
			errs = append(errs, fmt.Errorf("runtime argument %q is not allowed; allowed are %s", name, allowed))
		case !a.allows(args[name]):
			errs = append(errs, fmt.Errorf("runtime argument %s: %q: want %s", name, args[name], a))
		}
	}
	return errors.Join(errs...)
}

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

// commandLine returns llama-server's arguments: the release's, and ours, which no release can set.
func commandLine(args map[string]string, modelPath, keyPath, templatePath string) []string {
	line := []string{
		"--model", modelPath,
		"--load-mode", "mmap", // maps the sealed memory itself: no copy
		"--host", "./" + socketName, // relative to the working directory: the name of a socket is short
		"--api-key-file", keyPath,
		"--alias", "model",
		"--offline",
		"--no-ui", "--no-slots", // and neither props, metrics nor tools, which are off by default
		"--fit", "off", // would shorten the context, unseen, on a machine with less memory
		// One caller's prompt must not become faster, or its tokens counted otherwise, because of another's.
		"--cache-ram", "0", "--no-cache-prompt", "--no-cache-idle-slots", "--ctx-checkpoints", "0",
		"--no-context-shift",
		"--jinja", "--skip-chat-parsing", // the text is the answer, whatever it looks like
		// Errors only: warnings and above may quote requests.
		"--log-verbosity", "1", "--log-colors", "off",
	}
	if templatePath != "" {
		line = append(line, "--chat-template-file", templatePath)
	}
	if _, ok := args["parallel"]; !ok {
		line = append(line, "--parallel", "1")
	}
	for _, name := range slices.Sorted(maps.Keys(args)) {
		line = append(line, "--"+name, args[name])
	}
	return line
}
