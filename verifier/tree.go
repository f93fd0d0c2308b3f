package verifier

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/verifier/digest"
	"github.com/weighbridge/weighbridge/verifier/dio"
	"github.com/weighbridge/weighbridge/verifier/seal"
)

// A tree is an opened model: a directory, or the one file of a single-file model. It is a [seal.Source].
type tree struct {
	path  string
	dir   *os.File // nil if the model is a single file
	links bool     // follow symbolic links
}

var errLink = errors.New("is a symbolic link, or behind one")

// openTree opens the model at path, which may be named through links: it is the caller who says where the model is.
func openTree(path string, links bool) (*tree, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("open model: %w", err)
	}
	t := &tree{path: path, links: links}
	if !info.IsDir() {
		return t, nil
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open model", Path: path, Err: err}
	}
	t.dir = os.NewFile(uintptr(fd), path)
	return t, nil
}

func (t *tree) Close() error {
	if t.dir == nil {
		return nil
	}
	return t.dir.Close()
}

// Open opens a listed file for reading.
func (t *tree) Open(name string) (*os.File, error) {
	fd, err := t.open(name, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// open returns a descriptor of the file of that name. The kernel resolves one component at a time, from the opened
// directory down and through no link, so nothing that is swapped meanwhile can lead elsewhere.
func (t *tree) open(name string, flags int) (int, error) {
	flags |= unix.O_CLOEXEC | unix.O_NONBLOCK // a pipe must not make us wait
	if !t.links {
		flags |= unix.O_NOFOLLOW
	}
	if t.dir == nil {
		fd, err := unix.Open(t.path, flags, 0)
		return fd, linkError(err)
	}
	if t.links {
		fd, err := unix.Openat(int(t.dir.Fd()), name, flags, 0)
		return fd, linkError(err)
	}
	at := int(t.dir.Fd())
	for {
		first, rest, more := strings.Cut(name, "/")
		how := flags
		if more {
			how = unix.O_PATH | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
		}
		fd, err := unix.Openat(at, first, how, 0)
		if more && errors.Is(err, unix.ENOTDIR) && isLink(at, first) {
			err = unix.ELOOP
		}
		if at != int(t.dir.Fd()) {
			unix.Close(at)
		}
		if err != nil || !more {
			return fd, linkError(err)
		}
		at, name = fd, rest
	}
}

func isLink(dir int, name string) bool {
	var st unix.Stat_t
	return unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK
}

func linkError(err error) error {
	if errors.Is(err, unix.ELOOP) {
		return errLink
	}
	return err
}

// reason says why a file can't be read, as a continuation of its name.
func reason(err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return "is missing"
	case errors.Is(err, errLink):
		return errLink.Error()
	case errors.Is(err, dio.ErrNotRegular), errors.Is(err, unix.ENXIO), errors.Is(err, unix.EISDIR):
		return dio.ErrNotRegular.Error()
	case errors.Is(err, digest.ErrGrew), errors.Is(err, digest.ErrShrank), errors.Is(err, seal.ErrChanged):
		return "changed while it was read"
	case errors.Is(err, errShards):
		return errShards.Error()
	}
	return "can't be read: " + err.Error()
}

// Within returns where path lies inside the model at root, as a clean relative path; ok is false if it lies elsewhere.
// Links in the directories on the way are resolved, the last name is not.
func Within(root, path string) (rel string, ok bool) {
	root, err := resolve(root)
	if err != nil {
		return "", false
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", false
	}
	dir, err := resolve(filepath.Dir(abs))
	if err != nil {
		dir = filepath.Dir(abs) // not there yet, so it has no links either
	}
	rel, err = filepath.Rel(root, filepath.Join(dir, filepath.Base(abs)))
	return rel, err == nil && filepath.IsLocal(rel) && rel != "."
}

func resolve(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}

// shown makes a name from disk or manifest fit for JSON, which holds only valid UTF-8.
func shown(name string) string {
	if utf8.ValidString(name) {
		return name
	}
	return strconv.Quote(name)
}

// printable quotes a name that would not look on a terminal like what it is.
func printable(name string) string {
	if q := strconv.Quote(name); q[1:len(q)-1] != name {
		return q
	}
	return name
}
