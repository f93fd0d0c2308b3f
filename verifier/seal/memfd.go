package seal

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/verifier/digest"
	"github.com/weighbridge/weighbridge/verifier/dio"
)

const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE

// create makes an empty file in memory that can be sealed. The caller closes it.
func create(name string, exec bool) (*os.File, error) {
	flags, mode := unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING, unix.MFD_NOEXEC_SEAL
	if exec {
		mode = unix.MFD_EXEC
	}
	name = memfdName(name)
	fd, err := unix.MemfdCreate(name, flags|mode)
	if errors.Is(err, unix.EINVAL) {
		// Linux before 6.3 knows neither flag, and makes every memfd executable.
		fd, err = unix.MemfdCreate(name, flags)
	}
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// memfdName makes a name for /proc/<pid>/maps and error texts; the kernel takes at most 249 bytes and no NUL.
func memfdName(name string) string {
	clean := []byte("weighbridge:" + name)
	for i, c := range clean {
		if c < ' ' || c == 0x7f {
			clean[i] = '_'
		}
	}
	return string(clean[:min(len(clean), 249)])
}

// seal ends all writing to f and returns a read-only descriptor of the same memory. It closes f in any case.
//
// The order matters: the kernel refuses F_SEAL_WRITE while a writable mapping exists, so when the seals are on there is
// none; write(2) through a descriptor that was left open somewhere fails from then on.
func seal(f *os.File, name string, mode uint32) (_ *os.File, err error) {
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := unix.Fchmod(int(f.Fd()), mode); err != nil {
		return nil, os.NewSyscallError("fchmod", err)
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, seals); err != nil {
		return nil, fmt.Errorf("seal %q: %w", name, os.NewSyscallError("fcntl F_ADD_SEALS", err))
	}
	return reopenSealed(f, name)
}

// reopenSealed checks the seals of f and opens the memory behind it once more, for reading.
func reopenSealed(f *os.File, name string) (*os.File, error) {
	if err := check(f); err != nil {
		return nil, fmt.Errorf("file %q: %w", name, err)
	}
	return reopen(f, name)
}

// reopen opens the file behind f once more, for reading and with its own offset, whatever its name leads to now.
func reopen(f *os.File, name string) (*os.File, error) {
	r, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_RDONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("reopen file %q: %w", name, err)
	}
	return r, nil
}

// check returns nil if every seal is on.
func check(f *os.File) error {
	got, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0)
	if err != nil {
		return os.NewSyscallError("fcntl F_GET_SEALS", err)
	}
	if got&seals != seals {
		return fmt.Errorf("%w: seals are %#x, want %#x", ErrNotSealed, got, seals)
	}
	return nil
}

// Bytes returns a read-only descriptor of a sealed copy of data, for small things that are trusted already, such as a
// chat template. The caller closes it.
func Bytes(name string, data []byte) (*os.File, error) {
	f, err := create(name, false)
	if err != nil {
		return nil, fmt.Errorf("seal %q: %w", name, err)
	}
	if _, err := f.Write(data); err != nil {
		return nil, errors.Join(fmt.Errorf("seal %q: %w", name, err), f.Close())
	}
	return seal(f, name, 0o444)
}

// Executable copies the program at path to sealed memory while hashing it, and returns a read-only descriptor that can
// be executed, and the digest, "sha256:…". If want is not empty another digest is refused. The caller closes the
// descriptor.
func Executable(ctx context.Context, path, want string) (_ *os.File, sum string, err error) {
	src, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe must not make us wait
	if err != nil {
		return nil, "", fmt.Errorf("seal program: %w", err)
	}
	defer src.Close()
	r, err := dio.New(src)
	if err != nil {
		return nil, "", fmt.Errorf("seal program: %s: %w", path, err)
	}
	defer r.Close()
	if r.Size() > maxExecutable {
		return nil, "", fmt.Errorf("seal program: %s has %d bytes, want at most %d", path, r.Size(), maxExecutable)
	}
	f, err := create(filepath.Base(path), true)
	if err != nil {
		return nil, "", fmt.Errorf("seal program: %w", err)
	}
	if sum, err = copyProgram(ctx, f, r); err == nil && want != "" && sum != want {
		err = fmt.Errorf("has digest %s, want %s", sum, want)
	}
	if err != nil {
		return nil, "", errors.Join(fmt.Errorf("seal program: %s: %w", path, err), f.Close())
	}
	sealed, err := seal(f, path, 0o555)
	if err != nil {
		return nil, "", fmt.Errorf("seal program: %w", err)
	}
	return sealed, sum, nil
}

// copyProgram copies r to dst and returns the digest of what was copied.
func copyProgram(ctx context.Context, dst *os.File, r *dio.File) (sum string, err error) {
	whole := []digest.Part{{Name: "program", End: digest.ToEnd}} // no digest is approved here: the mismatch tells the real one
	err = digest.Check(ctx, digest.SHA256, []digest.File{{
		Open: func() (digest.Input, error) {
			return digest.Input{Source: r, Size: r.Size(), Parts: whole, Target: dst}, nil
		},
		Done: func(r digest.Result) error {
			if r.Err == nil {
				sum = "sha256:" + hex.EncodeToString(r.Mismatches[0].Actual)
			}
			return r.Err
		},
	}}, digest.Options{})
	return sum, err
}
