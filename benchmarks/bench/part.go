package bench

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
)

// FindPart returns the path of a program that is not ours, which is fetched and built if it is not in the cache. The
// working directory is the repository's root.
func FindPart(ctx context.Context, name string, stderr io.Writer) (string, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(".ci", "parts"), name)
	cmd.Stderr = stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf(".ci/parts %s: %w; run this by make, in the repository's root", name, err)
	}
	return strings.TrimSpace(string(out)), nil
}
