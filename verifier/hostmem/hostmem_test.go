package hostmem_test

import (
	"strings"
	"testing"

	"github.com/weighbridge/weighbridge/verifier/hostmem"
)

type files = map[string]string

const (
	memory = "sys/fs/cgroup/memory"
	own    = "sys/fs/cgroup/system.slice/weighbridge.service"
	slice  = "sys/fs/cgroup/system.slice"
	nobody = "MemAvailable of this machine"
)

func TestAvailable(t *testing.T) {
	tests := []struct {
		name    string
		files   files
		changed files
		want    int64
		limit   string
	}{
		// What is used comes back as far as it is cache, and cache as far as it is written.
		{"version 1", hybrid, nil, 2 * gib, "memory limit of cgroup /site (memory.limit_in_bytes)"},
		{"version 2", service, nil, 2 * gib, "memory limit of cgroup /system.slice/weighbridge.service (memory.max)"},
		{"container", container, nil, 2 * gib, "memory limit of cgroup / (memory.max)"},
		{"container named from outside", outside, nil, 3 * gib / 4, "memory limit of cgroup /docker/8a3f (memory.limit_in_bytes)"},

		{"machine has less", hybrid, files{"proc/meminfo": "MemAvailable: 1048576 kB\n"}, gib, nobody},
		{"machine promised all", service, files{"proc/sys/vm/overcommit_memory": "2\n", "proc/meminfo": strings.Replace(meminfo, "723384", "12342041", 1)}, -1 << 10, "CommitLimit of this machine (vm.overcommit_memory is 2)"},
		{"machine promised some", service, files{"proc/sys/vm/overcommit_memory": "2\n"}, 2 * gib, "/system.slice/weighbridge.service (memory.max)"},
		{"machine promised little", service, files{"proc/sys/vm/overcommit_memory": "2\n", "proc/meminfo": "MemAvailable: 4 kB\nCommitLimit: 9 kB\nCommitted_AS: 1 kB\n"}, 4 << 10, nobody},
		{"promises are not kept", service, files{"proc/meminfo": strings.Replace(meminfo, "723384", "12342041", 1)}, 2 * gib, "/system.slice/weighbridge.service (memory.max)"},
		{"kernel that promises", service, files{"proc/sys/vm/overcommit_memory": "-"}, 2 * gib, "/system.slice/weighbridge.service (memory.max)"},

		{"no limit anywhere, version 1", hybrid, files{memory + "/site/memory.limit_in_bytes": "9223372036854771712\n", memory + "/site/memory.memsw.limit_in_bytes": "9223372036854771712\n"}, available, nobody},
		{"no limit anywhere, large pages", hybrid, files{memory + "/site/memory.limit_in_bytes": "9223372036854710272\n", memory + "/site/memory.memsw.limit_in_bytes": "18446744073709551615\n"}, available, nobody},
		{"no limit anywhere, version 2", service, files{own + "/memory.max": "max\n"}, available, nobody},
		{"lower limit above", service, files{slice + "/memory.max": "1073741824\n", slice + "/memory.current": "536870912\n", slice + "/memory.stat": "inactive_file 0\nactive_file 0\n"}, gib / 2, "memory limit of cgroup /system.slice (memory.max)"},
		{"lower limit below", hybrid, files{memory + "/site/gateway/memory.limit_in_bytes": "1073741824\n", memory + "/site/gateway/memory.usage_in_bytes": "4096\n", memory + "/site/gateway/memory.stat": "total_inactive_file 0\ntotal_active_file 0\n"}, gib - 4096, "memory limit of cgroup /site/gateway (memory.limit_in_bytes)"},
		{"lower limit of the hierarchy", hybrid, files{memory + "/memory.limit_in_bytes": "4096\n", memory + "/memory.usage_in_bytes": "0\n", memory + "/memory.stat": "-"}, 4096, "memory limit of cgroup / (memory.limit_in_bytes)"},
		{"swap counts too", hybrid, files{memory + "/site/memory.memsw.usage_in_bytes": "8589934592\n"}, gib, "memory limit of cgroup /site (memory.memsw.limit_in_bytes)"},
		{"over the limit", service, files{own + "/memory.current": "9663676416\n"}, -5 * gib, "/system.slice/weighbridge.service (memory.max)"},
		{"limit of nothing", service, files{own + "/memory.max": "0\n"}, -gib, "/system.slice/weighbridge.service (memory.max)"},
		{"more cache than use", service, files{own + "/memory.current": "4096\n"}, 3 * gib, "/system.slice/weighbridge.service (memory.max)"},
		{"more to write than cache", hybrid, files{memory + "/site/memory.stat": "total_inactive_file 0\ntotal_active_file 4096\ntotal_dirty 8192\n"}, gib, "/site (memory.limit_in_bytes)"},
		{"all is to be written", service, files{own + "/memory.stat": "inactive_file 0\nactive_file 1073741824\nfile_dirty 1073741824\n"}, gib, "/system.slice/weighbridge.service (memory.max)"},
		{"all is being written", service, files{own + "/memory.stat": "inactive_file 0\nactive_file 1073741824\nfile_writeback 1073741824\n"}, gib, "/system.slice/weighbridge.service (memory.max)"},
		{"no statistics", service, files{own + "/memory.stat": "-"}, gib, "/system.slice/weighbridge.service (memory.max)"},

		{"no cgroups", hybrid, files{"proc/self/cgroup": "-"}, available, nobody},
		{"memory is not controlled", hybrid, files{"proc/self/cgroup": "8:pids:/site/gateway\n"}, available, nobody},
		{"nothing is mounted", service, files{"proc/self/mountinfo": "22 28 0:21 / /proc rw shared:12 - proc proc rw\n"}, available, nobody},
		{"mounted elsewhere", service, files{"proc/self/mountinfo": "30 23 0:26 /system.slice /a\\040\\134b rw shared:9 - cgroup2 cgroup2 rw\n", `a \b/weighbridge.service/memory.max`: "4096\n", `a \b/weighbridge.service/memory.current`: "0\n"}, 4096, "memory limit of cgroup /system.slice/weighbridge.service (memory.max)"},
		{"mounted twice, the whole counts", service, files{"proc/self/mountinfo": service["proc/self/mountinfo"] + "31 23 0:26 /system.slice /other rw - cgroup2 cgroup2 rw\n", "other/memory.max": "4096\n", "other/memory.current": "0\n"}, 2 * gib, "/system.slice/weighbridge.service (memory.max)"},
		{"mounted twice, whatever comes first", service, files{"proc/self/mountinfo": "31 23 0:26 /system.slice /other rw - cgroup2 cgroup2 rw\n" + service["proc/self/mountinfo"], "other/memory.max": "4096\n", "other/memory.current": "0\n"}, 2 * gib, "/system.slice/weighbridge.service (memory.max)"},
		{"mounted after another part", service, files{"proc/self/mountinfo": "31 23 0:26 /a /other rw - cgroup2 cgroup2 rw\n32 23 0:26 /system.slice /mine rw - cgroup2 cgroup2 rw\n", "mine/memory.max": "4096\n", "mine/memory.current": "0\n"}, 4096, "memory limit of cgroup /system.slice (memory.max)"},
		{"mounted beside odd names", service, files{"proc/self/mountinfo": "31 23 0:26 / /a\\b\\9999\\1 rw - tmpfs tmpfs rw\n" + service["proc/self/mountinfo"]}, 2 * gib, "/system.slice/weighbridge.service (memory.max)"},
		{"another part is mounted", service, files{"proc/self/mountinfo": "31 23 0:26 /system.sli /other rw - cgroup2 cgroup2 rw\n", "other/memory.max": "4096\n", "other/memory.current": "0\n"}, 4096, "memory limit of cgroup /system.sli (memory.max)"},
		{"name from above the namespace", container, files{"proc/self/cgroup": "0::/../8a3f\n", "sys/fs/8a3f/memory.max": "4096\n", "sys/fs/8a3f/memory.current": "0\n"}, 2 * gib, "memory limit of cgroup / (memory.max)"},
		{"mount from above the namespace", container, files{"proc/self/mountinfo": "31 23 0:26 /.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "proc/self/cgroup": "0::/../8a3f\n", "sys/fs/cgroup/8a3f/memory.max": "4096\n", "sys/fs/cgroup/8a3f/memory.current": "0\n"}, 4096, "memory limit of cgroup /8a3f (memory.max)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			room, err := host(tt.files, tt.changed).Available()
			if err != nil || room.Bytes != tt.want || !strings.HasSuffix(room.Limit, tt.limit) {
				t.Errorf("Available = %d (%s), %v, want %d (%s)", room.Bytes, room.Limit, err, tt.want, tt.limit)
			}
		})
	}
}

