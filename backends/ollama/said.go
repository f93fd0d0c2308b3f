package ollama

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/ollama/ollama/api"
)

// said is Ollama's word for a model.
type said struct {
	listed api.ListModelResponse
	shown  *api.ShowResponse
}

// differs says how that is not what g is to be, so far as Ollama says anything about it. Of the files it tells the names,
// which are the digests that they had when they came, and the sizes; it has looked at neither since.
func (s said) differs(g *guest) error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	known := int64(len(g.parts.template))
	for _, c := range g.files {
		known += c.size
	}
	if beyond := s.listed.Size - known; beyond < 0 || beyond > maxOverhead {
		wrong("its files have %d bytes, and those of the release %d", s.listed.Size, known)
	}
	if s.shown.Details.Family != family {
		wrong("its family is %.40q, want %q", s.shown.Details.Family, family)
	}
	if s.shown.Template != g.parts.template {
		wrong("its template is another")
	}
	if s.shown.System != "" || len(s.shown.Messages) > 0 {
		wrong("it has words of its own in each conversation")
	}
	if err := s.modelfile(g); err != nil {
		errs = append(errs, err)
	}
	if err := s.parameters(g.parameters()); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(append(errs, checkContext(s.context(g), g.parts.args))...)
}

// modelfile checks the files that the model consists of, and that nothing else is said of it: a line for each file, the
// template, and parameters.
func (s said) modelfile(g *guest) error {
	head, tail, found := strings.Cut(s.shown.Modelfile, "TEMPLATE ")
	_, tail, template := strings.Cut(tail, g.parts.template)
	if !found || !template {
		return errors.New("it shows no template")
	}
	var files []string
	for line := range strings.Lines(head) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		_, name, _ := strings.Cut(line[strings.LastIndexAny(line, `/\`)+1:], "sha256-")
		files = append(files, strings.Fields(line)[0]+" sha256:"+strings.TrimRight(name, `"`))
	}
	want := []string{"FROM " + g.files[0].digest}
	for _, c := range g.files[1:] {
		want = append(want, "ADAPTER "+c.digest)
	}
	if !slices.Equal(files, want) {
		return fmt.Errorf("its files are %.200q, want %q", files, want)
	}
	_, tail, _ = strings.Cut(tail, "\n") // after the template's quotes
	for line := range strings.Lines(tail) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "PARAMETER ") {
			return fmt.Errorf("it says %.80q", line)
		}
	}
	return nil
}

// parameters checks that the model has these, and no others.
func (s said) parameters(want map[string]any) error {
	got := map[string]string{}
	for line := range strings.Lines(s.shown.Parameters) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			got[name] = strings.TrimSpace(value)
		}
	}
	wanted := map[string]string{}
	for name, value := range want {
		if _, list := value.([]string); !list { // an empty one is not shown
			wanted[name] = fmt.Sprint(value)
		}
	}
	same := func(a, b string) bool {
		x, errX := strconv.ParseFloat(a, 64)
		y, errY := strconv.ParseFloat(b, 64)
		return a == b || errX == nil && errY == nil && x == y // it shows numbers as it likes
	}
	if !maps.EqualFunc(got, wanted, same) {
		return fmt.Errorf("its parameters are %.200v, want %v", got, wanted)
	}
	return nil
}

// context is how many tokens the model's context holds once it is loaded: no more than it was trained with.
func (s said) context(g *guest) int {
	arch, _ := s.shown.ModelInfo["general.architecture"].(string)
	trained, ok := s.shown.ModelInfo[arch+".context_length"].(float64)
	tokens, _ := parameters(g.parts.args)["num_ctx"].(int)
	if ok && int(trained) < tokens {
		return int(trained)
	}
	return tokens
}
