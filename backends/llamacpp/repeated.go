package llamacpp

import (
	"bytes"

	"github.com/go-json-experiment/json/jsontext"
)

// A repeated recognizes events that differ from an earlier one in their text alone, as nearly all of a stream do: the bytes
// around it are the same, and between them is one JSON string. To decode each would cost more than all else that is done
// for a token.
type repeated struct {
	before, after []byte // the text; nil: there was none yet
}

// text returns the text of an event that has the form of the one before.
func (r *repeated) text(event []byte) (text string, ok bool) {
	if r.before == nil {
		return "", false
	}
	rest, begins := bytes.CutPrefix(event, r.before)
	literal, ends := bytes.CutSuffix(rest, r.after)
	if !begins || !ends {
		return "", false
	}
	unquoted, err := jsontext.AppendUnquote(nil, literal)
	if err != nil {
		return "", false
	}
	return string(unquoted), true
}

// learn notes the form of an event that was decoded, and says nothing but this text.
func (r *repeated) learn(event []byte, text string) {
	r.before = nil
	quoted, err := jsontext.AppendQuote(nil, text)
	if err != nil {
		return // only what is UTF-8 is recognized
	}
	for _, member := range []string{`"content":`, `"text":`} {
		at := append([]byte(member), quoted...)
		if bytes.Count(event, at) == 1 {
			begin := bytes.Index(event, at) + len(member)
			r.before, r.after = bytes.Clone(event[:begin]), bytes.Clone(event[begin+len(quoted):])
			return
		}
	}
}
