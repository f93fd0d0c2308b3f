package bench_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/weighbridge/weighbridge/benchmarks/bench"
)

// newReport is of a quick case, of a slow and noisy peer, and of one that measured nothing.
func newReport(t *testing.T) *bench.Report {
	t.Helper()
	var order []string
	peer := scripted("peer", &order, 8, 10, 12, 8, 10, 12, 8, 10, 12)
	peer.Peer = true
	r, err := bench.Suite{Cases: []bench.Case{scripted("quick", &order, 2), peer}, Metrics: seconds, Rounds: 3}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.Cases = append(r.Cases, scripted("silent", &order, 0))
	return &bench.Report{
		Name: "sample", Title: `Sample <of> "one" & more`, Command: "make sample",
		Facts: []bench.Fact{{Name: "kind", Value: "short"}, {Name: "command", Value: strings.Repeat("word ", 40)}},
		Notes: []string{"a note"}, Result: r,
		Figures: []bench.Figure{r.Ratio("quick", "peer"), {Name: "unknown", Value: math.NaN()}, {Name: "last", Value: 1.25, Digits: 1}},
	}
}

func TestReport(t *testing.T) {
	text := string(newReport(t).Text())
	if want := "\n\nquick/peer: 0.200\nunknown: n/a\nlast: 1.2\n"; !strings.HasSuffix(text, want) {
		t.Errorf("report ends otherwise than in the figures %q:\n%s", want, text)
	}
	for _, want := range []string{"Sample <of>", "$ make sample\n", "3 interleaved rounds", "fewer than 7 rounds", "- a note\n", "run 3 times"} {
		if !strings.Contains(text, want) {
			t.Errorf("report lacks %q:\n%s", want, text)
		}
	}
	row := func(name string) []string {
		for line := range strings.Lines(text) {
			if fields := strings.Fields(line); len(fields) > 1 && fields[0] == name {
				return fields[1:]
			}
		}
		return nil
	}
	for name, want := range map[string]string{
		"quick":  "2.00 s 0 % 2.00 to 2.00 s -",
		"peer":   "10.00 s 20 % noisy 8.00 to 12.00 s -",
		"silent": "- - - -",
	} {
		if got := strings.Join(row(name), " "); got != want {
			t.Errorf("row of %s = %q, want %q:\n%s", name, got, want, text)
		}
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "command") && len(line) > 110 {
			t.Errorf("line of %d characters, want it wrapped: %s", len(line), line)
		}
	}
}

func TestReportSave(t *testing.T) {
	r, dir := newReport(t), t.TempDir()
	if err := r.Save(dir); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]byte{"sample.txt": r.Text(), "sample.svg": r.Plot()} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s = %q, %v, want what is printed", name, got, err)
		}
	}
	if err := r.Save(filepath.Join(dir, "nowhere")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Save to no directory = %v, want %v", err, os.ErrNotExist)
	}
}

// TestPlot reads the plot as XML, and looks whether what it draws stays on the paper.
func TestPlot(t *testing.T) {
	var texts, classes []string
	var paper float64
	for dec := xml.NewDecoder(bytes.NewReader(newReport(t).Plot())); ; {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		switch token := token.(type) {
		case xml.CharData:
			texts = append(texts, string(token))
		case xml.StartElement:
			number := func(name string) float64 {
				for _, a := range token.Attr {
					if a.Name.Local == name {
						n, err := strconv.ParseFloat(a.Value, 64)
						if err != nil || n < 0 {
							t.Errorf("%s of <%s> = %q, want a number on the paper", name, token.Name.Local, a.Value)
						}
						return n
					}
				}
				return 0
			}
			if token.Name.Local == "svg" {
				paper = number("width")
			}
			if right := max(number("x")+number("width"), number("x1"), number("x2")); right > paper {
				t.Errorf("<%s> reaches to %v, want at most %v", token.Name.Local, right, paper)
			}
			for _, a := range token.Attr {
				if a.Name.Local == "class" {
					classes = append(classes, a.Value)
				}
			}
		}
	}
	for _, want := range []string{`Sample <of> "one" & more`, "quick", "peer", "2.00 s", "10.00 s", "not measured"} {
		if !slices.Contains(texts, want) {
			t.Errorf("plot has no text %q: %q", want, texts)
		}
	}
	for _, want := range []string{"ours", "peer", "whisker", "grid"} {
		if !slices.Contains(classes, want) {
			t.Errorf("plot draws nothing of class %q", want)
		}
	}
}

func TestPlotOfNothing(t *testing.T) {
	r := newReport(t)
	r.Result.Cases = r.Result.Cases[2:]
	if plot := r.Plot(); bytes.Contains(plot, []byte("NaN")) || bytes.Contains(plot, []byte("Inf")) {
		t.Errorf("plot of nothing holds what is not a number:\n%s", plot)
	}
}

func TestMachine(t *testing.T) {
	dir := t.TempDir()
	found := map[string]string{}
	for _, f := range bench.Machine(dir) {
		if f.Value == "" || strings.Contains(f.Value, dir) {
			t.Errorf("%s = %q, want something that does not name a directory", f.Name, f.Value)
		}
		found[f.Name] = f.Value
	}
	for _, want := range []string{"processor", "memory", "kernel", "go"} {
		if found[want] == "" {
			t.Errorf("Machine() says nothing about %q: %v", want, found)
		}
	}
}
