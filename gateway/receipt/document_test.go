package receipt_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/weighbridge/weighbridge/gateway/receipt"
	"github.com/weighbridge/weighbridge/gateway/receipt/receipttest"
)

func base64Of(data []byte) string { return base64.StdEncoding.EncodeToString(data) }

// complete is a receipt with its request and response in it.
func complete(t testing.TB, s *receipttest.Site) []byte {
	t.Helper()
	d, err := receipt.Parse(s.Give(request, response))
	if err != nil {
		t.Fatal(err)
	}
	d.Request, d.Response = []byte(request), []byte(response)
	document, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return document
}

// TestEveryByteCounts changes each byte of a whole document in two ways, cuts it at each byte, and doubles some.
func TestEveryByteCounts(t *testing.T) {
	s := receipttest.New(t, nil)
	document := complete(t, s)
	in := receipt.Inputs{Policy: s.Policy}
	if _, err := receipt.Verify(document, in); err != nil {
		t.Fatal(err)
	}
	bits := []byte{1, 'a' ^ 'A'} // the latter is what a reader may not see
	changed := bytes.Clone(document)
	for at := range document {
		for _, bit := range bits {
			changed[at] ^= bit
			if _, err := receipt.Verify(changed, in); err == nil {
				t.Errorf("bit %d of byte %d (%q in %q) was flipped, and it verifies", bit, at, document[at], document[max(0, at-20):min(len(document), at+20)])
			}
			changed[at] = document[at]
		}
		if _, err := receipt.Verify(document[:at], in); err == nil {
			t.Errorf("cut at byte %d it verifies", at)
		}
	}
	for at := 0; at < len(document); at += 97 {
		doubled := append(bytes.Clone(document[:at+1]), document[at:]...)
		if _, err := receipt.Verify(doubled, in); err == nil {
			t.Errorf("with byte %d twice it verifies", at)
		}
	}
}

// TestParse: a document has one form.
func TestParse(t *testing.T) {
	document := string(complete(t, receipttest.New(t, nil)))
	tests := []struct{ name, from, to string }{
		{"as it is written", "", ""},
		{"a newline at the end", document, document + "\n"},
		{"a space", `{"apiVersion"`, `{ "apiVersion"`},
		{"members out of order", `"index":0,"size":1`, `"size":1,"index":0`},
		{"a member less", `"apiVersion":"weighbridge/v1",`, ``},
		{"another version", `weighbridge/v1`, `weighbridge/v2`},
		{"another kind", `"kind":"Receipt"`, `"kind":"Release"`},
		{"an unknown member", `"kind":`, `"jind":0,"kind":`},
		{"a member twice", `"kind":"Receipt"`, `"kind":"Receipt","kind":"Receipt"`},
		{"another case", `"kind":`, `"Kind":`},
		{"a null", `"request":"` + base64Of([]byte(request)) + `"`, `"request":null`},
		{"an escaped character", `"Receipt"`, `"\u0052eceipt"`},
		{"base64 without padding", base64Of([]byte(response)) + `"`, strings.TrimRight(base64Of([]byte(response)), "=") + `"`},
		{"spare bits in base64", base64Of([]byte(request)), strings.TrimSuffix(base64Of([]byte(request)), "Q==") + "R=="},
		{"a number in another form", `"index":0`, `"index":0.0`},
		{"nothing", document, ""},
		{"a list", document, "[" + document + "]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.from != "" && strings.Count(document, tt.from) == 0 {
				t.Fatalf("%q is not in the document", tt.from)
			}
			_, err := receipt.Parse([]byte(strings.Replace(document, tt.from, tt.to, 1)))
			if (err != nil) != (tt.from != "") || err != nil && !errors.Is(err, receipt.ErrMalformed) {
				t.Errorf("Parse = %v", err)
			}
		})
	}
}

// FuzzParse: what is accepted is written back byte for byte, and verifying it does not panic.
func FuzzParse(f *testing.F) {
	s := receipttest.New(f, nil)
	document := complete(f, s)
	f.Add(document)
	f.Add(bytes.Replace(document, []byte(`"log":`), []byte(`"Log":`), 1))
	f.Add([]byte(`{"apiVersion":"weighbridge/v1","id":"","kind":"Receipt","log":{"entry":{},"proof":{"checkpoint":"","hashes":[],"index":0,"size":0}},"nonce":"` + base64Of(make([]byte, 32)) + `","receipt":{},"statements":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := receipt.Parse(data)
		if err != nil {
			return
		}
		if again, err := d.Encode(); err != nil || !bytes.Equal(again, data) {
			t.Fatalf("Parse accepted %s; written back as %s, %v", data, again, err)
		}
		if _, err := receipt.Verify(data, receipt.Inputs{Policy: s.Policy}); err == nil && !bytes.Equal(data, document) {
			t.Fatalf("another document verifies: %s", data)
		}
	})
}
