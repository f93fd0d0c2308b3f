package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/weighbridge/weighbridge/benchmarks/bench"
	"github.com/weighbridge/weighbridge/benchmarks/site"
)

// report says everything that is needed to repeat the result, and computes the figures.
func (w *world) report(ctx context.Context, o options, r *bench.Result) *bench.Report {
	return &bench.Report{
		Name:    "load",
		Title:   fmt.Sprintf("Time until a model of %.2f GB can answer", float64(w.model.size)/1e9),
		Command: o.command(r),
		Facts:   append(bench.Machine(w.Dir), w.facts(ctx)...),
		Notes:   w.notes(o),
		Result:  r,
		Figures: w.figures(r),
	}
}

// command is what repeats this.
func (o options) command(r *bench.Result) string {
	line := r.Command("make bench-load")
	if o.layers != fullLayers {
		line += fmt.Sprintf(" LAYERS=%d", o.layers)
	}
	if o.small {
		line += " SMALL=1"
	}
	if o.present {
		line += " PRESENT=1"
	}
	return line
}

// facts are versions, and commands with names in place of paths.
func (w *world) facts(ctx context.Context) []bench.Fact {
	const model, key = "MODEL", "KEY"
	runtime := w.PlainArgs("mmap", model, key)
	facts := append([]bench.Fact{{Name: "huge pages for shared memory", Value: w.huge}}, w.Versions(ctx)...)
	return append(facts, []bench.Fact{
		{Name: "model_signing", Value: site.Version(ctx, w.signing, "--version")},
		{Name: "model", Value: fmt.Sprintf("%d bytes of F16, signed in shards of 64 MiB for the gateway, whole for model_signing", w.model.size)},
		{Name: plainMmap, Value: "llama-server " + strings.Join(runtime, " ") + ", until /health answers 200"},
		{Name: plainNone, Value: "the same with --load-mode none"},
		{Name: verifiedCold, Value: "weighbridge serve --config FILE --init-state, until it logs that the release serves"},
		{Name: signingPlain, Value: "model_signing verify key " + model + " --public_key FILE --signature FILE, then llama-server as in " + plainMmap},
		{Name: plainWarm, Value: "as " + plainMmap + ", with the model in the page cache"},
		{Name: warm, Value: "kill -9 of the gateway's llama-server, until its successor has answered"},
	}...)
}

func (w *world) notes(o options) []string {
	notes := []string{
		"before each cold case the model, and it alone, is evicted from the page cache; what a hypervisor or a disk keeps stays, for all cases alike",
		w.cold.note(),
		"CPU is user and system time of all processes from start to end; for warm it is that of one end and one start",
		"the gateway's own memory is what is resident in it without the sealed weights, at its peak while it loads",
	}
	if o.present {
		notes = append(notes, "before each cold case half as much memory again as the model has is written and given back: no case pays for memory that a hypervisor has yet to hand out")
	} else {
		notes = append(notes, fmt.Sprintf("each cold case begins %s later, as on a machine that was idle: a hypervisor has taken free memory back by then; PRESENT=1 begins with memory that is present, as without one", idlePause))
	}
	if !o.small {
		notes = append(notes, "SMALL=1, as root, measures also without huge pages for sealed memory, and changes "+shmemSetting+" meanwhile")
	}
	return notes
}

// note says how cold it was.
func (e *eviction) note() string {
	how := ""
	if e.dropped {
		how = "; the whole page cache had to be dropped for that, so that programs were cold too"
	}
	if e.stayed >= coldBelow {
		return fmt.Sprintf("not cold: up to %.1f %% of the model stayed in the page cache%s", 100*e.stayed, how)
	}
	return fmt.Sprintf("cold: at most %.2f %% of the model stayed in the page cache%s", 100*e.stayed, how)
}

func (w *world) figures(r *bench.Result) []bench.Figure {
	cpuRatio := func(a, b string) bench.Figure {
		return bench.Figure{Name: "cpu/" + a + "/" + b, Value: r.Median(a, cpu) / r.Median(b, cpu), Digits: 3}
	}
	figures := []bench.Figure{
		r.Ratio(verifiedCold, plainNone),
		cpuRatio(verifiedCold, plainMmap),
		cpuRatio(verifiedCold, signingPlain),
		cpuRatio(warm, plainWarm),
	}
	if len(r.Series(verifiedCold+small, seconds)) > 0 {
		figures = append(figures, r.Ratio(verifiedCold+small, plainMmap), r.Ratio(verifiedCold+small, verifiedCold),
			r.Ratio(warm+small, plainWarm))
	}
	return append(figures,
		bench.Figure{Name: "gateway-rss-first-half-mib", Value: r.Series(verifiedCold, rssOne).Max(), Digits: 1},
		bench.Figure{Name: "gateway-rss-second-half-mib", Value: r.Series(verifiedCold, rssTwo).Max(), Digits: 1},
		r.Ratio(verifiedCold, plainMmap),
		r.Ratio(verifiedCold, signingPlain),
		r.Ratio(warm, plainWarm),
		bench.Figure{Name: "device-bytes/model-bytes", Value: r.Median(verifiedCold, device) * 1e6 / float64(w.model.size), Digits: 4},
		bench.Figure{Name: "gateway-rss-mib", Value: r.Series(verifiedCold, rss).Max(), Digits: 1},
	)
}
