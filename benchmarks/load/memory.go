package main

import "time"

// sampleEvery is how often the gateway's memory is looked at while it loads.
const sampleEvery = 50 * time.Millisecond

// A sampler follows the memory of one process.
type sampler struct {
	stop, done chan struct{}
	samples    []sample // the goroutine's until done is closed
}

type sample struct {
	at    time.Time
	bytes int64
}

// watchMemory looks at a process until finish is called or the process ends.
func watchMemory(pid int) *sampler {
	s := &sampler{stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		look := time.NewTicker(sampleEvery)
		defer look.Stop()
		for {
			bytes, err := ownMemory(pid)
			if err != nil {
				return
			}
			s.samples = append(s.samples, sample{time.Now(), bytes})
			select {
			case <-look.C:
			case <-s.stop:
				return
			}
		}
	}()
	return s
}

// finish ends the watching and returns the peaks of both halves of the time from begin to end.
func (s *sampler) finish(begin, end time.Time) (first, second int64) {
	close(s.stop)
	<-s.done
	return peaks(s.samples, begin.Add(end.Sub(begin)/2))
}

func peaks(samples []sample, middle time.Time) (before, after int64) {
	for _, s := range samples {
		if s.at.Before(middle) {
			before = max(before, s.bytes)
		} else {
			after = max(after, s.bytes)
		}
	}
	return before, after
}
