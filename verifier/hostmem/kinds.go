package hostmem

import (
	"bytes"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

// Huge says whether memory files can have transparent huge pages, which are many times cheaper to get and to map.
type Huge struct {
	Usable  bool   // by who asks with MADV_HUGEPAGE
	Size    int64  // of one, in bytes; 0 if the kernel knows none
	Setting string // of the kernel, as it stands in its file; empty if there is no such file
}

const hugeDir = "sys/kernel/mm/transparent_hugepage/"

// HugePages reads the kernel's setting for shared memory.
func (h Host) HugePages() Huge {
	var huge Huge
	size, err := fs.ReadFile(h.Root, hugeDir+"hpage_pmd_size")
	if err != nil {
		return huge
	}
	if huge.Size, err = strconv.ParseInt(strings.TrimSpace(string(size)), 10, 64); err != nil || huge.Size <= 0 {
		return Huge{}
	}
	huge.Setting = h.chosen("shmem_enabled")
	setting := huge.Setting
	// Since 6.10 each size has its own setting, which may defer to the common one.
	if own := h.chosen(fmt.Sprintf("hugepages-%dkB/shmem_enabled", huge.Size>>10)); own != "" && own != "inherit" {
		setting, huge.Setting = own, own
	}
	switch setting {
	case "always", "within_size", "advise", "force":
		huge.Usable = true
	}
	return huge
}

// chosen returns the word in brackets.
func (h Host) chosen(name string) string {
	data, err := fs.ReadFile(h.Root, hugeDir+name)
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

// Hint says in one line what an operator can do to get huge pages, empty if they can be had.
func (h Huge) Hint() string {
	switch {
	case h.Usable:
		return ""
	case h.Setting == "":
		return "this kernel has no transparent huge pages for shared memory"
	}
	return fmt.Sprintf("shared memory gets no huge pages (shmem_enabled is %s): echo advise > /%sshmem_enabled", h.Setting, hugeDir)
}

// Swap reports whether this machine can write memory to a swap device.
func (h Host) Swap() (bool, error) {
	data, err := fs.ReadFile(h.Root, "proc/swaps")
	if err != nil {
		return false, err
	}
	return bytes.Count(bytes.TrimSpace(data), []byte("\n")) > 0, nil // the first line is a heading
}
