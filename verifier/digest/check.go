package digest

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
)

// Options are for those who watch. The zero value is fine.
type Options struct {
	// Progress is told of the bytes of each piece that was read. It is called concurrently.
	Progress func(bytes int64)
}

// Check reads each file once, to its end, and checks the digest of each of its parts. What is wrong with a file is in
// its own result, and the others go on; the error says why Check was given up: ctx ended, a Target failed, or a Done.
// When Check returns nothing of it goes on.
//
// Files are read in order and from the first byte to the last, unless hashing is slower than reading: then one file is
// read at several places in turn, and several files are, so that more parts can be hashed at the same time.
func Check(ctx context.Context, alg Algorithm, files []File, o Options) error {
	if alg.Size() == 0 {
		return fmt.Errorf("unknown hash algorithm %q", string(alg))
	}
	ring, err := newRing(blocks)
	if err != nil {
		return err
	}
	defer ring.close()
	c := &check{alg: alg, progress: o.Progress, files: files, free: ring.buffers}
	c.readable, c.hashable = sync.NewCond(&c.mu), sync.NewCond(&c.mu)
	stop := context.AfterFunc(ctx, func() { c.giveUp(context.Cause(ctx)) })
	defer stop()

	var all sync.WaitGroup
	for range readers {
		all.Go(c.read)
	}
	for range runtime.GOMAXPROCS(0) {
		all.Go(c.hash)
	}
	all.Wait()
	return c.end()
}

// A check is one call of Check. Its readers move blocks from files into memory, its hashers move chains, one for each
// part, over the blocks; a block's memory is free again when every chain has passed it.
type check struct {
	alg      Algorithm
	progress func(int64)

	calls sync.Mutex // held while a function of a File runs

	mu       sync.Mutex // guards what follows, and what it leads to
	readable *sync.Cond // something may have come up for a reader
	hashable *sync.Cond // and for a hasher
	files    []File     // not opened yet
	opening  int        // files that are being opened
	open     []*reading // not done yet
	streams  []*stream  // that have blocks to be read
	free     [][]byte   // of blockSize each
	coming   int        // blocks that are being read
	ready    []*chain   // whose next bytes are in memory
	err      error      // why the check was given up
}

// giveUp ends the check. Only the first reason counts.
func (c *check) giveUp(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		c.err = err
	}
	c.wakeAll()
}

// wakeAll lets everyone look for what there is to be done. It needs mu.
func (c *check) wakeAll() {
	c.readable.Broadcast()
	c.hashable.Broadcast()
}

// over reports whether nothing is left to be done. It needs mu.
func (c *check) over() bool {
	return c.err != nil || len(c.files) == 0 && c.opening == 0 && len(c.open) == 0
}

// end tells the files that were given up, and returns why.
func (c *check) end() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.open {
		r.result.Err = c.err
		r.report(c)
	}
	return c.err
}

// A reading is a file that is being read.
type reading struct {
	file  File
	input Input
	last  int64 // number of the block in which the file ends

	streams int              // of it that have blocks to be read
	held    int              // blocks that are being read or are in memory
	blocks  map[int64]*block // in memory, by number
	chains  []chain          // in order of the file
	result  Result
}

// report hands the result over. It needs mu, which it lets go meanwhile.
func (r *reading) report(c *check) {
	c.mu.Unlock()
	c.calls.Lock()
	err := r.file.Done(r.result)
	c.calls.Unlock()
	c.mu.Lock()
	if err != nil && c.err == nil {
		c.err = err
	}
}

// finish ends a file if nothing is left to be done for it. It needs mu, which it lets go meanwhile.
func (c *check) finish(r *reading) {
	if r.streams > 0 || r.held > 0 {
		return
	}
	if r.result.Err == nil {
		r.result.Err = c.err
	}
	if r.result.Err == nil {
		r.result.Mismatches = mismatches(r.chains, r.input)
	}
	r.report(c)
	c.open = slices.DeleteFunc(c.open, func(other *reading) bool { return other == r })
	if c.over() {
		c.wakeAll()
	}
}
