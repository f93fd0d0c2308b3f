package configs

import (
	"fmt"
	"time"

	"github.com/weighbridge/weighbridge/verifier/trust"
)

// Scrub says how stored weights are read again that a channel serves, served before, or will serve once its next release is
// approved. It is done at the lowest priority; what is found bad is in the status, and changes nothing that serves.
type Scrub struct {
	// Every is how often each copy is read: 7d, 24h, at least 10s. Absent: 24h. off, or 0: never.
	Every string `yaml:"every"`
	// Rate is how much is read in a second, at least 1MiB. Absent: 64MiB, which leaves most disks to others.
	Rate Bytes `yaml:"rate"`
}

const (
	defaultScrubEvery = 24 * time.Hour
	defaultScrubRate  = 64 << 20
	minScrubEvery     = 10 * time.Second // less would read all the time, for nothing
	minScrubRate      = 1 << 20          // a day of less is under 90 GB
)

// Interval returns how often a copy is read, 0 if never.
func (s Scrub) Interval() (time.Duration, error) {
	switch s.Every {
	case "":
		return defaultScrubEvery, nil
	case "off", "0":
		return 0, nil
	}
	every, err := trust.ParseAge(s.Every)
	if err == nil && every < minScrubEvery {
		err = fmt.Errorf("%q is less than %s", s.Every, minScrubEvery)
	}
	return every, err
}

// BytesPerSecond returns the rate.
func (s Scrub) BytesPerSecond() int64 {
	if s.Rate == 0 {
		return defaultScrubRate
	}
	return int64(s.Rate)
}

func (s Scrub) check(is *checks) {
	if _, err := s.Interval(); err != nil {
		is.bad("scrub.every", "%w; off turns it off", err)
	}
	if s.Rate != 0 && s.Rate < minScrubRate {
		is.bad("scrub.rate", "%d bytes a second is less than 1MiB", s.Rate)
	}
}
