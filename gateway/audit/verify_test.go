package audit_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/weighbridge/weighbridge/gateway/audit"
)

// verify verifies a log, and returns the problem with it, nil if there is none.
func verify(t *testing.T, dir string, older []byte) *audit.Problem {
	t.Helper()
	_, err := audit.Verify(dir, verifier(t), older)
	p := new(audit.Problem)
	if err != nil && !errors.As(err, &p) {
		t.Fatalf("Verify = %v, want a Problem", err)
	} else if err == nil {
		return nil
	}
	return p
}

// put replaces a file, and makes its directory.
func put(t *testing.T, data []byte, elem ...string) {
	t.Helper()
	path := filepath.Join(elem...)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o600)); err != nil {
		t.Fatal(err)
	}
}

// copyLog copies a log as an auditor would.
func copyLog(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	for _, name := range files(t, dir) {
		put(t, readFile(t, dir, name), to, name)
	}
	return to
}

// ofLog returns the files that belong to a log itself.
func ofLog(t *testing.T, dir string) []string {
	return slices.DeleteFunc(files(t, dir), func(name string) bool { return name == "lock" || name == "reserve" })
}

// TestVerifyEveryFile: a byte changed, added or taken away anywhere, or a file that is not there, is found in that file.
func TestVerifyEveryFile(t *testing.T) {
	dir := t.TempDir()
	create(t, dir)
	write(t, dir, 2*256+3)
	names := ofLog(t, dir)
	if want := "checkpoint tile/0/000 tile/0/001 tile/0/002.p/3 tile/1/000.p/2 tile/entries/000 tile/entries/001 tile/entries/002.p/3"; strings.Join(names, " ") != want {
		t.Fatalf("files = %v, want %s", names, want)
	}
	if p := verify(t, dir, nil); p != nil {
		t.Fatalf("Verify = %v", p)
	}
	for _, name := range names {
		whole := readFile(t, dir, name)
		check := func(what string, at int) {
			t.Helper()
			if p := verify(t, dir, nil); p == nil || p.File != name {
				t.Errorf("%s, %s at %d: Verify = %v, want a problem with that file", name, what, at, p)
			}
		}
		step := max(1, len(whole)/80) | 1
		for at := 0; at < len(whole); at += step {
			for _, bit := range []byte{1, 0x80} {
				broken := bytes.Clone(whole)
				broken[at] ^= bit
				put(t, broken, dir, name)
				check("a bit flipped", at)
			}
		}
		put(t, whole[:len(whole)-1], dir, name)
		check("a byte less", len(whole))
		put(t, append(bytes.Clone(whole), 0), dir, name)
		check("a byte more", len(whole))
		put(t, nil, dir, name)
		check("emptied", 0)
		os.Remove(filepath.Join(dir, name))
		check("removed", 0)
		put(t, whole, dir, name)
	}
	if p := verify(t, dir, nil); p != nil {
		t.Errorf("Verify of all put back = %v", p)
	}
}

// bundle returns what entries are written as.
func bundle(entries [][]byte) []byte {
	var all []byte
	for _, e := range entries {
		all = append(binary.BigEndian.AppendUint16(all, uint16(len(e))), e...)
	}
	return all
}

// TestVerifyRecords: records that are changed, dropped, inserted or moved are found, and the first of them is named.
func TestVerifyRecords(t *testing.T) {
	original := t.TempDir()
	create(t, original)
	write(t, original, 256+40)
	other, err := withdrawal(1000).Entry()
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name   string
		change func([][]byte) [][]byte
		want   int64 // in the tile; -1: nothing is wrong
	}{
		{"as they are", func(e [][]byte) [][]byte { return e }, -1},
		{"changed", func(e [][]byte) [][]byte { return slices.Replace(e, 7, 8, other) }, 7},
		{"dropped", func(e [][]byte) [][]byte { return slices.Delete(e, 9, 10) }, 9},
		{"the first dropped", func(e [][]byte) [][]byte { return e[1:] }, 0},
		{"inserted", func(e [][]byte) [][]byte { return slices.Insert(e, 11, other) }, 11},
		{"swapped", func(e [][]byte) [][]byte { e[13], e[14] = e[14], e[13]; return e }, 13},
		{"moved to the end", func(e [][]byte) [][]byte { return append(slices.Delete(e, 15, 16), e[15]) }, 15},
		{"repeated", func(e [][]byte) [][]byte { return slices.Insert(e, 17, e[16]) }, 17},
		{"all but one gone", func(e [][]byte) [][]byte { return e[:1] }, 1},
	}
	for _, tile := range []struct {
		name         string
		first, width int
	}{{"tile/entries/000", 0, 256}, {"tile/entries/001.p/40", 256, 40}} {
		entries, err := audit.ParseBundle(readFile(t, original, tile.name), tile.width)
		if err != nil {
			t.Fatal(err)
		}
		for _, tt := range tests {
			dir := copyLog(t, original)
			put(t, bundle(tt.change(slices.Clone(entries))), dir, tile.name)
			p := verify(t, dir, nil)
			if tt.want < 0 && p != nil || tt.want >= 0 && (p == nil || p.File != tile.name || p.Index != int64(tile.first)+tt.want) {
				t.Errorf("%s, %s: Verify = %v, want record %d", tile.name, tt.name, p, int64(tile.first)+tt.want)
			}
		}
	}
}

