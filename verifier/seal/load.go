package seal

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/weighbridge/weighbridge/verifier/digest"
	"github.com/weighbridge/weighbridge/verifier/oms"
)

// A Source opens the files of a model.
type Source interface {
	// Open opens a listed file for one sequential read and says how many bytes it has. It MUST refuse what is not a
	// regular file and, unless the manifest allows them, symbolic links anywhere on the way. It is called once for
	// each file. The caller closes what it returns.
	Open(name string) (f io.ReadCloser, size int64, err error)
}

// A MismatchError lists everything about the files that is not as the manifest says. Retrying with the same source
// fails the same way.
type MismatchError struct{ Mismatches []Mismatch }

// A Mismatch is one file or part of a file that is not as listed.
type Mismatch struct {
	File string
	digest.Mismatch
	Err error // why the file could not be read at all; nil if its bytes are wrong
}

func (m Mismatch) String() string {
	switch {
	case m.Err != nil:
		return fmt.Sprintf("%q: %v", m.File, m.Err)
	case m.Actual == nil:
		return fmt.Sprintf("%q: bytes from %d are missing", m.File, m.Part.Start)
	case m.Part.Sum == nil:
		return fmt.Sprintf("%q: bytes %d to %d are not listed", m.File, m.Part.Start, m.End)
	}
	return fmt.Sprintf("%q: bytes %d to %d: digest is %s, want %s",
		m.File, m.Part.Start, m.End, hex.EncodeToString(m.Actual), hex.EncodeToString(m.Part.Sum))
}

func (e *MismatchError) Error() string {
	if len(e.Mismatches) == 1 {
		return "weights are not the approved ones: " + e.Mismatches[0].String()
	}
	return fmt.Sprintf("weights are not the approved ones: %d mismatches, the first is %s", len(e.Mismatches), e.Mismatches[0])
}

// Unwrap returns why files could not be read.
func (e *MismatchError) Unwrap() []error {
	var errs []error
	for _, m := range e.Mismatches {
		if m.Err != nil {
			errs = append(errs, m.Err)
		}
	}
	return errs
}

// ErrTooLarge means that the weights need more memory than the limit leaves: free some, or raise it.
var ErrTooLarge = errors.New("weights do not fit in memory")

// Load reads each file that the manifest lists once, hashing it on its way into memory, and seals it. All files take
// at most limit bytes together; each is checked against what is left before memory is taken for it. If anything is not
// as listed, Load goes on to find what else is wrong, keeps nothing and returns a [*MismatchError].
func Load(ctx context.Context, m *oms.Manifest, src Source, limit int64) (_ *Weights, err error) {
	w := &Weights{files: map[string]*os.File{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Close()) // a failure that only partly happened must not keep memory
		}
	}()
	var wrong []Mismatch
	for _, f := range m.Files() {
		sealed, bad, size, err := loadFile(ctx, m.Algorithm(), f, src, limit-w.size)
		if err != nil {
			return nil, fmt.Errorf("load weights: %q: %w", f.Name, err)
		}
		if bad != nil {
			wrong = append(wrong, bad...)
			continue
		}
		w.files[f.Name] = sealed
		w.names = append(w.names, f.Name)
		w.size += size
	}
	if wrong != nil {
		return nil, &MismatchError{wrong}
	}
	w.root = m.Root() // the last step: until here w is not valid
	return w, nil
}

// loadFile returns either the sealed file, or what is wrong with it, or an error that ends the whole Load.
func loadFile(ctx context.Context, alg digest.Algorithm, f oms.File, src Source, limit int64) (_ *os.File, _ []Mismatch, size int64, err error) {
	r, size, err := src.Open(f.Name)
	if err != nil {
		return nil, []Mismatch{{File: f.Name, Err: err}}, 0, nil
	}
	defer r.Close()
	if size > limit {
		return nil, nil, 0, fmt.Errorf("%w: it needs %d bytes, %d are left", ErrTooLarge, size, max(limit, 0))
	}
	mem, err := create(f.Name, false)
	if err != nil {
		return nil, nil, 0, err
	}
	n, bad, err := digest.Copy(ctx, mem, r, alg, f.Parts, size)
	switch {
	case errors.Is(err, digest.ErrTooLong):
		return nil, []Mismatch{{File: f.Name, Err: errors.New("it grew while it was read")}}, 0, mem.Close()
	case err != nil:
		return nil, nil, 0, errors.Join(err, mem.Close())
	case n < size:
		return nil, []Mismatch{{File: f.Name, Err: errors.New("it shrank while it was read")}}, 0, mem.Close()
	case bad != nil:
		return nil, wrong(f.Name, bad), 0, mem.Close()
	}
	sealed, err := seal(mem, f.Name, 0o444)
	return sealed, nil, size, err
}

func wrong(name string, bad []digest.Mismatch) []Mismatch {
	all := make([]Mismatch, 0, len(bad))
	for _, b := range bad {
		all = append(all, Mismatch{File: name, Mismatch: b})
	}
	return all
}
