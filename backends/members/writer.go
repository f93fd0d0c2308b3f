package members

import (
	"cmp"
	"fmt"
	"math"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// A Writer writes a value, one token after the other. That they make one is left to who writes them.
type Writer struct {
	text []byte
	err  error // the first
}

// NewWriter returns a writer with room for so many bytes before it has to grow.
func NewWriter(room int) *Writer { return &Writer{text: make([]byte, 0, room)} }

// Bytes returns what was written. Its error is the first that there was: text that is not UTF-8, which is written with U+FFFD
// in place of what is not, or a value that has no form in JSON.
func (w *Writer) Bytes() ([]byte, error) { return w.text, w.err }

// Begin begins an object or an array.
func (w *Writer) Begin(bracket byte) {
	w.separate()
	w.text = append(w.text, bracket)
}

// End ends it.
func (w *Writer) End(bracket byte) { w.text = append(w.text, bracket) }

// Name begins a member.
func (w *Writer) Name(name string) {
	w.Text(name)
	w.text = append(w.text, ':')
}

// Text writes a string.
func (w *Writer) Text(s string) {
	w.separate()
	text, err := jsontext.AppendQuote(w.text, s)
	w.text = text
	w.fail(err)
}

// Int writes a whole number.
func (w *Writer) Int(n int64) {
	w.separate()
	w.text = strconv.AppendInt(w.text, n, 10)
}

// Float writes a number.
func (w *Writer) Float(f float64) {
	w.separate()
	if math.IsNaN(f) || math.IsInf(f, 0) {
		w.fail(fmt.Errorf("members: %v is no number in JSON", f))
	}
	w.text = append(w.text, jsontext.Float(f).String()...)
}

// Flag writes a boolean.
func (w *Writer) Flag(b bool) {
	w.separate()
	w.text = strconv.AppendBool(w.text, b)
}

// Null writes null.
func (w *Writer) Null() {
	w.separate()
	w.text = append(w.text, "null"...)
}

// Value writes any value, by reflection.
func (w *Writer) Value(v any) {
	w.separate()
	text, err := json.Marshal(v)
	w.text = append(w.text, text...)
	w.fail(err)
}

// separate writes the comma before a value or name that is not the first.
func (w *Writer) separate() {
	if len(w.text) == 0 {
		return
	}
	switch w.text[len(w.text)-1] {
	case '{', '[', ':':
	default:
		w.text = append(w.text, ',')
	}
}

func (w *Writer) fail(err error) { w.err = cmp.Or(w.err, err) }
