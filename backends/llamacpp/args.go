package llamacpp

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/weighbridge/weighbridge/verifier/trust"
)

// How llama-server gets at its weights.
const (
	loadByMap  = "mmap" // maps the sealed memory itself: no copy
	loadByCopy = "none"
)

// paths are what llama-server is told to open.
type paths struct {
	model, key, template string
	adapters             []string // with their scales
}

// commandLine returns llama-server's arguments: the release's, and ours, which no release can set.
func commandLine(args map[string]string, tools bool, loadMode string, open paths) []string {
	line := []string{
		"--model", open.model,
		"--load-mode", loadMode,
		"--host", "./" + socketName, // relative to the working directory: the name of a socket is short
		"--api-key-file", open.key,
		"--alias", "model",
		"--offline",
		"--no-ui", "--no-slots", // and neither props, metrics nor tools, which are off by default
		"--fit", "off", // would shorten the context, unseen, on a machine with less memory
		// One caller's prompt must not become faster, or its tokens counted otherwise, because of another's.
		"--cache-ram", "0", "--no-cache-prompt", "--no-cache-idle-slots", "--ctx-checkpoints", "0",
		"--no-context-shift",
		"--jinja",
		// Errors only: warnings and above may quote requests.
		"--log-verbosity", "1", "--log-colors", "off",
	}
	if tools {
		line = append(line, "--reasoning-format", "none") // thoughts are a part of the text
	} else {
		line = append(line, "--skip-chat-parsing") // the text is the answer, whatever it looks like
	}
	if open.template != "" {
		line = append(line, "--chat-template-file", open.template)
	}
	if len(open.adapters) > 0 {
		line = append(line, "--lora-scaled", strings.Join(open.adapters, ","))
	}
	if _, ok := args["parallel"]; !ok {
		line = append(line, "--parallel", "1")
	}
	args = maps.Clone(args)
	if embeds(args) {
		line = append(line, "--embeddings")
		delete(args, "embeddings") // takes no value
		args["ubatch-size"] = strconv.Itoa(embedBatch(args))
		args["batch-size"] = args["ubatch-size"]
	}
	for _, name := range slices.Sorted(maps.Keys(args)) {
		line = append(line, "--"+name, args[name])
	}
	return line
}

func embeds(args map[string]string) bool { return trust.Runtime{Kind: Kind, Args: args}.Embeds() }

// embedBatch is how many tokens of a text are computed at once. One that has more can't be embedded by most models, so
// that where the release says nothing it is what the context holds, as far as memory is not wasted on it.
func embedBatch(args map[string]string) int {
	for _, name := range []string{"ubatch-size", "ctx-size"} {
		if n, err := strconv.Atoi(args[name]); err == nil && (name == "ubatch-size" || n < maxEmbedBatch) {
			return n
		}
	}
	return maxEmbedBatch
}
