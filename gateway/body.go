package gateway

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/backends/members"
)

// decode reads a body. What is wrong with its form is reported here and by who calls it; what is wrong with its values,
// where another API could be wrong in the same way, is found in [request.check].
func decode(body io.Reader, into any) error {
	if err := json.UnmarshalRead(body, into, json.RejectUnknownMembers(true)); err != nil {
		return decodeError(err)
	}
	return nil
}

// decodeMembers is decode of a body whose members are read one by one: that of nearly all requests.
func decodeMembers(body io.Reader, member func(d *jsontext.Decoder, name string) error) error {
	data, err := io.ReadAll(body)
	if err == nil {
		err = members.Document(data, member, json.RejectUnknownMembers(true)) // in what is read by reflection
	}
	if err != nil {
		return decodeError(err)
	}
	return nil
}

// decodeError says which field is wrong and how, in words of ours: the library's repeat values, and those are the
// caller's conversation, which must reach no log.
func decodeError(err error) error {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return errTooLarge
	}
	var semantic *json.SemanticError
	if errors.As(err, &semantic) {
		field := fieldName(semantic.JSONPointer)
		if errors.Is(semantic.Err, json.ErrUnknownName) || errors.Is(semantic.Err, errAsked) {
			return invalid(field, "%s", cmp.Or(reasons[semantic.JSONPointer.LastToken()], "is unknown or not supported"))
		}
		return invalid(field, "has the wrong type or is out of range (got a JSON %s)", kindName(semantic.JSONKind))
	}
	var syntactic *jsontext.SyntacticError
	if errors.As(err, &syntactic) {
		field := fieldName(syntactic.JSONPointer)
		if errors.Is(syntactic.Err, jsontext.ErrDuplicateName) {
			return invalid(field, "is given twice")
		}
		return invalid(field, "malformed JSON at byte %d", syntactic.ByteOffset)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return invalid("", "the body ends before its JSON does")
	}
	return fmt.Errorf("%w: read the body: %w", errGone, err)
}

// fieldName writes /messages/0/content as messages[0].content. A name that no field of ours could have is cut: it is
// the caller's text.
func fieldName(p jsontext.Pointer) string {
	var name strings.Builder
	for token := range p.Tokens() {
		if _, err := strconv.Atoi(token); err == nil {
			fmt.Fprintf(&name, "[%s]", token)
			continue
		}
		if !sane(token) {
			token = strconv.QuoteToASCII(token[:min(len(token), 32)])
		}
		if name.Len() > 0 {
			name.WriteByte('.')
		}
		name.WriteString(token)
	}
	return name.String()
}

func kindName(k jsontext.Kind) string {
	switch k {
	case 'n':
		return "null"
	case 't', 'f':
		return "boolean"
	case '"':
		return "string"
	case '0':
		return "number"
	case '{':
		return "object"
	case '[':
		return "array"
	}
	return "value"
}
