package main

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/llamacpp"
	"github.com/weighbridge/weighbridge/backends/ollama"
	"github.com/weighbridge/weighbridge/backends/process"
	"github.com/weighbridge/weighbridge/configs"
	"github.com/weighbridge/weighbridge/verifier/seal"
)

// backendFactory makes backends of the configured kinds, whose runtimes must be installed. Each launch has a directory
// of its own in dir; what is made at runtimes that others started has a name that begins with owner.
func backendFactory(cfg *configs.Gateway, dir, owner string, log *slog.Logger) (func(kind string) (backends.Backend, error), error) {
	kinds, programs := map[string]func() (backends.Backend, error){}, new(seal.Programs)
	if r := cfg.Runtimes.LlamaCPP; r != nil {
		if _, err := exec.LookPath(r.Command); err != nil {
			return nil, withHint(fmt.Errorf("runtimes.llamacpp.command: %w", err), "install llama-server, or name its path")
		}
		giveBack := r.KeepSealed != nil && !*r.KeepSealed
		as, err := runtimeUser(r.User)
		if err != nil {
			return nil, fmt.Errorf("runtimes.llamacpp.user: %w", err)
		}
		kinds[llamacpp.Kind] = func() (backends.Backend, error) {
			return llamacpp.New(llamacpp.Config{Command: r.Command, Programs: programs, RuntimeDir: dir, GiveBack: giveBack, User: as, Log: log})
		}
	}
	if r := cfg.Runtimes.Ollama; r != nil && r.Attached != "" {
		address, err := ollama.ParseAddress(r.Attached)
		if err != nil {
			return nil, fmt.Errorf("runtimes.ollama.attached: %w", err)
		}
		kinds[ollama.Kind] = func() (backends.Backend, error) {
			return ollama.NewAttached(ollama.AttachedConfig{Address: address, Owner: owner, Log: log})
		}
	} else if r != nil {
		if _, err := exec.LookPath(r.Command); err != nil {
			return nil, withHint(fmt.Errorf("runtimes.ollama.command: %w", err), "install Ollama, or name its path")
		}
		kinds[ollama.Kind] = func() (backends.Backend, error) {
			return ollama.New(ollama.Config{Command: r.Command, Programs: programs, RuntimeDir: dir, Log: log})
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

// runtimeUser looks a user up, by name or number; nil is the gateway's own.
func runtimeUser(name string) (*process.User, error) {
	if name == "" {
		return nil, nil
	}
	if os.Geteuid() != 0 {
		return nil, withHint(errors.New("only a gateway that runs as root can start a runtime as somebody else"), "leave it out, or run the gateway as root")
	}
	found, err := user.Lookup(name)
	if err != nil {
		var idErr error
		if found, idErr = user.LookupId(name); idErr != nil {
			return nil, withHint(err, "make a system user for runtimes, with nothing of its own")
		}
	}
	uid, err := strconv.Atoi(found.Uid)
	if err != nil {
		return nil, fmt.Errorf("user %s: %w", name, err)
	}
	gid, err := strconv.Atoi(found.Gid)
	if err != nil {
		return nil, fmt.Errorf("user %s: %w", name, err)
	}
	if uid == 0 {
		return nil, errors.New("is root: name a user with nothing of its own")
	}
	return &process.User{UID: uid, GID: gid}, nil
}

// ownerLength is how many hexadecimal digits of a digest tell gateways apart.
const ownerLength = 16

// ownerOf names a gateway to runtimes that others started: by its key, which it has to itself and keeps.
func ownerOf(key ed25519.PrivateKey) string {
	sum := sha256.Sum256(key.Public().(ed25519.PublicKey))
	return hex.EncodeToString(sum[:])[:ownerLength]
}
