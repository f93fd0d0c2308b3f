package access

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The quotas of a rule.
const (
	ofRequests = iota
	ofPromptMinute
	ofPromptDay
	ofCompletionMinute
	ofCompletionDay
	quotas // how many there are
)

// concurrent is the name of the limit that is not a quota.
const concurrent = "concurrent"

// names are the keys of the quotas below limits.
var names = [quotas]string{"rate", "tokens.prompt.minute", "tokens.prompt.day", "tokens.completion.minute", "tokens.completion.day"}

// limits are checked Limits.
type limits struct {
	quota      [quotas]quota
	concurrent int64 // 0: no limit
}

// A quota is an amount of which what was used comes back evenly. The zero value is no limit.
type quota struct {
	size   float64 // so much may be used at once
	second float64 // so much comes back each second
	text   string  // such as "10 requests a second", for callers
}

// units are how a rate may end.
var units = []struct {
	short, long string
	length      time.Duration
}{{"s", "second", time.Second}, {"m", "minute", time.Minute}, {"h", "hour", time.Hour}, {"d", "day", 24 * time.Hour}}

// words are the limits as people read them.
func (l *limits) words() []string {
	var words []string
	if l == nil {
		return words
	}
	for i, q := range l.quota {
		if q.size > 0 {
			words = append(words, q.text)
		}
		if i == ofRequests && q.size > 0 {
			words = append(words, fmt.Sprintf("%.0f of them at once", q.size))
		}
	}
	if l.concurrent > 0 {
		words = append(words, concurrency(l.concurrent))
	}
	return words
}

func concurrency(most int64) string { return fmt.Sprintf("%d requests at a time", most) }

// parseLimits returns every problem with its key.
func parseLimits(l Limits) (*limits, []error) {
	var out limits
	var errs []error
	bad := func(key string, err error) { errs = append(errs, fmt.Errorf("limits.%s: %w", key, err)) }
	if l == (Limits{}) {
		return nil, []error{errors.New("limits: names none: leave it out, or give one (rate, concurrent, tokens)")}
	}
	var err error
	if l.Rate != "" {
		if out.quota[ofRequests], err = parseRate(l.Rate); err != nil {
			bad(names[ofRequests], err)
		}
	}
	if l.Burst != "" {
		switch n, err := amount(l.Burst); {
		case err != nil:
			bad("burst", err)
		case l.Rate == "":
			bad("burst", errors.New("is of a rate, and there is none"))
		default:
			out.quota[ofRequests].size = float64(n)
		}
	}
	if l.Concurrent != "" {
		if out.concurrent, err = amount(l.Concurrent); err != nil {
			bad(concurrent, err)
		}
	}
	for i, w := range [quotas]struct {
		number, what string
		unit         int
	}{
		ofPromptMinute: {l.Tokens.Prompt.Minute, "prompt", 1}, ofPromptDay: {l.Tokens.Prompt.Day, "prompt", 3},
		ofCompletionMinute: {l.Tokens.Completion.Minute, "completion", 1}, ofCompletionDay: {l.Tokens.Completion.Day, "completion", 3},
	} {
		if w.number == "" {
			continue
		}
		n, err := amount(w.number)
		if err != nil {
			bad(names[i], err)
			continue
		}
		out.quota[i] = newQuota(n, w.what+" tokens", w.unit)
	}
	return &out, errs
}

func newQuota(n int64, what string, unit int) quota {
	return quota{float64(n), float64(n) / units[unit].length.Seconds(), fmt.Sprintf("%d %s a %s", n, what, units[unit].long)}
}

func parseRate(s string) (quota, error) {
	number, short, _ := strings.Cut(s, "/")
	for i, u := range units {
		if short != u.short {
			continue
		}
		n, err := amount(number)
		if err != nil {
			return quota{}, err
		}
		return newQuota(n, "requests", i), nil
	}
	return quota{}, fmt.Errorf("%q is not a rate such as 10/s (or /m, /h, /d)", s)
}

// amount reads a whole number above 0.
func amount(s string) (int64, error) {
	digits, times := s, int64(1)
	for suffix, by := range map[string]int64{"k": 1_000, "M": 1_000_000} {
		if before, ok := strings.CutSuffix(s, suffix); ok {
			digits, times = before, by
		}
	}
	// ParseUint takes no sign, and without a base no underscore and no 0x.
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || n == 0 || n > maxLimit/uint64(times) {
		return 0, fmt.Errorf("%q is not a whole number above 0, such as 500, 20k or 1M", s)
	}
	return int64(n) * times, nil
}
