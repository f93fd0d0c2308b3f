package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/term"
)

// progressEvery is how often a terminal is told how far hashing is; what takes less says nothing.
const progressEvery = time.Second

// bar draws how far something with a known end has come: "[=====>    ] 52 %  2.1 of 4.1 GB, 1.20 GB/s, 2 s left".
func bar(done, total int64, rate float64) string {
	const width = 20
	share := float64(done) / float64(total)
	n := int(share * width)
	text := fmt.Sprintf("[%s%s] %d %%  %.1f of %.1f GB, %.2f GB/s", strings.Repeat("=", n), strings.Repeat(" ", width-n), int(share*100), float64(done)/1e9, float64(total)/1e9, rate/1e9)
	if rate > 0 {
		text += fmt.Sprintf(", %.0f s left", float64(total-done)/rate)
	}
	return text
}

// startProgress shows on a terminal how much of the model at path was hashed. It returns the function to tell, nil
// elsewhere, and one that ends the showing and waits for it.
func startProgress(s streams, path string, quiet bool) (tell func(int64), stop func()) {
	f, ok := s.err.(*os.File)
	if quiet || !ok || !term.IsTerminal(int(f.Fd())) {
		return nil, func() {}
	}
	total := sizeOf(path)
	var hashed atomic.Int64
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		start, shown := time.Now(), false
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				if shown {
					fmt.Fprint(f, "\r\033[K")
				}
				return
			case now := <-tick.C:
				n := hashed.Load()
				fmt.Fprintf(f, "\r\033[K%s", bar(n, max(total, n, 1), float64(n)/now.Sub(start).Seconds()))
				shown = true
			}
		}
	}()
	return func(n int64) { hashed.Add(n) }, func() { close(quit); <-done }
}

// sizeOf adds up the files of a model, for the bar alone: what can't be seen counts nothing.
func sizeOf(path string) (total int64) {
	_ = filepath.WalkDir(path, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // whoever hashes it reports it
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			total += info.Size()
		}
		return nil
	})
	return total
}
