package audit

import (
	"fmt"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// A writer is the state of the goroutine that writes the log.
type writer struct {
	log     *Log
	key     signer
	disk    *disk
	reserve *reserve
	stray   map[string]bool // files that belong to no checkpoint, to be removed

	// A checkpoint that may have been seen although writing it failed. Nothing else is written before it is durable, so that
	// no two are ever signed that contradict each other.
	pending      *head
	pendingNotes int // how many of the notes are in it
}

// run writes what waits, until the log is closed.
func (l *Log) run() {
	defer close(l.ended)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-l.wake:
		case <-timer.C:
		}
		l.mu.Lock()
		next, closing := l.flush(l.config.Now()), l.closing
		l.mu.Unlock()
		for l.writer.advance() {
		}
		if closing {
			for n := 0; n < closeTries && l.writer.waits(); n++ {
				for l.writer.advance() {
				}
			}
			return
		}
		var wait []time.Duration
		if l.writer.waits() {
			wait = append(wait, retryAfter)
		}
		if l.writer.reserve.fill() != nil { // the next act will say why
			wait = append(wait, refillAfter)
		}
		if !next.IsZero() {
			wait = append(wait, max(0, next.Sub(l.config.Now())))
		}
		if len(wait) > 0 {
			timer.Reset(slices.Min(wait))
		}
	}
}

// waits reports whether there is anything to be written.
func (w *writer) waits() bool {
	s := w.log.Status()
	return s.Queued > 0 || s.Lost > 0 || w.pending != nil
}

// A batch is what is written under one checkpoint. Its notes stay queued until they are durable.
type batch struct {
	notes []Record
	acts  []*act
}

func (b batch) entries() [][]byte {
	var entries [][]byte
	add := func(r Record) {
		entry, err := r.marshal()
		if err != nil {
			panic("audit: internal error: " + err.Error()) // it was settled when it came
		}
		entries = append(entries, entry)
	}
	for _, r := range b.notes {
		add(r)
	}
	for _, a := range b.acts {
		add(a.record)
	}
	return entries
}

// take returns the next batch. Neither acts nor notes keep the others waiting.
func (l *Log) take() batch {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost.Count > 0 && len(l.notes) < maxQueued/2 { // once, when the queue is let go, and not with each that is lost
		l.notes = append(l.notes, l.lost)
		l.lost = Record{}
	}
	acts := min(len(l.acts), max(maxBatch/2, maxBatch-len(l.notes)))
	b := batch{l.notes[:min(len(l.notes), maxBatch-acts)], l.acts[:acts:acts]}
	l.acts = l.acts[acts:]
	return b
}

// takeActs returns all acts that wait.
func (l *Log) takeActs() []*act {
	l.mu.Lock()
	defer l.mu.Unlock()
	acts := l.acts
	l.acts = nil
	return acts
}

// refuse tells those who wait that their acts are not recorded.
func (l *Log) refuse(acts []*act, err error) {
	for _, a := range acts {
		a.err = err
		close(a.done)
	}
}

// advance writes a batch, and reports whether to go on.
func (w *writer) advance() bool {
	l := w.log
	var b batch
	var err error
	if w.pending != nil {
		err = w.finish()
	} else {
		if b = l.take(); len(b.notes)+len(b.acts) == 0 {
			return false
		}
		err = w.admit(&b)
		if err == nil {
			err = w.write(b)
		}
	}
	if err == nil {
		w.succeeded(b)
		return true
	}
	l.refuse(append(b.acts, l.takeActs()...), err) // none is to wait until the disk is better
	// What only reduces goes into the room that was kept for it, and so does what was begun.
	if full(err) && (len(b.notes) > 0 || w.pending != nil) && w.reserve.release() {
		l.config.Log.Warn("audit log writes into its reserve: the disk is full", "dir", l.config.Dir, "left", w.reserve.have)
		return true
	}
	l.mu.Lock()
	first := l.failure == nil
	l.failure = err
	l.mu.Unlock()
	if first {
		l.config.Log.Error("audit log can't be written: nothing that adds or replaces takes effect", "dir", l.config.Dir, "err", err)
	}
	return false
}

