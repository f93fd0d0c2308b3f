package trust_test

import (
	"strings"
	"testing"

	"github.com/weighbridge/weighbridge/verifier/trust"
)

func TestCheckTemplate(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"messages", `{{ range .Messages }}<{{ .Role }}>{{ .Content }}{{ end }}`, ""},
		{"messages by a variable", `{{ range $i, $m := $.Messages }}{{ $m.Content }}{{ end }}`, ""},
		{"messages in a condition", `{{ if .Tools }}x{{ else if eq (len (slice .Messages 1)) 1 }}{{ end }}`, ""},
		{"messages in a definition", `{{ define "all" }}{{ with .Messages }}{{ . }}{{ end }}{{ end }}{{ template "all" . }}`, ""},
		{"its turns", `{{ if .System }}<s>{{ .System }}{{ end }}<u>{{ .Prompt }}<a>{{ .Response }}`, ""},
		{"functions of its own", `{{ json (index .Messages 0) }}{{ currentDate }}`, ""},
		{"none", "", "is required"},
		{"unfinished", `{{ range .Messages }}`, "not in ollama's language"},
		{"another language", `{% for message in messages %}{{ message.content }}{% endfor %}`, "does not show the conversation"},
		{"text", "hello", "does not show the conversation"},
		{"without the system's message", `{{ .Prompt }}`, "does not show the conversation"},
		{"without the prompt", `{{ .System }}`, "does not show the conversation"},
		{"another thing's messages", `{{ .Prompt.Messages }}`, "does not show the conversation"},
		{"in a comment", `{{/* .Messages */}}`, "does not show the conversation"},
	} {
		err := trust.CheckTemplate("ollama", tt.text)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: CheckTemplate(%q) = %v, want %q", tt.name, tt.text, err, tt.want)
		}
		if err := trust.CheckTemplate("llamacpp", tt.text); err != nil {
			t.Errorf("%s: CheckTemplate() for llamacpp = %v, want nil", tt.name, err)
		}
	}
}

// TestOllamaReleases: what a release for Ollama needs and may not have is seen before anything is loaded.
func TestOllamaReleases(t *testing.T) {
	s := newScene(t, nil)
	one := s.adapter("trainer", "one.gguf")
	one.Scale = 1
	for _, tt := range []struct {
		name   string
		change func(*trust.Descriptor)
		want   string
	}{
		{"all that it may have", func(d *trust.Descriptor) {}, ""},
		{"no template", func(d *trust.Descriptor) { d.Behaviour.ChatTemplate = "" }, "behaviour.chatTemplate"},
		{"an argument of another kind", func(d *trust.Descriptor) { d.Runtime.Args = map[string]string{"ctx-size": "1"} }, "runtime.args.ctx-size"},
		{"an argument that loads another model", func(d *trust.Descriptor) { d.Runtime.Args = map[string]string{"model": "x"} }, "runtime.args.model"},
		{"a mapped file that is neither", func(d *trust.Descriptor) { d.Runtime.Args = map[string]string{"use_mmap": "1"} }, "runtime.args.use_mmap"},
		{"an adapter as it is", func(d *trust.Descriptor) { d.Behaviour.Adapters = []trust.Adapter{one} }, ""},
		{"an adapter at another scale", func(d *trust.Descriptor) { one.Scale = 0.5; d.Behaviour.Adapters = []trust.Adapter{one} }, "behaviour.adapters[0].scale"},
		{"an adapter of two files", func(d *trust.Descriptor) { d.Behaviour.Adapters = []trust.Adapter{s.directory()} }, "behaviour.adapters[0]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := s.descriptor()
			d.Runtime = trust.Runtime{Kind: "ollama", Args: map[string]string{"num_ctx": "4096", "num_thread": "1", "num_batch": "8", "num_gpu": "0", "main_gpu": "0", "use_mmap": "true"}}
			d.Behaviour.ChatTemplate = "{{ range .Messages }}{{ .Content }}{{ end }}"
			tt.change(&d)
			_, err := trust.NewRelease(d)
			if tt.want == "" && err != nil {
				t.Errorf("NewRelease() = %v", err)
			} else if tt.want != "" {
				checkPath(t, err, tt.want)
			}
		})
	}
}
