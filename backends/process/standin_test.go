package process_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/go-json-experiment/json"
	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/backends/process"
)

// standin is the argv[0] under which this test binary acts as a runtime instead of running tests.
const standin = "standin"

func TestMain(m *testing.M) {
	process.Hook()
	if os.Args[0] == standin {
		behave(os.Args[1], os.Args[2:])
		os.Exit(0)
	}
	if err := forbidNamespaces(); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// behave is the stand-in's main: what it finds goes to its first inherited file, or to its output.
func behave(mode string, args []string) {
	switch mode {
	case "probe":
		json.MarshalWrite(os.NewFile(process.FirstFile, "results"), probe(args[0], args[1], args[2]))
	case "wait": // for its file to be closed
		io.Copy(io.Discard, os.NewFile(process.FirstFile, "input"))
	case "breed": // and end before the offspring does
		offspring := exec.Command("/proc/self/exe", "wait")
		offspring.Args[0] = standin
		offspring.ExtraFiles = []*os.File{os.NewFile(process.FirstFile, "input")}
		if err := offspring.Start(); err != nil {
			panic(err)
		}
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("ready")
		forever()
	case "quiet":
		forever()
	case "borrow": // says what it reads from lent files, by argument and by link, and what it holds
		for _, path := range args {
			data, err := os.ReadFile(path)
			fmt.Println(string(data), err)
		}
		fmt.Println(descriptors())
		forever()
	case "list":
		list(args[0])
		forever()
	case "serve": // what it has, to who asks, and have another like it do so
		serve(args)
	case "shout":
		fmt.Println(strings.Repeat("x", 3*process.MaxLine))
		for i := range process.MaxLines + 50 {
			fmt.Println("line", i)
		}
		os.Exit(3)
	case "fork": // and stay
		if pid := fork(); pid > 0 {
			fmt.Println("grandchild:", pid)
		}
		forever()
	case "parent": // of a child that would outlive it
		beParent("", process.Config{Args: []string{"quiet"}, Dir: args[0]})
	case "lending parent": // of one with a child of its own
		executable := copyOfSelf()
		beParent("grandchild: ", process.Config{Args: []string{"fork"}, Dir: args[0], Lent: []*os.File{executable}})
	case "network parent": // of one with a network, and with a child of its own
		beParent("grandchild: ", process.Config{Args: []string{"serve", "child", fmt.Sprint(port)}, Dir: args[0], Network: true, ExecPath: "standin"})
	case "end":
	default:
		panic("unknown mode " + mode)
	}
}

// beParent starts a child, says when that has written a line, and stays.
func beParent(line string, c process.Config) {
	lines := newLineLog()
	c.Exec, c.Name, c.Log = copyOfSelf(), standin, lines.logger()
	p, err := process.Start(c)
	for err == nil {
		more := lines.more()
		if strings.Contains(lines.all(), line) {
			break
		}
		<-more
	}
	fmt.Println(p.PID(), err)
	forever()
}

// fork makes a process like a program without Go's care would: it only waits. It returns 0 if it may not.
func fork() (pid int) {
	var none uint64 // signals
	got, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return 0
	}
	for got == 0 { // the new one: of all threads it has this one, and nothing that it could use
		syscall.RawSyscall(syscall.SYS_RT_SIGSUSPEND, uintptr(unsafe.Pointer(&none)), unsafe.Sizeof(none), 0)
	}
	return int(got)
}

func forever() {
	for {
		time.Sleep(time.Hour)
	}
}

// A probed is what the stand-in could do and what it saw, from inside the sandbox.
type probed struct {
	Did         map[string]string // attempt → "" if it worked, else the error
	Environment []string
	Descriptors []string
	Dumpable    int
	NoNewPrivs  int
	CoreLimit   uint64
	UID, GID    int
	Groups      int // others than GID
}

func (p *probed) note(what string, err error) {
	p.Did[what] = ""
	if err != nil {
		p.Did[what] = err.Error()
	}
}

