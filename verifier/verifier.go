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
	"io"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/weighbridge/weighbridge/verifier/digest"
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
	var mu sync.Mutex
	var total atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, f := range m.Files() {
		g.Go(func() error {
			n, found, err := verifyFile(ctx, watched(t, o.Progress), m, f)
			total.Add(n)
			mu.Lock()
			defer mu.Unlock()
			problems = append(problems, found...)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return Report{}, fmt.Errorf("verify %s: %w", path, err)
	}
	if problems != nil {
		return Report{}, refuse(t, problems)
	}
	return Report{m.Root(), len(m.Files()), total.Load(), time.Since(start).Seconds()}, nil
}

// verifyFile returns what is wrong with one listed file; its error means only that ctx ended.
func verifyFile(ctx context.Context, src seal.Source, m *oms.Manifest, f oms.File) (int64, []Problem, error) {
	r, size, err := src.Open(f.Name)
	if err != nil {
		return 0, []Problem{unreadable(m, f, err)}, nil
	}
	defer r.Close()
	n, bad, err := digest.Copy(ctx, io.Discard, r, m.Algorithm(), f.Parts, size)
	switch {
	case ctx.Err() != nil:
		return n, nil, ctx.Err()
	case errors.Is(err, digest.ErrTooLong), err == nil && n < size:
		return n, []Problem{{File: shown(f.Name), Why: "it changed while it was read"}}, nil
	case err != nil:
		return n, []Problem{unreadable(m, f, err)}, nil
	}
	problems := make([]Problem, 0, len(bad))
	for _, b := range bad {
		problems = append(problems, mismatch(f.Name, m, b))
	}
	return n, problems, nil
}

// watched tells progress of what is read from src.
func watched(src seal.Source, progress func(int64)) seal.Source {
	if progress == nil {
		return src
	}
	return watchedSource{src, progress}
}

type watchedSource struct {
	seal.Source
	progress func(int64)
}

func (s watchedSource) Open(name string) (io.ReadCloser, int64, error) {
	r, size, err := s.Source.Open(name)
	if err != nil {
		return nil, 0, err
	}
	return watchedFile{r, s.progress}, size, nil
}

type watchedFile struct {
	io.ReadCloser
	progress func(int64)
}

func (f watchedFile) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	f.progress(int64(n))
	return n, err
}

// Admit is the one way from untrusted bytes to sealed weights. The files under path must be exactly those of the
// approved manifest: an unlisted one is refused like a missing or an altered one. It takes at most limit bytes of
// memory. A [*Refused] lists what is wrong with the files.
func Admit(ctx context.Context, path string, m *oms.Manifest, limit int64) (*seal.Weights, error) {
	t, err := openTree(path, m.AllowSymlinks())
	if err != nil {
		return nil, err
	}
	defer t.Close()
	// A directory's signature lies in it by convention; it is read by no runtime, since it is not listed.
	problems, err := scan(ctx, t, m, Options{AllowSymlinks: true, Signature: filepath.Join(path, "model.sig")})
	if err != nil {
		return nil, err
	}
	if problems != nil {
		return nil, refuse(t, problems)
	}
	w, err := seal.Load(ctx, m, t, limit)
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
