package scrub

import (
	"context"
)

// What tests hold the package to.
const (
	FirstAfter  = firstAfter
	LookEvery   = lookEvery
	MaxRestless = maxRestless
	Burst       = burst
)

// Pace returns what holds a reader to a rate.
func Pace(rate int64) func(int64) { return newPace(rate).wait }

// Read has one copy read by a process of its own.
func Read(ctx context.Context, path string, bundle []byte, rate int64) (string, error) {
	a, err := read(ctx, job{path, bundle, rate})
	return a.String(), err
}

// ReadHere reads one copy in this process.
func ReadHere(ctx context.Context, path string, bundle []byte) (string, error) {
	a, err := job{path, bundle, 1 << 40}.read(ctx)
	return a.String(), err
}

// InProcess has copies read by this process: by the same code, but not slower for what else the machine does. During each
// reading do is called, if there is one; an error that it returns is the reading's.
func (s *Scrubber) InProcess(do func(path string) error) {
	s.reader = func(ctx context.Context, j job) (answer, error) {
		a, err := j.read(ctx)
		if do != nil && err == nil {
			err = do(j.Path)
		}
		return a, err
	}
}

// ByProcess has copies read as they are when no test looks.
func (s *Scrubber) ByProcess() { s.reader = read }
