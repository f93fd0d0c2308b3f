package digest

import (
	"errors"
	"io"
	"slices"
	"time"
)

// A stream is a range of blocks of one file that are read one after another.
type stream struct {
	reading   *reading
	next, end int64 // numbers of blocks: the next to be read, and the first that is not this stream's
	held      int   // blocks that are being read or are in memory
	coming    int   // blocks that are being read
	waiting   int   // blocks in memory that were not hashed yet
}

// A block is a part of a file in memory.
type block struct {
	stream *stream
	number int64
	buffer []byte // of blockSize
	data   []byte // what was read, in buffer
	chains int    // that have not passed it
	users  int    // the same, and the target it has not landed in
	busy   int    // users that work with it this moment
}

// read is a reader: it moves blocks into memory until the check is over.
func (c *check) read() {
	for {
		b := c.nextBlock()
		if b == nil {
			return
		}
		r := b.stream.reading
		want := blockSize
		if b.number == r.last {
			// One more byte than should be there, so that a file that grew shows.
			want = min(blockSize, int(r.input.Size%blockSize)/readAlign*readAlign+readAlign)
		}
		start := time.Now()
		n, err := r.input.Source.ReadAt(b.buffer[:want], b.number*blockSize)
		end := time.Now()
		if c.progress != nil && n > 0 {
			c.progress(int64(n))
		}
		if !c.landed(b, n, verdict(b, n, err), start, end) || r.input.Target == nil || n == 0 {
			continue
		}
		start = time.Now()
		m, err := r.input.Target.WriteAt(b.data, b.number*blockSize)
		if err == nil && m < n {
			err = io.ErrShortWrite
		}
		c.copied(b, err, start, time.Now())
	}
}

// verdict says what is wrong with a read of n bytes that ended with err, nil if nothing is.
func verdict(b *block, n int, err error) error {
	r := b.stream.reading
	expect := blockSize
	if b.number == r.last {
		expect = int(r.input.Size % blockSize)
	}
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return err
	case n > expect:
		return ErrGrew
	case n < expect:
		return ErrShrank
	}
	return nil
}

// nextBlock takes the next block to be read and memory for it. It returns nil when the check is over.
func (c *check) nextBlock() *block {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if c.over() {
			return nil
		}
		if len(c.free) > 0 {
			s := c.leastHeld()
			if c.wantsStream(s) && c.addStream() {
				continue
			}
			if s != nil {
				return c.take(s)
			}
		}
		c.readable.Wait()
	}
}

// leastHeld returns the stream that the memory holds the least of, nil if there is none.
func (c *check) leastHeld() (least *stream) {
	for _, s := range c.streams {
		if least == nil || s.held < least.held {
			least = s
		}
	}
	return least
}

// wantsStream reports whether something should be read beside what is read already: always as much as one core hashes
// at once, and more if even the stream with the least in memory is read faster than it is hashed.
func (c *check) wantsStream(least *stream) bool {
	return len(c.streams) < c.alg.width() || least == nil || len(c.streams) < maxStreams && least.waiting >= behind
}

// addStream splits a stream or opens a file. It reports whether it did, and lets mu go if it opens a file.
func (c *check) addStream() bool {
	var longest *stream
	for _, s := range c.streams {
		if longest == nil || s.end-s.next > longest.end-longest.next {
			longest = s
		}
	}
	if longest != nil && c.split(longest) {
		return true
	}
	if len(c.files) == 0 || c.opening > 0 { // one at a time: their order is the caller's
		return false
	}
	c.openFile()
	return true
}

// split makes two streams of one, at the beginning of a part near its middle. What is left of the part before in the
// second stream's first block waits in memory until the first stream has come there.
func (c *check) split(s *stream) bool {
	if s.end-s.next < minSplit {
		return false
	}
	chains := overlapping(s.reading.chains, (s.next+1)*blockSize, s.end*blockSize)
	middle := (s.next + s.end) / 2
	best := int64(-1)
	for i := range chains {
		at := chains[i].part.Start / blockSize
		if at <= s.next || at >= s.end {
			continue
		}
		if best < 0 || max(at-middle, middle-at) < max(best-middle, middle-best) {
			best = at
		}
	}
	if best < 0 {
		return false
	}
	c.streams = append(c.streams, &stream{reading: s.reading, next: best, end: s.end})
	s.reading.streams++
	s.end = best
	c.readable.Broadcast()
	return true
}