// What can't be read or understood is an error that says where to look.
func TestAvailableUnknown(t *testing.T) {
	tests := []struct {
		name    string
		files   files
		changed files
		text    string
	}{
		{"no meminfo", hybrid, files{"proc/meminfo": "-"}, "read /proc/meminfo: file does not exist"},
		{"meminfo of an old kernel", hybrid, files{"proc/meminfo": "MemFree: 1 kB\n"}, "/proc/meminfo: no line MemAvailable:"},
		{"meminfo without a number", hybrid, files{"proc/meminfo": "MemAvailable: much kB\n"}, "/proc/meminfo: line MemAvailable:"},
		{"meminfo below zero", hybrid, files{"proc/meminfo": "MemAvailable: -1 kB\n"}, "/proc/meminfo: line MemAvailable:"},
		{"meminfo beyond all", hybrid, files{"proc/meminfo": "MemAvailable: 4611686018427387903 kB\n"}, "out of range"},
		{"no limit of promises", service, files{"proc/sys/vm/overcommit_memory": "2\n", "proc/meminfo": "MemAvailable: 1 kB\nCommitted_AS: 1 kB\n"}, "no line CommitLimit:"},
		{"no promises", service, files{"proc/sys/vm/overcommit_memory": "2\n", "proc/meminfo": "MemAvailable: 1 kB\nCommitLimit: 1 kB\n"}, "no line Committed_AS:"},
		{"limit that is no number", hybrid, files{memory + "/site/memory.limit_in_bytes": "lots\n"}, "/sys/fs/cgroup/memory/site/memory.limit_in_bytes: "},
		{"limit below zero", service, files{own + "/memory.max": "-1\n"}, own + "/memory.max: "},
		{"empty limit", service, files{slice + "/memory.max": ""}, slice + "/memory.max: "},
		{"usage that is no number", hybrid, files{memory + "/site/memory.usage_in_bytes": "\n"}, "/memory.usage_in_bytes: "},
		{"no usage", service, files{own + "/memory.current": "-"}, "read /" + own + "/memory.current: file does not exist"},
		{"statistics without cache", service, files{own + "/memory.stat": "inactive_file 1\n"}, own + "/memory.stat: no line active_file"},
		{"statistics without a number", service, files{own + "/memory.stat": "inactive_file x\n"}, own + "/memory.stat: line inactive_file"},
		{"unwritten without a number", service, files{own + "/memory.stat": "inactive_file 1\nactive_file 1\nfile_dirty x\n"}, own + "/memory.stat: line file_dirty"},
		{"broken cgroup file", hybrid, files{"proc/self/cgroup": "memory\n"}, `/proc/self/cgroup: line "memory\n"`},
		{"cgroup that is no path", service, files{"proc/self/cgroup": "0::\n"}, "/proc/self/cgroup: line"},
		{"no mountinfo", service, files{"proc/self/mountinfo": "-"}, "read /proc/self/mountinfo: "},
		{"broken mountinfo", service, files{"proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw cgroup2 cgroup2 rw\n"}, "/proc/self/mountinfo: line"},
		{"mountinfo that ends early", service, files{"proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2\n"}, "/proc/self/mountinfo: line"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if room, err := host(tt.files, tt.changed).Available(); err == nil || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("Available = %+v, %v, want an error with %q", room, err, tt.text)
			}
		})
	}
}

