package bench

import (
	"bufio"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine describes what the numbers depend on: processor, memory, kernel, and the disk on which path lies. What can't
// be found out is left out. It names neither the machine nor its directories.
func Machine(path string) []Fact {
	facts := []Fact{{"processor", fmt.Sprintf("%s, %s, %s", cmp.Or(firstField("/proc/cpuinfo", "model name"), "unknown"), plural(runtime.NumCPU(), "core"), runtime.GOARCH)}}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err == nil {
		facts = append(facts, Fact{"memory", fmt.Sprintf("%.1f GiB", float64(info.Totalram)*float64(info.Unit)/(1<<30))})
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err == nil {
		facts = append(facts, Fact{"kernel", "Linux " + unix.ByteSliceToString(name.Release[:])})
	}
	if disk := disk(path); disk != "" {
		facts = append(facts, Fact{"disk", disk})
	}
	return append(facts, Fact{"go", runtime.Version()})
}

// firstField returns the value of the first "name: value" line of a file.
func firstField(path, name string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if key, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// disk names the file system on which path lies and the device below it.
func disk(path string) string {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return ""
	}
	device := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	kind := fileSystem(device)
	link, err := filepath.EvalSymlinks("/sys/dev/block/" + device)
	if err != nil {
		return kind // no block device of its own: a network or memory file system
	}
	dir := link
	if _, err := os.Stat(filepath.Join(dir, "queue")); err != nil {
		dir = filepath.Dir(dir) // a partition's queue is its disk's
	}
	about := []string{filepath.Base(dir)}
	if model := oneLine(filepath.Join(dir, "device", "model")); model != "" {
		about = append(about, model)
	} else if driver, err := filepath.EvalSymlinks(filepath.Join(dir, "device", "driver")); err == nil {
		about = append(about, filepath.Base(driver))
	}
	switch oneLine(filepath.Join(dir, "queue", "rotational")) {
	case "0":
		about = append(about, "says it does not rotate")
	case "1":
		about = append(about, "says it rotates")
	}
	return strings.TrimSpace(kind + " on " + strings.Join(about, ", "))
}

// fileSystem returns the type of the mounted file system with this device number.
func fileSystem(device string) string {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// proc(5): ID, parent, major:minor, …, then behind a lone dash the type.
		before, after, ok := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(before)
		if ok && len(fields) > 2 && fields[2] == device {
			kind, _, _ := strings.Cut(after, " ")
			return kind
		}
	}
	return ""
}

func oneLine(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return strings.TrimSpace(line)
}
