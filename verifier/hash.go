package verifier

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/verifier/digest"
	"github.com/weighbridge/weighbridge/verifier/dio"
	"github.com/weighbridge/weighbridge/verifier/oms"
)

// DigestOptions say how a model is listed for signing.
type DigestOptions struct {
	Method        string // oms.MethodFiles, also if empty, or oms.MethodShards
	ShardSize     int64  // bytes, with oms.MethodShards
	Algorithm     digest.Algorithm
	IgnorePaths   []string // relative to the model
	IgnoreGit     bool     // leave out .git, .github, .gitignore and .gitattributes at the top
	AllowSymlinks bool
	Signature     string // path of the signature file; left out if it lies in the model

	// Progress, if set, is told of each piece of a file that was read, concurrently.
	Progress func(bytes int64)
}

// A Listing is a model ready to be signed.
type Listing struct {
	Name          string // of the model: informational
	Resources     []oms.Resource
	Serialization oms.Serialization
	Files         int // in shards an empty file has no resource
	Bytes         int64
	Loadable      []string // files that were left out although a runtime could load them: verifiers refuse those
}

// Root returns the root digest, "sha256:…", as the signature will have it.
func (l *Listing) Root() (string, error) { return oms.Root(l.Resources, l.Serialization) }

// Payload returns the statement to sign.
func (l *Listing) Payload() ([]byte, error) {
	return oms.NewPayload(l.Name, l.Resources, l.Serialization)
}

// Digest reads every file of the model at path and lists it. It follows no symbolic links unless told to; a file that
// is reached through a link to a directory is listed once, under the name where it lies, if that is in the model.
func Digest(ctx context.Context, path string, o DigestOptions) (*Listing, error) {
	t, err := openTree(path, o.AllowSymlinks)
	if err != nil {
		return nil, err
	}
	defer t.Close()
	c, err := newCollector(t, o)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", path, err)
	}
	if t.dir == nil {
		c.names = []string{oms.SingleFile}
	} else if err := t.walk(ctx, c.visit); err != nil {
		return nil, err
	}
	if c.errs != nil {
		return nil, fmt.Errorf("list %s: %w", path, errors.Join(c.errs...))
	}
	l := &Listing{Name: modelName(path), Serialization: c.ser, Files: len(c.names), Loadable: c.loadable}
	resources := make([][]oms.Resource, len(c.names))
	var files []digest.File
	for i, name := range c.names {
		files = append(files, l.file(t, name, &resources[i]))
	}
	if err := digest.Check(ctx, c.ser.HashType, files, digest.Options{Progress: o.Progress}); err != nil {
		return nil, fmt.Errorf("hash %s: %w", path, err)
	}
	l.Resources = slices.Concat(resources...)
	if len(l.Resources) > oms.MaxResources {
		return nil, fmt.Errorf("list %s: %d resources, want at most %d: take larger shards", path, len(l.Resources), oms.MaxResources)
	}
	return l, nil
}

func modelName(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	return shown(filepath.Base(path))
}

// A collector gathers the files of a model that are to be listed.
type collector struct {
	ser      oms.Serialization
	ignored  map[string]bool
	names    []string
	loadable []string
	errs     []error
}

func newCollector(t *tree, o DigestOptions) (*collector, error) {
	c := &collector{ignored: map[string]bool{}}
	c.ser = oms.Serialization{Method: o.Method, HashType: o.Algorithm, ShardSize: o.ShardSize, AllowSymlinks: o.AllowSymlinks}
	if c.ser.Method == "" {
		c.ser.Method = oms.MethodFiles
	}
	if c.ser.HashType == "" {
		c.ser.HashType = digest.SHA256
	}
	if c.ser.HashType.Size() == 0 {
		return nil, fmt.Errorf("unknown hash algorithm %q", string(o.Algorithm))
	}
	if c.ser.Method == oms.MethodShards && (o.ShardSize < 1 || o.ShardSize > oms.MaxFileSize) {
		return nil, fmt.Errorf("shard size of %d bytes, want 1 to %d", o.ShardSize, int64(oms.MaxFileSize))
	}
	if t.dir == nil {
		return c, nil // nothing can be left out of one file
	}
	ignore := slices.Clone(o.IgnorePaths)
	if rel, ok := Within(t.path, o.Signature); ok && o.Signature != "" {
		ignore = append(ignore, rel)
	}
	if o.IgnoreGit {
		ignore = append(ignore, oms.GitPaths...)
	}
	for _, p := range ignore {
		c.ignored[p] = true
	}
	c.ser.IgnorePaths = ignore
	return c, nil
}

