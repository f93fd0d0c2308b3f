package identity

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

const (
	// DefaultWait is how long a start waits for its first SVID. A SPIRE agent answers "no identity issued" for the
	// first seconds of its life, and an entry that was just made takes up to five more to reach it.
	DefaultWait = 30 * time.Second

	// retryFirst and retryMost space out the questions to an agent that does not answer.
	retryFirst = 250 * time.Millisecond
	retryMost  = 5 * time.Second

	// filesInterval is how often the files of an identity are looked at.
	filesInterval = 5 * time.Second

	// maxFile is more than any chain, key or bundle needs.
	maxFile = 1 << 20
)

// backoff doubles from retryFirst to retryMost.
type backoff struct{}

func (backoff) NewBackoff() workloadapi.Backoff { return &pause{} }

type pause struct{ next time.Duration }

func (p *pause) Reset() { p.next = 0 }
func (p *pause) Next() time.Duration {
	p.next = min(max(retryFirst, 2*p.next), retryMost)
	return p.next
}

// agentLog writes go-spiffe's messages to our log, and keeps the last trouble for the error of a start that failed.
type agentLog struct {
	log *slog.Logger

	mu      sync.Mutex
	trouble string
}

func (l *agentLog) Debugf(string, ...any) {}
func (l *agentLog) Infof(string, ...any)  {}

func (l *agentLog) Warnf(format string, args ...any) {
	l.log.Warn("workload API", "err", fmt.Sprintf(format, args...))
}

func (l *agentLog) Errorf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	l.mu.Lock()
	l.trouble = text
	l.mu.Unlock()
	l.log.Warn("workload API", "err", text)
}

func (l *agentLog) last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.trouble
}
