package process

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"github.com/go-json-experiment/json"
	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"

	"github.com/weighbridge/weighbridge/backends"
)

// SandboxCommand is the hidden subcommand under which a program that calls [Hook] confines itself and then becomes
// the executable it was given.
const SandboxCommand = "sandbox-exec"

// exitSandbox is the exit status of a child that could not be confined. The reason is in its report.
const exitSandbox = 126

// A sandboxSpec is the one argument of SandboxCommand.
type sandboxSpec struct {
	Parent int      `json:"parent"` // the process that started this one; if another is found, it has died
	Files  int      `json:"files"`  // how many descriptors the runtime inherits; what is behind them, see the methods
	Dir    string   `json:"dir"`
	Args   []string `json:"args"` // from argv[0] on

	Lent  int            `json:"lent,omitzero"` // how many descriptors behind those are lent
	Links map[string]int `json:"links,omitzero"`

	Env        []string   `json:"env,omitzero"`
	Exec       string     `json:"exec,omitzero"`    // the name in Dir of the copy that is executed
	Network    bool       `json:"network,omitzero"` // the runtime may use a network
	Namespaces namespaces `json:"namespaces,omitzero"`
	User       *User      `json:"user,omitzero"`
}

// Descriptors behind those of the files.
func (s sandboxSpec) executable() int { return FirstFile + s.Files + s.Lent }
func (s sandboxSpec) report() int     { return s.executable() + 1 }
func (s sandboxSpec) until() int      { return s.executable() + 2 }                  // only where files are lent; it ends with the loan
func (s sandboxSpec) control() int    { return s.executable() + 2 + min(s.Lent, 1) } // only where there is a network

// A sandboxReport is what the child says before its last exec.
type sandboxReport struct {
	PID      int  `json:"pid"`      // of the runtime
	Landlock int  `json:"landlock"` // the ABI that was applied; 0: none
	Seccomp  bool `json:"seccomp"`
	// NoSeccomp says why there is no filter.
	NoSeccomp string `json:"noSeccomp,omitzero"`
	// Namespaces says that its network, files and processes are its own; where it should have some, NoNamespaces says why
	// it has none.
	Namespaces    bool   `json:"namespaces,omitzero"`
	UserNamespace bool   `json:"userNamespace,omitzero"` // whose owner may do everything to the processes in it
	NoNamespaces  string `json:"noNamespaces,omitzero"`
	// Leaves says that it may make processes, which have no namespace to end with.
	Leaves bool   `json:"leaves,omitzero"`
	Error  string `json:"error,omitzero"`
}

// level names what a kernel that lacks something leaves open. Sockets are confined twice, by seccomp and by Landlock,
// because Landlock alone did not cover datagrams and sockets with a path before its ABI 10.
func (r sandboxReport) level() backends.Sandbox {
	var missing []string
	lacks := func(condition bool, what string) {
		if condition {
			missing = append(missing, what)
		}
	}
	lacks(r.Landlock == 0, "no Landlock: it can read and write the files of its user")
	lacks(r.Landlock > 0 && r.Landlock < 3, "Landlock before ABI 3: it can truncate the files of its user")
	lacks(r.Landlock > 0 && r.Landlock < 5, "Landlock before ABI 5: it can control devices by ioctl")
	lacks(r.Landlock < 6, "no Landlock ABI 6: it can signal the processes of its user")
	lacks(!r.Seccomp && r.Landlock < 4, "no seccomp filter: it can use the network")
	lacks(!r.Seccomp && r.Landlock >= 4 && r.Landlock < 10, "no seccomp filter: it can send datagrams and reach local sockets")
	lacks(!r.Seccomp && r.Landlock >= 10, "no seccomp filter: it can use raw sockets and io_uring")
	lacks(!r.Seccomp && !r.Namespaces, "no seccomp filter: a process that it makes may outlive the gateway")
	lacks(r.Seccomp && r.Leaves, "no namespace of processes: one that it makes may outlive the gateway, if it ends the process beside it in that moment")
	lacks(r.NoSeccomp != "", r.NoSeccomp)
	lacks(r.NoNamespaces != "", "no namespaces of its own ("+r.NoNamespaces+"): it can use the network; others on this machine can "+
		"talk to it and answer in its place, and its user's other processes take its files away")
	lacks(r.UserNamespace, "in a user namespace: its user's other processes can look into its memory and change it")
	switch {
	case len(missing) == 0:
		return backends.Sandbox{Level: backends.SandboxFull}
	case r.Landlock == 0 && !r.Seccomp:
		return backends.Sandbox{Level: backends.SandboxNone, Missing: missing}
	default:
		return backends.Sandbox{Level: backends.SandboxPartial, Missing: missing}
	}
}

// What confines a process holds for one thread at a time on many kernels. It is the first one here, whose rights are
// those that the kernel looks at where it is asked about the process: so main must run on it.
func init() {
	if isSandbox() {
		runtime.LockOSThread()
	}
}

func isSandbox() bool { return len(os.Args) >= 2 && os.Args[1] == SandboxCommand }

