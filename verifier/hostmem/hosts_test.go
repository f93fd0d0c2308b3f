package hostmem_test

import (
	"testing/fstest"

	"github.com/weighbridge/weighbridge/verifier/hostmem"
)

// Machines as their kernels describe them, shortened to the lines that matter and some between them.

const (
	meminfo = `MemTotal:       24684084 kB
MemFree:        21245808 kB
MemAvailable:   23326476 kB
Buffers:           71528 kB
Cached:          2021088 kB
SwapCached:            0 kB
Active(file):     878272 kB
Inactive(file):  1205352 kB
CommitLimit:    12342040 kB
Committed_AS:     723384 kB
`
	available = 23326476 << 10
	noSwap    = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
	swap      = noSwap + "/swap\\040file                              file\t\t8388604\t\t0\t\t-2\n/dev/zram0                              partition\t1048572\t\t12\t\t100\n"
	gib       = 1 << 30
)

// hybrid has both versions, and memory is controlled by the first: 6.18, as an init without systemd mounts it.
var hybrid = map[string]string{
	"proc/meminfo":                  meminfo,
	"proc/swaps":                    noSwap,
	"proc/sys/vm/overcommit_memory": "0\n",
	"proc/self/cgroup":              "9:name=systemd:/\n8:pids:/\n4:memory:/site/gateway\n3:cpuset:/\n0::/\n",
	"proc/self/mountinfo": `24 27 0:6 / /dev rw,relatime - devtmpfs devtmpfs rw,size=12334460k,nr_inodes=3083615,mode=755
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
44 27 0:40 / /mnt/a\040-\040b rw,relatime - tmpfs  rw
`,
	"sys/fs/cgroup/memory/memory.limit_in_bytes":              "9223372036854771712\n",
	"sys/fs/cgroup/memory/memory.memsw.limit_in_bytes":        "9223372036854771712\n",
	"sys/fs/cgroup/memory/site/memory.limit_in_bytes":         "4294967296\n",
	"sys/fs/cgroup/memory/site/memory.usage_in_bytes":         "3221225472\n",
	"sys/fs/cgroup/memory/site/memory.memsw.limit_in_bytes":   "8589934592\n",
	"sys/fs/cgroup/memory/site/memory.memsw.usage_in_bytes":   "3221225472\n",
	"sys/fs/cgroup/memory/site/memory.stat":                   "cache 1\nshmem 0\ndirty 7\ninactive_file 7\nactive_file 7\nhierarchical_memory_limit 4294967296\ntotal_cache 1342177280\ntotal_dirty 67108864\ntotal_writeback 201326592\ntotal_inactive_anon 1\ntotal_inactive_file 805306368\ntotal_active_file 536870912\ntotal_unevictable 0\n",
	"sys/fs/cgroup/memory/site/gateway/memory.limit_in_bytes": "9223372036854771712\n",
}

// service is one of systemd's, with version 2 alone.
var service = map[string]string{
	"proc/meminfo":                  meminfo,
	"proc/swaps":                    swap,
	"proc/sys/vm/overcommit_memory": "1\n",
	"proc/self/cgroup":              "0::/system.slice/weighbridge.service\n",
	"proc/self/mountinfo": `22 28 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:12 - proc proc rw
28 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro
30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
`,
	"sys/fs/cgroup/system.slice/memory.max":                          "max\n",
	"sys/fs/cgroup/system.slice/memory.swap.max":                     "max\n",
	"sys/fs/cgroup/system.slice/weighbridge.service/memory.max":      "3221225472\n",
	"sys/fs/cgroup/system.slice/weighbridge.service/memory.current":  "2147483648\n",
	"sys/fs/cgroup/system.slice/weighbridge.service/memory.swap.max": "max\n",
	"sys/fs/cgroup/system.slice/weighbridge.service/memory.stat":     "anon 1073741824\nfile 1073741824\nkernel 4096\nshmem 0\nfile_mapped 0\nfile_dirty 0\nfile_writeback 0\ninactive_anon 0\nactive_anon 1073741824\ninactive_file 268435456\nactive_file 805306368\nunevictable 0\nslab_reclaimable 1048576\n",
}

// container is one of version 2: it has its own view of the hierarchy, in which it is the root.
var container = map[string]string{
	"proc/meminfo":     meminfo,
	"proc/swaps":       swap,
	"proc/self/cgroup": "0::/\n",
	"proc/self/mountinfo": `1254 1105 0:81 / / rw,relatime master:403 - overlay overlay rw,lowerdir=/l/A:/l/B,upperdir=/u,workdir=/w
1259 1258 0:29 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate,memory_recursiveprot
`,
	"sys/fs/cgroup/memory.max":      "2147483648\n",
	"sys/fs/cgroup/memory.current":  "1073741824\n",
	"sys/fs/cgroup/memory.swap.max": "0\n",
	"sys/fs/cgroup/memory.stat":     service["sys/fs/cgroup/system.slice/weighbridge.service/memory.stat"],
}

// outside is a container of version 1 that is told its path from outside, and has only its own part mounted.
var outside = map[string]string{
	"proc/meminfo":     meminfo,
	"proc/swaps":       noSwap,
	"proc/self/cgroup": "12:cpu,cpuacct:/docker/8a3f\n7:memory:/docker/8a3f\n1:name=systemd:/docker/8a3f\n0::/system.slice/containerd.service\n",
	"proc/self/mountinfo": `1018 1017 0:91 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,mode=755
1024 1018 0:32 /docker/8a3f /sys/fs/cgroup/cpu,cpuacct ro,nosuid,nodev,noexec,relatime master:15 - cgroup cgroup rw,cpu,cpuacct
1025 1018 0:33 /docker/8a3f /sys/fs/cgroup/memory ro,nosuid,nodev,noexec,relatime master:16 - cgroup cgroup rw,memory
`,
	"sys/fs/cgroup/memory/memory.limit_in_bytes": "1073741824\n",
	"sys/fs/cgroup/memory/memory.usage_in_bytes": "268435456\n",
	"sys/fs/cgroup/memory/memory.stat":           "total_inactive_file 0\ntotal_active_file 0\n", // an old kernel tells nothing of dirty pages
}

// host is a machine with some files changed; those that are changed to "-" are missing.
func host(files, changed map[string]string) hostmem.Host {
	m := fstest.MapFS{}
	for _, all := range []map[string]string{files, changed} {
		for name, data := range all {
			m[name] = &fstest.MapFile{Data: []byte(data)}
			if data == "-" {
				delete(m, name)
			}
		}
	}
	return hostmem.Host{Root: m}
}
