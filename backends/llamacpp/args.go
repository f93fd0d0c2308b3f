package llamacpp

import (
	"maps"
	"slices"
)

// How llama-server gets at its weights.
const (
	loadByMap  = "mmap" // maps the sealed memory itself: no copy
	loadByCopy = "none"
)

// commandLine returns llama-server's arguments: the release's, and ours, which no release can set.
func commandLine(args map[string]string, loadMode, modelPath, keyPath, templatePath string) []string {
	line := []string{
		"--model", modelPath,
		"--load-mode", loadMode,
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
