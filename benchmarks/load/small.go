package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/weighbridge/weighbridge/benchmarks/bench"
)

// shmemSetting says whether shared memory, and so sealed memory, may be made of huge pages, and be mapped by them.
const shmemSetting = "/sys/kernel/mm/transparent_hugepage/shmem_enabled"

// allowHuge makes the machine as `weighbridge version` advises, if it can, until restore is called: shared memory is made
// of huge pages where a program asks for them. It says what became of that.
func allowHuge(path string) (said string, restore func() error) {
	keep := func() error { return nil }
	old, err := setting(path)
	if err != nil {
		return "not supported", keep
	}
	if old != "never" && old != "deny" {
		return old, keep
	}
	const allowed = "advise"
	if err := set(path, allowed); err != nil {
		return old + ", which makes a runtime's start slower, and could not be changed: that takes root", keep
	}
	return fmt.Sprintf("%s, for as long as this runs; it was %s", allowed, old), func() error { return set(path, old) }
}

// checkSetting returns why the setting can't be changed, if it can't.
func checkSetting(setting string) error {
	f, err := os.OpenFile(setting, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("SMALL=1 changes a setting of the machine for a while, which takes root: %w", err)
	}
	return f.Close()
}

// withSmall is a case with huge pages forbidden. The old setting is put back when the case ends, whatever ended it.
func withSmall(path string, c bench.Case) bench.Case {
	run := c.Run
	c.Name += small
	c.Run = func(ctx context.Context) (_ bench.Values, err error) {
		old, err := setting(path)
		if err != nil {
			return nil, err
		}
		if err := set(path, "deny"); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, set(path, old)) }()
		return run(ctx)
	}
	return c
}

func setting(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read setting for huge pages: %w", err)
	}
	now, ok := chosen(string(data))
	if !ok {
		return "", fmt.Errorf("read setting for huge pages: %s holds %q, want one word in brackets", path, data)
	}
	return now, nil
}

func set(path, value string) error {
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
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
