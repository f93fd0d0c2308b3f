package ollama

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/process"
	"github.com/weighbridge/weighbridge/verifier/seal"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// parts are what every launch is made of, in sealed memory: a restart reads no file.
type parts struct {
	build    string // digest of binary; like that empty for an Ollama that others started
	binary   *os.File
	weights  *seal.Weights
	name     string // of the model's file
	adapters []adapter
	template string
	args     map[string]string
}

// An adapter is one sealed LoRA.
type adapter struct {
	weights *seal.Weights
	name    string // of its only file
}

// prepare checks what it is given and takes descriptors of its own. On error nothing is left open.
func prepare(w *seal.Weights, spec backends.Spec) (p parts, err error) {
	if !w.Valid() {
		return parts{}, errors.New("weights are not sealed: only verified weights are served")
	}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if err := errors.Join(trust.CheckArgs(Kind, spec.Args), trust.CheckTemplate(Kind, spec.ChatTemplate)); err != nil {
		return p, err
	}
	if spec.Tools {
		return p, errors.New("tools are not passed on to ollama, which drops parts of how they are described")
	}
	p.template, p.args = spec.ChatTemplate, spec.Args
	if p.name, err = ggufFile(w); err != nil {
		return p, err
	}
	if p.weights, err = w.Share(); err != nil {
		return p, err
	}
	for _, a := range spec.Adapters {
		if err := p.addAdapter(a); err != nil {
			return p, err
		}
	}
	return p, nil
}

// prepareLaunch is prepare of what is started here.
func prepareLaunch(ctx context.Context, programs *seal.Programs, command string, w *seal.Weights, spec backends.Spec) (parts, error) {
	p, err := prepare(w, spec)
	if err != nil {
		return p, err
	}
	binary, err := exec.LookPath(command)
	if err != nil {
		p.close()
		return p, fmt.Errorf("find ollama: %w", err)
	}
	if p.binary, p.build, err = programs.Executable(ctx, binary, spec.Build); err != nil {
		p.close()
	}
	return p, err
}

// addAdapter checks an adapter and takes a reference of its own.
func (p *parts) addAdapter(a backends.Adapter) error {
	if !a.Weights.Valid() {
		return errors.New("an adapter is not sealed: only verified weights are served")
	}
	if a.Scale != 1 {
		return fmt.Errorf("adapter %s: scale is %v; Ollama applies adapters as they are: scale 1", a.Weights.Root(), a.Scale)
	}
	name, err := ggufFile(a.Weights)
	if err == nil {
		err = trust.CheckAdapter(Kind, a.Weights.Names())
	}
	if err != nil {
		return fmt.Errorf("adapter %s: %w", a.Weights.Root(), err)
	}
	w, err := a.Weights.Share()
	if err != nil {
		return fmt.Errorf("adapter %s: %w", a.Weights.Root(), err)
	}
	p.adapters = append(p.adapters, adapter{w, name})
	return nil
}

func (p *parts) close() {
	p.binary.Close() // nothing to lose: it is read-only; a nil File only returns an error
	p.weights.Close()
	for _, a := range p.adapters {
		a.weights.Close()
	}
	*p = parts{}
}

// parameters turns what a release says of the runtime, which was checked before, into what Ollama's manifests say: how
// the model is loaded. No request can say otherwise.
func parameters(args map[string]string) map[string]any {
	// The sealed memory itself is mapped, unless the release wants a copy. Without a GPU Ollama would make one.
	params := map[string]any{"num_ctx": defaultContext, "use_mmap": true}
	for name, value := range args {
		if n, err := strconv.Atoi(value); err == nil {
			params[name] = n
		} else {
			params[name] = value == "true"
		}
	}
	return params
}

// environment is Ollama's whole environment.
func environment(dir string, port int) []string {
	return []string{
		"HOME=" + dir,
		"OLLAMA_MODELS=" + filepath.Join(dir, modelsDir),
		"OLLAMA_HOST=127.0.0.1:" + strconv.Itoa(port),
		"OLLAMA_NOPRUNE=1",  // it may not write
		"OLLAMA_NO_CLOUD=1", // no model is anywhere else
		"OLLAMA_KEEP_ALIVE=-1",
		"OLLAMA_LOAD_TIMEOUT=-1", // the supervisor has a limit
		"OLLAMA_NUM_PARALLEL=1",  // see forget
		"OLLAMA_MAX_LOADED_MODELS=1",
		"GIN_MODE=release",
		"GODEBUG=netdns=go", // the C library's resolver would look for services
	}
}

