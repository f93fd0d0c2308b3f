package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
)

// fullLayers makes a model of 4.1 GB.
const fullLayers = 34

// modelConfig describes a model whose layers are as large as those of models that people serve, 122 MB each.
func modelConfig(layers int) tinygguf.Config {
	return tinygguf.Config{
		Sentence: tinygguf.A.Sentence, ChatTemplate: tinygguf.ChatTemplate,
		Embedding: 2048, Heads: 32, KVHeads: 8, FF: 8192, Layers: layers,
	}
}

// A modelFile is what all cases load.
type modelFile struct {
	path string
	size int64
}

// openModel returns the model of that configuration, which it writes if it is not in the cache yet.
func openModel(ctx context.Context, c tinygguf.Config, say func(string, ...any)) (modelFile, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return modelFile{}, fmt.Errorf("find cache directory: %w", err)
	}
	dir := filepath.Join(cache, "weighbridge", "models")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return modelFile{}, fmt.Errorf("make directory for models: %w", err)
	}
	path, err := modelPath(dir, c)
	if err != nil {
		return modelFile{}, err
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		say("writing a model of %d layers, once, to %s", c.Layers, path)
		if err := writeModel(ctx, path, c); err != nil {
			return modelFile{}, fmt.Errorf("write model (is there space for %d MB?): %w", 122*c.Layers, err)
		}
		info, err = os.Stat(path)
	}
	if err != nil {
		return modelFile{}, fmt.Errorf("find model: %w", err)
	}
	return modelFile{path, info.Size()}, nil
}

// modelPath names a model by a digest of its configuration, which determines all its bytes.
func modelPath(dir string, c tinygguf.Config) (string, error) {
	text, err := json.Marshal(c)
	if err != nil {
		return "", fmt.Errorf("name model: %w", err)
	}
	sum := sha256.Sum256(text)
	return filepath.Join(dir, "load-"+hex.EncodeToString(sum[:6])+".gguf"), nil
}

// writeModel writes to another name first. A crash leaves that file behind, which the next time is begun anew; the name
// itself, once it is there, is that of a whole model.
func writeModel(ctx context.Context, path string, c tinygguf.Config) error {
	unfinished := path + ".new"
	f, err := os.OpenFile(unfinished, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	err = tinygguf.Write(untilDone{ctx, f}, c)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(unfinished))
	}
	return os.Rename(unfinished, path)
}

// untilDone refuses to write once its context has ended.
type untilDone struct {
	ctx context.Context //nolint:containedctx // it lives as long as the one call that is given it
	f   *os.File
}

func (w untilDone) Write(p []byte) (int, error) {
	if w.ctx.Err() != nil {
		return 0, context.Cause(w.ctx)
	}
	return w.f.Write(p)
}
