package seal

import (
	"context"
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Programs keeps the last program of each path in sealed memory, so that one which runs again and again is copied and
// hashed once, as long as its file is the same. What is executed is what was hashed, whatever the file is by then. Its
// method may be called concurrently.
type Programs struct {
	mu   sync.Mutex
	last map[string]program
}

type program struct {
	file   *os.File
	sum    string
	origin origin
}

// An origin is how a file is told from what it was: nobody can change its content and leave its change time.
type origin struct {
	dev, ino uint64
	size     int64
	changed  syscall.Timespec
}

func originOf(path string) (origin, error) {
	info, err := os.Stat(path)
	if err != nil {
		return origin{}, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return origin{}, fmt.Errorf("%s: no change time", path)
	}
	return origin{st.Dev, st.Ino, st.Size, st.Ctim}, nil
}

// Executable is [Executable]. The zero Programs is ready to use; nil keeps nothing.
func (p *Programs) Executable(ctx context.Context, path, want string) (*os.File, string, error) {
	if p == nil {
		return Executable(ctx, path, want)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now, err := originOf(path) // before it is read: what changes meanwhile is another one the next time
	if err != nil {
		return nil, "", fmt.Errorf("seal program: %w", err)
	}
	kept, ok := p.last[path]
	if !ok || kept.origin != now {
		f, sum, err := Executable(ctx, path, "")
		if err != nil {
			return nil, "", err
		}
		if ok {
			kept.file.Close() // nothing to lose: it is read-only
		}
		kept = program{f, sum, now}
		if p.last == nil {
			p.last = map[string]program{}
		}
		p.last[path] = kept
	}
	if want != "" && kept.sum != want {
		return nil, "", fmt.Errorf("seal program: %s: has digest %s, want %s", path, kept.sum, want)
	}
	fd, err := unix.FcntlInt(kept.file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, "", fmt.Errorf("seal program: %w", os.NewSyscallError("fcntl", err))
	}
	return os.NewFile(uintptr(fd), path), kept.sum, nil
}
