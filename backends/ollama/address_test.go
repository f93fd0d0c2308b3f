package ollama_test

import (
	"strings"
	"testing"

	"github.com/weighbridge/weighbridge/backends/ollama"
)

func TestParseAddress(t *testing.T) {
	tests := []struct {
		text  string
		local bool
		want  string // of the error; empty: none
	}{
		{"http://127.0.0.1:11434", true, ""},
		{"http://127.8.9.1:1", true, ""},
		{"http://[::1]:11434", true, ""},
		{"http://localhost:11434", true, ""},
		{"unix:/run/ollama.sock", true, ""},
		{"https://gpu.example", false, ""},
		{"https://10.0.0.1:8443", false, ""},

		{"http://10.0.0.1:11434", false, "plain http is for this machine only"},
		{"http://0.0.0.0:11434", false, "plain http is for this machine only"},
		{"http://gpu.example:11434", false, "plain http is for this machine only"},
		{"http://localhost.example:11434", false, "plain http is for this machine only"},
		{"http://127.0.0.1", false, "11434"},
		{"https://user:secret@gpu.example", false, "no user"},
		{"https://gpu.example/", false, "no user, path"},
		{"https://gpu.example/v1", false, "no user, path"},
		{"https://gpu.example?a=b", false, "no user, path"},
		{"https://gpu.example?", false, "no user, path"},
		{"https://gpu.example#a", false, "no user, path"},
		{"https://user:secret@gpu.example:no", false, "is not http://HOST:PORT"},
		{"https://", false, "is not http://HOST:PORT"},
		{"127.0.0.1:11434", false, "is not http://HOST:PORT"},
		{"ftp://127.0.0.1:21", false, "is not http://HOST:PORT"},
		{"unix:ollama.sock", false, "absolute path"},
		{"unix:", false, "absolute path"},
		{"", false, "is not http://HOST:PORT"},
	}
	for _, tt := range tests {
		got, err := ollama.ParseAddress(tt.text)
		switch {
		case tt.want == "" && (err != nil || got.String() != tt.text || got.Local() != tt.local):
			t.Errorf("ParseAddress(%q) = %q, %v, local %v; want it, local %v", tt.text, got, err, got.Local(), tt.local)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || got != ollama.Address{}):
			t.Errorf("ParseAddress(%q) = %q, %v; want an error with %q", tt.text, got, err, tt.want)
		case err != nil && strings.Contains(err.Error(), "secret"):
			t.Errorf("ParseAddress(%q) = %v, which repeats the password", tt.text, err)
		}
	}
}
