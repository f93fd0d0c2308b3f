package seal_test

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/weighbridge/weighbridge/verifier/seal"
)

// Where there is swap, weights are locked for as long as they are in memory, and no longer.
func TestPinned(t *testing.T) {
	const size = 16 * mib
	content := map[string]string{"w.gguf": strings.Repeat("0123456789abcdef", size/16), "empty": ""}
	pool := seal.NewPool(64 * mib)
	pool.Pin()
	before := locked(t)
	w, err := pool.Load(t.Context(), manifest(t, content), newSource(t, content), seal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if locked(t) == before {
		t.Skip("this process may not lock so much memory")
	}
	for _, when := range []string{"sealed", "in huge pages", "warm"} {
		if got, used := locked(t)-before, pool.Usage(); got != size || used.Pinned != size {
			t.Errorf("%s: %d bytes are locked, %d are said to be; want %d", when, got, used.Pinned, size)
		}
		switch when {
		case "sealed":
			w.Enlarge(t.Context())
		case "in huge pages":
			w.Close()
		}
	}
	pool.Close()
	if got, used := locked(t)-before, pool.Usage(); got != 0 || used.Pinned != 0 {
		t.Errorf("given back: %d bytes are locked, %d are said to be; want none", got, used.Pinned)
	}
}

// locked returns how many bytes of its mappings this process keeps from swap, page by page: not those that a lock was
// asked for.
func locked(t *testing.T) (bytes int64) {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(maps)) {
		if rest, found := strings.CutPrefix(line, "Locked:"); found {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			bytes += kib << 10
		}
	}
	return bytes
}
