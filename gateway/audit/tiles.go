package audit

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// Tiles are those of https://c2sp.org/tlog-tiles: 256 hashes, or the entries of 256 records.
const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
	entryLevel = -1 // what package tlog calls the level of the entries
)

// tilePath returns where a tile lies below the log's directory.
func tilePath(t tlog.Tile) string {
	path := strings.Replace(t.Path(), "tile/8/", "tile/", 1)
	return strings.Replace(path, "tile/data/", "tile/entries/", 1)
}

// parseTilePath is the reverse of tilePath, and accepts nothing else.
func parseTilePath(path string) (tlog.Tile, error) {
	rest, ok := strings.CutPrefix(path, "tile/")
	if !ok {
		return tlog.Tile{}, fmt.Errorf("%q is not the path of a tile", path)
	}
	t, err := tlog.ParseTilePath("tile/8/" + strings.Replace(rest, "entries/", "data/", 1))
	if err != nil || tilePath(t) != path {
		return tlog.Tile{}, fmt.Errorf("%q is not the path of a tile", path)
	}
	return t, nil
}

// levelSize returns how many hashes, or entries, a tree of size records has at a tile's level.
func levelSize(level int, size int64) int64 {
	shift := tileHeight * max(level, 0)
	if shift > 62 {
		return 0
	}
	return size >> shift
}

// partialTile returns the last tile of a level, which is not full; its W is 0 where there is none.
func partialTile(level int, size int64) tlog.Tile {
	n := levelSize(level, size)
	return tlog.Tile{H: tileHeight, L: level, N: n / tileWidth, W: int(n % tileWidth)}
}

// partialTiles returns all of them, the entries first.
func partialTiles(size int64) []tlog.Tile {
	var all []tlog.Tile
	for level := entryLevel; levelSize(level, size) > 0; level++ {
		if t := partialTile(level, size); t.W > 0 {
			all = append(all, t)
		}
	}
	return all
}

// A place is where a tile is, seen from a tree.
type place int

const (
	inside   place = iota // one of the tiles that the tree is written in
	outdated              // of a smaller tree: its contents are the beginning of one that is inside
	beyond                // some of it is not in the tree
)

func placeOf(t tlog.Tile, size int64) place {
	n := levelSize(t.L, size)
	switch end := t.N*tileWidth + int64(t.W); {
	case end > n:
		return beyond
	case t.W == tileWidth, t == partialTile(t.L, size):
		return inside
	default:
		return outdated
	}
}

// appendEntry adds an entry to a bundle.
func appendEntry(bundle, entry []byte) []byte {
	return append(binary.BigEndian.AppendUint16(bundle, uint16(len(entry))), entry...)
}

// nextEntry takes the first entry off a bundle.
func nextEntry(bundle []byte) (entry, rest []byte, err error) {
	if len(bundle) < 2 {
		return nil, nil, errors.New("the bundle ends early")
	}
	n := int(binary.BigEndian.Uint16(bundle))
	if n > len(bundle)-2 {
		return nil, nil, fmt.Errorf("the bundle has no entry of %d bytes", n)
	}
	return bundle[2 : 2+n], bundle[2+n:], nil
}

// parseBundle returns the width entries of a bundle.
func parseBundle(bundle []byte, width int) ([][]byte, error) {
	entries := make([][]byte, 0, width)
	for len(entries) < width {
		entry, rest, err := nextEntry(bundle)
		if err != nil {
			return nil, fmt.Errorf("entry %d of %d: %w", len(entries)+1, width, err)
		}
		entries, bundle = append(entries, entry), rest
	}
	if len(bundle) > 0 {
		return nil, fmt.Errorf("the bundle has %d bytes after entry %d", len(bundle), width)
	}
	return entries, nil
}

// emptyRoot is the root of a tree without records (RFC 6962 section 2.1).
var emptyRoot = tlog.Hash(sha256.Sum256(nil))

// treeHash returns the hash over a full tile.
func treeHash(tile []byte) tlog.Hash {
	if len(tile) == tlog.HashSize {
		return tlog.Hash(tile)
	}
	half := len(tile) / 2
	return tlog.NodeHash(treeHash(tile[:half]), treeHash(tile[half:]))
}

// hashAt returns one hash of a tile.
func hashAt(tile []byte, i int) tlog.Hash {
	return tlog.Hash(tile[i*tlog.HashSize:][:tlog.HashSize])
}

// A head is the end of a log: the tree of its checkpoint, and the tiles that are not full yet. It is never changed.
type head struct {
	tree       tlog.Tree
	checkpoint []byte // signed
	bundle     []byte // the entries that fill no tile
	tiles      [][]byte
}

