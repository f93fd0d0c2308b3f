// Package audit is the gateway's transparency log: what was accepted, refused, loaded, switched to and withdrawn.
//
// The one rule: a record that [Log.Append] has acknowledged is in the log for good. It is durable under a checkpoint that
// the log's key signed, and whoever kept any earlier checkpoint can show that nothing before it was changed or taken away.
//
//	if err := audit.Create(config); err != nil { … } // once
//	trail, err := audit.Open(config)
//	defer trail.Close()
//	index, err := trail.Append(ctx, audit.Record{Kind: audit.KindSwitch, Channel: "chat", Release: id})
//	if err != nil { … } // and don't switch
//
// An act that adds or replaces what is served is appended before it takes effect, and doesn't if that fails. One that only
// reduces takes effect at once and is handed to [Log.Note], which never fails and never blocks: what can't be written waits
// in memory, and on a full disk is written into room that was kept for it. Refused callers are counted by
// [Log.RefusedCaller]. There is no place in a [Record] for a prompt or an answer.
//
// # On disk
//
// A directory in the format of https://c2sp.org/tlog-tiles, to be copied, served and verified by whatever reads that:
//
//	checkpoint               origin, number of records and root, signed (https://c2sp.org/tlog-checkpoint)
//	tile/entries/<N>         256 records, each a JSON document after its length
//	tile/<L>/<N>             256 hashes
//	….p/<W>                  the first W of a tile that is not full yet
//	lock, reserve, .next     of the gateway that writes the log; not to be copied
//
// Entries become durable first, then hashes, then the checkpoint that counts them; a crash leaves the old checkpoint or the
// new one, with all of its records. Tiles that are not full are kept for the last checkpoint only: this is closer than the
// format asks of a log that is served to the public.
//
// Retention: nothing is ever removed or changed. Full tiles never change again, and may be moved to an archive in their
// places in the tree; the gateway needs none of them to go on, [Log.Prove] those above the record it proves, and [Verify]
// all of them. A record takes some 250 to 400 bytes and 32 of hashes: at one act a minute, 525,600 a year, that is about
// 200 MB a year in about 4,100 files. Refused callers add one record for each caller and minute in which it was refused, and
// each receipt that a caller asks for adds one.
//
// What it doesn't show: the log's key and its disk together can write another log. So checkpoints are to be kept, or
// countersigned, where the gateway can't reach, and given to [Verify]. A checkpoint that was read in the very moment in
// which power was lost may be one that the disk has not kept.
package audit

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

var (
	// ErrClosed means that the log was closed before the record was written. The caller does not act.
	ErrClosed = errors.New("audit log is closed")
	// ErrExists means that there is a log already, or what is left of one. It is to be opened, or looked into by a person.
	ErrExists = errors.New("there is an audit log already")
)

// Config says which log.
type Config struct {
	Dir     string           // required
	Origin  string           // "weighbridge/" and a name; required
	Key     crypto.Signer    // Ed25519; required
	Now     func() time.Time // nil: the system's clock
	Log     *slog.Logger     // is told when the log can't be written, and when it can again; nil: nobody
	Reserve int64            // bytes kept for what must be recorded when the disk is full; 0: DefaultReserve
}

// check returns who signs, or all that is missing.
func (c *Config) check() (signer, error) {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("no directory"))
	}
	if c.Key == nil {
		return signer{}, errors.Join(append(errs, errors.New("no key"))...)
	}
	who, err := NewVerifier(c.Key.Public(), c.Origin)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Reserve == 0 {
		c.Reserve = DefaultReserve
	}
	return signer{who, c.Key}, errors.Join(append(errs, err)...)
}

// Create makes an empty log. Where there is one, or tiles of one, it changes nothing and returns [ErrExists]. If it is
// interrupted it can be called again.
func Create(c Config) error {
	key, err := c.check()
	if err != nil {
		return fmt.Errorf("create audit log: %w", err)
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return fmt.Errorf("create audit log: %w", err)
	}
	held, err := lock(c.Dir)
	if err != nil {
		return fmt.Errorf("create audit log: %w", err)
	}
	defer held.Close()
	for _, name := range []string{checkpointName, tileName} {
		if _, err := os.Lstat(filepath.Join(c.Dir, name)); err == nil {
			return fmt.Errorf("create audit log: %s: %w", filepath.Join(c.Dir, name), ErrExists)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("create audit log: %w", err)
		}
	}
	root, err := tlog.TreeHash(0, nil)
	if err != nil {
		return fmt.Errorf("create audit log: %w", err)
	}
	signed, err := key.checkpoint(tlog.Tree{Hash: root})
	if err != nil {
		return fmt.Errorf("create audit log: %w", err)
	}
	d := newDisk(c.Dir)
	_, err = d.put(file{checkpointName, signed})
	if err == nil {
		err = errors.Join(syncDir(c.Dir), syncDir(filepath.Dir(filepath.Clean(c.Dir))))
	}
	if err != nil {
		return fmt.Errorf("create audit log: %w", err)
	}
	return nil
}

// A Log is an open log. Its methods may be called concurrently; one goroutine writes.
type Log struct {
	config Config
	lock   *os.File
	head   atomic.Pointer[head] // as of the last checkpoint

	// Of the goroutine that writes.
	writer writer
	wake   chan struct{} // something waits to be written
	ended  chan struct{} // closed when it has ended

	mu      sync.Mutex
	closing bool
	acts    []*act
	notes   []Record
	lost    Record // what did not fit, counted; Count 0: nothing
	failure error  // of the last write; nil: it succeeded
	refused tallies
}

