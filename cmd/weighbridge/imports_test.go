package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/weighbridge/weighbridge/"

// layers are the packages from the bottom up: each may import those in its own line and above it in this list, which
// is the design's cmd → gateway → catalog → backends → verifier, read backwards.
var layers = [][]string{
	{"verifier"},
	{"backends"},
	{"gateway/audit", "gateway/fair"}, // what is recorded, and shared, by the rest of the gateway
	{"gateway/catalog"},
	{"gateway", "proto"},
	{"configs"},
	{"cmd", "benchmarks"},
}

// layer returns the height of a package of this module, by the longest prefix that names it.
func layer(path string) int {
	found, length := -1, 0
	for height, prefixes := range layers {
		for _, prefix := range prefixes {
			if (path == prefix || strings.HasPrefix(path, prefix+"/")) && len(prefix) > length {
				found, length = height, len(prefix)
			}
		}
	}
	return found
}

// TestImportsFollowTheDesign keeps the arrows one-way. This package imports every other, so a change anywhere rebuilds
// the test and go test can't answer from its cache.
func TestImportsFollowTheDesign(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports,Doc,Name", module+"...").Output()
	if err != nil {
		t.Fatal(err)
	}
	packages := 0
	for dec := json.NewDecoder(bytes.NewReader(out)); ; packages++ {
		var p struct {
			ImportPath, Doc, Name string
			Imports               []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		from := strings.TrimPrefix(p.ImportPath, module)
		if layer(from) < 0 {
			t.Errorf("%s is in no layer of the design", from)
		}
		if p.Doc == "" {
			t.Errorf("%s has no package comment", from)
		}
		for _, path := range p.Imports {
			if strings.HasPrefix(path, "github.com/ollama/ollama/") && path != "github.com/ollama/ollama/api" {
				t.Errorf("%s imports %s: Ollama is driven by its API, and runs in a process of its own", from, path)
			}
			to, ours := strings.CutPrefix(path, module)
			if !ours {
				continue
			}
			if layer(to) > layer(from) {
				t.Errorf("%s imports %s: the design's arrows go the other way", from, to)
			}
			if layer(to) == layer("configs") && layer(from) != layer("cmd") {
				t.Errorf("%s imports %s: only cmd reads configuration", from, to)
			}
		}
	}
	if packages < 15 {
		t.Errorf("go list found %d packages, want all of them", packages)
	}
}
