package main

import (
	"context"
	"fmt"
	"os/exec"
	"syscall"
	"time"

	"github.com/weighbridge/weighbridge/benchmarks/bench"
	"github.com/weighbridge/weighbridge/benchmarks/site"
)

// Names of the cases. Figures are named after them.
const (
	plainMmap    = "plain-mmap-cold"
	plainNone    = "plain-none-cold"
	verifiedCold = "verified-cold"
	signingPlain = "model_signing+plain-cold"
	plainWarm    = "plain-warm"
	warm         = "warm"
	small        = "-small-pages"
)

// What cases measure.
const (
	seconds = "time"
	cpu     = "CPU"
	loading = "reading" // and hashing and sealing, as the gateway says
	device  = "read from device"
	rss     = "gateway's memory"
	rssOne  = "its first half"
	rssTwo  = "its second half"
)

var metrics = []bench.Metric{
	{Name: seconds, Unit: "s", Digits: 2},
	{Name: cpu, Unit: "s", Digits: 2},
	{Name: loading, Unit: "s", Digits: 2},
	{Name: device, Unit: "MB", Digits: 0},
	{Name: rss, Unit: "MiB", Digits: 0},
	{Name: rssOne, Unit: "MiB", Digits: 0},
	{Name: rssTwo, Unit: "MiB", Digits: 0},
}

// cases are all that is compared, in their order. The last two need the model in the page cache, where the one before
// them leaves it.
func (w *world) cases(withSmallPages bool) []bench.Case {
	cold := bench.Case{Name: verifiedCold, Run: w.verifiedCold}
	again := bench.Case{Name: warm, Run: w.warm}
	all := []bench.Case{
		{Name: plainMmap, Peer: true, Run: func(ctx context.Context) (bench.Values, error) { return w.plainCold(ctx, "mmap") }},
		{Name: plainNone, Peer: true, Run: func(ctx context.Context) (bench.Values, error) { return w.plainCold(ctx, "none") }},
		cold,
		{Name: signingPlain, Peer: true, Run: w.signingPlain},
		{Name: plainWarm, Peer: true, Run: w.plainWarm},
		again,
	}
	if withSmallPages {
		all = append(all, withSmall(shmemSetting, cold), withSmall(shmemSetting, again))
	}
	return all
}

func values(took time.Duration, u site.Usage) bench.Values {
	return bench.Values{seconds: took.Seconds(), cpu: u.CPU.Seconds(), device: float64(u.Device) / 1e6}
}

// idlePause is how long a hypervisor needs to take back memory that was given back to it, and a while more.
const idlePause = 10 * time.Second

