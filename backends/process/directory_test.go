package process_test

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"testing"

	"github.com/weighbridge/weighbridge/backends/backendtest"
	"github.com/weighbridge/weighbridge/backends/process"
)

// list says what is in a directory, what each file holds, and whether it can be written to.
func list(dir string) {
	files, err := os.ReadDir(dir)
	fmt.Println(len(files), "files", err)
	for _, f := range files {
		data, err := os.ReadFile(filepath.Join(dir, f.Name()))
		_, writeErr := os.OpenFile(filepath.Join(dir, f.Name()), os.O_WRONLY, 0)
		fmt.Printf("%s %x %v %t\n", f.Name(), sha256.Sum256(data), err, writeErr == nil)
	}
}

// TestWeightsAsDirectory shows sealed weights of several files, as runtimes that take safetensors want them: a directory of
// links, under their own names, to memory that is theirs alone. The files on disk count for nothing.
func TestWeightsAsDirectory(t *testing.T) {
	dir := backendtest.WriteShards(t)
	w := backendtest.Seal(t, dir)
	executable := copyOfSelf()
	defer executable.Close()
	lines := newLineLog()
	c := process.Config{Exec: executable, Name: standin, Args: []string{"list", "model"}, Dir: t.TempDir(), Log: lines.logger(), Links: map[string]int{}}
	var want []string
	for _, name := range backendtest.ShardNames {
		f, err := w.Dup(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		c.Links[path.Join("model", name)] = len(c.Files)
		c.Files = append(c.Files, f)
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, fmt.Sprintf("%s %x <nil> false", name, sha256.Sum256(data)))
		if err := os.WriteFile(filepath.Join(dir, name), []byte("altered"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p, err := process.Start(c)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop(t.Context())
	lines.waitFor(t, fmt.Sprint(len(want), " files <nil>"))
	for _, line := range want {
		lines.waitFor(t, line)
	}
}
