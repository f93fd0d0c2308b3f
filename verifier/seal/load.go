package seal

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/verifier/digest"
	"github.com/weighbridge/weighbridge/verifier/dio"
	"github.com/weighbridge/weighbridge/verifier/oms"
)

// A Source opens the files of a model.
type Source interface {
	// Open opens a listed file for reading. It MUST refuse what is not a regular file and, unless the manifest allows
	// them, symbolic links anywhere on the way. It is called once for each file. The caller closes what it returns.
	Open(name string) (*os.File, error)
}

// Options of [Pool.Load]. The zero value asks for the strongest guarantee and tells nobody.
type Options struct {
	// Measured accepts level Measured for weights that are larger than the whole pool.
	Measured bool
	// Progress is told how many bytes were read so far and how many there are. It is called concurrently.
	Progress func(done, total int64)
	// Loaded is told of each file that is the approved one, when it is. It is not called concurrently.
	Loaded func(FileTimes)
}

// FileTimes says what the time of loading a file went into. The phases overlap.
type FileTimes struct {
	Name                   string
	Bytes                  int64
	Read, Copy, Hash, Seal digest.Phase
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

// Load returns the manifest's weights, those that are sealed already or else from src: it reads each listed file once,
// hashing it on its way into memory, and seals it. Room for all of them is taken before the first byte is read. If
// anything is not as listed, Load goes on to find what else is wrong, keeps nothing and returns a [*MismatchError]. One
// load runs at a time, others wait.
func (p *Pool) Load(ctx context.Context, m *oms.Manifest, src Source, o Options) (*Weights, error) {
	if err := p.lock(ctx); err != nil {
		return nil, fmt.Errorf("load weights: %w", err)
	}
	defer p.unlock()
	if w := p.Get(m); w != nil {
		return w, nil
	}
	l := &load{pool: p, options: o, held: &held{pool: p, key: keyOf(m), root: m.Root(), level: Sealed, files: map[string]file{}}}
	if err := l.run(ctx, m, src); err != nil {
		return nil, fmt.Errorf("load weights: %w", errors.Join(err, l.held.close()))
	}
	return p.add(l.held), nil // the last step: until here there are no Weights
}

// A load is one call of Load that reads files.
type load struct {
	pool    *Pool
	options Options
	held    *held
	wrong   []Mismatch
	read    atomic.Int64
	copied  atomic.Int64
}

// run fills held, or fails. Every file that it leaves in held is to be closed.
func (l *load) run(ctx context.Context, m *oms.Manifest, src Source) error {
	listed := m.Files()
	inputs := make([]*input, 0, len(listed))
	defer func() {
		for _, in := range inputs {
			in.close()
		}
	}()
	for _, f := range listed {
		if err := ctx.Err(); err != nil {
			return err
		}
		in, err := openInput(src, f)
		if err != nil {
			l.wrong = append(l.wrong, Mismatch{File: f.Name, Err: err})
			continue
		}
		inputs = append(inputs, in)
		if l.held.size += in.reader.Size(); l.held.size < 0 || l.held.size > oms.MaxFileSize {
			return fmt.Errorf("%w: the files up to %q have more than %d bytes", ErrTooLarge, f.Name, int64(oms.MaxFileSize))
		}
		l.held.names = append(l.held.names, f.Name)
	}
	if l.options.Measured && l.held.size > l.pool.limit {
		l.held.level = Measured
	} else if err := l.pool.reserve(l.held.size); err != nil {
		return err
	}
	err := digest.Check(ctx, m.Algorithm(), l.files(inputs), digest.Options{Progress: l.progress})
	if err == nil && l.wrong != nil {
		err = &MismatchError{l.wrong}
	}
	if err != nil && l.held.level == Sealed {
		l.pool.unreserve(l.held.size)
	}
	return err
}

func (l *load) progress(n int64) {
	if read := l.read.Add(n); l.options.Progress != nil {
		l.options.Progress(read, l.held.size)
	}
}

// An input is a listed file that was opened.
type input struct {
	listed oms.File
	file   *os.File
	stat   unix.Stat_t // when it was opened
	reader *dio.File
	memory *memory // that it lands in; nil at level Measured, and before its turn
}

func openInput(src Source, listed oms.File) (*input, error) {
	f, err := src.Open(listed.Name)
	if err != nil {
		return nil, err
	}
	in := &input{listed: listed, file: f}
	if in.reader, err = dio.New(f); err == nil {
		err = os.NewSyscallError("fstat", unix.Fstat(int(f.Fd()), &in.stat))
	}
	if err != nil {
		in.close()
		return nil, err
	}
	return in, nil
}

// close lets go what was not handed on.
func (in *input) close() {
	if in.reader != nil {
		in.reader.Close()
	}
	if in.file != nil {
		in.file.Close()
	}
	if in.memory != nil {
		in.memory.f.Close()
	}
}

func (l *load) files(inputs []*input) []digest.File {
	files := make([]digest.File, 0, len(inputs))
	for _, in := range inputs {
		files = append(files, digest.File{
			Open: func() (digest.Input, error) { return l.open(in) },
			Done: func(r digest.Result) error { return l.done(in, r) },
		})
	}
	return files
}

func (l *load) open(in *input) (digest.Input, error) {
	opened := digest.Input{Source: in.reader, Size: in.reader.Size(), Parts: in.listed.Parts}
	if l.held.level == Measured {
		return opened, nil
	}
	var err error
	in.memory, err = newMemory(in.listed.Name, in.reader.Size(), l.room)
	opened.Target = in.memory
	return opened, err
}

// done seals a file that is the approved one, or notes what is wrong with it. Its error ends the whole load.
func (l *load) done(in *input, r digest.Result) error {
	name := in.listed.Name
	switch {
	case errors.Is(r.Err, errMemory):
		return r.Err
	case r.Err != nil:
		l.wrong = append(l.wrong, Mismatch{File: name, Err: r.Err})
		return nil //nolint:nilerr // it is noted, and the others are read to find what else is wrong
	}
	for _, b := range r.Mismatches {
		l.wrong = append(l.wrong, Mismatch{File: name, Mismatch: b})
	}
	if len(r.Mismatches) > 0 {
		return nil
	}
	if l.held.level == Measured {
		if err := unchanged(in.file, in.stat); err != nil { // a block may have been written after it was hashed
			l.wrong = append(l.wrong, Mismatch{File: name, Err: err})
			return nil //nolint:nilerr // as above
		}
	}
	times := FileTimes{Name: name, Bytes: r.Bytes, Read: r.Read, Copy: r.Copy, Hash: r.Hash}
	f, err := l.keep(in, &times.Seal)
	if err != nil {
		return err
	}
	l.held.files[name] = f
	if l.options.Loaded != nil {
		l.options.Loaded(times)
	}
	return nil
}

// keep takes what in holds, sealed or as it was measured.
func (l *load) keep(in *input, phase *digest.Phase) (f file, err error) {
	if l.held.level == Measured {
		f.File, f.stat, in.file = in.file, in.stat, nil
		return f, nil
	}
	phase.Start = time.Now()
	mem := in.memory.f
	in.memory = nil
	if f.File, err = seal(mem, in.listed.Name, 0o444); err != nil {
		return f, err
	}
	if l.pool.pins {
		f.pinned = pinFile(f.File)
	}
	phase.End = time.Now()
	phase.Busy = phase.End.Sub(phase.Start)
	return f, err
}