// An act is a record whose caller waits.
type act struct {
	record Record
	done   chan struct{}
	index  int64
	err    error
}

// Open takes an existing log for this process alone, until Close. It reads the end of the log and goes on from there; what
// an interrupted write has left beyond the checkpoint is removed. Anything else that is not as it was signed is an error,
// a [*Problem] that names the file. What lies before the end is not read: that is for [Verify].
func Open(c Config) (*Log, error) {
	key, err := c.check()
	if err != nil {
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	if _, err := os.Lstat(c.Dir); err != nil {
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	held, err := lock(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	l := &Log{config: c, lock: held, wake: make(chan struct{}, 1), ended: make(chan struct{})}
	if err := l.load(key); err != nil {
		held.Close()
		return nil, fmt.Errorf("open audit log %s: %w", c.Dir, err)
	}
	go l.run()
	return l, nil
}

func (l *Log) load(key signer) error {
	h, err := loadHead(l.config.Dir, key.Checkpoint)
	if err != nil {
		return problemOf(err, checkpointName, 0)
	}
	if err := h.check(); err != nil {
		return err
	}
	l.head.Store(h)
	l.writer = writer{log: l, key: key, disk: newDisk(l.config.Dir), reserve: openReserve(l.config.Dir, l.config.Reserve), stray: map[string]bool{}}
	if err := l.writer.findStray(); err != nil {
		return err
	}
	// A full disk, or one that can't be written, is no reason not to start: what only reduces must still take effect.
	l.writer.clean()
	if err := l.writer.reserve.fill(); err != nil {
		l.config.Log.Warn("audit log has no room in reserve: nothing that adds or replaces will take effect", "dir", l.config.Dir, "err", err)
	}
	return nil
}

// Append writes a record of an act that adds or replaces, and returns its index once it is durable under a signed
// checkpoint. On an error the caller must not act. The record may be in the log all the same, if ctx ended or the disk
// failed in the last moment.
func (l *Log) Append(ctx context.Context, r Record) (int64, error) {
	if r.Time.IsZero() {
		r.Time = l.config.Now()
	}
	r, err := r.settled()
	if err != nil {
		return 0, fmt.Errorf("append to audit log: %w", err)
	}
	a := &act{record: r, done: make(chan struct{})}
	l.mu.Lock()
	if l.closing {
		l.mu.Unlock()
		return 0, fmt.Errorf("append to audit log: %w", ErrClosed)
	}
	l.acts = append(l.acts, a)
	l.mu.Unlock()
	l.rouse()
	select {
	case <-a.done:
	case <-ctx.Done():
		if l.forget(a) {
			return 0, fmt.Errorf("append to audit log: %w", context.Cause(ctx))
		}
		select {
		case <-a.done:
		default:
			return 0, fmt.Errorf("append to audit log: %w, while it was written", context.Cause(ctx))
		}
	}
	if a.err != nil {
		return 0, fmt.Errorf("append to audit log: %w", a.err)
	}
	return a.index, nil
}

// forget takes back an act that nobody waits for, unless it is being written.
func (l *Log) forget(a *act) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.acts, a)
	if i >= 0 {
		l.acts = slices.Delete(l.acts, i, i+1)
	}
	return i >= 0
}

// Note has a record written that nothing waits for: of what only reduces, or was refused. It never blocks and never fails.
// A record that can't be written waits in memory; those that don't fit there are counted in one of kind gap. What can't be
// recorded of a record is left out. After Close it does nothing.
func (l *Log) Note(r Record) {
	if r.Time.IsZero() {
		r.Time = l.config.Now()
	}
	r, err := r.settled()
	if err != nil {
		l.config.Log.Warn("audit record is incomplete", "kind", r.Kind, "err", err)
	}
	l.mu.Lock()
	l.note(r)
	l.mu.Unlock()
	l.rouse()
}

// note keeps a record until it is written. l.mu is held.
func (l *Log) note(r Record) {
	limit := maxQueued
	if r.Kind == KindStatementRefused || r.Kind == KindRefusedCallers {
		limit /= 2
	}
	if len(l.notes) < limit {
		l.notes = append(l.notes, r)
		return
	}
	if l.lost.Count == 0 {
		l.lost = Record{Time: r.Time, Kind: KindGap, Why: "too many records waited to be written"}
	}
	l.lost.Count++
}

// rouse has the writer look what there is to do.
func (l *Log) rouse() {
	select {
	case l.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// Status is how the log is.
type Status struct {
	Size   int64 // records that are durable
	Queued int   // records that wait in memory
	Lost   int64 // records that did not fit there, and are not yet recorded as a gap
	Err    error // why the last write failed; nil: it did not
}

// Status returns how the log is.
func (l *Log) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Status{l.head.Load().tree.N, len(l.notes) + len(l.acts), l.lost.Count, l.failure}
}

// Checkpoint returns the last signed checkpoint, for witnesses to keep.
func (l *Log) Checkpoint() []byte { return slices.Clone(l.head.Load().checkpoint) }

// Close writes what waits, and lets another process take the log. An error says how much could not be written, and is lost.
func (l *Log) Close() error {
	l.mu.Lock()
	closed := l.closing
	l.closing = true
	l.mu.Unlock()
	if closed {
		<-l.ended
		return nil
	}
	l.rouse()
	<-l.ended
	s := l.Status()
	err := l.lock.Close()
	if lost := s.Lost + int64(s.Queued); lost > 0 {
		err = errors.Join(fmt.Errorf("%d records are lost", lost), s.Err, err)
	}
	if err != nil {
		return fmt.Errorf("close audit log: %w", err)
	}
	return nil
}
