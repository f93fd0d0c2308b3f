package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/mod/sumdb/tlog"
)

// A Report is what was verified: every record of a log, up to its checkpoint.
type Report struct {
	Origin     string
	Size       int64
	Root       tlog.Hash
	Checkpoint []byte // signed, to be kept for the next time
}

// Verify reads a whole log again, and returns nil only if each of its bytes is what the log's key signed. With an older
// checkpoint, kept somewhere else, it also makes sure that the log has only grown since. An error is a [*Problem] if
// something is wrong, and names the first place; any other error means that it could not be read.
//
// A gateway may write the log meanwhile: what it adds is not looked at. In a log that no gateway writes, anything beyond
// the checkpoint is a problem: a newer checkpoint is missing, or the gateway ended while it wrote, which its next start
// puts right.
func Verify(dir string, who Verifier, older []byte) (Report, error) {
	if _, err := os.Stat(dir); err != nil {
		return Report{}, fmt.Errorf("verify audit log: %w", err)
	}
	h, err := loadHead(dir, who.Checkpoint)
	if err != nil {
		return Report{}, fmt.Errorf("verify audit log: %w", problemOf(err, checkpointName, 0))
	}
	v := verification{dir: dir, head: h}
	for _, check := range []func() error{v.records, v.hashes, h.check, v.others} {
		if err := check(); err != nil {
			return Report{}, fmt.Errorf("verify audit log: %w", err)
		}
	}
	if older != nil {
		if err := v.grown(older, who); err != nil {
			return Report{}, fmt.Errorf("verify audit log: %w", err)
		}
	}
	return Report{who.origin, h.tree.N, h.tree.Hash, h.checkpoint}, nil
}

type verification struct {
	dir  string
	head *head
	full []tlog.Hash // over the full tiles of the level that was checked last
}

// tiles calls check for each tile of a level, in order.
func (v *verification) tiles(level int, check func(tlog.Tile) error) error {
	n := levelSize(level, v.head.tree.N)
	for i := int64(0); i*tileWidth < n; i++ {
		if err := check(tlog.Tile{H: tileHeight, L: level, N: i, W: int(min(n-i*tileWidth, tileWidth))}); err != nil {
			return err
		}
	}
	return nil
}

func (v *verification) read(t tlog.Tile) ([]byte, error) {
	if data := v.head.tile(t); data != nil {
		return data, nil
	}
	if t.L == entryLevel && t == partialTile(entryLevel, v.head.tree.N) {
		return v.head.bundle, nil
	}
	return readTile(v.dir, t)
}

// records holds every entry against its hash.
func (v *verification) records() error {
	return v.tiles(0, func(t tlog.Tile) error {
		hashes, err := v.read(t)
		if err != nil {
			return err
		}
		entries := t
		entries.L = entryLevel
		bundle, err := v.read(entries)
		if err != nil {
			return err
		}
		if i, why := firstWrong(bundle, hashes); why != "" {
			wrong := entries
			if !v.vouched(t, hashes) {
				wrong = t
			}
			return &Problem{t.N*tileWidth + int64(i), tilePath(wrong), why}
		}
		if t.W == tileWidth {
			v.full = append(v.full, treeHash(hashes))
		}
		return nil
	})
}

// vouched reports whether hashes of records are those that the tree above them has.
func (v *verification) vouched(t tlog.Tile, hashes []byte) bool {
	if t.W < tileWidth {
		root, err := tlog.TreeHash(v.head.tree.N, v.head)
		return err == nil && root == v.head.tree.Hash
	}
	size := levelSize(1, v.head.tree.N)
	above := tlog.Tile{H: tileHeight, L: 1, N: t.N / tileWidth}
	above.W = int(min(size-above.N*tileWidth, tileWidth))
	data, err := v.read(above)
	return err == nil && hashAt(data, int(t.N%tileWidth)) == treeHash(hashes)
}

