package fusetest

import (
	"cmp"
	"slices"
)

// Opens returns how often the file was opened.
func (f *File) Opens() int { return get(f, func() int { return f.opens }) }

// BytesRead returns how many bytes were read in all.
func (f *File) BytesRead() int64 { return get(f, func() int64 { return f.bytes }) }

// Requests returns how often the kernel asked, also for what failed.
func (f *File) Requests() int { return get(f, func() int { return f.requests }) }

// LargestRequest returns the most bytes that the kernel asked for at once.
func (f *File) LargestRequest() int { return get(f, func() int { return f.largest }) }

// MaxReads returns how often the byte was read that was read most often: one says that nothing was read twice.
func (f *File) MaxReads() int {
	return get(f, func() int { _, most := f.reads.counts(f.size); return most })
}

// MinReads returns how often the byte was read that was read least often, of those the file has now: zero says that
// something was not read.
func (f *File) MinReads() int {
	return get(f, func() int { least, _ := f.reads.counts(f.size); return least })
}

func get[T any](f *File, value func() T) T {
	f.mu.Lock()
	defer f.mu.Unlock()
	return value()
}

// A span is a range of bytes that was read once.
type span struct{ start, end int64 }

// spans are all of them. One that goes on where the one before it ended is joined to that.
type spans []span

func (s *spans) add(off, n int64) {
	if last := len(*s) - 1; last >= 0 && (*s)[last].end == off {
		(*s)[last].end += n
		return
	}
	*s = append(*s, span{off, off + n})
}

// counts returns how many spans there are least over a byte below size, and most over any.
func (s spans) counts(size int64) (least, most int) {
	type edge struct {
		at   int64
		step int // what the number of spans changes by
	}
	edges := []edge{{0, 0}, {size, 0}}
	for _, r := range s {
		edges = append(edges, edge{r.start, 1}, edge{r.end, -1})
	}
	slices.SortFunc(edges, func(a, b edge) int { return cmp.Compare(a.at, b.at) })
	open, first := 0, true
	for i, e := range edges {
		open += e.step
		if i+1 == len(edges) || edges[i+1].at == e.at { // nothing lies between this edge and the next
			continue
		}
		most = max(most, open)
		if e.at < size && (first || open < least) {
			least, first = open, false
		}
	}
	return least, most
}
