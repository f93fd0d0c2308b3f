package gateway

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/weighbridge/weighbridge/gateway/access"
	"github.com/weighbridge/weighbridge/gateway/fair"
)

// A crowdedError is that a gateway, or the runtime of a channel, has as much to do as it can.
type crowdedError struct {
	err     error  // a *fair.RefusedError
	channel string // "": of no one channel
}

func (e *crowdedError) Error() string {
	if e.channel == "" {
		return e.err.Error()
	}
	return fmt.Sprintf("channel %q: %s", e.channel, e.err)
}

func (e *crowdedError) Unwrap() error { return e.err }

// limitCode is the code of an error about a limit, by the limit's key.
func limitCode(key string) string {
	if _, of, ok := strings.Cut(key, "tokens."); ok {
		return strings.Replace(of, ".", "_tokens_per_", 1)
	}
	return key + "_limit"
}

// overloadOutcome is how callers see that there is too much of something, if that is the error.
func overloadOutcome(err error) (outcome, bool) {
	over, crowded := new(access.LimitError), new(fair.RefusedError)
	again := fmt.Sprintf("retry in %d s", seconds(room(err)))
	switch {
	case errors.As(err, &over):
		return outcome{http.StatusTooManyRequests, codes.ResourceExhausted, "rate_limit_error", limitCode(over.Limit), "",
			"over the limit of " + over.Text + ", " + again}, true
	case errors.As(err, &crowded) && crowded.Late:
		return outcome{http.StatusServiceUnavailable, codes.Unavailable, "server_error", "overloaded", "", "the model server is too busy, " + again}, true
	case errors.As(err, &crowded):
		return outcome{http.StatusTooManyRequests, codes.ResourceExhausted, "rate_limit_error", "busy", "", "too many requests at once, " + again}, true
	}
	return outcome{}, false
}

// retryAfter is when the caller may come back with a request that ended so; 0: there is nothing to wait for.
func retryAfter(err error) time.Duration {
	if d := room(err); d > 0 {
		return d
	}
	if o := outcomeOf(err); o.http == http.StatusServiceUnavailable || o.http == http.StatusTooManyRequests {
		return time.Second
	}
	return 0
}

// room is when there is room again, if it was too much of something.
func room(err error) time.Duration {
	over, crowded := new(access.LimitError), new(fair.RefusedError)
	switch {
	case errors.As(err, &over):
		return over.Retry
	case errors.As(err, &crowded):
		return crowded.Retry
	}
	return 0
}

// tooMuch reports whether a request was refused for that.
func tooMuch(err error) bool {
	return errors.As(err, new(*access.LimitError)) || errors.As(err, new(*fair.RefusedError))
}

// seconds are whole ones, of which the last may not be full.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// Limits that are no rule's, as metrics name them.
const (
	limitTurns    = "turns"
	limitInFlight = "in flight"
)

// limitOf names what was too much, for metrics: the rule, if it is one's limit, and the limit. ok is false if nothing was.
func limitOf(err error) (rule, limit string, ok bool) {
	over, crowded := new(access.LimitError), new(crowdedError)
	switch {
	case errors.As(err, &over):
		return fmt.Sprint(over.Rule), over.Limit, true
	case errors.As(err, &crowded) && crowded.channel != "":
		return "", limitTurns, true
	case errors.As(err, &crowded):
		return "", limitInFlight, true
	}
	return "", "", false
}
