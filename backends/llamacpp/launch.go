package llamacpp

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"time"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/process"
	"github.com/weighbridge/weighbridge/verifier/seal"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// Names in a launch's directory.
const (
	socketName = "llama.sock"
	modelDir   = "model"   // links to the parts of a split model
	adapterDir = "adapter" // links to adapters
)

// parts are what every launch is made of, in sealed memory: a restart reads no file.
type parts struct {
	build    string // digest of binary
	binary   *os.File
	weights  *seal.Weights
	names    []string // of the model's files
	adapters []adapter
	template *os.File // nil: the one in the model
	args     map[string]string
	tools    bool // requests may offer functions
	yield    bool // of the next launch, and of no restart
}

// prepare checks what it is given and takes descriptors of its own. On error nothing is left open.
func prepare(ctx context.Context, programs *seal.Programs, command string, w *seal.Weights, spec backends.Spec) (p parts, err error) {
	if !w.Valid() {
		return parts{}, errors.New("weights are not sealed: only verified weights are served")
	}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if err := trust.CheckArgs(Kind, spec.Args); err != nil {
		return p, err
	}
	p.args, p.tools, p.yield = spec.Args, spec.Tools, spec.Yield
	if p.names, err = ModelFiles(w.Names()); err != nil {
		return p, err
	}
	if p.weights, err = w.Share(); err != nil {
		return p, err
	}
	if err := p.checkModel(); err != nil {
		return p, err
	}
	for _, a := range spec.Adapters {
		if err := p.addAdapter(a); err != nil {
			return p, err
		}
	}
	if spec.ChatTemplate != "" {
		if p.template, err = seal.Bytes("chat-template", []byte(spec.ChatTemplate)); err != nil {
			return p, err
		}
	}
	binary, err := exec.LookPath(command)
	if err != nil {
		return p, fmt.Errorf("find llama-server: %w", err)
	}
	p.binary, p.build, err = programs.Executable(ctx, binary, spec.Build)
	return p, err
}

func (p *parts) close() {
	for _, f := range []*os.File{p.template, p.binary} {
		f.Close() // nothing to lose: they are read-only; a nil File only returns an error
	}
	p.weights.Close()
	for _, a := range p.adapters {
		a.weights.Close()
	}
	*p = parts{}
}

// A launch is one life of llama-server, a [process.Instance].
type launch struct {
	proc   *process.Process
	dir    *os.File // held open, so that the socket is reached however long its path is
	key    string
	embeds bool // and does not chat
	tools  bool // may be offered

	idle idle // connections

	giveBack []*seal.Weights // once it has read them; none if it maps them
}

// launch starts llama-server in a new private directory, with a new key.
func (p *parts) launch(cfg Config) (_ *launch, err error) {
	dir, err := os.MkdirTemp(cfg.RuntimeDir, "llamacpp-") // mode 0700
	if err != nil {
		return nil, fmt.Errorf("make private directory: %w", err)
	}
	l := &launch{key: rand.Text(), embeds: embeds(p.args), tools: p.tools}
	defer func() {
		if err != nil {
			l.dir.Close()
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	if l.dir, err = os.Open(dir); err != nil {
		return nil, fmt.Errorf("open private directory: %w", err)
	}
	key, err := seal.Bytes("api-key", []byte(l.key+"\n")) // not an argument: those are for all to see
	if err != nil {
		return nil, err
	}
	defer key.Close()

	files, open := []*os.File{key}, paths{key: process.Path(0)}
	if p.template != nil {
		open.template = process.Path(len(files))
		files = append(files, p.template)
	}
	loaded, err := p.open(len(files), &open)
	defer loaded.close()
	if err != nil {
		return nil, err
	}
	loadMode := loadByMap
	var lent []*os.File
	if cfg.GiveBack {
		loadMode, l.giveBack, lent = loadByCopy, p.sealed(), loaded.files
	} else {
		files = append(files, loaded.files...)
	}
	l.proc, err = process.Start(process.Config{
		Self: cfg.Self, Exec: p.binary, Name: "llama-server", Dir: dir, Log: cfg.Log,
		Args:  commandLine(p.args, p.tools, loadMode, open),
		Files: files, Lent: lent, Links: loaded.links, User: cfg.User,
		Yield: p.yield,
	})
	p.yield = false
	if err != nil {
		return nil, err
	}
	return l, nil
}

// Ready implements [process.Instance].
func (l *launch) Ready(ctx context.Context) error {
	look := time.NewTicker(healthInterval)
	defer look.Stop()
	for {
		if l.healthy(ctx) {
			if err := l.tryEmbedding(ctx); err != nil {
				return err
			}
			l.proc.TakeBack()
			errs := []error{l.proc.Hurry()}
			for _, w := range l.giveBack {
				errs = append(errs, w.Close())
			}
			return errors.Join(errs...)
		}
		select {
		case <-look.C:
		case <-l.proc.Done():
			return fmt.Errorf("llama-server ended while loading: %w", l.proc.ErrWithOutput())
		case <-ctx.Done():
			return fmt.Errorf("llama-server is not ready: %w", context.Cause(ctx))
		}
	}
}

func (l *launch) healthy(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	conn, _, err := l.ask(ctx, http.MethodGet, "/health", nil)
	if err != nil {
		return false // no socket yet
	}
	conn.drop()
	return conn.answer.status == http.StatusOK // 503 while it loads
}

// Done implements [process.Instance].
func (l *launch) Done() <-chan struct{} { return l.proc.Done() }

// Err implements [process.Instance].
func (l *launch) Err() error { return l.proc.Err() }

// Stop implements [process.Instance].
func (l *launch) Stop(ctx context.Context) {
	l.proc.Stop(ctx)
	l.idle.close()
	dir := l.dir.Name()
	l.dir.Close()
	os.RemoveAll(dir)
}
