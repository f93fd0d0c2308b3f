package hostmem_test

import (
	"io/fs"
	"path"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/weighbridge/weighbridge/verifier/hostmem"
)

// anywhere is a machine where each cgroup has the same files, wherever it is mounted.
type anywhere struct {
	files fstest.MapFS
	read  map[string]bool // names of cgroup files that were read
}

func (a anywhere) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	if f, err := a.files.Open(name); err == nil {
		return f, nil
	}
	a.read[path.Base(name)] = true
	return a.files.Open("cgroup/" + path.Base(name))
}

// Whatever the kernel's files hold, there is an error or a room that no limit that was read is below.
func FuzzAvailable(f *testing.F) {
	for _, files := range []map[string]string{hybrid, service, container, outside} {
		for name, limit := range files {
			switch path.Base(name) {
			case "memory.max":
				f.Add(files["proc/meminfo"], files["proc/self/cgroup"], files["proc/self/mountinfo"], limit, files[path.Dir(name)+"/memory.current"], files[path.Dir(name)+"/memory.stat"])
			case "memory.limit_in_bytes":
				f.Add(files["proc/meminfo"], files["proc/self/cgroup"], files["proc/self/mountinfo"], limit, files[path.Dir(name)+"/memory.usage_in_bytes"], files[path.Dir(name)+"/memory.stat"])
			}
		}
	}
	f.Fuzz(func(t *testing.T, meminfo, cgroup, mountinfo, limit, usage, stat string) {
		m := fstest.MapFS{}
		for name, data := range map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": cgroup, "proc/self/mountinfo": mountinfo, "proc/sys/vm/overcommit_memory": "2", "proc/swaps": usage,
			"cgroup/memory.max": limit, "cgroup/memory.limit_in_bytes": limit, "cgroup/memory.current": usage, "cgroup/memory.usage_in_bytes": usage, "cgroup/memory.stat": stat, "cgroup/memory.swap.max": limit,
		} {
			m[name] = &fstest.MapFile{Data: []byte(data)}
		}
		root := anywhere{m, map[string]bool{}}
		h := hostmem.Host{Root: root}
		if s, err := h.Swap(); (err == nil) != (s.Why != "") {
			t.Errorf("Swap = %+v, %v, want a reason or an error", s, err)
		}
		room, err := h.Available()
		if err != nil {
			return
		}
		if room.Limit == "" {
			t.Errorf("Available = %+v, want the limit's name", room)
		}
		if n, err := strconv.ParseInt(strings.TrimSpace(limit), 10, 64); err == nil && root.read["memory.stat"] && room.Bytes > n {
			t.Errorf("Available = %+v, want at most %d", room, n)
		}
	})
}