// admit refuses the acts of a batch while the reserve is not whole: they must not use up the room of others. It returns an
// error if nothing else is in the batch.
func (w *writer) admit(b *batch) error {
	if len(b.acts) == 0 {
		return nil
	}
	err := w.reserve.fill()
	if err == nil || len(b.notes) == 0 {
		return err
	}
	w.log.refuse(b.acts, err)
	b.acts = nil
	return nil
}

// succeeded acknowledges a batch.
func (w *writer) succeeded(b batch) {
	l := w.log
	first := l.head.Load().tree.N - int64(len(b.acts))
	for i, a := range b.acts {
		a.index = first + int64(i)
		close(a.done)
	}
	l.mu.Lock()
	failed := l.failure != nil
	l.failure = nil
	l.mu.Unlock()
	if failed {
		l.config.Log.Info("audit log is written again", "dir", l.config.Dir)
	}
}

// write makes a batch durable.
func (w *writer) write(b batch) error {
	next, files, err := w.log.head.Load().grow(b.entries())
	if err != nil {
		return fmt.Errorf("grow tree: %w", err)
	}
	if next.checkpoint, err = w.key.checkpoint(next.tree); err != nil {
		return err
	}
	if err := w.putTiles(files); err != nil {
		w.clean() // room on a full disk
		return err
	}
	// All of the tree is durable, beyond the checkpoint: a crash leaves the old one, and the next start removes these.
	if err := w.disk.stage(next.checkpoint); err != nil {
		w.clean()
		return fmt.Errorf("write checkpoint: %w", err)
	}
	w.pending, w.pendingNotes = next, len(b.notes)
	return w.publish()
}

// putTiles writes tiles, and makes them durable. They are stray until a checkpoint counts them.
func (w *writer) putTiles(files []file) error {
	dirs := map[string]bool{}
	for _, f := range files {
		w.stray[f.path] = true
		dir, err := w.disk.put(f)
		if err != nil {
			return err
		}
		dirs[dir] = true
	}
	return w.disk.sync(dirs)
}

// publish gives the pending checkpoint, which is staged, its name.
func (w *writer) publish() error {
	err := w.disk.move(checkpointName)
	if err == nil {
		err = syncDir(w.log.config.Dir)
	}
	if err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	l, old := w.log, w.log.head.Load()
	l.head.Store(w.pending)
	l.mu.Lock()
	l.notes = l.notes[w.pendingNotes:]
	l.mu.Unlock()
	w.pending, w.pendingNotes = nil, 0
	// Only now the tiles of the old checkpoint may go. A crash before that leaves them, which does no harm.
	for _, t := range partialTiles(old.tree.N) {
		w.stray[tilePath(t)] = true
	}
	w.clean()
	return nil
}

// finish makes the pending checkpoint durable.
func (w *writer) finish() error {
	if err := w.disk.stage(w.pending.checkpoint); err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	return w.publish()
}

// clean removes stray files. What can't be removed is tried again later.
func (w *writer) clean() {
	size := w.log.head.Load().tree.N
	for path := range w.stray {
		t, err := parseTilePath(path)
		if err != nil {
			panic("audit: internal error: " + err.Error())
		}
		if placeOf(t, size) == inside || w.disk.remove(path) == nil {
			delete(w.stray, path)
		}
	}
}

// findStray finds what an interrupted write has left. What no single write can have left means that the checkpoint is not
// the newest, and then nothing must be removed.
func (w *writer) findStray() error {
	size := w.log.head.Load().tree.N
	return walkTiles(w.log.config.Dir, func(path string, t tlog.Tile, err error) error {
		if err != nil {
			return nil //nolint:nilerr // not ours; Verify reports it
		}
		switch placeOf(t, size) {
		case inside:
			return nil
		case beyond:
			if t.N*tileWidth+int64(t.W) > levelSize(t.L, size+maxBatch) {
				return &Problem{size, path, fmt.Sprintf("is so far beyond the %d records of the checkpoint that this is an old one: bring back the newest", size)}
			}
		}
		w.stray[path] = true
		return nil
	})
}
