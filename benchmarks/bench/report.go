package bench

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
)

// A Fact is a line about the machine or about a program.
type Fact struct{ Name, Value string }

// A Figure is one number that is meant to be compared from release to release.
type Figure struct {
	Name   string
	Value  float64 // not a number: it could not be measured
	Digits int     // behind the point
}

func (f Figure) String() string {
	if math.IsNaN(f.Value) || math.IsInf(f.Value, 0) {
		return f.Name + ": n/a"
	}
	return f.Name + ": " + strconv.FormatFloat(f.Value, 'f', f.Digits, 64)
}

// A Report is a Result with all that is needed to repeat it. It is published: nothing in it may name this machine or
// its directories.
type Report struct {
	Name    string // of the files that Save writes
	Title   string
	Command string // that repeats it
	Facts   []Fact // machine, versions, what was run
	Notes   []string
	Result  *Result
	Figures []Figure
}

// Ratio returns the figure that divides the median of the first metric of a case by that of another, named "a/b".
func (r *Result) Ratio(a, b string) Figure {
	m := r.Metrics[0].Name
	return Figure{Name: a + "/" + b, Value: r.Median(a, m) / r.Median(b, m), Digits: 3}
}

// Command returns a command with as many rounds as were made, if they are not what it makes anyway.
func (r *Result) Command(command string) string {
	if r.Rounds == DefaultRounds {
		return command
	}
	return fmt.Sprintf("%s ROUNDS=%d", command, r.Rounds)
}

// Text returns the report for people. The figures are its last lines, "name: value" each.
func (r *Report) Text() []byte {
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s\n\n$ %s\n\n", r.Title, r.Command)
	w := tabwriter.NewWriter(&out, 0, 4, 2, ' ', 0)
	for _, f := range r.Facts {
		name := f.Name
		for _, line := range wrap(f.Value) {
			fmt.Fprintf(w, "%s\t%s\n", name, line)
			name = ""
		}
	}
	_ = w.Flush() // memory takes every write
	fmt.Fprintln(&out)
	r.Result.table(&out)
	fmt.Fprintln(&out)
	for _, note := range append(r.Result.notes(), r.Notes...) {
		fmt.Fprintln(&out, "- "+note)
	}
	fmt.Fprintln(&out)
	for _, f := range r.Figures {
		fmt.Fprintln(&out, f)
	}
	return out.Bytes()
}

// lineWidth is where a fact goes on in the next line.
const lineWidth = 88

// wrap cuts a text between words.
func wrap(text string) []string {
	lines := []string{""}
	for _, word := range strings.Fields(text) {
		last := &lines[len(lines)-1]
		switch {
		case *last == "":
			*last = word
		case len(*last)+1+len(word) <= lineWidth:
			*last += " " + word
		default:
			lines = append(lines, word)
		}
	}
	return lines
}

// table writes a row for each case: the first metric with all that shows how it varied, and the medians of the others.
func (r *Result) table(out *bytes.Buffer) {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	main, others := r.Metrics[0], r.Metrics[1:]
	fmt.Fprintf(w, "case\t%s\tspread\tsmallest to largest", main.Name)
	for _, m := range others {
		fmt.Fprintf(w, "\t%s", m.Name)
	}
	fmt.Fprintln(w)
	for _, c := range r.Cases {
		s := r.Series(c.Name, main.Name)
		if len(s) == 0 {
			fmt.Fprintf(w, "%s\t-\t-\t-", c.Name)
		} else {
			noisy := ""
			if r.noisy(c.Name) {
				noisy = " noisy"
			}
			fmt.Fprintf(w, "%s\t%s\t%.0f %%%s\t%s to %s", c.Name, main.format(s.Median()), 100*s.Spread(), noisy,
				strconv.FormatFloat(s.Min(), 'f', main.Digits, 64), main.format(s.Max()))
		}
		for _, m := range others {
			text := "-"
			if s := r.Series(c.Name, m.Name); len(s) > 0 {
				text = m.format(s.Median())
			}
			fmt.Fprintf(w, "\t%s", text)
		}
		fmt.Fprintln(w)
	}
	_ = w.Flush() // memory takes every write
}

// notes say how the numbers came about.
func (r *Result) notes() []string {
	notes := []string{fmt.Sprintf("%s; numbers are medians, spread is the middle half of the rounds (third less first quartile) over the median", plural(r.Rounds, "interleaved round"))}
	if r.Rounds < DefaultRounds {
		notes = append(notes, fmt.Sprintf("fewer than %d rounds: the medians are rough", DefaultRounds))
	}
	if r.Runs > 1 {
		notes = append(notes, fmt.Sprintf("a case spread over %.0f %%, so the whole was run %d times; this is the quietest run", 100*noisyAbove, r.Runs))
	}
	if noisy := r.Noisy(); len(noisy) > 0 {
		notes = append(notes, "noisy: "+strings.Join(noisy, ", ")+"; repeat this on a machine with quieter neighbours")
	}
	return notes
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// Save writes the report and its plot into a directory that exists, as NAME.txt and NAME.svg.
func (r *Report) Save(dir string) error {
	base := filepath.Join(dir, r.Name)
	err := errors.Join(os.WriteFile(base+".txt", r.Text(), 0o644), os.WriteFile(base+".svg", r.Plot(), 0o644))
	if err != nil {
		return fmt.Errorf("save report: %w", err)
	}
	return nil
}