// TestVerifyWhole: a log that fits together is still refused if it is not the one that was signed, or has lost what is in
// a checkpoint that somebody kept.
func TestVerifyWhole(t *testing.T) {
	// One log as it grows, a copy and a checkpoint each time; the sizes are at, before and after the end of a tile.
	dir := t.TempDir()
	create(t, dir)
	sizes := []int{0, 200, 256, 300, 512, 515}
	var copies []string
	var checkpoints [][]byte
	for i, size := range sizes {
		if i > 0 {
			write(t, dir, size-sizes[i-1])
		}
		copies, checkpoints = append(copies, copyLog(t, dir)), append(checkpoints, readFile(t, dir, "checkpoint"))
	}
	for i, size := range sizes {
		for j, kept := range sizes {
			if p := verify(t, copies[i], checkpoints[j]); (p == nil) != (kept <= size) {
				t.Errorf("a log of %d against a checkpoint of %d = %v, want a problem: %t", size, kept, p, kept > size)
			}
		}
		// Without one that was kept, an older checkpoint is found by what else lies there.
		older := copyLog(t, dir)
		put(t, checkpoints[i], older, "checkpoint")
		if p := verify(t, older, nil); (p == nil) != (size == sizes[len(sizes)-1]) {
			t.Errorf("a checkpoint of %d put back = %v, want a problem", size, p)
		}
	}

	// Another log by the same key, and one by another key.
	last := checkpoints[len(checkpoints)-1]
	rewritten := t.TempDir()
	create(t, rewritten)
	write(t, rewritten, 100)
	write(t, rewritten, 415)
	if p := verify(t, rewritten, nil); p != nil {
		t.Fatalf("Verify = %v", p)
	}
	for i, size := range sizes {
		if p := verify(t, rewritten, checkpoints[i]); (p == nil) != (size == 0) {
			t.Errorf("another log against a checkpoint of %d = %v, want a problem: %t", size, p, size > 0)
		}
	}
	forger := config(t.TempDir())
	forger.Key = key("forger")
	if err := audit.Create(forger); err != nil {
		t.Fatal(err)
	}
	if p := verify(t, forger.Dir, nil); p == nil || p.File != "checkpoint" {
		t.Errorf("a log by another key = %v, want a problem with its checkpoint", p)
	}
	if p := verify(t, dir, readFile(t, forger.Dir, "checkpoint")); p == nil {
		t.Error("a checkpoint by another key counts")
	}
	if p := verify(t, dir, nil); p != nil {
		t.Errorf("Verify = %v", p)
	}
	if p := verify(t, dir, last[:len(last)-1]); p == nil {
		t.Error("half a checkpoint counts")
	}
	who, err := audit.NewVerifier(key("gateway").Public(), "weighbridge/another")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := audit.Verify(dir, who, nil); err == nil {
		t.Error("a log under another origin verifies")
	}
	if _, err := audit.Verify(dir, audit.Verifier{}, nil); err == nil {
		t.Error("a log verifies by no key")
	}
	if _, err := audit.NewVerifier(ed25519.PublicKey(nil), origin); err == nil {
		t.Error("NewVerifier of an empty key = nil")
	}
}

