package process

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// privateSlack is what fits into a child's private directory beside its executable: names and links.
const privateSlack = 1 << 20

// fillDir puts into the working directory what the runtime finds there.
func (s sandboxSpec) fillDir() error {
	if s.Namespaces != sharedNamespaces {
		if err := s.setUpNamespaces(); err != nil {
			return err
		}
	}
	for name, i := range s.Links {
		if err := s.link(name, i); err != nil {
			return err
		}
	}
	if s.Exec != "" {
		if err := s.copyExecutable(); err != nil {
			return err
		}
	}
	if s.Namespaces != sharedNamespaces {
		return s.closePrivate()
	}
	return nil
}

// setUpNamespaces makes this process's new namespaces usable: the loopback interface goes up, the working directory
// becomes one that only processes in here see, and the next child is the first process of a namespace, with which all
// others in it end.
func (s sandboxSpec) setUpNamespaces() error {
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("%w: bring the loopback interface up: %w", errNoNamespaces, err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("%w: keep mounts private: %w", errNoNamespaces, err)
	}
	var executable unix.Stat_t
	if err := unix.Fstat(s.executable(), &executable); err != nil {
		return fmt.Errorf("stat executable: %w", err)
	}
	options := fmt.Sprintf("mode=0700,size=%d", executable.Size+privateSlack)
	if err := unix.Mount("weighbridge", s.Dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return fmt.Errorf("%w: mount a private directory: %w", errNoNamespaces, err)
	}
	if err := unix.Chdir(s.Dir); err != nil { // into what was mounted, not what is below it
		return fmt.Errorf("enter private directory: %w", err)
	}
	// Of this thread's children: the one that is locked to it, and forks.
	if err := unix.Unshare(unix.CLONE_NEWPID); err != nil {
		return fmt.Errorf("%w: number processes anew: %w", errNoNamespaces, err)
	}
	return nil
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP)
	return os.NewSyscallError("ioctl", unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request))
}

// closePrivate makes the private directory read-only, when all is in it.
func (s sandboxSpec) closePrivate() error {
	if err := unix.Mount("", s.Dir, "", unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("make private directory read-only: %w", err)
	}
	return nil
}

// copyExecutable makes the copy of the executable that has a path. Like the memory file it can be executed and not
// read, see makeUnreadable.
func (s sandboxSpec) copyExecutable() error {
	f, err := os.OpenFile(s.execPath(), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o111)
	if err != nil {
		return fmt.Errorf("copy executable: %w", err)
	}
	_, err = io.Copy(f, io.NewSectionReader(descriptor(s.executable()), 0, math.MaxInt64))
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("copy executable: %w", err)
	}
	return nil
}

// execPath is the path that is executed.
func (s sandboxSpec) execPath() string {
	if s.Exec == "" {
		return fmt.Sprintf("/proc/self/fd/%d", s.executable())
	}
	return filepath.Join(s.Dir, s.Exec)
}
