package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// coldBelow is the share of the model that may stay in the page cache of a case that is called cold.
const coldBelow = 0.01

// An eviction remembers the worst of what evicting the model came to.
type eviction struct {
	stayed  float64 // the largest share that stayed
	dropped bool    // the whole page cache had to go: other programs' files with it
}

// evict takes the model out of the page cache, and nothing else if that suffices, so that programs stay warm for all.
func (e *eviction) evict(m modelFile) error {
	f, err := os.Open(m.path)
	if err != nil {
		return fmt.Errorf("evict model: %w", err)
	}
	defer f.Close()
	// Only clean pages go.
	if err := f.Sync(); err != nil {
		return fmt.Errorf("evict model: %w", err)
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return fmt.Errorf("evict model: %w", os.NewSyscallError("fadvise", err))
	}
	stayed, err := resident(f, m.size)
	if err != nil {
		return fmt.Errorf("evict model: %w", err)
	}
	if stayed >= coldBelow {
		// Best effort: without the right to do this the report says that the case was not cold.
		if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("1"), 0); err == nil {
			e.dropped = true
		}
		if stayed, err = resident(f, m.size); err != nil {
			return fmt.Errorf("evict model: %w", err)
		}
	}
	e.stayed = max(e.stayed, stayed)
	return nil
}

// fill brings all of the model into the page cache.
func fill(ctx context.Context, m modelFile) error {
	f, err := os.Open(m.path)
	if err != nil {
		return fmt.Errorf("warm page cache: %w", err)
	}
	defer f.Close()
	buf := make([]byte, 4<<20)
	for {
		// Each time anew, because what was read first may have been given up for what was read last.
		share, err := resident(f, m.size)
		if err != nil {
			return fmt.Errorf("warm page cache: %w", err)
		}
		if share == 1 {
			return nil
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return fmt.Errorf("warm page cache: %w", err)
		}
		for err == nil && ctx.Err() == nil {
			_, err = f.Read(buf)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !errors.Is(err, io.EOF) {
			return fmt.Errorf("warm page cache: %w", err)
		}
		after, err := resident(f, m.size)
		if err != nil {
			return fmt.Errorf("warm page cache: %w", err)
		}
		if after < 1 && after <= share {
			return fmt.Errorf("warm page cache: only %.0f %% of the model stays in it: more memory is needed, or LAYERS=n for a smaller model", 100*after)
		}
	}
}

// resident returns the share of a file that is in the page cache.
func resident(f *os.File, size int64) (share float64, err error) {
	if size == 0 {
		return 0, nil
	}
	mapped, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return 0, os.NewSyscallError("mmap", err)
	}
	defer func() { err = errors.Join(err, os.NewSyscallError("munmap", unix.Munmap(mapped))) }()
	page := int64(os.Getpagesize())
	pages := make([]byte, (size+page-1)/page)
	// mincore(2), and not cachestat(2), which needs Linux 6.5. It takes the address of a mapping of that size and fills
	// a byte for each page of it.
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&mapped[0])), uintptr(size), uintptr(unsafe.Pointer(&pages[0])))
	if errno != 0 {
		return 0, os.NewSyscallError("mincore", errno)
	}
	var in int
	for _, p := range pages {
		in += int(p & 1)
	}
	return float64(in) / float64(len(pages)), nil
}
