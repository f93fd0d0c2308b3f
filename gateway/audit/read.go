package audit

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/mod/sumdb/tlog"
)

// Origin returns the origin that a log's checkpoint claims. Which key signed it is for [Verify].
func Origin(dir string) (string, error) {
	if _, err := os.Stat(dir); err != nil {
		return "", fmt.Errorf("read audit log: %w", err)
	}
	signed, err := readFile(filepath.Join(dir, checkpointName), maxCheckpoint)
	if err != nil {
		return "", fmt.Errorf("read audit log: %w", problemOf(err, checkpointName, 0))
	}
	origin, _, err := unverified(signed)
	if err == nil {
		err = checkOrigin(origin)
	}
	if err != nil {
		return "", fmt.Errorf("read audit log: %w", &Problem{0, checkpointName, err.Error()})
	}
	return origin, nil
}

// Read calls visit for each entry of a log from an index on, in order, for [ParseRecord]. It verifies nothing: that is
// for [Verify]. It returns the origin and the size that the checkpoint names.
func Read(dir string, from int64, visit func(index int64, entry []byte) error) (origin string, size int64, err error) {
	h, err := loadHead(dir, func(signed []byte) (tree tlog.Tree, err error) {
		origin, tree, err = unverified(signed)
		return tree, err
	})
	if err != nil {
		return "", 0, fmt.Errorf("read audit log: %w", err)
	}
	v := verification{dir: dir, head: h}
	size = h.tree.N
	for first := max(from, 0) / tileWidth * tileWidth; first < size; first += tileWidth {
		t := tlog.Tile{H: tileHeight, L: entryLevel, N: first / tileWidth, W: int(min(size-first, tileWidth))}
		bundle, err := v.read(t)
		if err != nil {
			return "", 0, fmt.Errorf("read audit log: %w", err)
		}
		entries, err := parseBundle(bundle, t.W)
		if err != nil {
			return "", 0, fmt.Errorf("read audit log: %s: %w", tilePath(t), err)
		}
		for i, entry := range entries {
			if index := first + int64(i); index >= from {
				if err := visit(index, entry); err != nil {
					return "", 0, err
				}
			}
		}
	}
	return origin, size, nil
}

// Records calls visit for each record that is in the log, in order, but for those that a later version wrote. It verifies
// nothing.
func (l *Log) Records(visit func(Record) error) error {
	_, _, err := Read(l.config.Dir, 0, func(_ int64, entry []byte) error {
		r, err := ParseRecord(entry)
		if err != nil {
			return nil //nolint:nilerr // of a kind that this version does not know
		}
		return visit(r)
	})
	return err
}