func TestHugePages(t *testing.T) {
	const (
		dir    = "sys/kernel/mm/transparent_hugepage/"
		never  = "always within_size advise [never] deny force\n"
		advise = "always within_size [advise] never deny force\n"
		allow  = "): echo advise > /" + dir + "shmem_enabled"
		mine   = " > /" + dir + "hugepages-2048kB/shmem_enabled"
		none   = "this kernel has no transparent huge pages for shared memory"
	)
	tests := []struct {
		name, size, common, own string
		setting, hint           string
	}{
		{"advise", "2097152\n", advise, "always [inherit] within_size advise never\n", "advise", ""},
		{"never, which is the default", "2097152\n", never, "always [inherit] within_size advise never\n", "never", allow},
		{"always", "2097152\n", "[always] within_size advise never deny force\n", "", "always", ""},
		{"within_size", "2097152\n", "always [within_size] advise never deny force\n", "", "within_size", ""},
		{"force", "2097152\n", "always within_size advise never deny [force]\n", "always [inherit] within_size advise never\n", "force", ""},
		{"deny", "2097152\n", "always within_size advise never [deny] force\n", "[always] inherit within_size advise never\n", "deny", allow},
		{"kernel without sizes", "2097152\n", advise, "", "advise", ""},
		{"kernel without sizes, never", "2097152\n", never, "", "never", allow},
		{"size allows always", "2097152\n", never, "[always] inherit within_size advise never\n", "always", ""},
		{"size allows within_size", "2097152\n", never, "always inherit [within_size] advise never\n", "within_size", ""},
		{"size allows advise", "2097152\n", never, "always inherit within_size [advise] never\n", "advise", ""},
		{"size forbids", "2097152\n", advise, "always inherit within_size advise [never]\n", "never", "(shmem_enabled is never): echo advise" + mine},
		{"size does not inherit force", "2097152\n", "always within_size advise never deny [force]\n", "[always] inherit within_size advise never\n", "always", "(shmem_enabled is always): echo inherit" + mine},
		{"setting of tomorrow", "2097152\n", "always never [maybe]\n", "", "maybe", allow},
		{"other size", "33554432\n", advise, "always inherit within_size advise [never]\n", "advise", ""},
		{"no kernel with huge pages", "-", "-", "-", "", none},
		{"no size", "x\n", advise, "", "", none},
		{"size of nothing", "0\n", advise, "", "", none},
		{"no shared memory", "2097152\n", "-", "", "", none},
		{"no choice", "2097152\n", "always never\n", "", "", none},
		{"half a choice", "2097152\n", "always [never\n", "", "", none},
	}
	for _, tt := range tests {
		h := host(nil, map[string]string{
			dir + "hpage_pmd_size": tt.size, dir + "shmem_enabled": tt.common, dir + "hugepages-2048kB/shmem_enabled": tt.own,
		}).HugePages()
		if h.Usable != (tt.hint == "") || h.Usable != (h.Hint() == "") || !strings.HasSuffix(h.Hint(), tt.hint) || h.Setting != tt.setting || (h.Size > 0) != (tt.setting != "") {
			t.Errorf("%s: HugePages = %+v (%s), want %q (%s)", tt.name, h, h.Hint(), tt.setting, tt.hint)
		}
	}
	h := host(nil, map[string]string{dir + "hpage_pmd_size": "33554432\n", dir + "shmem_enabled": advise}).HugePages()
	if h.Size != 32<<20 {
		t.Errorf("a huge page has %d bytes, want 32 MiB", h.Size)
	}
}

