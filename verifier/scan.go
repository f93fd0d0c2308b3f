package verifier

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/verifier/dio"
	"github.com/weighbridge/weighbridge/verifier/oms"
)

// An entry is something found below a model's directory.
type entry struct {
	name string // as it was reached
	real string // where it lies in the model if links led to it, else name; "" if it lies elsewhere
	kind uint32 // S_IFREG, S_IFDIR, S_IFLNK (not followed, or broken), or another S_IF…
	link bool   // the entry itself is a link that was followed
	size int64
}

// walk calls visit for everything below the model's directory, sorted within each directory. visit says whether to
// enter a directory. Links are followed as the tree was opened; one that leads to a directory it lies in is not entered.
func (t *tree) walk(ctx context.Context, visit func(entry) (enter bool)) error {
	w := &walker{tree: t, visit: visit}
	if t.links {
		root, err := resolve(t.path)
		if err != nil {
			return fmt.Errorf("walk model: %w", err)
		}
		w.root = root
	}
	fd, err := unix.Openat(int(t.dir.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("walk model: %w", err)
	}
	if err := w.dir(ctx, fd, entry{}); err != nil {
		return fmt.Errorf("walk model: %w", err)
	}
	return nil
}

type walker struct {
	tree    *tree
	root    string // resolved; only with links
	visit   func(entry) bool
	stack   []inode // the directories we are in
	entries int
}

type inode struct{ dev, ino uint64 }

// dir visits the entries of the opened directory and closes it.
func (w *walker) dir(ctx context.Context, fd int, at entry) error {
	f := os.NewFile(uintptr(fd), filepath.Join(w.tree.path, at.name))
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	here := inode{st.Dev, st.Ino}
	if slices.Contains(w.stack, here) {
		return nil // a link led back: all that is here is being walked already
	}
	if len(w.stack) == MaxDepth {
		return fmt.Errorf("%s: more than %d directories deep", printable(at.name), MaxDepth)
	}
	w.stack = append(w.stack, here)
	defer func() { w.stack = w.stack[:len(w.stack)-1] }()

	names, err := w.names(ctx, f)
	if err != nil {
		return err
	}
	for _, name := range names {
		e, err := w.stat(fd, at, name)
		if err != nil {
			return err
		}
		if enter := w.visit(e); !enter || e.kind != unix.S_IFDIR {
			continue
		}
		flags := unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC
		if !e.link {
			flags |= unix.O_NOFOLLOW
		}
		sub, err := unix.Openat(fd, name, flags, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w", printable(e.name), err)
		}
		if err := w.dir(ctx, sub, e); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) names(ctx context.Context, f *os.File) ([]string, error) {
	var names []string
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		some, err := f.Readdirnames(1024)
		names = append(names, some...)
		if w.entries += len(some); w.entries > maxEntries {
			return nil, fmt.Errorf("more than %d files", maxEntries)
		}
		switch {
		case err == io.EOF:
			slices.Sort(names)
			return names, nil
		case err != nil:
			return nil, err
		}
	}
}

// stat finds out what an entry is, behind a link if links are followed.
func (w *walker) stat(dir int, at entry, name string) (entry, error) {
	e := entry{name: join(at.name, name)}
	if at.real != "" || at.name == "" {
		e.real = join(at.real, name)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return e, fmt.Errorf("stat %s: %w", printable(e.name), err)
	}
	// A broken link stays one: st is left as it was, and the entry's kind with it.
	if st.Mode&unix.S_IFMT == unix.S_IFLNK && w.tree.links && unix.Fstatat(dir, name, &st, 0) == nil {
		e.link, e.real = true, ""
		if target, err := filepath.EvalSymlinks(filepath.Join(w.root, e.name)); err == nil {
			if rel, err := filepath.Rel(w.root, target); err == nil && filepath.IsLocal(rel) {
				e.real = rel
			}
		}
	}
	e.kind, e.size = st.Mode&unix.S_IFMT, st.Size
	return e, nil
}

func join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}

