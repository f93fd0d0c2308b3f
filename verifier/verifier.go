// Package verifier is the way from untrusted bytes to weights: it checks files on disk against a manifest.
//
// The one rule: what is hashed is what was opened. A file is opened once, below the model's directory and, unless the
// manifest and the caller both allow links, through no symbolic link; its bytes are read once from that descriptor,
// and a name on disk proves nothing. [Admit] leads to sealed memory and is what serving uses; [Verify] reads the same
// way and keeps nothing.
//
// Whoever calls has checked the signature of the manifest (packages statement and trust); nothing here does.
package verifier

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/weighbridge/weighbridge/verifier/digest"
	"github.com/weighbridge/weighbridge/verifier/dio"
	"github.com/weighbridge/weighbridge/verifier/oms"
	"github.com/weighbridge/weighbridge/verifier/seal"
)

// A Problem is one thing about the files that is not as signed.
type Problem struct {
	File     string `json:"file"`
	Shard    string `json:"shard"` // the resource's name; empty if the whole file is meant
	Start    int64  `json:"start"` // bytes, End excluded
	End      int64  `json:"end"`
	Expected string `json:"expected"` // "sha256:…"; empty if nothing was expected
	Actual   string `json:"actual"`   // empty if nothing was there
	Why      string `json:"why"`
}

// String writes the problem on one line, with control characters of names quoted.
func (p Problem) String() string {
	s := printable(p.File) + ": " + p.Why
	if p.Expected == "" && p.Actual == "" {
		return s
	}
	if p.End > p.Start {
		s += fmt.Sprintf(": bytes %d to %d", p.Start, p.End)
	}
	if p.Shard != "" {
		s += fmt.Sprintf(" (shard %s)", printable(p.Shard))
	}
	if p.Expected != "" {
		s += ": expected " + p.Expected
	}
	if p.Actual != "" {
		s += ", actual " + p.Actual
	}
	return s
}

// Refused means that the files are not the signed ones. It lists every problem found; reading the same files again
// gives the same answer.
type Refused struct {
	Reason   string
	Problems []Problem
}

func (r *Refused) Error() string { return r.Reason }

func refuse(t *tree, problems []Problem) error {
	for i, p := range problems {
		if p.File == oms.SingleFile && t.dir == nil {
			problems[i].File = shown(filepath.Base(t.path)) // "." means nothing to a reader
		}
	}
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Start, b.Start))
	})
	reason := "the files are not the signed ones: " + problems[0].String()
	if n := len(problems); n > 1 {
		reason = fmt.Sprintf("the files are not the signed ones: %d problems, the first is %s", n, problems[0])
	}
	return &Refused{reason, problems}
}

// Options narrow what is verified. The zero value verifies everything.
type Options struct {
	IgnorePaths    []string // relative to the model; may hold files that are not listed
	IgnoreUnsigned bool     // files that are not listed are no problem
	AllowSymlinks  bool     // follow links, if the signer did
	IncludeGit     bool     // .git, .github, .gitignore and .gitattributes at the top are no exception
	Signature      string   // path of the signature file, which is not a part of the model
	PastCache      bool     // read what the device holds, also where the page cache holds it, too

	// Progress, if set, is told of each piece of a file that was read, concurrently.
	Progress func(bytes int64)
}

// A Report says what was verified.
type Report struct {
	Root    string
	Files   int
	Bytes   int64
	Seconds float64
}

// Verify reads every listed file under path (a directory, or the file of a single-file model) and returns a [*Refused]
// with every problem if anything is not as the manifest says. Another error means that it could not look.
func Verify(ctx context.Context, path string, m *oms.Manifest, o Options) (Report, error) {
	start := time.Now()
	t, err := openTree(path, o.AllowSymlinks && m.AllowSymlinks())
	if err != nil {
		return Report{}, err
	}
	defer t.Close()
	problems, err := scan(ctx, t, m, o)
	if err != nil {
		return Report{}, err
	}
	if t.dir == nil && problems != nil {
		return Report{}, refuse(t, problems) // a directory's signature: no listed file can be here
	}
	c := &checking{tree: t, manifest: m, pastCache: o.PastCache}
	var files []digest.File
	for _, f := range m.Files() {
		files = append(files, c.file(f))
	}
	if err := digest.Check(ctx, m.Algorithm(), files, digest.Options{Progress: o.Progress}); err != nil {
		return Report{}, fmt.Errorf("verify %s: %w", path, err)
	}
	if problems = append(problems, c.problems...); problems != nil {
		return Report{}, refuse(t, problems)
	}
	return Report{m.Root(), len(m.Files()), c.bytes, time.Since(start).Seconds()}, nil
}

