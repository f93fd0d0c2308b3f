// Package members reads and writes JSON objects member by member.
//
// The one rule: whoever reads or writes an object names its members itself, and says what happens to those that it does not
// know. That takes half of what reflection does, and less, where the processor has forgotten both since the last request, as
// it has where few requests come: so it is for what each request goes through, and only for that.
//
// What is wrong with a value that is read is a [*json.SemanticError] that says where, as the library's own are; a null leaves
// what it is read into as it is.
package members

import (
	"bytes"
	"errors"
	"io"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Document reads an object, after which nothing else comes; see [Object].
func Document(data []byte, member func(d *jsontext.Decoder, name string) error, opts ...jsontext.Options) error {
	d := jsontext.NewDecoder(bytes.NewBuffer(data), opts...)
	err := Object(d, member)
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF // there is none
	} else if err != nil {
		return err
	}
	switch _, err := d.ReadToken(); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return err
	}
	return &jsontext.SyntacticError{ByteOffset: d.InputOffset(), Err: errors.New("a second value")}
}

// Object reads an object, and has member read the value of each name. An error of member that is [json.ErrUnknownName] is
// given its place.
func Object(d *jsontext.Decoder, member func(d *jsontext.Decoder, name string) error) error {
	if _, there, err := token(d, '{'); !there {
		return err
	}
	for d.PeekKind() == '"' {
		name, err := d.ReadToken()
		if err != nil {
			return err
		}
		err = member(d, name.String())
		if errors.Is(err, json.ErrUnknownName) && !errors.As(err, new(*json.SemanticError)) {
			err = &json.SemanticError{JSONPointer: d.StackPointer(), Err: err}
		}
		if err != nil {
			return err
		}
	}
	_, err := d.ReadToken() // its end, or what is wrong there
	return err
}

// List reads an array, and has element read each value.
func List(d *jsontext.Decoder, element func() error) error {
	if _, there, err := token(d, '['); !there {
		return err
	}
	for d.PeekKind() != ']' {
		if err := element(); err != nil {
			return err
		}
	}
	_, err := d.ReadToken()
	return err
}

// Text reads a string.
func Text(d *jsontext.Decoder, into *string) error {
	t, there, err := token(d, '"')
	if there {
		*into = t.String()
	}
	return err
}

// Flag reads a boolean.
func Flag(d *jsontext.Decoder, into *bool) error {
	t, there, err := token(d, 't')
	if there {
		*into = t.Bool()
	}
	return err
}

// Int reads a whole number.
func Int(d *jsontext.Decoder, into **int64) error {
	t, there, err := token(d, '0')
	if !there {
		return err
	}
	n, err := t.Int()
	if err != nil {
		return wrong(d, '0')
	}
	*into = &n
	return nil
}

// Float reads a number.
func Float(d *jsontext.Decoder, into **float64) error {
	t, there, err := token(d, '0')
	if !there {
		return err
	}
	f, err := t.Float()
	if err != nil {
		return wrong(d, '0')
	}
	*into = &f
	return nil
}

// token reads a token of a kind, of which 't' stands for both booleans. there is false if it is null.
func token(d *jsontext.Decoder, kind jsontext.Kind) (t jsontext.Token, there bool, err error) {
	if t, err = d.ReadToken(); err != nil {
		return t, false, err
	}
	switch got := t.Kind(); {
	case got == kind, got == 'f' && kind == 't':
		return t, true, nil
	case got == 'n':
		return t, false, nil
	default:
		return t, false, wrong(d, got)
	}
}

// wrong says that the token just read is not what can be there.
func wrong(d *jsontext.Decoder, kind jsontext.Kind) error {
	return &json.SemanticError{JSONKind: kind, JSONPointer: d.StackPointer()}
}
