// Package hostmem asks the kernel how much memory can be had for sealed weights, and of what kind.
//
// The one rule: what it says is what the kernel would grant or refuse now, and where that is not certain it says less. It
// reads a few small files of /proc and /sys and changes nothing, so it may be asked often; a limit that can't be read is
// an error and not taken for none.
package hostmem

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// Room is how much memory may be taken before the kernel refuses it, or ends a process for it.
type Room struct {
	Bytes int64  // may be below zero
	Limit string // which limit decides, for an operator
}

// Host is a machine as its files describe it: the root directory of one that runs, or a recorded one in tests.
type Host struct{ Root fs.FS }

// Here is the machine that this process runs on.
var Here = Host{os.DirFS("/")}

// Available returns the room under the machine's memory and under the limits of the own memory cgroup and of all above
// it, whichever is least. It counts no swap: weights that are swapped out are not loaded. Of a container's cgroups it
// sees those that are mounted there. A cgroup's memory.high is no limit: above it the kernel slows down, and ends nobody.
func (h Host) Available() (Room, error) {
	room, err := h.machine()
	if err != nil {
		return Room{}, err
	}
	levels, err := h.levels()
	if err != nil {
		return Room{}, err
	}
	for _, l := range levels {
		for _, q := range l.quotas {
			r, limited, err := h.under(q, l)
			if err != nil {
				return Room{}, err
			}
			if limited && r.Bytes < room.Bytes {
				room = r
			}
		}
	}
	return room, nil
}

// machine returns what the machine has, whatever cgroups allow.
func (h Host) machine() (Room, error) {
	const meminfo = "proc/meminfo"
	data, err := h.read(meminfo)
	if err != nil {
		return Room{}, err
	}
	available, err := kib(data, "MemAvailable:")
	if err != nil {
		return Room{}, fmt.Errorf("/%s: %w", meminfo, err)
	}
	room := Room{available, "MemAvailable of this machine"}
	mode, err := h.read("proc/sys/vm/overcommit_memory")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Room{}, err
	}
	if string(bytes.TrimSpace(mode)) != "2" {
		return room, nil // the kernel promises more than it has, and refuses nothing for that
	}
	limit, err := kib(data, "CommitLimit:")
	if err != nil {
		return Room{}, fmt.Errorf("/%s: %w", meminfo, err)
	}
	promised, err := kib(data, "Committed_AS:")
	if err != nil {
		return Room{}, fmt.Errorf("/%s: %w", meminfo, err)
	}
	if left := limit - promised; left < room.Bytes {
		room = Room{left, "CommitLimit of this machine (vm.overcommit_memory is 2)"}
	}
	return room, nil
}

// read returns what a file holds. Its error names the file once.
func (h Host) read(name string) ([]byte, error) {
	data, err := fs.ReadFile(h.Root, name)
	if err == nil {
		return data, nil
	}
	if in := new(fs.PathError); errors.As(err, &in) {
		err = in.Err
	}
	return nil, fmt.Errorf("read /%s: %w", name, err)
}

// errNoLine means that a list has no line of that name.
var errNoLine = errors.New("no line")

// field returns the number behind a name at the beginning of a line.
func field(data []byte, name string) (int64, error) {
	for line := range bytes.Lines(data) {
		if words := strings.Fields(string(line)); len(words) > 1 && words[0] == name {
			n, err := number(words[1])
			if err != nil {
				return 0, fmt.Errorf("line %s: %w", name, err)
			}
			return n, nil
		}
	}
	return 0, fmt.Errorf("%w %s", errNoLine, name)
}

// kib returns in bytes what a line says in KiB.
func kib(data []byte, name string) (int64, error) {
	n, err := field(data, name)
	if err == nil && n > noLimit>>10 {
		err = fmt.Errorf("line %s: %d is out of range", name, n)
	}
	return n << 10, err
}

// number parses a number below noLimit, so that two may be added.
func number(text string) (int64, error) {
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 62)
	return int64(n), err
}
