package identity

import (
	"time"

	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
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

	// troubleMost is how long the source of an identity may be silent before operators are told: an agent that is restarted
	// takes that long.
	troubleMost = time.Minute

	// maxToken is more than a JWT-SVID needs, and maxTokenLife the most that one may have left: what is shown to others should
	// not last. Its maker's clock may be a minute ahead of ours.
	maxToken     = 8 << 10
	maxTokenLife = time.Hour + time.Minute

	// maxRenewal is how long before the end of a certificate its connection is at most to be renewed, however long it lasts.
	maxRenewal = 30 * time.Minute

	// maxReason bounds what a log line says about what a stranger wrote.
	maxReason = 200

	// maxFile is more than any chain, key or bundle needs.
	maxFile = 1 << 20
)

// reconnect keeps the connection's own pauses within ours: left to itself it tries every two minutes after a long absence.
var reconnect = grpc.WithConnectParams(grpc.ConnectParams{
	Backoff:           grpcbackoff.Config{BaseDelay: retryFirst, Multiplier: 2, Jitter: 0.2, MaxDelay: retryMost},
	MinConnectTimeout: retryMost,
})

// backoff doubles from retryFirst to retryMost.
type backoff struct{}

func (backoff) NewBackoff() workloadapi.Backoff { return &pause{} }

type pause struct{ next time.Duration }

func (p *pause) Reset() { p.next = 0 }
func (p *pause) Next() time.Duration {
	p.next = min(max(retryFirst, 2*p.next), retryMost)
	return p.next
}
