package audit_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/weighbridge/weighbridge/gateway/audit"
)

const origin = "weighbridge/test"

// key returns the key of that name, always the same.
func key(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func config(dir string) audit.Config {
	return audit.Config{Dir: dir, Origin: origin, Key: key("gateway"), Reserve: 64 << 10}
}

func verifier(t testing.TB) audit.Verifier {
	t.Helper()
	who, err := audit.NewVerifier(key("gateway").Public(), origin)
	if err != nil {
		t.Fatal(err)
	}
	return who
}

// create makes an empty log.
func create(t testing.TB, dir string) {
	t.Helper()
	if err := audit.Create(config(dir)); err != nil {
		t.Fatal(err)
	}
}

// open opens a log until the test ends.
func open(t testing.TB, dir string) *audit.Log {
	t.Helper()
	l, err := audit.Open(config(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// withdrawal is a record that is told apart by its number.
func withdrawal(n int) audit.Record {
	return audit.Record{Time: time.Unix(int64(n), 0), Kind: audit.KindWithdrawal, Channel: "chat", Why: fmt.Sprint("number ", n)}
}

// write adds n records to a log, under as few checkpoints as possible.
func write(t testing.TB, dir string, n int) {
	t.Helper()
	l := open(t, dir)
	for i := range n {
		l.Note(withdrawal(i))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// whys returns the reasons of all records, of a log that verifies.
func whys(t testing.TB, dir string) []string {
	t.Helper()
	report, err := audit.Verify(dir, verifier(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	all := []string{}
	_, size, err := audit.Read(dir, 0, func(index int64, entry []byte) error {
		r, err := audit.ParseRecord(entry)
		if index != int64(len(all)) {
			t.Errorf("record %d comes after %d others", index, len(all))
		}
		all = append(all, r.Why)
		return err
	})
	if err != nil || size != report.Size || len(all) != int(size) {
		t.Fatalf("Read = %d records of %d, %v, want %d", len(all), size, err, report.Size)
	}
	return all
}

func readFile(t testing.TB, elem ...string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestGrow: however records are batched, the tree is the one of RFC 6962 over them, and the tiles are those of the format.
func TestGrow(t *testing.T) {
	const size = 70_000 // with two tiles above each other that are full
	entries := make([][]byte, size)
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		var hashes []tlog.Hash
		for _, i := range indexes {
			hashes = append(hashes, stored[i])
		}
		return hashes, nil
	})
	for i := range entries {
		entries[i] = fmt.Appendf(nil, "entry %d", i)
		hashes, err := tlog.StoredHashes(int64(i), entries[i], reader)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, hashes...)
	}
	root, err := tlog.TreeHash(size, reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, batch := range []int{7, 256, 1000} {
		tree, files, err := audit.Grow(entries, batch)
		if err != nil || tree != (tlog.Tree{N: size, Hash: root}) {
			t.Fatalf("in batches of %d: %v, %v, want root %v", batch, tree, err, root)
		}
		// The example of the format: what a tree of 70,000 is written in.
		for path, tile := range map[string]tlog.Tile{
			"tile/0/000":       {H: 8, L: 0, N: 0, W: 256},
			"tile/0/272":       {H: 8, L: 0, N: 272, W: 256},
			"tile/0/273.p/112": {H: 8, L: 0, N: 273, W: 112},
			"tile/1/000":       {H: 8, L: 1, N: 0, W: 256},
			"tile/1/001.p/17":  {H: 8, L: 1, N: 1, W: 17},
			"tile/2/000.p/1":   {H: 8, L: 2, N: 0, W: 1},
		} {
			want, err := tlog.ReadTileData(tile, reader)
			if err != nil || !bytes.Equal(files[path], want) {
				t.Errorf("in batches of %d: %s is not that tile: %v", batch, path, err)
			}
		}
		for path, first := range map[string]int{"tile/entries/000": 0, "tile/entries/272": 272 * 256, "tile/entries/273.p/112": 273 * 256} {
			width := min(256, size-first)
			got, err := audit.ParseBundle(files[path], width)
			if err != nil || !bytes.Equal(bytes.Join(got, nil), bytes.Join(entries[first:first+width], nil)) {
				t.Errorf("in batches of %d: %s does not hold its entries: %v", batch, path, err)
			}
		}
	}
}

// TestFormat holds what is on disk against the text of the specifications, byte by byte.
func TestFormat(t *testing.T) {
	dir := t.TempDir()
	create(t, dir)
	l := open(t, dir)
	index, err := l.Append(t.Context(), audit.Record{Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600)), Kind: audit.KindStop, Why: `"so"`, Channel: "chat"})
	if err != nil || index != 0 {
		t.Fatalf("Append = %d, %v, want 0", index, err)
	}
	entry := `{"channel":"chat","kind":"stop","time":"2026-01-02T02:04:05Z","why":"\"so\""}`
	if got, want := readFile(t, dir, "tile/entries/000.p/1"), "\x00"+string(rune(len(entry)))+entry; string(got) != want {
		t.Errorf("entries = %q, want %q", got, want)
	}
	leaf := sha256.Sum256([]byte("\x00" + entry))
	if got := readFile(t, dir, "tile/0/000.p/1"); !bytes.Equal(got, leaf[:]) {
		t.Errorf("hashes = %x, want %x", got, leaf)
	}
	text := fmt.Sprintf("%s\n1\n%s\n\n— %s ", origin, tlog.Hash(leaf), origin)
	if got := readFile(t, dir, "checkpoint"); !strings.HasPrefix(string(got), text) {
		t.Errorf("checkpoint = %q, want it to begin with %q", got, text)
	}
}

func TestAppend(t *testing.T) {
	dir := t.TempDir()
	create(t, dir)
	l := open(t, dir)
	const callers, each = 16, 40
	var mu sync.Mutex
	want := make([]string, callers*each)
	var group sync.WaitGroup
	for c := range callers {
		group.Go(func() {
			for n := range each {
				r := withdrawal(c*each + n)
				index, err := l.Append(context.Background(), r)
				if err != nil {
					t.Errorf("Append = %v", err)
					return
				}
				mu.Lock()
				want[index] = r.Why
				mu.Unlock()
				if size := l.Status().Size; size <= index {
					t.Errorf("record %d was acknowledged, and the log has %d", index, size)
				}
			}
		})
	}
	group.Wait()
	// While it is open: what is acknowledged is on disk.
	if got := whys(t, dir); strings.Join(got, ",") != strings.Join(want, ",") {
		t.Errorf("records = %q, want %q", got, want)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(t.Context(), withdrawal(0)); !errors.Is(err, audit.ErrClosed) {
		t.Errorf("Append after Close = %v, want ErrClosed", err)
	}
	// It goes on where it ended.
	index, err := open(t, dir).Append(t.Context(), withdrawal(9))
	if err != nil || index != callers*each {
		t.Errorf("Append after Open = %d, %v, want %d", index, err, callers*each)
	}
	if got := whys(t, dir); len(got) != callers*each+1 {
		t.Errorf("%d records, want %d", len(got), callers*each+1)
	}
}

// TestOneAtATime: each record under a checkpoint of its own, over the end of a tile, leaves exactly the files of the tree.
func TestOneAtATime(t *testing.T) {
	dir := t.TempDir()
	create(t, dir)
	l := open(t, dir)
	for n := range 258 {
		if _, err := l.Append(t.Context(), withdrawal(n)); err != nil {
			t.Fatal(err)
		}
	}
	want := "checkpoint lock reserve tile/0/000 tile/0/001.p/2 tile/1/000.p/1 tile/entries/000 tile/entries/001.p/2"
	if got := strings.Join(files(t, dir), " "); got != want {
		t.Errorf("files = %s, want %s", got, want)
	}
	if _, err := os.Stat(filepath.Join(dir, "tile/entries/000.p")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory of partial tiles: %v, want it gone", err)
	}
	whys(t, dir)
}

// files returns the paths of all files, sorted.
func files(t testing.TB, dir string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			all = append(all, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestCanceled: who no longer waits gets an answer at once.
func TestCanceled(t *testing.T) {
	dir := t.TempDir()
	create(t, dir)
	l := open(t, dir)
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	cancel(gone)
	if _, err := l.Append(ctx, withdrawal(1)); err != nil && !errors.Is(err, gone) {
		t.Errorf("Append = %v, want %v or nil", err, gone)
	}
	if _, err := l.Append(t.Context(), withdrawal(2)); err != nil {
		t.Errorf("Append = %v", err)
	}
}

func TestCreate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state", "audit")
	if _, err := audit.Open(config(dir)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open of nothing = %v, want ErrNotExist", err)
	}
	create(t, dir)
	if err := audit.Create(config(dir)); !errors.Is(err, audit.ErrExists) {
		t.Errorf("Create again = %v, want ErrExists", err)
	}
	l := open(t, dir)
	if _, err := audit.Open(config(dir)); err == nil || !strings.Contains(err.Error(), "in use by another gateway") {
		t.Errorf("Open twice = %v, want it in use", err)
	}
	if _, err := l.Append(t.Context(), withdrawal(1)); err != nil {
		t.Fatal(err)
	}
	l.Close()
	os.Remove(filepath.Join(dir, "checkpoint"))
	if err := audit.Create(config(dir)); !errors.Is(err, audit.ErrExists) {
		t.Errorf("Create over tiles = %v, want ErrExists", err)
	}
	if p := new(audit.Problem); !errors.As(opened(config(dir)), &p) || p.File != "checkpoint" {
		t.Errorf("Open without checkpoint = %v, want a problem with it", p)
	}
}

// opened returns why a log can't be opened.
func opened(c audit.Config) error {
	l, err := audit.Open(c)
	if err == nil {
		l.Close()
	}
	return err
}

func TestConfig(t *testing.T) {
	dir := t.TempDir()
	tests := []struct {
		name   string
		change func(*audit.Config)
		want   string
	}{
		{"valid", func(*audit.Config) {}, ""},
		{"no directory", func(c *audit.Config) { c.Dir = "" }, "no directory"},
		{"no key", func(c *audit.Config) { c.Key = nil }, "no key"},
		{"no origin", func(c *audit.Config) { c.Origin = "" }, `"" is not weighbridge/ and a name`},
		{"another's origin", func(c *audit.Config) { c.Origin = "example.com/log" }, "is not weighbridge/ and a name"},
		{"no name", func(c *audit.Config) { c.Origin = "weighbridge/" }, "is not weighbridge/ and a name"},
		{"a space", func(c *audit.Config) { c.Origin = "weighbridge/a b" }, "is not weighbridge/ and a name"},
		{"a plus", func(c *audit.Config) { c.Origin = "weighbridge/a+b" }, "is not weighbridge/ and a name"},
		{"two problems", func(c *audit.Config) { c.Dir, c.Key = "", nil }, "no directory\nno key"},
	}
	for i, tt := range tests {
		c := config(filepath.Join(dir, fmt.Sprint(i)))
		tt.change(&c)
		err := audit.Create(c)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: Create = %v, want %q", tt.name, err, tt.want)
		}
	}
}

// TestProve: each record is proved against the log's checkpoint, and nothing else is.
func TestProve(t *testing.T) {
	dir := t.TempDir()
	create(t, dir)
	write(t, dir, 300)
	l, who := open(t, dir), verifier(t)
	for _, index := range []int64{0, 1, 255, 256, 299} {
		p, err := l.Prove(index)
		if err != nil {
			t.Fatal(err)
		}
		entry, err := withdrawal(int(index)).Entry()
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if p, err = audit.ParseProof(text); err != nil {
			t.Fatal(err)
		}
		if err := p.Check(entry, who); err != nil {
			t.Errorf("Check(%d) = %v", index, err)
		}
		another, err := withdrawal(1000).Entry()
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Check(another, who); err == nil {
			t.Errorf("Check(%d) of another record = nil", index)
		}
		for name, change := range map[string]func(*audit.Proof){
			"index":      func(p *audit.Proof) { p.Index = (p.Index + 1) % p.Size },
			"below":      func(p *audit.Proof) { p.Index = -1 },
			"above":      func(p *audit.Proof) { p.Index = p.Size },
			"size":       func(p *audit.Proof) { p.Size++ },
			"hash":       func(p *audit.Proof) { p.Hashes[0][0] ^= 1 },
			"hashes":     func(p *audit.Proof) { p.Hashes = p.Hashes[1:] },
			"checkpoint": func(p *audit.Proof) { p.Checkpoint = strings.Replace(p.Checkpoint, "\n300\n", "\n301\n", 1) },
			"unsigned":   func(p *audit.Proof) { p.Checkpoint = "" },
		} {
			broken := p
			broken.Hashes = append(tlog.RecordProof{}, p.Hashes...)
			change(&broken)
			if err := broken.Check(entry, who); err == nil {
				t.Errorf("Check(%d) with another %s = nil", index, name)
			}
		}
		if err := p.Check(entry, audit.Verifier{}); err == nil {
			t.Errorf("Check(%d) by nobody = nil", index)
		}
	}
	for _, index := range []int64{-1, 300} {
		if _, err := l.Prove(index); err == nil {
			t.Errorf("Prove(%d) = nil", index)
		}
	}
}
