package identity

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// ErrEnded means that we have no SVID that is valid now. Refuse everybody until there is one: it comes by itself, once the
// source of the identity answers again.
var ErrEnded = errors.New("there is no valid SVID of our own")

// Check returns nil while we have a valid SVID, and an error that wraps [ErrEnded] and says since when and why if not.
func (s *Source) Check(now time.Time) error {
	svid, err := s.x509.GetX509SVID()
	if err != nil {
		return fmt.Errorf("%w: none that is offered will do", ErrEnded)
	}
	if end := svid.Certificates[0].NotAfter; !now.Before(end) {
		return fmt.Errorf("%w: that of %s ended on %s, and there is no other%s", ErrEnded, svid.ID, end.UTC().Format(time.RFC3339), s.trouble.why())
	}
	return nil
}

// Problem says what is wrong with the source of the identity, for operators; empty if nothing is.
func (s *Source) Problem(now time.Time) string {
	if err := s.Check(now); err != nil {
		return "identity: " + err.Error()
	}
	_, since := s.trouble.last()
	end, err := s.Expires()
	if since.IsZero() || err != nil || now.Sub(since) < troubleMost {
		return ""
	}
	return fmt.Sprintf("identity: no new SVID comes%s; the last one ends on %s", s.trouble.why(), end.UTC().Format(time.RFC3339))
}

// agentLog writes go-spiffe's messages to our log, and keeps what is wrong until it is over.
type agentLog struct {
	log *slog.Logger

	mu      sync.Mutex
	trouble string
	since   time.Time
}

// Debugf implements logger.Logger.
func (l *agentLog) Debugf(string, ...any) {}

// Infof implements logger.Logger.
func (l *agentLog) Infof(string, ...any) {}

// Warnf implements logger.Logger.
func (l *agentLog) Warnf(format string, args ...any) {
	l.log.Warn("workload API", "err", fmt.Sprintf(format, args...))
}

// Errorf implements logger.Logger.
func (l *agentLog) Errorf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	l.mu.Lock()
	l.trouble = text
	if l.since.IsZero() {
		l.since = time.Now()
	}
	since := l.since
	l.mu.Unlock()
	l.log.Warn("workload API", "err", text, "since", since)
}

func (l *agentLog) over() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trouble, l.since = "", time.Time{}
}

func (l *agentLog) last() (trouble string, since time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.trouble, l.since
}

// why is the end of a sentence about what does not come.
func (l *agentLog) why() string {
	trouble, since := l.last()
	if trouble == "" {
		return ""
	}
	return fmt.Sprintf(" (since %s: %s)", since.UTC().Format(time.RFC3339), trouble)
}