// TestVerifyRebuilt: whoever lacks the key can make all tiles fit another record, but not the checkpoint.
func TestVerifyRebuilt(t *testing.T) {
	dir := t.TempDir()
	create(t, dir)
	write(t, dir, 300)
	var entries [][]byte
	if _, _, err := audit.Read(dir, 0, func(_ int64, entry []byte) error { entries = append(entries, entry); return nil }); err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{3, 299} {
		changed := slices.Clone(entries)
		changed[at] = entries[at+1-2*(at/299)]
		_, written, err := audit.Grow(changed, len(changed))
		if err != nil {
			t.Fatal(err)
		}
		forged := copyLog(t, dir)
		for name, data := range written {
			put(t, data, forged, name)
		}
		if p := verify(t, forged, nil); p == nil || !strings.Contains(p.Why, "do not rebuild the root") {
			t.Errorf("record %d replaced, all tiles rebuilt: Verify = %v, want it refused", at, p)
		}
	}
}

// TestVerifyOthers: a file that the tree does not need is no place to hide something.
func TestVerifyOthers(t *testing.T) {
	dir := t.TempDir()
	create(t, dir)
	write(t, dir, 300)
	part := func(name string, width int) []byte {
		entries, err := audit.ParseBundle(readFile(t, dir, name), width)
		if err != nil {
			t.Fatal(err)
		}
		return bundle(entries[:5])
	}
	hashes := func(name string) []byte { return readFile(t, dir, name)[:5*32] }
	tests := []struct {
		name string
		data []byte
		ok   bool
	}{
		{"tile/entries/000.p/5", part("tile/entries/000", 256), true}, // a crash came before these were removed
		{"tile/entries/001.p/5", part("tile/entries/001.p/44", 44), true},
		{"tile/0/001.p/5", hashes("tile/0/001.p/44"), true},
		{"tile/entries/001.p/6", part("tile/entries/001.p/44", 44), false},
		{"tile/0/001.p/6", hashes("tile/0/001.p/44"), false},
		{"tile/0/001.p/5", hashes("tile/0/000"), false},
		{"tile/entries/001.p/5", part("tile/entries/000", 256), false},
		{"tile/entries/001.p/45", readFile(t, dir, "tile/entries/001.p/44"), false},
		{"tile/entries/001", readFile(t, dir, "tile/entries/001.p/44"), false},
		{"tile/0/002", readFile(t, dir, "tile/0/000"), false},
		{"tile/2/000.p/1", readFile(t, dir, "tile/0/000")[:32], false},
		{"tile/9/000.p/1", nil, false},
		{"tile/data/000", nil, false},
		{"tile/entries/1", nil, false},
		{"tile/notes.txt", []byte("mine"), false},
	}
	for _, tt := range tests {
		with := copyLog(t, dir)
		put(t, tt.data, with, tt.name)
		if p := verify(t, with, nil); (p == nil) != tt.ok || p != nil && p.File != tt.name {
			t.Errorf("with %s: Verify = %v, want a problem with it: %t", tt.name, p, !tt.ok)
		}
	}
}

// TestVerifyLive: a log that grows while it is verified is not taken for one that was tampered with.
func TestVerifyLive(t *testing.T) {
	dir := t.TempDir()
	create(t, dir)
	l := open(t, dir)
	done := make(chan error)
	go func() {
		var err error
		for n := 0; n < 600 && err == nil; n++ {
			_, err = l.Append(t.Context(), withdrawal(n))
		}
		done <- err
	}()
	var older []byte
	for verified := 0; ; verified++ {
		r, err := audit.Verify(dir, verifier(t), older)
		if err != nil {
			t.Fatalf("after %d times: Verify = %v", verified, err)
		}
		older = r.Checkpoint
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			if r, err := audit.Verify(dir, verifier(t), older); err != nil || r.Size != 600 {
				t.Errorf("Verify = %d, %v, want 600", r.Size, err)
			}
			return
		default:
		}
	}
}

