package bench

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"
)

// The plot's measures, in its own units.
const (
	plotWidth = 760
	plotTop   = 72 // above the first bar: title and explanation
	plotRow   = 34
	plotBar   = 18 // of a row
	plotFoot  = 40 // the axis and its numbers
	plotRight = 96 // for the value behind the longest bar
	plotChar  = 7  // about the width of a character of a name
	plotTicks = 6  // at most
)

// style follows the reader's colour scheme: one plot for both.
const style = `
text{font:13px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;fill:#1f2328}
.title{font-size:16px;font-weight:600}
.small{font-size:12px;fill:#59636e}
.paper{fill:#ffffff}.grid{stroke:#d1d9e0}.whisker{stroke:#1f2328;stroke-width:1.5}
.ours{fill:#1a7f5a}.peer{fill:#9aa4af}
@media (prefers-color-scheme:dark){
text{fill:#f0f6fc}.small{fill:#9198a1}
.paper{fill:#0d1117}.grid{stroke:#3d444d}.whisker{stroke:#f0f6fc}
.ours{fill:#2ea879}.peer{fill:#656c76}
}
`

// Plot returns the report's first metric as an SVG: a bar to the median of each case, and a line from its smallest to
// its largest value.
func (r *Report) Plot() []byte {
	res, main := r.Result, r.Result.Metrics[0]
	names, largest := 0, 0.0
	for _, c := range res.Cases {
		names = max(names, utf8.RuneCountInString(c.Name))
		if s := res.Series(c.Name, main.Name); len(s) > 0 {
			largest = max(largest, s.Max())
		}
	}
	p := plot{left: 24 + plotChar*names, bottom: plotTop + plotRow*len(res.Cases)}
	p.step = tickStep(largest)
	p.scale = float64(plotWidth-plotRight-p.left) / max(largest, p.step)

	height := p.bottom + plotFoot
	fmt.Fprintf(&p.out, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img" aria-label="%s">`+"\n",
		plotWidth, height, plotWidth, height, escape(r.Title))
	fmt.Fprintf(&p.out, "<style>%s</style>\n", style)
	fmt.Fprintf(&p.out, `<rect class="paper" width="%d" height="%d"/>`+"\n", plotWidth, height)
	p.text("title", "start", 16, 28, r.Title)
	p.text("small", "start", 16, 50, fmt.Sprintf("%s in %s, median of %s; line: smallest to largest; grey: others' programs", main.Name, main.Unit, plural(res.Rounds, "interleaved round")))
	p.axis(largest)
	for i, c := range res.Cases {
		p.bar(plotTop+plotRow*i, c, res.Series(c.Name, main.Name), main)
	}
	p.out.WriteString("</svg>\n")
	return p.out.Bytes()
}

type plot struct {
	out          bytes.Buffer
	left, bottom int     // where the axes meet
	scale, step  float64 // units of the plot for one of the metric; between two ticks
}

func (p *plot) x(value float64) float64 { return float64(p.left) + p.scale*value }

func (p *plot) text(class, anchor string, x, y float64, text string) {
	fmt.Fprintf(&p.out, `<text class="%s" text-anchor="%s" x="%.1f" y="%.1f">%s</text>`+"\n", class, anchor, x, y, escape(text))
}

func (p *plot) line(class string, x1, y1, x2, y2 float64) {
	fmt.Fprintf(&p.out, `<line class="%s" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`+"\n", class, x1, y1, x2, y2)
}

// axis draws the ticks, of which the last is not beyond the longest bar.
func (p *plot) axis(largest float64) {
	for i := 0; float64(i)*p.step <= largest || i == 0; i++ {
		v := float64(i) * p.step
		p.line("grid", p.x(v), plotTop-6, p.x(v), float64(p.bottom))
		p.text("small", "middle", p.x(v), float64(p.bottom+18), strconv.FormatFloat(v, 'g', 4, 64))
	}
}

// bar draws a row, or says that there is nothing to draw.
func (p *plot) bar(top int, c Case, s Series, m Metric) {
	mid := float64(top) + plotRow/2
	p.text("name", "end", float64(p.left-8), mid+4, c.Name)
	if len(s) == 0 {
		p.text("small", "start", float64(p.left+6), mid+4, "not measured")
		return
	}
	class := "ours"
	if c.Peer {
		class = "peer"
	}
	fmt.Fprintf(&p.out, `<rect class="%s" x="%d" y="%.1f" width="%.1f" height="%d" rx="2"/>`+"\n",
		class, p.left, mid-plotBar/2, p.scale*s.Median(), plotBar)
	p.line("whisker", p.x(s.Min()), mid, p.x(s.Max()), mid)
	for _, end := range []float64{s.Min(), s.Max()} {
		p.line("whisker", p.x(end), mid-4, p.x(end), mid+4)
	}
	p.text("value", "start", p.x(s.Max())+8, mid+4, m.format(s.Median()))
}

// tickStep returns 1, 2 or 5 times a power of ten, so that few ticks reach the largest value.
func tickStep(largest float64) float64 {
	if largest <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(largest/plotTicks)))
	for _, times := range []float64{1, 2, 5} {
		if largest/(times*power) <= plotTicks {
			return times * power
		}
	}
	return 10 * power
}

func escape(text string) string {
	var out bytes.Buffer
	if err := xml.EscapeText(&out, []byte(text)); err != nil {
		panic("bench: internal error: " + err.Error()) // memory takes every write
	}
	return out.String()
}