// Hook turns this process into the confined child if it was started as one; otherwise it returns at once.
func Hook() {
	if !isSandbox() {
		return
	}
	err := runSandboxed(os.Args[2:])
	fmt.Fprintf(os.Stderr, "%s: %v\n", SandboxCommand, err)
	os.Exit(exitSandbox)
}

// runSandboxed confines this process and replaces it by the executable that it inherited. It returns only if that fails.
func runSandboxed(args []string) error {
	if len(args) != 1 {
		return errors.New("is started by weighbridge itself, to confine a runtime")
	}
	var spec sandboxSpec
	if err := json.Unmarshal([]byte(args[0]), &spec, json.RejectUnknownMembers(true)); err != nil {
		return fmt.Errorf("read sandbox specification: %w", err)
	}
	if spec.Files < 0 || spec.Lent < 0 || spec.Dir == "" || len(spec.Args) == 0 {
		return errors.New("read sandbox specification: a field is missing")
	}
	executable, report := spec.executable(), os.NewFile(uintptr(spec.report()), "report")
	rep, err := confine(spec, executable)
	switch {
	case errors.Is(err, errNoNamespaces):
		return errors.Join(err, json.MarshalWrite(report, sandboxReport{NoNamespaces: strings.TrimPrefix(err.Error(), errNoNamespaces.Error()+": ")}))
	case err != nil:
		return errors.Join(err, json.MarshalWrite(report, sandboxReport{Error: err.Error()}))
	case spec.stays():
		return stay(spec, report, rep)
	}
	if err := json.MarshalWrite(report, rep); err != nil {
		return fmt.Errorf("report sandbox: %w", err)
	}
	// Everything after the files, whatever it is and however it came here, closes in the exec.
	if err := unix.CloseRange(uint(executable), math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close descriptors: %w", err)
	}
	return fmt.Errorf("execute: %w", syscall.Exec(spec.execPath(), spec.Args, spec.Env))
}

// confine takes away, in this order, everything that the runtime does not need.
func confine(spec sandboxSpec, executable int) (sandboxReport, error) {
	rep := sandboxReport{PID: os.Getpid()}
	if err := spec.dieWithParent(); err != nil {
		return rep, err
	}
	if err := spec.fillDir(); err != nil {
		return rep, err
	}
	if spec.Lent > 0 && spec.Namespaces == sharedNamespaces {
		// The next child of this thread is the first process of a namespace, with which all others in it end.
		if err := unix.Unshare(unix.CLONE_NEWPID); err != nil {
			rep.Leaves = true
		}
	}
	rep.Namespaces, rep.UserNamespace = spec.Namespaces != sharedNamespaces, spec.Namespaces == ownUserNamespaces
	unix.Umask(0o077)
	// No dump: a dump would put prompts and keys on disk.
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return rep, fmt.Errorf("forbid core dumps: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return rep, fmt.Errorf("set no_new_privs: %w", err)
	}
	loader, err := interpreter(executable)
	if err != nil {
		return rep, err
	}
	if err := makeUnreadable(executable); err != nil {
		return rep, err
	}
	if rep.Landlock, err = spec.restrictFiles(loader); err != nil {
		return rep, err
	}
	if spec.User != nil {
		if err := errors.Join(spec.become(*spec.User), spec.dieWithParent()); err != nil {
			return rep, err
		}
	}
	if err := dropCapabilities(); err != nil {
		return rep, err
	}
	// Best effort: the report says if the kernel has no filter, and why.
	if err := restrictCalls(spec.Network, spec.stays()); err != nil {
		rep.NoSeccomp = err.Error()
	} else {
		rep.Seccomp = true
	}
	return rep, nil
}

// stays reports whether this process stays beside the runtime, as its parent.
func (s sandboxSpec) stays() bool { return s.Lent > 0 || s.Network }

// dieWithParent asks for SIGKILL when the parent ends, and looks whether it had ended before we asked. A process beside a
// runtime that has no namespace of processes lives to end all: see [stay].
func (s sandboxSpec) dieWithParent() error {
	if !s.stays() || s.Namespaces != sharedNamespaces {
		if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
			return fmt.Errorf("set parent death signal: %w", err)
		}
	}
	if ppid := os.Getppid(); ppid != s.Parent {
		return fmt.Errorf("parent is process %d, not %d, which has ended", ppid, s.Parent)
	}
	return nil
}

// become makes this process another user's. The kernel forgets then by which signal it is to end with its parent.
func (s sandboxSpec) become(u User) error {
	dir, err := os.OpenRoot(s.Dir)
	if err == nil {
		defer dir.Close()
		err = fs.WalkDir(dir.FS(), ".", func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.IsDir() {
				return err
			}
			return dir.Chown(path, u.UID, u.GID)
		})
	}
	if err != nil {
		return fmt.Errorf("give the directory to user %d: %w", u.UID, err)
	}
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setresgid(u.GID, u.GID, u.GID), syscall.Setresuid(u.UID, u.UID, u.UID)); err != nil {
		return fmt.Errorf("become user %d: %w", u.UID, err)
	}
	return nil
}

