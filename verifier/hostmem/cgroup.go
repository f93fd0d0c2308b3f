package hostmem

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// A version is how one of the two cgroup interfaces names what we read.
type version struct {
	kind    string   // of its file system
	option  string   // that the mount of memory's hierarchy has; empty if there is one hierarchy for all
	quotas  []quota  // each of them may end us
	cache   []string // fields of memory.stat: pages of files on disk
	pending []string // fields of memory.stat: those among them that must be written first
	swap    string   // the limit of swap alone; empty if there is no such limit
}

// A quota is one limit of a cgroup: the file with the limit, and the one with what is used of it.
type quota struct{ limit, usage string }

var (
	v1 = &version{
		kind: "cgroup", option: "memory",
		// The second is for memory and swap together: it may be used up while the first is not.
		quotas:  []quota{{"memory.limit_in_bytes", "memory.usage_in_bytes"}, {"memory.memsw.limit_in_bytes", "memory.memsw.usage_in_bytes"}},
		cache:   []string{"total_inactive_file", "total_active_file"},
		pending: []string{"total_dirty", "total_writeback"},
	}
	v2 = &version{
		kind:    "cgroup2",
		quotas:  []quota{{"memory.max", "memory.current"}},
		cache:   []string{"inactive_file", "active_file"},
		pending: []string{"file_dirty", "file_writeback"},
		swap:    "memory.swap.max",
	}
)

// A level is the own cgroup or one above it.
type level struct {
	*version
	name string // in the hierarchy
	dir  string // where its files are
}

// levels lists every cgroup that may limit memory. Where both versions are mounted only one of them controls memory; the
// other has no such files, and limits nothing.
func (h Host) levels() ([]level, error) {
	own, err := h.read("proc/self/cgroup")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // a kernel without cgroups
	} else if err != nil {
		return nil, err
	}
	mounts, err := h.mounts()
	if err != nil {
		return nil, err
	}
	var all []level
	for line := range strings.Lines(string(own)) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) != 3 || !path.IsAbs(parts[2]) {
			return nil, fmt.Errorf("/proc/self/cgroup: line %q", line)
		}
		v := v2
		if parts[0] != "0" || parts[1] != "" {
			if v = v1; !slices.Contains(strings.Split(parts[1], ","), "memory") {
				continue
			}
		}
		all = append(all, visible(v, parts[2], mounts)...)
	}
	return all, nil
}

// visible lists the cgroup of that name and those above it, as far as they are mounted. A container sees its own part of
// the hierarchy as the mount's root, and /proc/self/cgroup may name it from outside. A name that leads nowhere below a
// mount stands for the mount's root, which is the closest that can be read.
func visible(v *version, name string, mounts []mount) []level {
	var from mount
	var found, inside bool
	below := "/"
	for _, m := range mounts {
		if m.kind != v.kind || v.option != "" && !slices.Contains(strings.Split(m.options, ","), v.option) {
			continue
		}
		rest, ok := cut(name, m.root)
		if !found || ok && (!inside || len(m.root) < len(from.root)) { // of several, the one that shows most of those above
			from, below, found, inside = m, rest, true, ok
		}
	}
	if !found {
		return nil
	}
	var all []level
	for dir := below; ; dir = path.Dir(dir) {
		all = append(all, level{v, path.Join(from.root, dir), strings.TrimPrefix(path.Join(from.point, dir), "/")})
		if dir == "/" {
			return all
		}
	}
}

// cut returns the path from root to name, "/" and false if name is not below root.
func cut(name, root string) (string, bool) {
	rest, ok := strings.CutPrefix(name, strings.TrimSuffix(root, "/"))
	if ok && rest == "" {
		return "/", true
	}
	// Dots stand for what is above a namespace's root: where that is can't be told from a name.
	if !ok || rest[0] != '/' || strings.Contains(rest+"/", "/../") {
		return "/", false
	}
	return rest, true
}