// openFile opens the next file. It needs mu, which it lets go meanwhile.
func (c *check) openFile() {
	r := &reading{file: c.files[0], blocks: map[int64]*block{}}
	c.files = c.files[1:]
	c.opening++
	c.mu.Unlock()
	c.calls.Lock()
	in, err := r.file.Open()
	c.calls.Unlock()
	if err == nil {
		r.input, r.last = in, in.Size/blockSize
		r.chains, err = newChains(r, in)
	}
	c.mu.Lock()
	c.opening--
	c.open = append(c.open, r)
	if err != nil {
		r.result.Err = err
		c.finish(r)
		return
	}
	for i := range r.chains {
		if ch := &r.chains[i]; ch.at == ch.end {
			ch.actual = c.alg.New().Sum(nil) // of an empty file
		}
	}
	c.streams = append(c.streams, &stream{reading: r, end: r.last + 1})
	r.streams = 1
	c.readable.Broadcast()
}

// take takes the stream's next block.
func (c *check) take(s *stream) *block {
	b := &block{stream: s, number: s.next, buffer: c.free[len(c.free)-1]}
	c.free = c.free[:len(c.free)-1]
	s.held++
	s.reading.held++
	s.coming++
	c.coming++
	if s.next++; s.next == s.end {
		c.drop(s)
	}
	return b
}

// drop ends a stream of which nothing is left to be read.
func (c *check) drop(s *stream) {
	c.streams = slices.DeleteFunc(c.streams, func(other *stream) bool { return other == s })
	s.reading.streams--
}

// landed hands a block that was read to the chains that it belongs to. It reports whether the file is still wanted.
func (c *check) landed(b *block, n int, err error, start, end time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := b.stream.reading
	b.stream.coming--
	c.coming--
	c.hashable.Signal()
	r.result.Bytes += int64(n)
	r.result.Read.add(start, end, end.Sub(start))
	if err != nil && r.result.Err == nil {
		r.result.Err = err
	}
	if r.result.Err != nil {
		c.forget(r)
		c.release(b)
		return false
	}
	b.data = b.buffer[:n]
	first := b.number * blockSize
	mine := overlapping(r.chains, first, first+int64(n))
	b.chains, b.users = len(mine), len(mine)
	if b.chains > 0 {
		b.stream.waiting++
	}
	if r.input.Target != nil && n > 0 {
		b.users++
		b.busy++
	}
	r.blocks[b.number] = b
	if b.users == 0 {
		c.release(b)
		return true
	}
	for i := range mine {
		if ch := &mine[i]; !ch.isQueued && ch.next() == b {
			ch.isQueued = true
			c.ready = append(c.ready, ch)
		}
	}
	return true
}

// copied counts a block as landed in the target.
func (c *check) copied(b *block, err error, start, end time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b.stream.reading.result.Copy.add(start, end, end.Sub(start))
	if err != nil && c.err == nil {
		c.err = err
		c.wakeAll()
	}
	c.pass(b)
}

// pass counts one user of a block less. Like all that may end a file it is the last thing done under mu.
func (c *check) pass(b *block) {
	b.busy--
	if b.users--; b.users == 0 {
		c.release(b)
	}
}

// release lets the memory of a block go.
func (c *check) release(b *block) {
	r := b.stream.reading
	if r.blocks[b.number] == b {
		delete(r.blocks, b.number)
	}
	b.stream.held--
	r.held--
	c.free = append(c.free, b.buffer)
	c.readable.Signal()
	c.finish(r)
}

// forget gives up a file that failed: it is not read on, and what is in memory is let go, or will be by whoever works
// with it this moment. The caller still holds a block, so the file does not end here.
func (c *check) forget(r *reading) {
	for _, s := range slices.Clone(c.streams) {
		if s.reading == r {
			c.drop(s)
		}
	}
	c.ready = slices.DeleteFunc(c.ready, func(ch *chain) bool { return ch.reading == r })
	for _, b := range r.blocks {
		if b.users = b.busy; b.users == 0 {
			c.release(b)
		}
	}
}
