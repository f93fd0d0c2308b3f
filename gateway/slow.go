package gateway

import (
	"sync"
	"sync/atomic"
	"time"
)

// A slowness notices that one part of an answer takes longer than slowLimit to send. It looks from time to time: a timer for
// each part would cost more than to send it.
type slowness struct {
	since  atomic.Int64 // when the part began that is being sent, in nanoseconds of Unix time; 0: none is
	notice func()

	mu    sync.Mutex
	timer *time.Timer // nil: stopped
}

// watchSlow has notice called, once, when a part takes too long. It must be stopped.
func watchSlow(notice func()) *slowness {
	s := &slowness{notice: notice}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer = time.AfterFunc(slowLimit, s.look)
	return s
}

func (s *slowness) look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer == nil {
		return
	}
	next := slowLimit
	if since := s.since.Load(); since != 0 {
		next -= time.Since(time.Unix(0, since))
	}
	if next <= 0 {
		s.timer = nil
		s.notice()
		return
	}
	s.timer.Reset(next)
}

func (s *slowness) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
}