// TestOpenDamaged: a log whose end is not as it was signed is not gone on with.
func TestOpenDamaged(t *testing.T) {
	original := t.TempDir()
	create(t, original)
	write(t, original, 300)
	early := readFile(t, original, "checkpoint")
	write(t, original, 400)
	flip := func(name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			data := readFile(t, dir, name)
			data[len(data)/2] ^= 1
			put(t, data, dir, name)
		}
	}
	tests := []struct {
		name   string
		damage func(*testing.T, string)
		file   string
	}{
		{"nothing", func(*testing.T, string) {}, ""},
		{"entries", flip("tile/entries/002.p/188"), "tile/entries/002.p/188"},
		{"hashes", flip("tile/0/002.p/188"), "tile/0/002.p/188"},
		{"hashes above", flip("tile/1/000.p/2"), "tile/1/000.p/2"},
		{"checkpoint", flip("checkpoint"), "checkpoint"},
		{"no entries", func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, "tile/entries/002.p/188")) }, "tile/entries/002.p/188"},
		{"older checkpoint", func(t *testing.T, dir string) { put(t, early, dir, "checkpoint") }, "tile/entries/001.p/44"},
		{"tiles far beyond", func(t *testing.T, dir string) { put(t, nil, dir, "tile/entries/003.p/189") }, "tile/entries/003.p/189"},
		{"tiles far beyond, above", func(t *testing.T, dir string) { put(t, nil, dir, "tile/1/000.p/4") }, "tile/1/000.p/4"},
		{"an interrupted write", func(t *testing.T, dir string) {
			put(t, nil, dir, "tile/entries/003.p/188")
			put(t, nil, dir, "tile/0/002")
			put(t, nil, dir, "tile/1/000.p/3")
			put(t, nil, dir, ".next")
		}, ""},
	}
	for _, tt := range tests {
		dir := copyLog(t, original)
		tt.damage(t, dir)
		before := strings.Join(files(t, dir), " ")
		err := opened(config(dir))
		p := new(audit.Problem)
		if tt.file == "" && err != nil || tt.file != "" && (!errors.As(err, &p) || !strings.Contains(p.File, tt.file)) {
			t.Errorf("%s: Open = %v, want a problem with %q", tt.name, err, tt.file)
		}
		if after := strings.Join(files(t, dir), " "); tt.file != "" && after != before {
			t.Errorf("%s: files = %s, and were %s", tt.name, after, before)
		}
		if tt.file == "" {
			l := open(t, dir)
			if _, err := l.Append(t.Context(), withdrawal(1)); err != nil {
				t.Errorf("%s: Append = %v", tt.name, err)
			}
			l.Close()
			whys(t, dir)
		}
	}
	c := config(original)
	c.Key = key("another")
	if p := new(audit.Problem); !errors.As(opened(c), &p) || p.File != "checkpoint" {
		t.Errorf("Open with another key = %v, want a problem with the checkpoint", p)
	}
}

// named signs notes by the key of that name. It implements [note.Signer].
type named struct {
	name string
	hash uint32
}

func (n named) Name() string                     { return n.name }
func (n named) KeyHash() uint32                  { return n.hash }
func (n named) Sign(text []byte) ([]byte, error) { return ed25519.Sign(key("gateway"), text), nil }

// TestCheckpoint: there is one way to write a checkpoint, even for who has the key.
func TestCheckpoint(t *testing.T) {
	encoded, err := note.NewEd25519VerifierKey(origin, key("gateway").Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	public, err := note.NewVerifier(encoded)
	if err != nil {
		t.Fatal(err)
	}
	const root = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
	tests := []struct{ name, text string }{
		{"valid", origin + "\n0\n" + root + "\n"},
		{"another origin", "weighbridge/another\n0\n" + root + "\n"},
		{"an extension", origin + "\n0\n" + root + "\nmore\n"},
		{"no root", origin + "\n0\n"},
		{"half a root", origin + "\n0\n47DEQg==\n"},
		{"a root with spare bits", origin + "\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFV=\n"},
		{"a negative size", origin + "\n-1\n" + root + "\n"},
		{"a size with zeros", origin + "\n00\n" + root + "\n"},
		{"a size that is none", origin + "\nx\n" + root + "\n"},
		{"a size that JSON can't carry", origin + "\n9007199254740993\n" + root + "\n"},
	}
	for _, tt := range tests {
		signed, err := note.Sign(&note.Note{Text: tt.text}, named{origin, public.KeyHash()})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := verifier(t).Checkpoint(signed); (err == nil) != (tt.name == "valid") {
			t.Errorf("%s: Checkpoint = %v", tt.name, err)
		}
		if tt.name != "valid" {
			continue
		}
		// Witnesses may sign it too, in any number that fits.
		witnessed := append(bytes.Clone(signed), "— witness.example/w Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"...)
		if _, err := verifier(t).Checkpoint(witnessed); err != nil {
			t.Errorf("with a witness: Checkpoint = %v", err)
		}
		for n := range 90 {
			witnessed = fmt.Appendf(witnessed, "— %s%d Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n", strings.Repeat("w", 1000), n)
		}
		if _, err := verifier(t).Checkpoint(witnessed); err == nil || !strings.Contains(err.Error(), "more than") {
			t.Errorf("with witnesses of 100 kB: Checkpoint = %v, want it too long", err)
		}
	}
}
