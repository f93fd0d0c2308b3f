package members_test

import (
	"errors"
	"io"
	"math"
	"reflect"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/backends/members"
)

// A record has a value of each kind.
type record struct {
	Text  string   `json:"text"`
	Flag  bool     `json:"flag"`
	Int   *int64   `json:"int"`
	Float *float64 `json:"float"`
	List  []record `json:"list"`
}

func (r *record) member(d *jsontext.Decoder, name string) error {
	switch name {
	case "text":
		return members.Text(d, &r.Text)
	case "flag":
		return members.Flag(d, &r.Flag)
	case "int":
		return members.Int(d, &r.Int)
	case "float":
		return members.Float(d, &r.Float)
	case "list":
		r.List = nil
		return members.List(d, func() error {
			var one record
			err := members.Object(d, one.member)
			r.List = append(r.List, one)
			return err
		})
	}
	return json.ErrUnknownName
}

func read(text string) (r record, err error) {
	err = members.Document([]byte(text), r.member)
	return r, err
}

// checkRead holds what is read to what the library reads: the same value, or an error about the same place. A value of a wrong
// kind the library reads to its end first, and may find its form wrong, too.
func checkRead(t *testing.T, text string) {
	t.Helper()
	var want record
	wanted := json.Unmarshal([]byte(text), &want, json.RejectUnknownMembers(true))
	got, err := read(text)
	if wanted != nil || err != nil {
		form := !errors.As(wanted, new(*json.SemanticError)) && errors.As(err, new(*json.SemanticError))
		if (wanted == nil) != (err == nil) || !form && placeOf(err) != placeOf(wanted) {
			t.Errorf("reading %q: %v at %q, want %v at %q", text, err, placeOf(err), wanted, placeOf(wanted))
		}
		return
	}
	if want.List != nil && len(want.List) == 0 {
		want.List = nil
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("reading %q = %+v, want %+v", text, got, want)
	}
}

// placeOf is where an error is, and what it is about.
func placeOf(err error) string {
	var semantic *json.SemanticError
	var syntactic *jsontext.SyntacticError
	switch {
	case errors.As(err, &semantic) && errors.Is(err, json.ErrUnknownName):
		return "unknown " + string(semantic.JSONPointer)
	case errors.As(err, &semantic):
		return semantic.JSONKind.String() + " " + string(semantic.JSONPointer)
	case errors.As(err, &syntactic) && errors.Is(err, jsontext.ErrDuplicateName):
		return "twice " + string(syntactic.JSONPointer)
	case errors.As(err, &syntactic), errors.Is(err, io.ErrUnexpectedEOF):
		return "syntax"
	}
	return ""
}

// bodies are what is read, and what is wrong with them.
var bodies = []string{
	`{"text":"a","flag":true,"int":1,"float":1.5,"list":[{"text":"b"},{},null]}`,
	`{"te\u0078t":"\ud83d\ude00","flag":false,"int":-9223372036854775808,"float":-1e-9,"list":[]}`,
	`{"text":null,"flag":null,"int":null,"float":null,"list":null}`, `{}`, `null`, ` {"text" : "a" } `,
	`{"text":1}`, `{"text":{}}`, `{"flag":"true"}`, `{"int":1.5}`, `{"int":1e2}`, `{"int":9223372036854775808}`, `{"int":"1"}`, `{"float":1e999}`,
	`{"text":false}`, `{"int":false}`, `{"float":true}`, `{"list":false}`, `{"list":[false]}`, `{"list":{}}`, `{"list":[1]}`, `{"list":[{"text":[]}]}`, `{"list":[{"list":[{"flag":0}]}]}`, `[]`, `"text"`, `1`,
	`{"Text":"a"}`, `{"text ":"a"}`, `{"other":1}`, `{"list":[{"other":{"text":1}}]}`, `{"text":"a","text":"a"}`, `{"list":[{"int":1,"int":2}]}`,
	``, `{`, `{"text"`, `{"text":`, `{"text":"a`, `{"text":"a"`, `{"text":"a",}`, `{"text":"a"}}`, `{} {}`, `{"list":[{}`, `{"list":[{},]}`, `{"text":"` + "\xff" + `"}`,
}

func TestRead(t *testing.T) {
	for _, text := range bodies {
		checkRead(t, text)
	}
}

func FuzzRead(f *testing.F) {
	for _, text := range bodies {
		f.Add(text)
	}
	f.Fuzz(checkRead)
}

func TestWriter(t *testing.T) {
	var w members.Writer
	w.Begin('{')
	w.Name("text")
	w.Text("a{[:\"\n")
	w.Name("none")
	w.Null()
	w.Name("list")
	w.Begin('[')
	w.Int(-1)
	w.Float(1e21)
	w.Flag(true)
	w.Begin('{')
	w.End('}')
	w.Begin('[')
	w.End(']')
	w.Value([]string{"b"})
	w.End(']')
	w.Name("last")
	w.Text("")
	w.End('}')
	got, err := w.Bytes()
	if want := `{"text":"a{[:\"\n","none":null,"list":[-1,1e+21,true,{},[],["b"]],"last":""}`; err != nil || string(got) != want {
		t.Errorf("wrote %s, %v, want %s", got, err, want)
	}
}

func TestWriterRefuses(t *testing.T) {
	for name, write := range map[string]func(*members.Writer){
		"text":     func(w *members.Writer) { w.Text("\xff") },
		"name":     func(w *members.Writer) { w.Name("\xff") },
		"NaN":      func(w *members.Writer) { w.Float(math.NaN()) },
		"infinity": func(w *members.Writer) { w.Float(math.Inf(-1)) },
		"value":    func(w *members.Writer) { w.Value(make(chan int)) },
	} {
		w := members.NewWriter(0)
		write(w)
		w.Text("and more")
		if got, err := w.Bytes(); err == nil {
			t.Errorf("%s: wrote %s", name, got)
		}
	}
}
