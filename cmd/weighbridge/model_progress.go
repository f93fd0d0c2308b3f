package main

import (
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/term"
)

// progressEvery is how often a terminal is told how far hashing is; what takes less says nothing.
const progressEvery = time.Second

// startProgress shows on a terminal how many bytes were hashed. It returns the function to tell, nil elsewhere, and one
// that ends the showing and waits for it.
func startProgress(s streams, quiet bool) (tell func(int64), stop func()) {
	f, ok := s.err.(*os.File)
	if quiet || !ok || !term.IsTerminal(int(f.Fd())) {
		return nil, func() {}
	}
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
				n := float64(hashed.Load())
				fmt.Fprintf(f, "\r\033[Khashed %.1f GB, %.2f GB/s", n/1e9, n/1e9/now.Sub(start).Seconds())
				shown = true
			}
		}
	}()
	return func(n int64) { hashed.Add(n) }, func() { close(quit); <-done }
}
