package process

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"
)

// An output passes what a child writes to the log, bounded in length and rate, and keeps the last lines.
type output struct {
	log  *slog.Logger
	file chan *os.File // the pipe's reading end, once there is one
	done chan struct{} // closed when read has returned; last belongs to read until then
	last []string

	windowStart time.Time
	lines       int // in this window
}

func newOutput(log *slog.Logger) *output {
	return &output{log: log, file: make(chan *os.File, 1), done: make(chan struct{})}
}

// read reads to the end of the child's output.
func (o *output) read(r *os.File) {
	defer close(o.done)
	defer r.Close()
	o.file <- r
	br := bufio.NewReaderSize(r, maxLine)
	for {
		line, err := br.ReadSlice('\n')
		if len(line) > 0 {
			o.line(strings.TrimRight(strings.ToValidUTF8(string(line), "?"), "\r\n"))
		}
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = br.ReadSlice('\n')
		}
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrDeadlineExceeded) {
				o.log.Debug("runtime output lost", "err", err)
			}
			return
		}
	}
}

func (o *output) line(s string) {
	if s == "" {
		return
	}
	if o.last = append(o.last, s); len(o.last) > tailSize {
		o.last = o.last[1:]
	}
	if now := time.Now(); now.Sub(o.windowStart) > logWindow {
		o.dropped()
		o.windowStart, o.lines = now, 0
	}
	if o.lines++; o.lines <= maxLines {
		o.log.LogAttrs(context.Background(), slog.LevelDebug, "runtime output", slog.String("line", s))
	}
}

func (o *output) dropped() {
	if o.lines > maxLines {
		o.log.Debug("runtime output dropped", "lines", o.lines-maxLines)
	}
}

// finish returns when all that a dead child wrote has been read, or drainTimeout later.
func (o *output) finish() {
	_ = (<-o.file).SetReadDeadline(time.Now().Add(drainTimeout)) // fails if all was read and it is closed
	<-o.done
	o.dropped()
}

// tail returns the last lines. It may be called once finish has returned.
func (o *output) tail() string { return strings.Join(o.last, "\n") }
