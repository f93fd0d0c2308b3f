package bench

import (
	"fmt"
	"runtime"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Present takes so much memory, in bytes, as far as there is room, writes to it and gives it back. A hypervisor hands memory
// out when it is first written, which costs more than anything measured here, and may take it away again once it was
// free for a while: without this a case would be slow or fast by what the case before it happened to free.
func Present(size int64) error {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return fmt.Errorf("make memory present: %w", err)
	}
	size = min(size, int64(info.Freeram)*int64(info.Unit)/2)
	area, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return fmt.Errorf("make memory present: mmap: %w", err)
	}
	defer unix.Munmap(area)                    //nolint:errcheck // the area is ours and whole
	_ = unix.Madvise(area, unix.MADV_HUGEPAGE) // only faster; what is given back then comes in large pieces
	const piece = 2 << 20
	share := len(area)/runtime.NumCPU()/piece*piece + piece
	var g errgroup.Group
	for at := 0; at < len(area); at += share {
		part := area[at:min(at+share, len(area))]
		g.Go(func() error { return unix.Madvise(part, unix.MADV_POPULATE_WRITE) })
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("make memory present: %w", err)
	}
	return nil
}
