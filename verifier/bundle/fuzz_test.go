package bundle_test

import (
	"archive/tar"
	"path/filepath"
	"testing"
)

// FuzzOpen opens an archive that is good but for a manifest, and one that is good but for its index, an entry before all
// others and where it ends. Digests and checksums are made of what it made up: else they would stop nearly all of it.
func FuzzOpen(f *testing.F) {
	for _, alt := range altered {
		a := alt.apply()
		a.bytes(f)
		for _, m := range a.manifests {
			f.Add(m, a.listing, "blobs/sha256/00", "", byte(tar.TypeReg), int64(-1))
		}
	}
	a := newArchive()
	size := int64(len(a.bytes(f)))
	f.Add("{}", a.listing, "holes", holes, byte(tar.TypeXHeader), size-1)
	f.Add("{}", a.listing, "x", "12 path=oci\n", byte(tar.TypeXHeader), size-1025)
	f.Add("{}", a.listing, "x", "12 size=999\n", byte(tar.TypeXGlobalHeader), size)
	f.Add("{}", a.listing, "x", "index.json", byte(tar.TypeGNULongName), size)
	f.Add("{}", a.listing, "blobs/sha256/00", "1", byte(tar.TypeGNUSparse), size)
	path := filepath.Join(f.TempDir(), "bundle.tar")
	f.Fuzz(func(t *testing.T, manifest, index, name, data string, flag byte, end int64) {
		a := newArchive()
		a.manifests = []string{marshal(t, a.model), manifest}
		checkOpen(t, path, a.bytes(t))

		a = newArchive()
		a.listing, a.first = index, entry(name, data, flag)
		whole := a.bytes(t)
		if end >= 0 && end < int64(len(whole)) {
			whole = whole[:end]
		}
		checkOpen(t, path, whole)
	})
}
