package gateway

import (
	"errors"
	"strings"
	"testing"
)

// FuzzDecodeChat holds the decoder to an outcome for every body: a request, or an error that names a field and repeats
// nothing of a value. It is internal, since behind TLS a fuzzer would see little.
func FuzzDecodeChat(f *testing.F) {
	f.Add(`{"model":"chat","messages":[{"role":"user","content":"hi"}]}`)
	f.Add(`{"model":"chat","messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}],"stop":["a"],"stream":true}`)
	f.Add(`{"model":"chat","model":"chat"}`)
	f.Add(`{"model":"chat","messages":[{"role":"user","content":{"secret-value":1}}],"seed":"secret-value"}`)
	f.Fuzz(func(t *testing.T, body string) {
		r, _, err := decodeChat(strings.NewReader(body))
		if err == nil {
			if r.channel == "" {
				t.Errorf("decodeChat(%q) has no channel and no error", body)
			}
			_ = r.check()
			return
		}
		var field *fieldError
		if !errors.As(err, &field) || outcomeOf(err).http != 400 {
			t.Errorf("decodeChat(%q) = %v, want a field's error", body, err)
		}
		for _, value := range []string{`"content":"`, `"text":"`, `"seed":"`} {
			if _, rest, ok := strings.Cut(body, value); ok {
				if text, _, ok := strings.Cut(rest, `"`); ok && len(text) > 20 && strings.Contains(err.Error(), text) {
					t.Errorf("decodeChat(%q) = %v repeats a value", body, err)
				}
			}
		}
	})
}