func (c *collector) visit(e entry) (enter bool) {
	if by := c.ignoredBy(e.name); by != "" {
		git := slices.Contains(oms.GitPaths, by)
		if e.kind == unix.S_IFREG && loadable(e.name) && !git {
			c.loadable = append(c.loadable, e.name)
		}
		return e.kind == unix.S_IFDIR && !git
	}
	switch {
	case e.kind == unix.S_IFDIR:
		return true
	case e.kind == unix.S_IFLNK && c.ser.AllowSymlinks:
		c.errs = append(c.errs, fmt.Errorf("%s: is a broken symbolic link", printable(e.name)))
	case e.kind == unix.S_IFLNK:
		c.errs = append(c.errs, fmt.Errorf("%s: is a symbolic link (--allow-symlinks signs what it leads to)", printable(e.name)))
	case e.kind != unix.S_IFREG:
		c.errs = append(c.errs, fmt.Errorf("%s: %w", printable(e.name), dio.ErrNotRegular))
	case e.link || e.real == e.name || e.real == "" || c.ignoredBy(e.real) != "":
		if err := oms.CheckName(e.name); err != nil {
			c.errs = append(c.errs, fmt.Errorf("%s: %w", printable(e.name), err))
		}
		c.names = append(c.names, e.name)
	}
	return false
}

// ignoredBy returns the ignored path that covers name, itself or the nearest directory above it; "" if none does.
func (c *collector) ignoredBy(name string) string {
	for p := name; p != "."; p = filepath.Dir(p) {
		if c.ignored[p] {
			return p
		}
	}
	return ""
}

// file reads one file into its resources.
func (l *Listing) file(t *tree, name string, into *[]oms.Resource) digest.File {
	f := &treeFile{tree: t, name: name}
	return digest.File{
		Open: func() (digest.Input, error) {
			r, err := f.open()
			if err != nil {
				return digest.Input{}, err
			}
			parts, err := cut(name, r.Size(), l.Serialization)
			return digest.Input{Source: r, Size: r.Size(), Parts: parts}, err
		},
		Done: func(r digest.Result) error {
			f.close()
			if r.Err != nil {
				return fmt.Errorf("%s %s", printable(name), reason(r.Err))
			}
			l.Bytes += r.Bytes
			for _, s := range r.Mismatches { // no digest is known yet: every part is a mismatch, and says what was there
				*into = append(*into, oms.Resource{Name: s.Part.Name, Algorithm: string(l.Serialization.HashType), Digest: hex.EncodeToString(s.Actual)})
			}
			return nil
		},
	}
}

var errShards = fmt.Errorf("would have more than %d shards: take larger ones", oms.MaxResources)

// cut names the parts of a file of that size.
func cut(name string, size int64, ser oms.Serialization) ([]digest.Part, error) {
	if ser.Method == oms.MethodFiles {
		return []digest.Part{{Name: name, End: digest.ToEnd}}, nil
	}
	if size/ser.ShardSize >= oms.MaxResources {
		return nil, errShards
	}
	var parts []digest.Part
	for at := int64(0); at < size; at += ser.ShardSize {
		end := min(at+ser.ShardSize, size)
		parts = append(parts, digest.Part{Name: fmt.Sprintf("%s:%d:%d", name, at, end), Start: at, End: end})
	}
	return parts, nil
}
