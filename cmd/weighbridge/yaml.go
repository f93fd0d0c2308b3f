package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/weighbridge/weighbridge/verifier/store"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

const maxYAML = 4 << 20 // bytes of a policy or release file

// yamlFile is a strictly read YAML file and everything that is wrong with it so far. Problems name file, line and key,
// and are reported all at once.
type yamlFile struct {
	path     string
	root     *yaml.Node
	problems []yamlProblem
	mistyped map[int]bool // lines that hold a value of the wrong type
}

type yamlProblem struct {
	line int
	path string // "" where only the line is known
	text string
}

// readYAML reads the one document of a file into a struct. The error is for a file that can't be read at all; unknown
// keys, repeated keys and wrong types are among the problems.
func readYAML(path, kind string, into any) (*yamlFile, error) {
	data, err := store.ReadFile(path, maxYAML)
	if err != nil {
		return nil, err
	}
	f := &yamlFile{path: path, root: &yaml.Node{}, mistyped: map[int]bool{}}
	if err := yaml.Unmarshal(data, f.root); err != nil {
		return nil, refused(path, err)
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	err = dec.Decode(into)
	if errors.Is(err, io.EOF) {
		return nil, refused(path, errors.New("is empty"))
	}
	if err == nil || f.addTypes(err) {
		// The library reads nothing of a mapping that has a key twice. The first one is read after all, so that the
		// rest of the file is checked too.
		if f.dropRepeated(f.root) {
			err = f.root.Decode(into)
		}
	}
	if err != nil && !f.addTypes(err) {
		return nil, refused(path, err)
	}
	if err := dec.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		f.problems = append(f.problems, yamlProblem{1, "", "holds more than one YAML document"})
	}
	f.want("apiVersion", "weighbridge/v1")
	f.want("kind", kind)
	return f, nil
}

// want makes sure of a top-level key that says what the file is.
func (f *yamlFile) want(key, value string) {
	node := child(f.root, key)
	switch {
	case node == nil:
		f.add(key, "is required: %s", value)
	case node.Value != value:
		f.add(key, "is %q, want %s", node.Value, value)
	}
}

// whole is a whole number; the library itself reads 1.9 as 1.
type whole int64

// UnmarshalYAML implements yaml.Unmarshaler.
func (w *whole) UnmarshalYAML(n *yaml.Node) error {
	if n.ShortTag() != "!!int" || n.Decode((*int64)(w)) != nil {
		return wrongYAML(n, "int64")
	}
	return nil
}

// instant is a time whose mistakes are told like those of any other type; the library's own end the reading.
type instant struct{ time.Time }

// UnmarshalYAML implements yaml.Unmarshaler.
func (t *instant) UnmarshalYAML(n *yaml.Node) error {
	if n.Decode(&t.Time) != nil {
		return wrongYAML(n, "time.Time")
	}
	return nil
}

// wrongYAML is the library's error for a value of the wrong type.
func wrongYAML(n *yaml.Node, want string) error {
	return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: cannot unmarshal %s `%.40s` into %s", n.Line, n.ShortTag(), n.Value, want)}}
}

func (f *yamlFile) add(path, format string, args ...any) {
	f.problems = append(f.problems, yamlProblem{f.line(path), path, path + ": " + fmt.Sprintf(format, args...)})
}

// addAll takes over the problems that err is made of, except those that only follow from one already told: an
// identity whose key file is not there has no keys, and a value of the wrong type was not read.
func (f *yamlFile) addAll(err error) {
	told := slices.Clone(f.problems)
	for _, p := range trust.Problems(err) {
		if line, there := f.find(p.Path); there && f.mistyped[line] {
			continue
		}
		follows := func(q yamlProblem) bool {
			return strings.HasPrefix(q.path, p.Path) || strings.HasPrefix(q.path, strings.TrimSuffix(p.Path, "keys"))
		}
		if !slices.ContainsFunc(told, follows) {
			f.add(p.Path, "%s", p.Why)
		}
	}
}

var (
	typeError    = regexp.MustCompile(`^line (\d+): (.*)$`)
	unknownField = regexp.MustCompile(`^field (.+) not found in type .*$`)
	setTwice     = regexp.MustCompile(`^field (.+) already set in type .*$`)
	wrongType    = regexp.MustCompile("^cannot unmarshal !!(\\w+)(?: `(.*)`)? into (.*)$")
)

// addTypes takes over what the YAML library found wrong; it returns false if err is of another kind.
func (f *yamlFile) addTypes(err error) bool {
	types := new(yaml.TypeError)
	if !errors.As(err, &types) {
		return false
	}
	for _, text := range types.Errors {
		f.addType(text)
	}
	return true
}

