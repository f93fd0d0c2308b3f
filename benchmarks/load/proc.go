package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// ownMemory returns the bytes that are resident in a process less those of shared memory: sealed weights that it has
// mapped are counted there, and would be counted again in every process that maps them.
func ownMemory(pid int) (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("read memory of process: %w", err)
	}
	return parseOwnMemory(string(data))
}

func parseOwnMemory(status string) (int64, error) {
	found := map[string]int64{}
	for line := range strings.Lines(status) {
		name, rest, _ := strings.Cut(line, ":")
		if name != "VmRSS" && name != "RssShmem" {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read memory of process: %s: %w", name, err)
		}
		found[name] = kib << 10
	}
	if len(found) != 2 {
		return 0, errors.New("read memory of process: it has none") // it has ended
	}
	return found["VmRSS"] - found["RssShmem"], nil
}

// cpuOf returns the processor time of a process that runs, and that of its children that it has reaped.
func cpuOf(pid int) (own, reaped time.Duration, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, fmt.Errorf("read processor time: %w", err)
	}
	return parseCPU(string(data))
}

// parseCPU reads fields 14 to 17 of proc_pid_stat(5), in ticks of a hundredth of a second, which the kernel's interface
// fixes. The name before them, in brackets, may hold anything.
func parseCPU(stat string) (own, reaped time.Duration, err error) {
	const tick = 10 * time.Millisecond
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 15 {
		return 0, 0, errors.New("read processor time: a field is missing")
	}
	var ticks [4]time.Duration
	for i := range ticks {
		n, err := strconv.ParseInt(fields[11+i], 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("read processor time: %w", err)
		}
		ticks[i] = time.Duration(n) * tick
	}
	return ticks[0] + ticks[1], ticks[2] + ticks[3], nil
}

// readFromDevice returns the bytes that a process that runs has made the kernel read from a disk. Other users' processes,
// and those that hide their memory, are shown to root only.
func readFromDevice(pid int) (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return 0, fmt.Errorf("read input of process: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "read_bytes: "); ok {
			return strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
		}
	}
	return 0, errors.New("read input of process: this kernel does not count it")
}