// hashes holds every hash above the records against the tile that it is over.
func (v *verification) hashes() error {
	for level := 1; levelSize(level, v.head.tree.N) > 0; level++ {
		var next []tlog.Hash
		err := v.tiles(level, func(t tlog.Tile) error {
			data, err := v.read(t)
			if err != nil {
				return err
			}
			for i := range t.W {
				below := t.N*tileWidth + int64(i)
				if hashAt(data, i) != v.full[below] {
					file := tilePath(tlog.Tile{H: tileHeight, L: level - 1, N: below, W: tileWidth})
					return &Problem{below << (tileHeight * level), tilePath(t), "does not have the hash of " + file}
				}
			}
			if t.W == tileWidth {
				next = append(next, treeHash(data))
			}
			return nil
		})
		if err != nil {
			return err
		}
		v.full = next
	}
	return nil
}

// others makes sure that no file is there but those, and the beginnings of them that a crash may have left.
func (v *verification) others() error {
	return walkTiles(v.dir, func(path string, t tlog.Tile, err error) error {
		if err != nil {
			return &Problem{0, path, "does not belong to the log"}
		}
		switch placeOf(t, v.head.tree.N) {
		case inside:
			return nil
		case beyond:
			// Of a log that grows it is not known yet. The order matters: a gateway that has just ended has written its checkpoint.
			live := held(v.dir)
			now, err := readFile(filepath.Join(v.dir, checkpointName), maxCheckpoint)
			if live || err == nil && !bytes.Equal(now, v.head.checkpoint) {
				return nil
			}
			return &Problem{v.head.tree.N, path, fmt.Sprintf("is beyond the %d records of the checkpoint: either that is an old one, or the gateway ended while it wrote and was not started since", v.head.tree.N)}
		}
		return v.prefix(t)
	})
}

// prefix makes sure that an outdated tile is the beginning of the one that has replaced it.
func (v *verification) prefix(t tlog.Tile) error {
	data, err := readFile(filepath.Join(v.dir, tilePath(t)), maxBundle)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // by now
	} else if err != nil {
		return problemOf(err, tilePath(t), firstRecord(t))
	}
	now := t
	now.W = int(min(levelSize(t.L, v.head.tree.N)-t.N*tileWidth, tileWidth))
	whole, err := v.read(now)
	if err != nil {
		return err
	}
	ok := bytes.HasPrefix(whole, data)
	if t.L == entryLevel {
		_, err := parseBundle(data, t.W)
		ok = ok && err == nil
	} else {
		ok = ok && len(data) == t.W*tlog.HashSize
	}
	if !ok {
		return &Problem{firstRecord(t), tilePath(t), "is not the beginning of " + tilePath(now)}
	}
	return nil
}

// grown makes sure that the log is the one of an older checkpoint, and more.
func (v *verification) grown(older []byte, who Verifier) error {
	const file = "the older checkpoint"
	old, err := who.Checkpoint(older)
	if err != nil {
		return &Problem{0, file, err.Error()}
	}
	tree := v.head.tree
	if old.N > tree.N {
		return &Problem{tree.N, checkpointName, fmt.Sprintf("the log was rolled back: it has %d records, and had %d", tree.N, old.N)}
	}
	rewritten := &Problem{0, checkpointName, fmt.Sprintf("the log was rewritten: its first %d records are not those of the older checkpoint", old.N)}
	if old.N == 0 || old.N == tree.N {
		if empty := (tlog.Tree{Hash: emptyRoot}); old != tree && old != empty {
			return rewritten
		}
		return nil
	}
	proof, err := tlog.ProveTree(tree.N, old.N, tlog.TileHashReader(tree, tileReader{v.dir, v.head}))
	if err != nil {
		return err
	}
	if tlog.CheckTree(proof, tree.N, tree.Hash, old.N, old.Hash) != nil {
		return rewritten
	}
	return nil
}

// walkTiles calls visit for each file below tile/: as a tile, or with an error if it has no tile's name.
func walkTiles(dir string, visit func(path string, t tlog.Tile, err error) error) error {
	err := filepath.WalkDir(filepath.Join(dir, tileName), func(name string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone since its directory was read
		}
		if err != nil || e.IsDir() {
			return err
		}
		path, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		t, err := parseTilePath(filepath.ToSlash(path))
		return visit(path, t, err)
	})
	return err
}
