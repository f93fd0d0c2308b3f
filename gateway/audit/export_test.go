package audit

import "golang.org/x/mod/sumdb/tlog"

// Limits that tests fill.
const (
	MaxQueued  = maxQueued
	MaxRefused = maxRefused
)

// ParseBundle is what reads the entries of a tile.
var ParseBundle = parseBundle

// AppendEntry is what writes them.
var AppendEntry = appendEntry

// Grow adds entries to an empty log in batches, and returns its tree and every file that it wrote.
func Grow(entries [][]byte, batch int) (tlog.Tree, map[string][]byte, error) {
	h, files := &head{}, map[string][]byte{}
	for len(entries) > 0 {
		n := min(batch, len(entries))
		next, written, err := h.grow(entries[:n])
		if err != nil {
			return h.tree, files, err
		}
		for _, f := range written {
			files[f.path] = f.data
		}
		h, entries = next, entries[n:]
	}
	return h.tree, files, nil
}