// addType rewrites a problem of the YAML library, which speaks of Go's types, for the file's author.
func (f *yamlFile) addType(text string) {
	line := 0
	if m := typeError.FindStringSubmatch(text); m != nil {
		line, _ = strconv.Atoi(m[1])
		text = m[2]
	}
	if m := unknownField.FindStringSubmatch(text); m != nil {
		text = fmt.Sprintf("unknown key %q", m[1])
	} else if m := setTwice.FindStringSubmatch(text); m != nil {
		text = fmt.Sprintf("key %q is there twice", m[1])
	} else if m := wrongType.FindStringSubmatch(text); m != nil {
		text = fmt.Sprintf("is a %s, want %s", strings.TrimSpace(m[1]+" "+m[2]), yamlType(m[3]))
		f.mistyped[line] = true
	}
	f.problems = append(f.problems, yamlProblem{line, "", text})
}

// yamlType names what a Go type is in YAML.
func yamlType(goType string) string {
	switch {
	case strings.HasPrefix(goType, "[]"):
		return "a list"
	case strings.HasPrefix(goType, "map["), strings.HasPrefix(goType, "main."):
		return "a mapping"
	case goType == "time.Time":
		return "a time such as 2030-01-01T00:00:00Z"
	case strings.HasPrefix(goType, "int"):
		return "a whole number"
	case strings.HasPrefix(goType, "float"):
		return "a number"
	}
	return "a " + goType
}

// err returns all problems as one error that ends the command with status 1, nil if there are none.
func (f *yamlFile) err(what string) error {
	if len(f.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(f.problems, func(a, b yamlProblem) int { return a.line - b.line })
	lines := make([]string, len(f.problems))
	for i, p := range f.problems {
		lines[i] = fmt.Sprintf("%s:%d: %s", f.path, p.line, p.text)
	}
	lines = distinct(lines)
	if len(lines) > 1 {
		return refused(what, fmt.Errorf("%d problems\n  %s", len(lines), strings.Join(lines, "\n  ")))
	}
	return refused(what, errors.New(lines[0]))
}

// resolve makes a path of the file absolute or relative to where the command runs.
func (f *yamlFile) resolve(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(f.path), path)
}

// dropRepeated leaves the first of the keys that a mapping has several times and says so of the others. It reports
// whether there were any.
func (f *yamlFile) dropRepeated(node *yaml.Node) bool {
	dropped := false
	if node.Kind == yaml.MappingNode {
		first := map[string]*yaml.Node{}
		var once []*yaml.Node
		for i := 0; i+1 < len(node.Content); i += 2 {
			key := node.Content[i]
			if first[key.Value] != nil {
				dropped = true
				text := fmt.Sprintf("mapping key %q already defined at line %d", key.Value, first[key.Value].Line)
				f.problems = append(f.problems, yamlProblem{key.Line, "", text})
				continue
			}
			first[key.Value] = key
			once = append(once, key, node.Content[i+1])
		}
		node.Content = once
	}
	for _, kid := range node.Content {
		dropped = f.dropRepeated(kid) || dropped
	}
	return dropped
}

func (f *yamlFile) line(path string) int {
	line, _ := f.find(path)
	return line
}

// find returns the line where a path such as channels.chat.separate[1] stands, or, if it is not there, that of the
// nearest key above it which is.
func (f *yamlFile) find(path string) (line int, there bool) {
	node, rest := f.root, path
	if node.Kind == yaml.DocumentNode && len(node.Content) > 0 {
		node = node.Content[0]
	}
	line = max(1, node.Line)
	for rest != "" {
		next, at, left := descend(node, rest)
		if next == nil {
			return line, false
		}
		node, line, rest = next, at, left
	}
	return line, true
}

// descend takes the longest key of a mapping that the path begins with, since names may have dots in them, or the
// index into a list.
func descend(node *yaml.Node, path string) (next *yaml.Node, line int, rest string) {
	switch node.Kind {
	case yaml.MappingNode:
		longest := -1
		for i := 0; i+1 < len(node.Content); i += 2 {
			key := node.Content[i]
			left, ok := strings.CutPrefix(path, key.Value)
			if !ok || len(key.Value) <= longest || left != "" && left[0] != '.' && left[0] != '[' {
				continue
			}
			longest = len(key.Value)
			next, line, rest = node.Content[i+1], key.Line, strings.TrimPrefix(left, ".")
		}
	case yaml.SequenceNode:
		index, left, ok := strings.Cut(strings.TrimPrefix(path, "["), "]")
		n, err := strconv.Atoi(index)
		if ok && err == nil && n >= 0 && n < len(node.Content) {
			next, line, rest = node.Content[n], node.Content[n].Line, strings.TrimPrefix(left, ".")
		}
	}
	return next, line, rest
}

// child returns the value of a top-level key, nil if it is not there.
func child(node *yaml.Node, key string) *yaml.Node {
	if node.Kind == yaml.DocumentNode && len(node.Content) > 0 {
		node = node.Content[0]
	}
	for i := 0; node.Kind == yaml.MappingNode && i+1 < len(node.Content); i += 2 {
		if node.Content[i].Value == key {
			return node.Content[i+1]
		}
	}
	return nil
}