func TestSwap(t *testing.T) {
	tests := []struct {
		name    string
		files   files
		changed files
		on      bool
		why     string // empty for an error
	}{
		{"devices", service, nil, true, "swap is on: /swap file, /dev/zram0"},
		{"no device", hybrid, nil, false, "no swap device is on"},
		{"kernel without", hybrid, files{"proc/swaps": "-"}, false, "this kernel has no swap"},
		{"not for us", container, nil, false, "no swap for cgroup / (memory.swap.max is 0)"},
		{"not for those above", service, files{slice + "/memory.swap.max": "0\n"}, false, "no swap for cgroup /system.slice (memory.swap.max is 0)"},
		{"a little", service, files{slice + "/memory.swap.max": "4096\n"}, true, "swap is on: /swap file, /dev/zram0"},
		{"memory is not controlled", service, files{slice + "/memory.swap.max": "-"}, true, "swap is on: /swap file, /dev/zram0"},
		{"version 1", hybrid, files{"proc/swaps": swap}, true, "swap is on: /swap file, /dev/zram0"},
		{"broken cgroup file", service, files{"proc/self/cgroup": "x\n"}, false, ""},
	}
	for _, tt := range tests {
		s, err := host(tt.files, tt.changed).Swap()
		if s.On != tt.on || s.Why != tt.why || (err != nil) != (tt.why == "") {
			t.Errorf("%s: Swap = %+v, %v, want %v (%s)", tt.name, s, err, tt.on, tt.why)
		}
	}
}

func BenchmarkAvailable(b *testing.B) {
	for b.Loop() {
		if _, err := hostmem.Here.Available(); err != nil {
			b.Fatal(err)
		}
	}
}