// chill puts the machine into the state that every cold case begins in: that of one that was idle. Without the pause a
// case would be slow or fast by what memory the case before it had left with the machine, under a hypervisor.
func (w *world) chill(ctx context.Context) error {
	if err := w.cold.evict(w.model); err != nil {
		return err
	}
	if w.present {
		return bench.Present(w.model.size + w.model.size/2)
	}
	select {
	case <-time.After(idlePause):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// plainCold is llama-server by itself, with nothing of the model in memory.
func (w *world) plainCold(ctx context.Context, mode string) (bench.Values, error) {
	if err := w.chill(ctx); err != nil {
		return nil, err
	}
	return w.plain(ctx, mode)
}

func (w *world) plain(ctx context.Context, mode string) (bench.Values, error) {
	p, took, err := w.StartPlain(ctx, modelName, mode)
	if err != nil {
		return nil, err
	}
	defer p.Stop()
	used, err := p.End()
	return values(took, used), err
}

// plainWarm is llama-server by itself, with all of the model in the page cache.
func (w *world) plainWarm(ctx context.Context) (bench.Values, error) {
	if err := fill(ctx, w.model); err != nil {
		return nil, err
	}
	return w.plain(ctx, "mmap")
}

// signingPlain is what one does without a gateway: verify, then start. The server reads what the verifier left in the
// page cache, if there is room for it, and nothing makes sure that it is what was verified.
func (w *world) signingPlain(ctx context.Context) (bench.Values, error) {
	if err := w.chill(ctx); err != nil {
		return nil, err
	}
	var output site.Tail
	cmd := exec.CommandContext(context.Background(), w.signing, "verify", "key", modelName, "--public_key", "trainer.pub", "--signature", filesSig)
	cmd.Dir, cmd.Stdout, cmd.Stderr = w.Dir, &output, &output
	verify, err := site.StartChild("model_signing", cmd)
	if err != nil {
		return nil, err
	}
	verifying, err := verify.Finish(ctx)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	} else if err != nil {
		return nil, fmt.Errorf("model_signing verify: %w; it wrote:\n%s", err, &output)
	}
	verified := time.Since(verify.Begun)
	p, took, err := w.StartPlain(ctx, modelName, "mmap")
	if err != nil {
		return nil, err
	}
	defer p.Stop()
	serving, err := p.End()
	return values(verified+took, verifying.Add(serving)), err
}

// verifiedCold is a gateway that starts, decides, reads, verifies and seals the model and has its llama-server ready.
func (w *world) verifiedCold(ctx context.Context) (bench.Values, error) {
	if err := w.chill(ctx); err != nil {
		return nil, err
	}
	g, err := w.StartGateway()
	if err != nil {
		return nil, err
	}
	defer g.Stop()
	memory := watchMemory(g.PID())
	serves, err := g.Await(ctx, site.MsgServes)
	first, second := memory.finish(g.Begun, serves.At)
	if err != nil {
		return nil, err
	}
	used, err := g.End()
	v := values(serves.At.Sub(g.Begun), used)
	const mib = 1 << 20
	v[rssOne], v[rssTwo] = float64(first)/mib, float64(second)/mib
	v[rss] = max(v[rssOne], v[rssTwo])
	if took, ok := serves.Attrs["loadSeconds"].(float64); ok {
		v[loading] = took
	}
	return v, err
}

// idleKnocks is how often an idle gateway is asked what then is asked once of one whose runtime was killed.
const idleKnocks = 5

// warm is a gateway whose llama-server is killed: the time from then until its successor, started on the memory sealed
// before, has answered a question that was waiting, less what that takes when it need not wait. The question is sent
// when the gateway has noticed the death. One that is sent before can still get through to the dying process, and is
// then, rightly, not asked again by the gateway. It is one that has served for a while, as most do whose runtime dies:
// the weights were moved into huge pages where that was not possible while they were loaded. Each round has a gateway of its own: a second death within minutes is
// answered with a longer delay.
func (w *world) warm(ctx context.Context) (bench.Values, error) {
	g, err := w.StartGateway()
	if err != nil {
		return nil, err
	}
	defer g.Stop()
	if _, err := g.Await(ctx, site.MsgSettled); err != nil {
		return nil, err
	}
	v, err := restart(ctx, g)
	if err != nil {
		return nil, err
	}
	_, err = g.End()
	return v, err
}

// restart is what warm measures.
func restart(ctx context.Context, g *site.Gateway) (bench.Values, error) {
	c, err := g.Caller(ctx)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	var idle bench.Series
	for range idleKnocks {
		took, err := knock(ctx, c)
		if err != nil {
			return nil, err
		}
		idle = append(idle, took.Seconds())
	}
	before, err := measure(g)
	if err != nil {
		return nil, err
	}
	killed := time.Now()
	if err := syscall.Kill(before.runtime, syscall.SIGKILL); err != nil {
		return nil, fmt.Errorf("kill the gateway's llama-server: %w", err)
	}
	if _, err := g.Await(ctx, site.MsgDied); err != nil {
		return nil, err
	}
	if _, err := knock(ctx, c); err != nil {
		return nil, err
	}
	took := time.Since(killed).Seconds() - idle.Median()
	after, err := measure(g)
	if err != nil {
		return nil, err
	}
	if after.runtime == before.runtime {
		return nil, fmt.Errorf("llama-server %d answered after it was killed", after.runtime)
	}
	v := bench.Values{seconds: took, cpu: after.restartCPU(before).Seconds()}
	if before.deviceKnown && after.deviceKnown {
		v[device] = float64(after.deviceGateway+after.deviceRuntime-before.deviceGateway) / 1e6
	}
	return v, c.Check(ctx, modelConfig(1).Sentence)
}

// A moment is what a gateway that runs, and its llama-server, have used so far.
type moment struct {
	runtime      int // process number
	gatewayCPU   time.Duration
	gatewayWaits time.Duration // processor time of llama-servers that it has reaped
	runtimeCPU   time.Duration

	deviceKnown                  bool // see readFromDevice
	deviceGateway, deviceRuntime int64
}

func measure(g *site.Gateway) (m moment, err error) {
	if m.runtime, err = g.Runtime(); err != nil {
		return m, err
	}
	if m.gatewayCPU, m.gatewayWaits, err = cpuOf(g.PID()); err != nil {
		return m, err
	}
	if m.runtimeCPU, _, err = cpuOf(m.runtime); err != nil {
		return m, err
	}
	var errGateway, errRuntime error
	m.deviceGateway, errGateway = readFromDevice(g.PID())
	m.deviceRuntime, errRuntime = readFromDevice(m.runtime)
	m.deviceKnown = errGateway == nil && errRuntime == nil
	return m, nil
}

// restartCPU is what the end of the old runtime and the start of the new one took; like what a whole life of a plain
// llama-server takes, which also starts once and ends once.
func (m moment) restartCPU(before moment) time.Duration {
	oldEnd := m.gatewayWaits - before.gatewayWaits - before.runtimeCPU
	return m.gatewayCPU - before.gatewayCPU + m.runtimeCPU + oldEnd
}
