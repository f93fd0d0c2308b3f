package scrub

import (
	"crypto/sha256"
	"encoding/binary"
	"os"
	"path/filepath"
	"syscall"

	"github.com/weighbridge/weighbridge/verifier/oms"
)

// looks stand for what the file system says about the files of a copy, without reading them: that they are other ones
// means that the copy was changed, that they are the same proves nothing.
type looks [sha256.Size]byte

// look returns the looks of a copy.
func look(path string, m *oms.Manifest) (l looks) {
	h := sha256.New()
	add := func(path string) {
		var numbers [6]int64 // of what can't be looked at they stay zero
		if info, err := os.Stat(path); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				numbers = [...]int64{int64(st.Dev), int64(st.Ino), st.Size, st.Mtim.Nano(), st.Ctim.Nano(), 1}
			}
		}
		_ = binary.Write(h, binary.LittleEndian, numbers) // a hash takes everything
	}
	add(path)
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		files := m.Files()
		for _, f := range files[:min(len(files), maxStats)] {
			add(filepath.Join(path, f.Name))
		}
	}
	h.Sum(l[:0])
	return l
}
