package digest

import (
	"bytes"
	"context"
	"fmt"
	"hash"
	"io"
)

// Copy reads src once, to its end, writes every byte to dst ([io.Discard] to only verify) and checks each part's
// digest on the way. The parts must cover the file from its first byte without gap or overlap, in order.
//
// It returns how many bytes were read, every part that does not match, and an error if the bytes could not be read or
// written. A source with more than limit bytes is [ErrTooLong]: Copy stops at the first byte too many, so that an
// endless source can't fill the memory. Reading, hashing and writing overlap; when Copy returns none goes on.
func Copy(ctx context.Context, dst io.Writer, src io.Reader, alg Algorithm, parts []Part, limit int64) (int64, []Mismatch, error) {
	if alg.Size() == 0 {
		return 0, nil, fmt.Errorf("unknown hash algorithm %q", string(alg))
	}
	if err := checkParts(parts); err != nil {
		return 0, nil, err
	}
	if limit < 0 {
		return 0, nil, fmt.Errorf("limit of %d bytes", limit)
	}
	reading, cancel := context.WithCancel(ctx)
	free, filled := make(chan []byte, buffers), make(chan block, buffers)
	for range buffers {
		free <- nil // allocated when first needed: small files need one
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		read(reading, src, limit, free, filled)
	}()
	defer func() { cancel(); <-done }()

	w := startWriter(dst)
	defer w.stop()
	c := &checker{alg: alg, parts: parts, hash: alg.New()}
	for b := range filled {
		if b.err != nil {
			return c.offset, nil, b.err
		}
		w.begin(b.data)
		c.write(b.data)
		if err := w.wait(); err != nil {
			return c.offset, nil, err
		}
		free <- b.data
	}
	if err := ctx.Err(); err != nil {
		return c.offset, nil, err // the reader stopped early
	}
	return c.offset, c.finish(), nil
}

func checkParts(parts []Part) error {
	var at int64
	for i, p := range parts {
		last := i == len(parts)-1
		switch {
		case p.Start != at:
			return fmt.Errorf("part %q starts at byte %d, want %d", p.Name, p.Start, at)
		case p.End == ToEnd && !last, p.End != ToEnd && p.End <= p.Start:
			return fmt.Errorf("part %q ends at byte %d", p.Name, p.End)
		}
		at = p.End
	}
	return nil
}

// A block is what the reader hands over: bytes, or the error that ended the reading.
type block struct {
	data []byte
	err  error
}

// read fills free buffers from src until its end and closes filled. If ctx ends it just stops: whoever cancelled it
// looks at ctx, and takes nothing for verified.
func read(ctx context.Context, src io.Reader, limit int64, free <-chan []byte, filled chan<- block) {
	defer close(filled)
	size := int64(bufferSize)
	if limit < size {
		size = limit + 1
	}
	var total int64
	for ctx.Err() == nil {
		var b block
		select {
		case b.data = <-free:
		case <-ctx.Done():
			return
		}
		if b.data == nil {
			b.data = make([]byte, size)
		}
		n, err := fill(src, b.data[:size])
		b.data = b.data[:n]
		if total += int64(n); total > limit {
			err = fmt.Errorf("%w: more than %d bytes", ErrTooLong, limit)
		}
		if err != io.EOF { //nolint:errorlint // an error that only wraps EOF says that something broke off
			b.err = err
		}
		select {
		case filled <- b:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// fill reads until buf is full or the source ends. Unlike [io.ReadFull] it never turns one into the other, so a source
// that broke off is not taken for one that is complete.
func fill(src io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = src.Read(buf[n:])
		n += m
	}
	return n, err
}

// A writer writes one block while its owner hashes the same block.
type writer struct {
	blocks chan []byte
	errs   chan error
	done   chan struct{}
}

func startWriter(dst io.Writer) *writer {
	w := &writer{blocks: make(chan []byte), errs: make(chan error), done: make(chan struct{})}
	go func() {
		defer close(w.done)
		for b := range w.blocks {
			n, err := dst.Write(b)
			if err == nil && n < len(b) {
				err = io.ErrShortWrite
			}
			w.errs <- err
		}
	}()
	return w
}

func (w *writer) begin(b []byte) { w.blocks <- b }
func (w *writer) wait() error    { return <-w.errs }
func (w *writer) stop()          { close(w.blocks); <-w.done }

// A checker hashes a file part by part.
type checker struct {
	alg   Algorithm
	parts []Part // not yet finished; the first is being hashed
	bad   []Mismatch

	hash   hash.Hash
	offset int64 // in the file
	start  int64 // of the part being hashed
}

func (c *checker) write(p []byte) {
	for len(p) > 0 {
		n := int64(len(p))
		if len(c.parts) > 0 && c.parts[0].End != ToEnd {
			n = min(n, c.parts[0].End-c.offset)
		}
		c.hash.Write(p[:n])
		c.offset += n
		p = p[n:]
		if len(c.parts) > 0 && c.offset == c.parts[0].End {
			c.end()
		}
	}
}

// end compares the part that was just read with what was approved.
func (c *checker) end() {
	part, actual := c.parts[0], c.hash.Sum(nil)
	if !bytes.Equal(actual, part.Sum) {
		c.bad = append(c.bad, Mismatch{Part: part, End: c.offset, Actual: actual})
	}
	c.parts, c.start = c.parts[1:], c.offset
	c.hash.Reset()
}

// finish judges what the end of the file left open: a part cut short, parts that are not there at all, and bytes
// behind the last part.
func (c *checker) finish() []Mismatch {
	switch {
	case len(c.parts) > 0 && (c.parts[0].End == ToEnd || c.offset > c.start):
		if c.parts[0].End == ToEnd {
			c.end()
			break
		}
		c.bad = append(c.bad, Mismatch{Part: c.parts[0], End: c.offset, Actual: c.hash.Sum(nil)})
		c.parts = c.parts[1:]
	case len(c.parts) == 0 && c.offset > c.start:
		tail := Part{Start: c.start, End: ToEnd}
		c.bad = append(c.bad, Mismatch{Part: tail, End: c.offset, Actual: c.hash.Sum(nil)})
	}
	for _, p := range c.parts {
		c.bad = append(c.bad, Mismatch{Part: p, End: c.offset})
	}
	return c.bad
}