// tile returns the hashes of t, if t is not full and in the head.
func (h *head) tile(t tlog.Tile) []byte {
	if t.L < 0 || t.L >= len(h.tiles) || t != partialTile(t.L, h.tree.N) {
		return nil
	}
	return h.tiles[t.L]
}

// hash returns a stored hash of a tile that is not full.
func (h *head) hash(index int64) (tlog.Hash, error) {
	least := tlog.TileForIndex(tileHeight, index)
	t := partialTile(least.L, h.tree.N)
	if t.N != least.N || t.W < least.W {
		return tlog.Hash{}, fmt.Errorf("hash %d is not at the end of the log", index)
	}
	return tlog.HashFromTile(t, h.tile(t), index)
}

// ReadHashes implements [tlog.HashReader] for what the root and the next record need.
func (h *head) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		var err error
		if hashes[i], err = h.hash(index); err != nil {
			return nil, err
		}
	}
	return hashes, nil
}

// A file is one to be written, its path below the log's directory.
type file struct {
	path string
	data []byte
}

// grow returns the head after more entries, not signed yet, and the tiles that are new.
func (h *head) grow(entries [][]byte) (*head, []file, error) {
	added := map[int64]tlog.Hash{}
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		hashes := make([]tlog.Hash, len(indexes))
		for i, index := range indexes {
			var ok bool
			var err error
			if hashes[i], ok = added[index]; !ok {
				hashes[i], err = h.hash(index)
			}
			if err != nil {
				return nil, err
			}
		}
		return hashes, nil
	})
	next := &head{tree: tlog.Tree{N: h.tree.N}, tiles: slices.Clone(h.tiles)}
	bundle := slices.Clip(h.bundle) // readers hold the old one
	var files []file
	for _, entry := range entries {
		hashes, err := tlog.StoredHashes(next.tree.N, entry, reader)
		if err != nil {
			return nil, nil, err
		}
		for i, first := 0, tlog.StoredHashIndex(0, next.tree.N); i < len(hashes); i++ {
			added[first+int64(i)] = hashes[i]
		}
		bundle = appendEntry(bundle, entry)
		if next.tree.N++; next.tree.N%tileWidth == 0 {
			t := tlog.Tile{H: tileHeight, L: entryLevel, N: next.tree.N/tileWidth - 1, W: tileWidth}
			files = append(files, file{tilePath(t), bundle})
			bundle = nil
		}
	}
	if next.bundle = bundle; len(bundle) > 0 {
		files = append(files, file{tilePath(partialTile(entryLevel, next.tree.N)), bundle})
	}
	for _, t := range tlog.NewTiles(tileHeight, h.tree.N, next.tree.N) {
		var data []byte
		if old := partialTile(t.L, h.tree.N); old.N == t.N {
			data = slices.Clip(h.tile(old))
		}
		for i := len(data) / tlog.HashSize; i < t.W; i++ {
			hash := added[tlog.StoredHashIndex(tileHeight*t.L, t.N*tileWidth+int64(i))]
			data = append(data, hash[:]...)
		}
		files = append(files, file{tilePath(t), data})
		for len(next.tiles) <= t.L {
			next.tiles = append(next.tiles, nil)
		}
		if next.tiles[t.L] = data; t.W == tileWidth {
			next.tiles[t.L] = nil
		}
	}
	var err error
	next.tree.Hash, err = tlog.TreeHash(next.tree.N, reader)
	return next, files, err
}

// A tileReader reads the tiles of a log, the ones that are not full out of its head. It implements [tlog.TileReader].
type tileReader struct {
	dir  string
	head *head
}

// Height implements [tlog.TileReader].
func (r tileReader) Height() int { return tileHeight }

// SaveTiles implements [tlog.TileReader]: nothing is kept.
func (r tileReader) SaveTiles([]tlog.Tile, [][]byte) {}

// ReadTiles implements [tlog.TileReader].
func (r tileReader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	all := make([][]byte, len(tiles))
	for i, t := range tiles {
		var err error
		if all[i] = r.head.tile(t); all[i] == nil {
			all[i], err = readTile(r.dir, t)
		}
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// readTile reads a tile of hashes, or the entries of one.
func readTile(dir string, t tlog.Tile) ([]byte, error) {
	path := tilePath(t)
	data, err := readFile(filepath.Join(dir, path), maxBundle)
	if err != nil {
		return nil, problemOf(err, path, firstRecord(t))
	}
	if want := t.W * tlog.HashSize; t.L != entryLevel && len(data) != want {
		return nil, &Problem{firstRecord(t), path, fmt.Sprintf("has %d bytes, want %d", len(data), want)}
	}
	return data, nil
}

// firstRecord returns the first record that a tile concerns.
func firstRecord(t tlog.Tile) int64 { return t.N * tileWidth << (tileHeight * max(t.L, 0)) }
