package gateway

import (
	"bytes"

	"github.com/go-json-experiment/json/jsontext"
)

// A textFrame writes the frames of a stream that differ in their text alone. One is encoded, and has the others' texts put
// into its place: to encode each costs as much as all else that is done for a token.
type textFrame struct {
	before, after []byte
	frame         []byte // the last
}

// Of the text in the frame that is encoded: JSON has another form for it, and nothing else in a frame is like that.
const (
	mark       = "\x00"
	quotedMark = `"\u0000"`
)

// with returns the frame that holds a text, as encoded makes it. It is good until the next.
func (f *textFrame) with(text string, encoded func(text string) []byte) []byte {
	if f.before == nil {
		frame := encoded(mark)
		if bytes.Count(frame, []byte(quotedMark)) != 1 {
			return encoded(text)
		}
		f.before, f.after, _ = bytes.Cut(frame, []byte(quotedMark))
	}
	frame, err := jsontext.AppendQuote(append(f.frame[:0], f.before...), text)
	if err != nil {
		return encoded(text) // it is not UTF-8
	}
	frame = append(frame, f.after...)
	f.frame = frame
	return frame
}