// A checking collects what is wrong with the files of one model.
type checking struct {
	tree      *tree
	manifest  *oms.Manifest
	pastCache bool
	problems  []Problem
	bytes     int64
}

func (c *checking) file(listed oms.File) digest.File {
	f := &treeFile{tree: c.tree, name: listed.Name}
	return digest.File{
		Open: func() (digest.Input, error) {
			r, err := f.open()
			if err != nil {
				return digest.Input{}, err
			}
			if c.pastCache {
				r.PastCache()
			}
			return digest.Input{Source: r, Size: r.Size(), Parts: listed.Parts}, nil
		},
		Done: func(r digest.Result) error {
			f.close()
			c.bytes += r.Bytes
			if r.Err != nil {
				c.problems = append(c.problems, unreadable(c.manifest, listed, r.Err))
			}
			for _, b := range r.Mismatches {
				c.problems = append(c.problems, mismatch(listed.Name, c.manifest, b))
			}
			return nil
		},
	}
}

// A treeFile is a file of a model that is opened when its turn comes.
type treeFile struct {
	tree   *tree
	name   string
	file   *os.File
	reader *dio.File
}

func (f *treeFile) open() (_ *dio.File, err error) {
	if f.file, err = f.tree.Open(f.name); err == nil {
		f.reader, err = dio.New(f.file)
	}
	return f.reader, err
}

func (f *treeFile) close() {
	if f.reader != nil {
		f.reader.Close()
	}
	if f.file != nil {
		f.file.Close()
	}
}

// AdmitOptions are those by which [Admit] looks at the files under path: whoever verifies by them learns what it would say.
func AdmitOptions(path string) Options {
	// A directory's signature lies in it by convention; it is read by no runtime, since it is not listed.
	return Options{AllowSymlinks: true, Signature: filepath.Join(path, "model.sig")}
}

// Admit is the one way from untrusted bytes to weights in the pool. The files under path must be exactly those of the
// approved manifest: an unlisted one is refused like a missing or an altered one. A [*Refused] lists what is wrong with
// the files.
func Admit(ctx context.Context, pool *seal.Pool, path string, m *oms.Manifest, o seal.Options) (*seal.Weights, error) {
	t, err := openTree(path, m.AllowSymlinks())
	if err != nil {
		return nil, err
	}
	defer t.Close()
	problems, err := scan(ctx, t, m, AdmitOptions(path))
	if err != nil {
		return nil, err
	}
	if problems != nil {
		return nil, refuse(t, problems)
	}
	w, err := pool.Load(ctx, m, t, o)
	var wrong *seal.MismatchError
	if !errors.As(err, &wrong) {
		return w, err
	}
	for _, b := range wrong.Mismatches {
		if b.Err != nil {
			f, _ := m.File(b.File)
			problems = append(problems, unreadable(m, f, b.Err))
			continue
		}
		problems = append(problems, mismatch(b.File, m, b.Mismatch))
	}
	return nil, refuse(t, problems)
}

// mismatch says what is wrong with one part of a file.
func mismatch(name string, m *oms.Manifest, b digest.Mismatch) Problem {
	p := Problem{File: shown(name), Start: b.Part.Start, End: b.Part.End}
	if m.Method() == oms.MethodShards {
		p.Shard = shown(b.Part.Name)
	}
	if p.End == digest.ToEnd {
		p.End = b.End
	}
	if b.Part.Sum != nil {
		p.Expected = string(m.Algorithm()) + ":" + hex.EncodeToString(b.Part.Sum)
	}
	if b.Actual != nil {
		p.Actual = string(m.Algorithm()) + ":" + hex.EncodeToString(b.Actual)
	}
	switch {
	case b.Part.Sum == nil:
		p.Why = "holds bytes behind the last listed shard"
	case b.Actual == nil:
		p.Why = "ends before this shard"
	case b.Part.End != digest.ToEnd && b.End < b.Part.End:
		p.Why = fmt.Sprintf("ends at byte %d, inside this shard", b.End)
	default:
		p.Why = "was altered"
	}
	return p
}

// unreadable is a listed file that could not be read, most often because it is not there.
func unreadable(m *oms.Manifest, f oms.File, err error) Problem {
	p := Problem{File: shown(f.Name), Why: reason(err)}
	if n := len(f.Parts); n > 0 && f.Parts[n-1].End != digest.ToEnd {
		p.End = f.Parts[n-1].End
	}
	if len(f.Parts) == 1 {
		p.Expected = string(m.Algorithm()) + ":" + hex.EncodeToString(f.Parts[0].Sum) // what to fetch again
	}
	return p
}
