package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/weighbridge/weighbridge/benchmarks/bench"
)

// hugeSetting says whether shared memory, and so sealed memory, may be made of huge pages; advise lets programs ask.
const hugeSetting = "/sys/kernel/mm/transparent_hugepage/shmem_enabled"

// checkHuge returns why the setting can't be changed, if it can't.
func checkHuge(setting string) error {
	f, err := os.OpenFile(setting, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("HUGE=1 changes a setting of the machine for a while, which takes root: %w", err)
	}
	return f.Close()
}

// withHuge is a case with huge pages allowed. The old setting is put back when the case ends, whatever ended it.
func withHuge(setting string, c bench.Case) bench.Case {
	run := c.Run
	c.Name += huge
	c.Run = func(ctx context.Context) (_ bench.Values, err error) {
		old, err := hugeNow(setting)
		if err != nil {
			return nil, err
		}
		if err := setHuge(setting, "advise"); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, setHuge(setting, old)) }()
		return run(ctx)
	}
	return c
}

func hugeNow(setting string) (string, error) {
	data, err := os.ReadFile(setting)
	if err != nil {
		return "", fmt.Errorf("read setting for huge pages: %w", err)
	}
	now, ok := chosen(string(data))
	if !ok {
		return "", fmt.Errorf("read setting for huge pages: %s holds %q, want one word in brackets", setting, data)
	}
	return now, nil
}

func setHuge(setting, value string) error {
	if err := os.WriteFile(setting, []byte(value), 0); err != nil {
		return fmt.Errorf("set huge pages for shared memory to %q: %w", value, err)
	}
	return nil
}

// chosen returns the word in brackets.
func chosen(words string) (string, bool) {
	_, rest, open := strings.Cut(words, "[")
	word, _, closed := strings.Cut(rest, "]")
	return word, open && closed
}
