package hostmem

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// Huge says whether memory files can have transparent huge pages, which are many times cheaper to get and to map.
type Huge struct {
	Usable  bool   // by who asks with MADV_HUGEPAGE
	Size    int64  // of one, in bytes; 0 if the kernel knows none
	Setting string // of the kernel that decides, as it stands in its file; empty if there is no such file

	file  string // that holds Setting
	allow string // what to write there
}

const hugeDir = "sys/kernel/mm/transparent_hugepage"

// HugePages reads the kernel's setting for shared memory.
func (h Host) HugePages() Huge {
	data, err := h.read(path.Join(hugeDir, "hpage_pmd_size"))
	if err != nil {
		return Huge{}
	}
	size, err := number(string(data))
	if err != nil || size <= 0 {
		return Huge{}
	}
	huge := Huge{Size: size, file: path.Join(hugeDir, "shmem_enabled"), allow: "advise"}
	huge.Setting = h.chosen(huge.file)
	switch huge.Setting {
	case "":
		return Huge{}
	case "always", "within_size", "advise", "force":
		huge.Usable = true
	}
	// Since 6.11 each size has its own setting too.
	file := path.Join(hugeDir, fmt.Sprintf("hugepages-%dkB", size>>10), "shmem_enabled")
	own := h.chosen(file)
	switch {
	case own == "", own == "inherit", huge.Setting == "deny": // deny is above all
		return huge
	case huge.Setting == "force": // only sizes that inherit are forced, and nothing else is asked
		return Huge{Size: size, Setting: own, file: file, allow: "inherit"}
	}
	usable := own == "always" || own == "within_size" || own == "advise"
	return Huge{Usable: usable, Size: size, Setting: own, file: file, allow: "advise"}
}

// chosen returns the word in brackets.
func (h Host) chosen(name string) string {
	data, err := h.read(name)
	if err != nil {
		return ""
	}
	_, rest, _ := bytes.Cut(data, []byte("["))
	word, _, found := bytes.Cut(rest, []byte("]"))
	if !found {
		return ""
	}
	return string(word)
}

// Hint says in one line what an operator can do to get memory mapped by huge pages, empty if it is.
func (h Huge) Hint() string {
	switch {
	case h.Usable:
		return ""
	case h.Setting == "":
		return "this kernel has no transparent huge pages for shared memory"
	}
	return fmt.Sprintf("shared memory is not mapped by huge pages, so that runtimes start slower (shmem_enabled is %s): echo %s > /%s", h.Setting, h.allow, h.file)
}

// Swap says whether the kernel may write our memory to a swap device.
type Swap struct {
	On  bool
	Why string // for an operator
}

// Swap looks for swap devices, and for a cgroup that forbids their use. Memory that is locked is never swapped.
func (h Host) Swap() (Swap, error) {
	data, err := h.read("proc/swaps")
	if errors.Is(err, fs.ErrNotExist) {
		return Swap{Why: "this kernel has no swap"}, nil
	} else if err != nil {
		return Swap{}, err
	}
	var devices []string
	_, list, _ := strings.Cut(string(data), "\n") // the first line is a heading
	for line := range strings.Lines(list) {
		if words := strings.Fields(line); len(words) > 0 {
			devices = append(devices, unescape(words[0]))
		}
	}
	if devices == nil {
		return Swap{Why: "no swap device is on"}, nil
	}
	levels, err := h.levels()
	if err != nil {
		return Swap{}, err
	}
	for _, l := range levels {
		if l.swap == "" {
			continue
		}
		limit, err := h.read(path.Join(l.dir, l.swap))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return Swap{}, err
		}
		if string(bytes.TrimSpace(limit)) == "0" {
			return Swap{Why: fmt.Sprintf("no swap for cgroup %s (%s is 0)", l.name, l.swap)}, nil
		}
	}
	return Swap{On: true, Why: "swap is on: " + strings.Join(devices, ", ")}, nil
}