// dropCapabilities leaves a root user none, and no_new_privs keeps it from getting them back with the exec.
func dropCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	none := [2]unix.CapUserData{} // version 3 reads two
	// Of all threads: a process that lends files stays, and a runtime may look at it.
	_, _, errno := psx.Syscall3(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&none[0])), 0)
	if errno != 0 {
		return fmt.Errorf("drop capabilities: %w", errno)
	}
	return nil
}

// makeUnreadable makes the kernel treat the coming process as one whose memory its own user may not look at (no ptrace, no
// /proc/PID/mem, not dumpable): it does so for executables that the user may execute but not read. Capabilities would
// override that.
func makeUnreadable(executable int) error {
	var st unix.Stat_t
	if err := unix.Fstat(executable, &st); err != nil {
		return fmt.Errorf("stat executable: %w", err)
	}
	if st.Nlink != 0 {
		return errors.New("executable is not a memory file") // changing the mode of one on disk would harm others
	}
	if err := unix.Fchmod(executable, st.Mode&0o111); err != nil {
		return fmt.Errorf("make executable unreadable: %w", err)
	}
	return nil
}

// interpreter returns the path of the dynamic loader that the kernel starts for an executable; empty for a static one.
func interpreter(fd int) (string, error) {
	f, err := elf.NewFile(descriptor(fd))
	if err != nil {
		return "", fmt.Errorf("read executable: %w (only native executables can be confined, not scripts)", err)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP && p.Filesz < unix.PathMax {
			path, err := io.ReadAll(p.Open())
			return strings.TrimRight(string(path), "\x00"), err
		}
	}
	return "", nil
}

// A descriptor reads a file without moving its position, which others may share, and without owning it.
type descriptor int

func (d descriptor) ReadAt(p []byte, off int64) (int, error) {
	n, err := unix.Pread(int(d), p, off)
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

// What a dynamically linked runtime reads on its way up. None of it belongs to a user.
var (
	libraryDirs = []string{"/lib", "/lib32", "/lib64", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64"}
	machineDirs = []string{"/sys/devices/system/cpu", "/sys/devices/system/node"} // how many cores, of what kind
	systemFiles = []string{"/etc/ld.so.cache", "/proc/cpuinfo", "/proc/meminfo", "/dev/urandom"}
)

// restrictFiles applies Landlock with all that this kernel knows of it and returns the ABI. Sealed memory needs no
// rule: it has no path. A file on disk that is inherited, as measured weights are, may be opened again for reading, by
// its descriptor's name in /proc: the rule is for the file itself, whatever its own name leads to.
func (s sandboxSpec) restrictFiles(loader string) (abi int, err error) {
	const read = ll.AccessFSReadFile | ll.AccessFSReadDir
	own := landlock.PathAccess(read|ll.AccessFSMakeSock|ll.AccessFSRemoveFile, s.Dir)
	if s.Network {
		// It needs no socket with a path, and its links lead to memory. Nothing that others put there can be opened.
		own = landlock.PathAccess(ll.AccessFSReadDir, s.Dir)
	}
	rules := []landlock.Rule{
		own,
		landlock.PathAccess(read, libraryDirs...).IgnoreIfMissing(),
		landlock.PathAccess(read, machineDirs...).IgnoreIfMissing(),
		landlock.PathAccess(ll.AccessFSReadFile, systemFiles...).IgnoreIfMissing(),
		landlock.PathAccess(ll.AccessFSReadFile|ll.AccessFSWriteFile, os.DevNull).IgnoreIfMissing(),
	}
	for fd := FirstFile; fd < FirstFile+s.Files+s.Lent; fd++ {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return 0, fmt.Errorf("look at inherited file %d: %w", fd, err)
		}
		if st.Nlink > 0 && st.Mode&unix.S_IFMT == unix.S_IFREG {
			rules = append(rules, landlock.PathAccess(ll.AccessFSReadFile, fmt.Sprintf("/proc/self/fd/%d", fd)))
		}
	}
	if loader != "" {
		rules = append(rules, landlock.PathAccess(ll.AccessFSExecute|ll.AccessFSReadFile, loader))
	}
	if s.Exec != "" {
		rules = append(rules, landlock.PathAccess(ll.AccessFSExecute|ll.AccessFSReadFile, s.execPath()))
	}
	restrict := landlock.V11.BestEffort()
	if s.Network {
		// Landlock knows no interfaces: it could only refuse the ports too by which the parts of this runtime meet.
		err = errors.Join(restrict.RestrictPaths(rules...), restrict.RestrictScoped())
	} else {
		err = restrict.Restrict(rules...)
	}
	if err != nil {
		return 0, fmt.Errorf("apply Landlock: %w", err)
	}
	if v, err := ll.LandlockGetABIVersion(); err == nil { // else this kernel has none, and Restrict did nothing
		abi = v
	}
	return abi, nil
}