// A launch is one life of Ollama, a [process.Instance].
type launch struct {
	proc    *process.Process
	dir     string
	port    int
	client  *client
	args    map[string]string
	adapted bool // by adapters

	patience time.Duration // with it, after an answer

	turn chan struct{} // holds one value while nobody asks anything
	used bool          // something was asked that is not forgotten; belongs to who has the turn

	mu         sync.Mutex
	stopping   bool           // nothing is begun any more that Stop would have to wait for
	forgetting sync.WaitGroup // counts what goes on after an answer
}

// launch starts Ollama on a store that is made for this launch.
func (p *parts) launch(cfg Config) (_ *launch, err error) {
	l := &launch{args: p.args, adapted: len(p.adapters) > 0, patience: cmp.Or(cfg.Patience, forgetTimeout), turn: make(chan struct{}, 1)}
	l.turn <- struct{}{}
	if l.port, err = freePort(); err != nil {
		return nil, err
	}
	if l.dir, err = os.MkdirTemp(cfg.RuntimeDir, "ollama-"); err != nil { // mode 0700
		return nil, fmt.Errorf("make private directory: %w", err)
	}
	s, err := p.store()
	defer s.close()
	if err == nil {
		l.proc, err = process.Start(process.Config{
			Self: cfg.Self, Exec: p.binary, Name: "ollama", Dir: l.dir, Log: cfg.Log,
			Args: []string{"serve"}, Env: environment(l.dir, l.port),
			Files: s.files, Links: s.links, Network: true, ExecPath: execName,
		})
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(l.dir))
	}
	base := &url.URL{Scheme: "http", Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(l.port))} // a name that Ollama takes for its own
	l.client = newClient(base, &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return l.proc.Dial(ctx, l.port) },
	}, modelName)
	return l, nil
}

// freePort returns a port that nobody uses here. It matters only where Ollama has no network of its own.
func freePort() (int, error) {
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return 0, fmt.Errorf("find a port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// Ready implements [process.Instance].
func (l *launch) Ready(ctx context.Context) error {
	look := time.NewTicker(healthInterval)
	defer look.Stop()
	for !l.healthy(ctx) {
		select {
		case <-look.C:
		case <-l.proc.Done():
			return fmt.Errorf("ollama ended while starting: %w", l.proc.ErrWithOutput())
		case <-ctx.Done():
			return fmt.Errorf("ollama is not ready: %w", context.Cause(ctx))
		}
	}
	err := l.load(ctx)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("ollama is not ready: %w", context.Cause(ctx))
	case l.ended(err):
		return fmt.Errorf("ollama ended while loading: %w", l.proc.ErrWithOutput())
	default:
		return cantLoad(l.adapted, err)
	}
}

// cantLoad says what was not loaded.
func cantLoad(adapted bool, err error) error {
	if adapted {
		return fmt.Errorf("ollama can't load the weights with their adapters, which may have been made for others: %w", err)
	}
	return fmt.Errorf("ollama can't load the weights: %w", err)
}

// ended reports whether an error means that the runtime has ended, which is known a moment later.
func (l *launch) ended(err error) bool {
	var transport *url.Error
	if !errors.As(err, &transport) {
		return false
	}
	late := time.NewTimer(deathTimeout)
	defer late.Stop()
	select {
	case <-l.proc.Done():
		return true
	case <-late.C:
		return false
	}
}

func (l *launch) healthy(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	return l.client.Heartbeat(ctx) == nil
}

// load has Ollama load the model, for as long as it lives, and checks that it was loaded as the release says.
func (l *launch) load(ctx context.Context) error {
	if err := l.client.load(ctx); err != nil {
		return err
	}
	running, err := l.client.ListRunning(ctx)
	if err != nil {
		return err
	}
	if len(running.Models) != 1 {
		return fmt.Errorf("it runs %d models, want one", len(running.Models))
	}
	l.client.context = running.Models[0].ContextLength
	return checkContext(l.client.context, l.args)
}

// Done implements [process.Instance].
func (l *launch) Done() <-chan struct{} { return l.proc.Done() }

// Err implements [process.Instance].
func (l *launch) Err() error { return l.proc.Err() }

// Stop implements [process.Instance].
func (l *launch) Stop(ctx context.Context) {
	l.mu.Lock()
	l.stopping = true
	l.mu.Unlock()
	l.proc.Stop(ctx)
	l.forgetting.Wait()
	os.RemoveAll(l.dir)
}
