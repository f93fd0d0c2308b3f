// Package hostmem asks the kernel how much memory can be had, and of what kind.
//
// The one rule: what it says is what would be refused or granted now. It reads /proc and /sys and changes nothing, so it
// may be asked often; a limit that can't be read is an error and not taken for none.
package hostmem

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
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

// Available returns the room under the machine's memory and under the limit of the own memory cgroup and of all above
// it, whichever is least. Page cache counts as room: the kernel drops it for whoever needs memory.
func (h Host) Available() (Room, error) {
	room, err := h.machine()
	if err != nil {
		return Room{}, err
	}
	groups, err := h.cgroups()
	if err != nil {
		return Room{}, err
	}
	for _, g := range groups {
		r, limited, err := h.group(g)
		if err != nil {
			return Room{}, err
		}
		if limited && r.Bytes < room.Bytes {
			room = r
		}
	}
	return room, nil
}

func (h Host) machine() (Room, error) {
	data, err := fs.ReadFile(h.Root, "proc/meminfo")
	if err != nil {
		return Room{}, err
	}
	kib, err := field(data, "MemAvailable:")
	if err != nil {
		return Room{}, fmt.Errorf("/proc/meminfo: %w", err)
	}
	return Room{kib << 10, "MemAvailable of this machine"}, nil
}

// field returns the number behind a name at the beginning of a line.
func field(data []byte, name string) (int64, error) {
	for line := range bytes.Lines(data) {
		if words := strings.Fields(string(line)); len(words) > 1 && words[0] == name {
			return strconv.ParseInt(words[1], 10, 64)
		}
	}
	return 0, fmt.Errorf("no line %s", name)
}

// A version is how a cgroup hierarchy names what we read.
type version struct {
	mount, limit, usage, cache string
}

var (
	v1 = version{"sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"}
	v2 = version{"sys/fs/cgroup", "memory.max", "memory.current", ""}
)

// A cgroup is one level that may limit memory.
type cgroup struct {
	version
	dir string
}

// cgroups lists the own memory cgroup and those above it. In a container only the part of the path that is mounted
// there exists; what is not there limits nothing that could be read.
func (h Host) cgroups() ([]cgroup, error) {
	data, err := fs.ReadFile(h.Root, "proc/self/cgroup")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	var all []cgroup
	for line := range bytes.Lines(data) {
		parts := strings.SplitN(strings.TrimSpace(string(line)), ":", 3)
		if len(parts) != 3 {
			return nil, fmt.Errorf("/proc/self/cgroup: line %q", line)
		}
		v := v2
		switch {
		case parts[0] == "0" && parts[1] == "":
		case strings.Contains(","+parts[1]+",", ",memory,"):
			v = v1
		default:
			continue
		}
		for dir := path.Join("/", parts[2]); ; dir = path.Dir(dir) {
			all = append(all, cgroup{v, path.Join(v.mount, dir)})
			if dir == "/" {
				break
			}
		}
	}
	return all, nil
}

// noLimit is above what version 1 writes for none, the largest multiple of a page.
const noLimit = 1 << 62

// group returns the room in one cgroup, and whether it is limited at all.
func (h Host) group(g cgroup) (Room, bool, error) {
	text, err := fs.ReadFile(h.Root, path.Join(g.dir, g.limit))
	if errors.Is(err, fs.ErrNotExist) {
		return Room{}, false, nil
	} else if err != nil {
		return Room{}, false, err
	}
	word := strings.TrimSpace(string(text))
	if word == "max" {
		return Room{}, false, nil
	}
	limit, err := strconv.ParseInt(word, 10, 64)
	if err != nil {
		return Room{}, false, fmt.Errorf("/%s: %w", path.Join(g.dir, g.limit), err)
	}
	if limit >= noLimit {
		return Room{}, false, nil
	}
	data, err := fs.ReadFile(h.Root, path.Join(g.dir, g.usage))
	if err != nil {
		return Room{}, false, err
	}
	used, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		return Room{}, false, fmt.Errorf("/%s: %w", path.Join(g.dir, g.usage), err)
	}
	stat, err := fs.ReadFile(h.Root, path.Join(g.dir, "memory.stat"))
	if err != nil {
		return Room{}, false, err
	}
	for _, list := range []string{"inactive_file", "active_file"} {
		n, err := field(stat, g.cache+list)
		if err != nil {
			return Room{}, false, fmt.Errorf("/%s/memory.stat: %w", g.dir, err)
		}
		used -= n
	}
	return Room{limit - used, fmt.Sprintf("%s of memory cgroup /%s", g.limit, g.dir)}, true, nil
}
