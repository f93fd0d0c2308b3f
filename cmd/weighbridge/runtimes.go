package main

import (
	"fmt"
	"log/slog"
	"maps"
	"os/exec"
	"slices"
	"strings"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/llamacpp"
	"github.com/weighbridge/weighbridge/backends/ollama"
	"github.com/weighbridge/weighbridge/configs"
)

// backendFactory makes backends of the configured kinds, whose runtimes must be installed. Each launch has a directory
// of its own in dir.
func backendFactory(cfg *configs.Gateway, dir string, log *slog.Logger) (func(kind string) (backends.Backend, error), error) {
	kinds := map[string]func() (backends.Backend, error){}
	if r := cfg.Runtimes.LlamaCPP; r != nil {
		if _, err := exec.LookPath(r.Command); err != nil {
			return nil, withHint(fmt.Errorf("runtimes.llamacpp.command: %w", err), "install llama-server, or name its path")
		}
		giveBack := r.KeepSealed != nil && !*r.KeepSealed
		kinds[llamacpp.Kind] = func() (backends.Backend, error) {
			return llamacpp.New(llamacpp.Config{Command: r.Command, RuntimeDir: dir, GiveBack: giveBack, Log: log})
		}
	}
	if r := cfg.Runtimes.Ollama; r != nil {
		if _, err := exec.LookPath(r.Command); err != nil {
			return nil, withHint(fmt.Errorf("runtimes.ollama.command: %w", err), "install Ollama, or name its path")
		}
		kinds[ollama.Kind] = func() (backends.Backend, error) {
			return ollama.New(ollama.Config{Command: r.Command, RuntimeDir: dir, Log: log})
		}
	}
	for kind, fresh := range kinds {
		if _, err := fresh(); err != nil {
			return nil, fmt.Errorf("runtimes.%s: %w", kind, err)
		}
	}
	return func(kind string) (backends.Backend, error) {
		fresh, known := kinds[kind]
		if !known {
			return nil, fmt.Errorf("the release wants runtime %q, and this gateway runs %s only", kind, strings.Join(slices.Sorted(maps.Keys(kinds)), " and "))
		}
		return fresh()
	}, nil
}
