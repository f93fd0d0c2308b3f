package hostmem_test

import (
	"maps"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/weighbridge/weighbridge/verifier/hostmem"
)

const gib = 1 << 30

// A container of cgroup version 1 on a machine with 8 GiB to be had, where each level has its own limit.
var one = map[string]string{
	"proc/meminfo":     "MemTotal:       16777216 kB\nMemFree:         1048576 kB\nMemAvailable:    8388608 kB\n",
	"proc/self/cgroup": "9:name=systemd:/\n4:cpu,memory:/site/gateway\n0::/\n",
	"sys/fs/cgroup/memory/site/gateway/memory.limit_in_bytes": "9223372036854771712\n",
	"sys/fs/cgroup/memory/site/memory.limit_in_bytes":         "4294967296\n",
	"sys/fs/cgroup/memory/site/memory.usage_in_bytes":         "3221225472\n",
	"sys/fs/cgroup/memory/site/memory.stat":                   "cache 1\ninactive_file 7\ntotal_inactive_file 536870912\ntotal_active_file 536870912\n",
	"sys/fs/cgroup/memory/memory.limit_in_bytes":              "9223372036854771712\n",
}

// The same under version 2, where the limit is the own one.
var two = map[string]string{
	"proc/meminfo":                              one["proc/meminfo"],
	"proc/self/cgroup":                          "0::/site/gateway\n",
	"sys/fs/cgroup/site/gateway/memory.max":     "3221225472\n",
	"sys/fs/cgroup/site/gateway/memory.current": "2147483648\n",
	"sys/fs/cgroup/site/gateway/memory.stat":    "inactive_file 0\nactive_file 1073741824\nanon 5\n",
	"sys/fs/cgroup/site/memory.max":             "max\n",
}

func host(files map[string]string) hostmem.Host {
	m := fstest.MapFS{}
	for name, data := range files {
		m[name] = &fstest.MapFile{Data: []byte(data)}
	}
	return hostmem.Host{Root: m}
}

func TestAvailable(t *testing.T) {
	tests := []struct {
		name  string
		files map[string]string
		file  string // changed
		data  string // "-": removed
		want  int64  // -1: an error
		limit string
	}{
		{"version 1", one, "", "", 2 * gib, "/sys/fs/cgroup/memory/site"},
		{"version 2", two, "", "", 2 * gib, "/sys/fs/cgroup/site/gateway"},
		{"machine has less", one, "proc/meminfo", "MemAvailable: 1048576 kB\n", gib, "MemAvailable"},
		{"no limit above", one, "sys/fs/cgroup/memory/site/memory.limit_in_bytes", "9223372036854771712\n", 8 * gib, "MemAvailable"},
		{"no own limit", two, "sys/fs/cgroup/site/gateway/memory.max", "max\n", 8 * gib, "MemAvailable"},
		{"path that is not mounted", two, "sys/fs/cgroup/site/gateway/memory.max", "-", 8 * gib, "MemAvailable"},
		{"no cgroups", one, "proc/self/cgroup", "-", 8 * gib, "MemAvailable"},
		{"over the limit", two, "sys/fs/cgroup/site/gateway/memory.current", "9663676416\n", -5 * gib, "memory.max"},
		{"no meminfo", one, "proc/meminfo", "-", -1, ""},
		{"meminfo of an old kernel", one, "proc/meminfo", "MemFree: 1 kB\n", -1, ""},
		{"limit that is no number", one, "sys/fs/cgroup/memory/site/memory.limit_in_bytes", "lots\n", -1, ""},
		{"usage that is no number", one, "sys/fs/cgroup/memory/site/memory.usage_in_bytes", "\n", -1, ""},
		{"no usage", two, "sys/fs/cgroup/site/gateway/memory.current", "-", -1, ""},
		{"no statistics", two, "sys/fs/cgroup/site/gateway/memory.stat", "-", -1, ""},
		{"statistics without cache", two, "sys/fs/cgroup/site/gateway/memory.stat", "anon 5\n", -1, ""},
		{"broken cgroup file", one, "proc/self/cgroup", "memory\n", -1, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			files := maps.Clone(tt.files)
			files[tt.file] = tt.data
			if tt.data == "-" || tt.file == "" {
				delete(files, tt.file)
			}
			room, err := host(files).Available()
			if (err != nil) != (tt.want == -1) || err == nil && (room.Bytes != tt.want || !strings.Contains(room.Limit, tt.limit)) {
				t.Errorf("Available = %d (%s), %v, want %d (%s)", room.Bytes, room.Limit, err, tt.want, tt.limit)
			}
		})
	}
}

func TestHugePages(t *testing.T) {
	const dir = "sys/kernel/mm/transparent_hugepage/"
	tests := []struct {
		name, size, common, own string
		want                    bool
	}{
		{"advise", "2097152\n", "always within_size [advise] never deny force\n", "always [inherit] within_size advise never\n", true},
		{"kernel without sizes", "2097152\n", "always within_size [advise] never deny force\n", "", true},
		{"never", "2097152\n", "always within_size advise [never] deny force\n", "always [inherit] within_size advise never\n", false},
		{"own setting allows", "2097152\n", "always within_size advise [never] deny force\n", "[always] inherit within_size advise never\n", true},
		{"own setting forbids", "2097152\n", "[always] within_size advise never deny force\n", "always inherit within_size advise [never]\n", false},
		{"no such kernel", "", "", "", false},
		{"no size", "x", "[always]", "", false},
		{"no choice", "2097152\n", "always never\n", "", false},
	}
	for _, tt := range tests {
		files := map[string]string{dir + "hpage_pmd_size": tt.size, dir + "shmem_enabled": tt.common, dir + "hugepages-2048kB/shmem_enabled": tt.own}
		maps.DeleteFunc(files, func(_, data string) bool { return data == "" })
		h := host(files).HugePages()
		if h.Usable != tt.want || (h.Hint() == "") != tt.want || tt.want && h.Size != 2<<20 {
			t.Errorf("%s: HugePages = %+v (%s), want usable %v", tt.name, h, h.Hint(), tt.want)
		}
	}
}

func TestSwap(t *testing.T) {
	const heading = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
	for data, want := range map[string]bool{heading: false, heading + "/dev/sda2 partition 1 0 -2\n": true} {
		if on, err := host(map[string]string{"proc/swaps": data}).Swap(); on != want || err != nil {
			t.Errorf("Swap of %q = %v, %v, want %v", data, on, err, want)
		}
	}
	if _, err := host(nil).Swap(); err == nil {
		t.Error("Swap without its file = nil, want an error")
	}
}

// What the kernel really writes is understood.
func TestHere(t *testing.T) {
	room, err := hostmem.Here.Available()
	if err != nil || room.Bytes < 64<<20 || room.Bytes > 1<<50 || room.Limit == "" {
		t.Errorf("Available = %+v, %v, want what this machine has", room, err)
	}
	if _, err := hostmem.Here.Swap(); err != nil {
		t.Error(err)
	}
	t.Logf("%d MiB (%s), %+v", room.Bytes>>20, room.Limit, hostmem.Here.HugePages())
}
