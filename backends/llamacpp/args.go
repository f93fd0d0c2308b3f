package llamacpp

import (
	"maps"
	"slices"
	"strings"
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
func commandLine(args map[string]string, loadMode string, open paths) []string {
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
		"--jinja", "--skip-chat-parsing", // the text is the answer, whatever it looks like
		// Errors only: warnings and above may quote requests.
		"--log-verbosity", "1", "--log-colors", "off",
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
	for _, name := range slices.Sorted(maps.Keys(args)) {
		line = append(line, "--"+name, args[name])
	}
	return line
}
