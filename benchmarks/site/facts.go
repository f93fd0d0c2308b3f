package site

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/weighbridge/weighbridge/benchmarks/bench"
)

// Facts are about the machine, with the disk on which the site lies, and about what is measured.
func (s *Site) Facts(ctx context.Context) []bench.Fact {
	return append(bench.Machine(s.Dir), s.Versions(ctx)...)
}

// Versions are those of what is measured.
func (p Parts) Versions(ctx context.Context) []bench.Fact {
	return []bench.Fact{
		{Name: "weighbridge", Value: Version(ctx, p.Weighbridge, "version")},
		{Name: "llama-server", Value: Version(ctx, p.Llama, "--version") + ", " + shortDigest(p.Llama)},
	}
}

// Version is the first line of what a program says about itself.
func Version(ctx context.Context, command string, args ...string) string {
	out, err := exec.CommandContext(ctx, command, args...).CombinedOutput()
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(string(bytes.TrimSpace(out)), "\n")
	return line
}

func shortDigest(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return "digest unknown"
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "digest unknown"
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)[:6])
}
