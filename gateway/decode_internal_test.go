package gateway

import (
	"errors"
	"io"
	"strings"
	"testing"
)

// FuzzDecodeChat holds the decoders of all APIs to an outcome for every body: a request, or an error that names a field and repeats
// nothing of a value. It is internal, since behind TLS a fuzzer would see little.
func FuzzDecodeChat(f *testing.F) {
	f.Add(`{"model":"chat","messages":[{"role":"user","content":"hi"}]}`)
	f.Add(`{"model":"chat","messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}],"stop":["a"],"stream":true}`)
	f.Add(`{"model":"chat","model":"chat"}`)
	f.Add(`{"model":"chat","messages":[{"role":"user","content":{"secret-value":1}}],"seed":"secret-value"}`)
	f.Add(`{"model":"chat","prompt":"hi","options":{"stop":["a"],"num_predict":1,"seed":"secret-value"},"keep_alive":"5m","format":{"secret-value":1}}`)
	f.Add(`{"model":"chat","messages":[{"role":"assistant","tool_calls":[{"function":{"name":"a","arguments":{}}}]},{"role":"tool","tool_name":"a"}]}`)
	f.Add(`{"model":"chat","max_tokens":1,"system":[{"type":"text","text":"a"}],"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"a","content":[]}]}]}`)
	f.Add(`{"model":"chat","max_tokens":1,"messages":[{"role":"user","content":"a"}],"thinking":{"type":"disabled"},"cache_control":{"type":"ephemeral"},"tool_choice":{"type":"any"}}`)
	decoders := map[string]func(io.Reader) (*request, style, error){
		"chat": decodeChat, "text": decodeText, "Anthropic": decodeAnthropic, "Ollama chat": decodeOllamaChat, "Ollama generate": decodeOllamaGenerate,
	}
	f.Fuzz(func(t *testing.T, body string) {
		for name, decode := range decoders {
			t.Run(name, func(t *testing.T) { checkDecoded(t, body, decode) })
		}
	})
}

func checkDecoded(t *testing.T, body string, decode func(io.Reader) (*request, style, error)) {
	t.Helper()
	r, _, err := decode(strings.NewReader(body))
	if err == nil {
		if r.channel == "" {
			t.Errorf("decoding %q gives no channel and no error", body)
		}
		_ = r.check()
		return
	}
	var field *fieldError
	if !errors.As(err, &field) || outcomeOf(err).http != 400 {
		t.Errorf("decoding %q = %v, want a field's error", body, err)
	}
	for _, value := range []string{`"content":"`, `"text":"`, `"seed":"`} {
		if _, rest, ok := strings.Cut(body, value); ok {
			if text, _, ok := strings.Cut(rest, `"`); ok && len(text) > 20 && strings.Contains(err.Error(), text) {
				t.Errorf("decoding %q = %v repeats a value", body, err)
			}
		}
	}
}