// A mount is a line of mountinfo.
type mount struct {
	root, point   string // what is mounted of its file system, and where
	kind, options string // of the file system
}

// mounts lists what is mounted, as proc(5) describes it.
func (h Host) mounts() ([]mount, error) {
	const name = "proc/self/mountinfo"
	data, err := h.read(name)
	if err != nil {
		return nil, err
	}
	var all []mount
	for line := range strings.Lines(string(data)) {
		words := strings.Split(strings.TrimSuffix(line, "\n"), " ") // any of them may be empty
		dash := slices.Index(words, "-")                            // ends a list of optional fields
		if dash < 6 || len(words) < dash+4 {
			return nil, fmt.Errorf("/%s: line %q", name, line)
		}
		all = append(all, mount{unescape(words[3]), unescape(words[4]), words[dash+1], words[dash+3]})
	}
	return all, nil
}

// unescape replaces what the kernel writes for blanks in a name: a backslash and three octal digits.
func unescape(s string) string {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, `\`)
		b.WriteString(before)
		if !found {
			return b.String()
		}
		if n, err := strconv.ParseUint(after[:min(3, len(after))], 8, 8); err == nil && len(after) >= 3 {
			b.WriteByte(byte(n))
			after = after[3:]
		} else {
			b.WriteByte('\\')
		}
		s = after
	}
}

// noLimit is less than what version 1 writes for none, which is the largest multiple of a page.
const noLimit = 1 << 62

// under returns the room that one quota leaves, and whether there is that quota at all.
func (h Host) under(q quota, l level) (room Room, limited bool, err error) {
	file := path.Join(l.dir, q.limit)
	data, err := h.read(file)
	if errors.Is(err, fs.ErrNotExist) {
		return Room{}, false, nil // no such cgroup here, or memory is not controlled at this level
	} else if err != nil {
		return Room{}, false, err
	}
	word := string(bytes.TrimSpace(data))
	if word == "max" {
		return Room{}, false, nil
	}
	limit, err := strconv.ParseUint(word, 10, 64)
	if err != nil {
		return Room{}, false, fmt.Errorf("/%s: %w", file, err)
	}
	if limit >= noLimit {
		return Room{}, false, nil
	}
	file = path.Join(l.dir, q.usage)
	if data, err = h.read(file); err != nil {
		return Room{}, false, err
	}
	used, err := number(string(data))
	if err != nil {
		return Room{}, false, fmt.Errorf("/%s: %w", file, err)
	}
	cache, err := h.reclaimable(l)
	if err != nil {
		return Room{}, false, err
	}
	// The files are read one after the other, so what they say may not fit together: no more than what is used comes back.
	room = Room{int64(limit) - used + min(cache, used), fmt.Sprintf("memory limit of cgroup %s (%s)", l.name, q.limit)}
	return room, true, nil
}

// reclaimable returns how much of what a cgroup uses the kernel gives up for whoever needs memory: the page cache of
// files on disk. These lists hold neither sealed weights, which are kept like a program's own memory, nor what is locked.
// Pages that must be written first don't count, since the disk may be slower than whoever asks; nor does the kernel's own
// memory (slab_reclaimable), which it gives up when it likes.
func (h Host) reclaimable(l level) (int64, error) {
	file := path.Join(l.dir, "memory.stat")
	data, err := h.read(file)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil // nothing is known to come back
	} else if err != nil {
		return 0, err
	}
	var sum int64
	for _, name := range l.cache {
		n, err := field(data, name)
		if err != nil {
			return 0, fmt.Errorf("/%s: %w", file, err)
		}
		sum += n
	}
	for _, name := range l.pending {
		n, err := field(data, name)
		if err != nil && !errors.Is(err, errNoLine) { // kernels before 4.2 don't tell
			return 0, fmt.Errorf("/%s: %w", file, err)
		}
		sum -= n
	}
	return max(sum, 0), nil
}
