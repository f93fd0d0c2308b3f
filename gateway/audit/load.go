package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sys/unix"
)

// A Problem is where a log is not what its key signed.
type Problem struct {
	Index int64  // of the first record that it concerns
	File  string // below the log's directory
	Why   string
}

// Error implements error.
func (p *Problem) Error() string { return fmt.Sprintf("%s: %s (record %d)", p.File, p.Why, p.Index) }

// problemOf turns the error of reading a file that must be there into a Problem, unless it says that it can't be read.
func problemOf(err error, path string, index int64) error {
	errno := unix.Errno(0)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return &Problem{index, path, "is missing"}
	case err == nil, errors.As(err, &errno), errors.As(err, new(*Problem)):
		return err
	}
	return &Problem{index, path, err.Error()} // too long, or not a file
}

// loadHead reads a checkpoint, of which parse makes a tree, and the tiles at its end, which it does not check yet. The log
// may grow meanwhile: what was read is of one moment.
func loadHead(dir string, parse func([]byte) (tlog.Tree, error)) (*head, error) {
	path := filepath.Join(dir, checkpointName)
	for range maxReads {
		signed, err := readFile(path, maxCheckpoint)
		if err != nil {
			return nil, err
		}
		h := &head{checkpoint: signed}
		if h.tree, err = parse(signed); err != nil {
			return nil, &Problem{0, checkpointName, err.Error()}
		}
		err = h.load(dir)
		// Tiles go only after the checkpoint that doesn't need them has come.
		if again, aerr := readFile(path, maxCheckpoint); aerr != nil || bytes.Equal(again, signed) {
			return h, errors.Join(err, aerr)
		}
	}
	return nil, fmt.Errorf("%s changes too often to be read", path)
}

func (h *head) load(dir string) error {
	for _, t := range partialTiles(h.tree.N) {
		data, err := readTile(dir, t)
		if err != nil {
			return err
		}
		if t.L == entryLevel {
			h.bundle = data
			continue
		}
		for len(h.tiles) <= t.L {
			h.tiles = append(h.tiles, nil)
		}
		h.tiles[t.L] = data
	}
	return nil
}

// check makes sure that the tiles at the end rebuild the root that was signed, and that the entries are theirs.
func (h *head) check() error {
	root, err := tlog.TreeHash(h.tree.N, h)
	if err != nil {
		return err
	}
	if t := partialTile(entryLevel, h.tree.N); t.W > 0 {
		hashes := h.tiles[0]
		if i, why := firstWrong(h.bundle, hashes); why != "" {
			wrong := tilePath(t)
			if root != h.tree.Hash { // so it is the hashes, or more than the entries
				t.L = 0
				wrong = tilePath(t)
			}
			return &Problem{t.N*tileWidth + int64(i), wrong, why}
		}
	}
	if root == h.tree.Hash {
		return nil
	}
	var files []string
	for _, t := range partialTiles(h.tree.N) {
		if t.L != entryLevel {
			files = append(files, tilePath(t))
		}
	}
	files = append(files, checkpointName)
	return &Problem{h.tree.N, strings.Join(files, " or "), "the tiles do not rebuild the root that was signed"}
}

// firstWrong returns the first entry of a bundle that is not the one of the hashes, and why; "" if there is none.
func firstWrong(bundle, hashes []byte) (int, string) {
	width := len(hashes) / tlog.HashSize
	for i := range width {
		entry, rest, err := nextEntry(bundle)
		if err != nil {
			return i, err.Error()
		}
		if tlog.RecordHash(entry) != hashAt(hashes, i) {
			return i, "the record is not the one that was signed"
		}
		bundle = rest
	}
	if len(bundle) > 0 {
		return width - 1, fmt.Sprintf("%d bytes follow the last record", len(bundle))
	}
	return 0, ""
}
