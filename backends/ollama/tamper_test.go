package ollama_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/ollama/ollama/api"
	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/backends/backendtest"
	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
	"github.com/weighbridge/weighbridge/verifier"
)

// runner returns the process that Ollama runs the model in.
func runner(t *testing.T, serve int) int {
	t.Helper()
	found := children(serve)
	if len(found) != 1 {
		t.Fatalf("ollama has the children %v, want one runner", found)
	}
	return found[0]
}

func children(pid int) (found []int) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, path := range tasks {
		data, _ := os.ReadFile(path) // it may have ended
		for _, field := range strings.Fields(string(data)) {
			child, _ := strconv.Atoi(field)
			found = append(found, child)
		}
	}
	return found
}

// TestSealedMemoryReachesRunner looks at Ollama's runner, two processes away: what it was told to open is a link to a
// descriptor that it inherited, and what it maps is that sealed memory.
func TestSealedMemoryReachesRunner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may look into a runtime")
	}
	s := start(t, backendtest.WriteModel(t, tinygguf.A), t.TempDir(), oneThread)
	pid := runner(t, s.Status().PID)
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		t.Fatal(err)
	}
	args := strings.Split(string(line), "\x00")
	model := args[slices.Index(args, "--model")+1]
	link, err := os.Readlink(fmt.Sprintf("/proc/%d/root%s", pid, model))
	if err != nil || !strings.HasPrefix(link, "/proc/self/fd/") {
		t.Fatalf("the model %s is %q, %v; want a link to a descriptor", model, link, err)
	}
	inherited := fmt.Sprintf("/proc/%d/fd/%s", pid, filepath.Base(link))
	file, err := os.Open(inherited)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	const want = unix.F_SEAL_WRITE | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL
	if seals, err := unix.FcntlInt(file.Fd(), unix.F_GET_SEALS, 0); err != nil || seals&want != want {
		t.Errorf("descriptor %s has seals %#x, %v; want at least %#x", link, seals, err, want)
	}
	var model256, sealed bytes.Buffer
	if err := tinygguf.Write(&model256, tinygguf.A); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(&sealed, file); err != nil || !bytes.Equal(sealed.Bytes(), model256.Bytes()) {
		t.Errorf("descriptor %s holds %d bytes, %v; want the model", link, sealed.Len(), err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil || !strings.Contains(string(maps), fmt.Sprintf(" %d ", st.Ino)) {
		t.Errorf("the runner does not map inode %d: %v", st.Ino, err)
	}
	checkAnswer(t, s, tinygguf.A.Sentence)
}

// TestOllamaAloneServesAlteredBlob shows what this package is for: Ollama loads a blob whose content is not what its name
// says. The same file is refused here, by its signature.
func TestOllamaAloneServesAlteredBlob(t *testing.T) {
	var model bytes.Buffer
	if err := tinygguf.Write(&model, tinygguf.A); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := writeStore(t, filepath.Join(dir, "models"), model.Bytes())
	signed := backendtest.Sign(t, path)
	ask := func() string {
		alone := backendtest.NewForeignOllama(t, dir)
		alone.Start()
		defer alone.Kill()
		var answer strings.Builder
		err := alone.Client().Chat(t.Context(), &api.ChatRequest{Model: "model", Messages: []api.Message{{Role: "user", Content: "hello"}}},
			func(r api.ChatResponse) error { answer.WriteString(r.Message.Content); return nil })
		if err != nil {
			t.Fatal(err)
		}
		return answer.String()
	}
	if got := ask(); got != tinygguf.A.Sentence {
		t.Fatalf("ollama alone answers %q, want %q", got, tinygguf.A.Sentence)
	}
	model.Reset()
	if err := errors.Join(tinygguf.Write(&model, tinygguf.B), os.WriteFile(path, model.Bytes(), 0o644)); err != nil {
		t.Fatal(err)
	}
	if got := ask(); got != tinygguf.B.Sentence {
		t.Errorf("ollama alone answers %q from an altered blob; it used to take it for the right one, and answer %q", got, tinygguf.B.Sentence)
	}
	var refused *verifier.Refused
	if _, err := backendtest.Admit(t, path, signed); !errors.As(err, &refused) {
		t.Errorf("Admit() of the altered blob = %v, want it refused", err)
	}
}

// writeStore writes a store as Ollama does and returns the path of the model's blob.
func writeStore(t *testing.T, dir string, model []byte) (path string) {
	t.Helper()
	write := func(name string, data []byte) {
		name = filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, data, 0o644)); err != nil {
			t.Fatal(err)
		}
		path = name
	}
	blob := func(media string, data []byte) map[string]any {
		sum := sha256.Sum256(data)
		write("blobs/sha256-"+hex.EncodeToString(sum[:]), data)
		return map[string]any{"mediaType": media, "digest": "sha256:" + hex.EncodeToString(sum[:]), "size": len(data)}
	}
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "config": blob("application/vnd.docker.container.image.v1+json", []byte(`{"model_format":"gguf"}`)),
		"layers": []any{blob("application/vnd.ollama.image.template", []byte(chatTemplate)), blob("application/vnd.ollama.image.model", model)},
	})
	if err != nil {
		t.Fatal(err)
	}
	blobPath := path
	write("manifests/registry.ollama.ai/library/model/latest", manifest)
	return blobPath
}