// probe tries everything that a confined runtime must not be able to do, and a few things that it must.
func probe(outside, socket, port string) probed {
	p := probed{Did: map[string]string{}, Environment: os.Environ(), Descriptors: descriptors()}
	try := p.note
	try("read a file outside", func() error { _, err := os.ReadFile(filepath.Join(outside, "secret")); return err }())
	try("write a file outside", os.WriteFile(filepath.Join(outside, "new"), nil, 0o600))
	try("truncate a file outside", os.Truncate(filepath.Join(outside, "secret"), 0))
	try("remove a file outside", os.Remove(filepath.Join(outside, "secret")))
	try("list a directory outside", func() error { _, err := os.ReadDir(outside); return err }())
	try("read /etc/passwd", func() error { _, err := os.ReadFile("/etc/passwd"); return err }())
	try("write a file inside", os.WriteFile("new", nil, 0o600))
	try("execute a shell", exec.Command("/bin/sh", "-c", "exit 0").Run())
	try("execute a library", func() error {
		found, _ := filepath.Glob("/lib/*/libc.so.6") // which is a program too
		if len(found) == 0 {
			return os.ErrNotExist
		}
		return exec.Command(found[0]).Run()
	}())
	try("start a process", func() error {
		again := exec.Command("/proc/self/exe", "end")
		again.Args[0] = standin
		return again.Run()
	}())
	try("fork", func() error {
		pid := fork()
		if pid == 0 {
			return os.ErrPermission
		}
		syscall.Kill(pid, syscall.SIGKILL)
		_, err := syscall.Wait4(pid, nil, 0, nil)
		return err
	}())
	for _, network := range []string{"tcp", "udp", "unix", "unixgram"} {
		address := map[string]string{"tcp": "127.0.0.1:9", "udp": "127.0.0.1:9", "unix": socket, "unixgram": socket}[network]
		try("connect "+network, func() error { _, err := net.Dial(network, address); return err }())
	}
	try("connect a port of this machine", dial("127.0.0.1:"+port))
	try("connect another machine", dial("192.0.2.1:80"))
	try("connect an abstract socket", func() error { _, err := net.Dial("unix", "@"+filepath.Base(socket)); return err }())
	try("listen tcp", func() error { _, err := net.Listen("tcp", "127.0.0.1:0"); return err }())
	try("open a raw socket", func() error { _, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP); return err }())
	try("open a netlink socket", func() error { _, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, 0); return err }())
	try("leave its process group", unix.Setpgid(0, 0))
	try("leave its session", func() error { _, err := unix.Setsid(); return err }())
	try("outlive its parent", unix.Prctl(unix.PR_SET_PDEATHSIG, 0, 0, 0, 0))
	try("signal the parent", syscall.Kill(os.Getppid(), 0))
	try("trace the parent", unix.PtraceAttach(os.Getppid()))
	try("read the parent's memory", func() error {
		_, err := os.Open(fmt.Sprintf("/proc/%d/mem", os.Getppid()))
		return err
	}())

	try("listen inside", func() error {
		l, err := net.Listen("unix", "./inside.sock")
		if err != nil {
			return err
		}
		_, err = l.(*net.UnixListener).File()
		return err
	}())
	try("write to /dev/null", os.WriteFile(os.DevNull, []byte("x"), 0))
	try("read system libraries", func() error { _, err := os.ReadDir("/usr/lib"); return err }())
	try("reopen an inherited file", func() error { _, err := os.OpenFile(process.Path(0), os.O_WRONLY, 0); return err }())

	p.Dumpable, _ = unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	p.NoNewPrivs, _ = unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	var limit unix.Rlimit
	unix.Getrlimit(unix.RLIMIT_CORE, &limit)
	p.CoreLimit = limit.Cur
	groups, _ := os.Getgroups()
	p.UID, p.GID, p.Groups = os.Getuid(), os.Getgid(), len(groups)
	return p
}

func dial(address string) error {
	conn, err := net.DialTimeout("tcp", address, time.Second)
	if err == nil {
		conn.Close()
	}
	return err
}

// descriptors lists what is open, before anything else opens more.
func descriptors() []string {
	var open []string
	for fd := range 256 {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		// What this program opens itself, such as its poller, closes on exec; what was inherited does not.
		if err == nil && flags&unix.FD_CLOEXEC == 0 {
			open = append(open, fmt.Sprint(fd))
		}
	}
	return open
}

// copyOfSelf returns this test binary as a memory file that can be executed.
func copyOfSelf() *os.File {
	fd, err := unix.MemfdCreate(standin, unix.MFD_CLOEXEC|unix.MFD_EXEC)
	if err != nil {
		panic(err)
	}
	memory := os.NewFile(uintptr(fd), standin)
	defer memory.Close()
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		panic(err)
	}
	defer self.Close()
	if _, err := io.Copy(memory, self); err != nil {
		panic(err)
	}
	// A file that is open for writing can't be executed.
	readOnly, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		panic(err)
	}
	return readOnly
}

// serve says, to each who connects to a port of its own, what it could do, and what a child of its own, started by the
// path of its executable, could.
func serve(args []string) {
	exe, err := os.Executable()
	data, readErr := os.ReadFile("names/one")
	links, listErr := os.ReadDir("names")
	report := fmt.Sprintf("%s: %s %v, %d links %v, first %v, %v, env %v", args[0], data, errors.Join(err, readErr), len(links), listErr, os.Getpid() == 1,
		os.Remove("names/one"), os.Environ())
	if args[0] == "grandchild" {
		fmt.Println(report)
		forever()
	}
	l, err := net.Listen("tcp", "127.0.0.1:"+args[1])
	if err != nil {
		panic(err)
	}
	offspring := exec.Command(exe, "serve", "grandchild")
	offspring.Args[0] = standin
	offspring.Stdout = os.Stdout
	offspring.Env = []string{}
	if err := offspring.Start(); err != nil {
		panic(err)
	}
	fmt.Println(report)
	for {
		conn, err := l.Accept()
		if err != nil {
			panic(err)
		}
		go func() {
			defer conn.Close()
			line, _ := bufio.NewReader(conn).ReadString('\n')
			if path, ok := strings.CutPrefix(strings.TrimSpace(line), "open "); ok {
				_, err := os.ReadFile(path)
				line = fmt.Sprintln(err)
			}
			io.WriteString(conn, line)
		}()
	}
}