// scan returns everything in the model that should not be there.
func scan(ctx context.Context, t *tree, m *oms.Manifest, o Options) ([]Problem, error) {
	if t.dir == nil {
		base := filepath.Base(t.path)
		if f, ok := m.Single(); !ok || f.Name != oms.SingleFile && f.Name != base {
			return []Problem{{File: shown(base), Why: "is one file, but the signature lists " + listed(m)}}, nil
		}
		return nil, nil
	}
	s := &scanner{m: m, o: o, dirs: map[string]bool{}, ignored: map[string]bool{}}
	for _, f := range m.Files() {
		for dir := filepath.Dir(f.Name); dir != "."; dir = filepath.Dir(dir) {
			s.dirs[dir] = true
		}
	}
	for _, p := range o.IgnorePaths {
		s.ignored[filepath.ToSlash(filepath.Clean(p))] = true
	}
	if o.Signature != "" {
		if rel, ok := Within(t.path, o.Signature); ok {
			s.ignored[rel] = true
		}
	}
	err := t.walk(ctx, s.visit)
	return s.problems, err
}

func listed(m *oms.Manifest) string {
	files := m.Files()
	if len(files) == 1 {
		return printable(files[0].Name)
	}
	return fmt.Sprintf("%d files", len(files))
}

// A scanner looks for files that the manifest does not list.
type scanner struct {
	m        *oms.Manifest
	o        Options
	dirs     map[string]bool // directories that hold listed files
	ignored  map[string]bool // by the caller
	problems []Problem
}

func (s *scanner) visit(e entry) (enter bool) {
	if s.lists(e.name) {
		// Whatever it is, it is judged when it is opened. A directory holds files that can't be listed.
		return e.kind == unix.S_IFDIR
	}
	if !s.dirs[e.name] && (s.ignored[e.name] || s.git(e.name)) {
		return false
	}
	switch e.kind {
	case unix.S_IFDIR:
		return true
	case unix.S_IFREG:
		if e.real != "" && s.lists(e.real) {
			return false // a second name for bytes that are verified under their first
		}
		if why := s.unlisted(e); why != "" {
			s.bad(e, why)
		}
	case unix.S_IFLNK:
		why := "is a broken symbolic link"
		switch {
		case !s.m.AllowSymlinks():
			why = "is a symbolic link, which the signer did not allow"
		case !s.o.AllowSymlinks:
			why = "is a symbolic link, which was not allowed (--allow-symlinks)"
		}
		s.bad(e, why)
	default:
		s.bad(e, dio.ErrNotRegular.Error())
	}
	return false
}

func (s *scanner) lists(name string) bool {
	_, ok := s.m.File(name)
	return ok
}

// git reports whether name is one of those at the top of a model that lie outside every signature.
func (s *scanner) git(name string) bool {
	return !s.o.IncludeGit && slices.Contains(oms.GitPaths, name)
}

func (s *scanner) bad(e entry, why string) {
	if !s.o.IgnoreUnsigned {
		s.problems = append(s.problems, Problem{File: shown(e.name), End: max(e.size, 0), Why: why})
	}
}

// unlisted says why a file that is not listed is a problem, "" if it is none.
func (s *scanner) unlisted(e entry) string {
	switch {
	case s.m.Ignores(e.name):
		if loadable(e.name) {
			// ignore_paths is the signer's word, but what a runtime could load must be listed.
			return "is left out of the signature by its ignore_paths, but a runtime could load it"
		}
		return ""
	case e.size == 0 && s.m.Method() == oms.MethodShards && isWeights(e.name):
		// An empty file has no shard, so it can't be listed. As weights it holds nothing; an empty __init__.py or
		// config does change what a runtime does.
		return ""
	}
	return "is not listed in the signature"
}

// loadable reports whether a runtime could take the file for weights, tokenizer, template, configuration or code.
func loadable(name string) bool {
	base := strings.ToLower(filepath.Base(name))
	return isWeights(name) || slices.Contains(behaviourSuffixes, filepath.Ext(base)) || slices.Contains(behaviourNames, base)
}

func isWeights(name string) bool {
	return slices.Contains(weightSuffixes, strings.ToLower(filepath.Ext(name)))
}

var (
	weightSuffixes = []string{
		".bin", ".ckpt", ".ggml", ".gguf", ".h5", ".joblib", ".keras", ".lora", ".msgpack", ".npy", ".npz", ".onnx", ".pb",
		".pickle", ".pkl", ".pt", ".pth", ".safetensors", ".tflite",
	}
	behaviourSuffixes = []string{
		".dll", ".dylib", ".j2", ".jinja", ".jinja2", ".json", ".jsonl", ".model", ".py", ".pyc", ".pyd", ".sh", ".so",
		".tiktoken", ".tmpl", ".toml", ".yaml", ".yml",
	}
	behaviourNames = []string{"added_tokens.txt", "merges.txt", "modelfile", "vocab.txt"}
)
