package backendtest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
	"github.com/weighbridge/weighbridge/verifier"
)

// splitParts is how many files a split model has here.
const splitParts = 3

// WriteSplit writes a model, split as llama.cpp splits them, to a directory of its own, beside a file that is no part of
// it. It returns the directory and its parts' paths.
func WriteSplit(t testing.TB, c tinygguf.Config) (dir string, parts []string) {
	t.Helper()
	dir = t.TempDir()
	check(t, os.WriteFile(filepath.Join(dir, "README.md"), []byte("a model"), 0o644))
	for part := range splitParts {
		var buf bytes.Buffer
		check(t, tinygguf.WritePart(&buf, c, part, splitParts))
		parts = append(parts, filepath.Join(dir, tinygguf.PartName("tiny", part, splitParts)))
		check(t, os.WriteFile(parts[part], buf.Bytes(), 0o644))
	}
	return dir, parts
}

// split checks that a model in several files is served as one in one file is, or refused.
func (s Suite) split(t *testing.T) {
	dir, parts := WriteSplit(t, tinygguf.A)
	b, w := s.New(t, t.TempDir()), Seal(t, dir)
	for _, part := range parts {
		check(t, os.WriteFile(part, []byte("GGUF, not really"), 0o644))
	}
	err := b.Start(t.Context(), w, s.spec())
	check(t, w.Close())
	defer stop(t, b)
	if !s.starts(t, "a split model", err, "") {
		return
	}
	checkAnswer(t, b, Question("hello"), tinygguf.A.Sentence)
	for _, part := range parts {
		check(t, os.Remove(part))
	}
	s.crash(t, b)
	checkAnswer(t, b, Question("hello"), tinygguf.A.Sentence)
	s.checkReady(t, b, 1)
}

// splitBroken breaks one thing of a split model per row: after it was signed, which nothing gets past, and before, so that
// a runtime would be shown it.
func (s Suite) splitBroken(t *testing.T) {
	third := filepath.Base(tinygguf.PartName("tiny", 2, splitParts))
	tests := []struct {
		name  string
		spoil func(dir string, parts []string) error
		want  string // of Start, if it was signed so; empty: it starts
	}{
		{"a part is gone", func(_ string, parts []string) error { return os.Remove(parts[1]) }, "parts of one model"},
		{"the first part is gone", func(_ string, parts []string) error { return os.Remove(parts[0]) }, "parts of one model"},
		{"a part has another name", func(dir string, parts []string) error { return os.Rename(parts[2], filepath.Join(dir, "other-"+third)) }, "parts of one model"},
		{"two parts change places", func(dir string, parts []string) error {
			aside := filepath.Join(dir, "aside")
			return errors.Join(os.Rename(parts[1], aside), os.Rename(parts[2], parts[1]), os.Rename(aside, parts[2]))
		}, "ended while loading"},
		{"a part is cut short", func(_ string, parts []string) error { return os.Truncate(parts[2], 1000) }, "ended while loading"},
		{"a part more", func(dir string, _ []string) error {
			return os.WriteFile(filepath.Join(dir, tinygguf.PartName("tiny", 3, splitParts)), []byte("GGUF"), 0o600)
		}, "parts of one model"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir, parts := WriteSplit(t, tinygguf.A)
			signed := Sign(t, dir)
			check(t, tt.spoil(dir, parts))
			var refused *verifier.Refused
			if _, err := Admit(t, dir, signed); !errors.As(err, &refused) {
				t.Errorf("Admit() = %v, want it refused before a runtime starts", err)
			}
			b, w := s.New(t, t.TempDir()), Seal(t, dir)
			err := b.Start(t.Context(), w, s.spec())
			check(t, w.Close())
			if want, all := s.Refuses["a split model"]; all {
				tt.want = want
			}
			s.starts(t, tt.name, err, tt.want)
			checkGone(t, b, watch(t, b.Status().PID))
		})
	}
}

// ShardNames are the files of a model that [WriteShards] writes.
var ShardNames = []string{
	"config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json", "tokenizer.json",
}

// WriteShards writes a model in safetensors, of two shards, to a directory of its own, which it returns.
func WriteShards(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	write := func(i int, content string) {
		check(t, os.WriteFile(filepath.Join(dir, ShardNames[i]), []byte(content), 0o644))
	}
	write(0, `{"architectures":["LlamaForCausalLM"],"model_type":"llama"}`)
	write(1, shard("model.embed_tokens.weight"))
	write(2, shard("lm_head.weight"))
	write(3, fmt.Sprintf(`{"metadata":{"total_size":32},"weight_map":{"lm_head.weight":%q,"model.embed_tokens.weight":%q}}`, ShardNames[2], ShardNames[1]))
	write(4, `{"version":"1.0","model":{"type":"BPE","vocab":{},"merges":[]}}`)
	return dir
}

// shard is a safetensors file with one tensor: the length of its header, that, and the numbers.
func shard(tensor string) string {
	header := fmt.Sprintf(`{%q:{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}`, tensor)
	file := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return string(append(append(file, header...), make([]byte, 16)...))
}

// safetensors checks that weights which only other runtimes take are refused by saying so.
func (s Suite) safetensors(t *testing.T) {
	dir := WriteShards(t)
	for _, path := range []string{dir, filepath.Join(dir, ShardNames[1])} {
		b, w := s.New(t, t.TempDir()), Seal(t, path)
		err := b.Start(t.Context(), w, s.spec())
		check(t, w.Close())
		if !errors.Is(err, backends.ErrFailed) {
			t.Fatalf("Start() = %v, want ErrFailed", err)
		}
		s.starts(t, "safetensors", err, "convert to GGUF, and sign and release the result")
		checkGone(t, b, watch(t, b.Status().PID))
	}
}
