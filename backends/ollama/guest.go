package ollama

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/ollama/ollama/api"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/process"
	"github.com/weighbridge/weighbridge/verifier/seal"
)

var ownerPattern = regexp.MustCompile(`^[A-Za-z0-9]{8,32}$`)

// life is in the names of all models that this process makes, so that it knows those of a former life.
var life = strings.ToLower(rand.Text()[:12])

// prefix begins the names of a gateway's models, which are nobody else's.
func prefix(owner string) string { return "weighbridge-" + strings.ToLower(owner) + "-" }

// A content is a file that Ollama is given.
type content struct {
	weights *seal.Weights
	name    string
	digest  string // "sha256:…" of its bytes
	size    int64
}

// A guest is a release's model at an Ollama that others started.
type guest struct {
	client  *client
	address Address
	owner   string // prefix of this gateway's models
	log     *slog.Logger
	parts   parts

	files    []content // the weights, and the adapter if there is one
	made     bool      // it may be there
	manifest string    // digest that Ollama's manifest of it has; empty until it was made
}

// newGuest checks what is to be served, takes descriptors of its own and learns the digests by which Ollama knows files.
// On error nothing is left open.
func newGuest(ctx context.Context, c AttachedConfig, w *seal.Weights, spec backends.Spec) (*guest, error) {
	switch {
	case spec.Build != "":
		return nil, errors.New("runtime.build pins a binary by its digest, and nobody knows which one an attached ollama runs")
	case len(spec.Adapters) > 1:
		return nil, fmt.Errorf("%d adapters: an attached ollama takes one", len(spec.Adapters))
	}
	p, err := prepare(w, spec)
	if err != nil {
		return nil, err
	}
	owner := prefix(c.Owner)
	g := &guest{address: c.Address, owner: owner, log: c.Log, parts: p, files: []content{{weights: p.weights, name: p.name}}}
	g.client = c.Address.client(owner + life + "-" + strings.ToLower(rand.Text()[:12]))
	g.client.keepAlive = &api.Duration{Duration: -1}
	for _, a := range p.adapters {
		g.files = append(g.files, content{weights: a.weights, name: a.name})
	}
	for i := range g.files {
		if err := g.files[i].hash(ctx); err != nil {
			g.parts.close()
			return nil, err
		}
	}
	return g, nil
}

// open returns the bytes of a file, for as long as ctx. The caller closes f.
func (c *content) open(ctx context.Context) (f *os.File, r io.Reader, err error) {
	f, err = c.weights.Dup(c.name) // which looks at it again
	if err != nil {
		return nil, nil, err
	}
	return f, contextReader{ctx, f}, nil
}

type contextReader struct {
	ctx context.Context //nolint:containedctx // it is a parameter of the reading that the reader is made for
	io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.Reader.Read(p)
}

func (c *content) hash(ctx context.Context) error {
	f, r, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if c.size, err = io.Copy(h, r); err != nil {
		return fmt.Errorf("hash %s: %w", c.name, err)
	}
	c.digest = "sha256:" + hex.EncodeToString(h.Sum(nil))
	return nil
}

// arrive brings the model to Ollama. A crash on the way leaves blobs, which Ollama removes when it starts, or the model,
// which the gateway's next life removes.
func (g *guest) arrive(ctx context.Context) error {
	if err := g.reach(ctx); err != nil {
		return err
	}
	if err := g.sweep(ctx); err != nil {
		g.log.Warn("models of a former life were not removed", "address", g.address.String(), "err", err)
	}
	for _, c := range g.files {
		if err := g.push(ctx, c); err != nil {
			return fmt.Errorf("push %s: %w", c.digest, err)
		}
	}
	g.made = true
	if err := g.client.Create(ctx, g.createRequest(), func(api.ProgressResponse) error { return nil }); err != nil {
		return fmt.Errorf("make the model: %w", cantLoad(len(g.files) > 1, err))
	}
	m, err := g.look(ctx)
	if err != nil {
		return err
	}
	g.manifest, g.client.context = m.listed.Digest, m.context(g) // from here on they stay these
	if err := g.settle(ctx); err != nil {
		return err
	}
	g.log.Info("ollama is attached", "address", g.address.String(), "model", g.client.model, "manifest", g.manifest, "unconfined", unconfined.Missing)
	return nil
}

func (g *guest) reach(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	if err := g.client.Heartbeat(ctx); err != nil {
		return fmt.Errorf("can't be reached: %w", err)
	}
	return nil
}

// push has Ollama hash a file as it comes, unless it says that it has the file: then it hashes nothing, whatever it is sent.
func (g *guest) push(ctx context.Context, c content) error {
	there, err := g.client.hasBlob(ctx, c.digest)
	if err != nil {
		return err
	}
	if there {
		g.log.Warn("ollama had a file before it was given it, and checks nothing then: that its content is right is its word alone",
			"address", g.address.String(), "file", c.digest)
		return nil
	}
	f, r, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer f.Close()
	return g.client.CreateBlob(ctx, c.digest, r)
}

// hasBlob asks for Ollama's word that it has a file.
func (cl *client) hasBlob(ctx context.Context, digest string) (bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, cl.base.JoinPath("api/blobs", digest).String(), nil)
	if err != nil {
		return false, err
	}
	resp, err := cl.http.Do(req)
	if err != nil {
		return false, err
	}
	resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
		return true, nil
	case http.StatusNotFound:
		return false, nil
	default:
		return false, fmt.Errorf("ollama answered status %d", resp.StatusCode)
	}
}

// family is what Ollama is told of a model's, in place of what the weights say: for some it changes conversations, or
// expects a format of its own, whatever the release says.
const family = "weighbridge"

// createRequest is all that Ollama is told of a release.
func (g *guest) createRequest() *api.CreateRequest {
	no := false
	req := &api.CreateRequest{
		Model: g.client.model, Stream: &no, Template: g.parts.template, Parameters: g.parameters(),
		Files: map[string]string{"model.gguf": g.files[0].digest}, Info: map[string]any{"model_family": family},
	}
	if len(g.files) > 1 {
		req.Adapters = map[string]string{"adapter.gguf": g.files[1].digest}
	}
	return req
}

// parameters are those of the release. Ollama adds words to stop at for templates that it takes for ones it knows, unless
// there are some, or none, already.
func (g *guest) parameters() map[string]any {
	params := parameters(g.parts.args)
	params["stop"] = []string{}
	return params
}

// settle has the model loaded, and checks it before and after: it may be another by then.
func (g *guest) settle(ctx context.Context) error {
	if err := g.check(ctx); err != nil {
		return err
	}
	if err := g.client.load(ctx); err != nil {
		return cantLoad(len(g.files) > 1, err)
	}
	return g.check(ctx)
}

// check asks Ollama for its word that the model is what it was. An error that wraps process.ErrPermanent says that it is
// not; others, that there was no answer.
func (g *guest) check(ctx context.Context) error {
	m, err := g.look(ctx)
	if err != nil {
		return err
	}
	if m.listed.Digest != g.manifest {
		return fmt.Errorf("%w: others have replaced the model: its manifest has digest %.12s, and had %.12s", process.ErrPermanent, m.listed.Digest, g.manifest)
	}
	return nil
}

// look returns what Ollama says of the model, if that is what the release says.
func (g *guest) look(ctx context.Context) (said, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	all, err := g.client.List(ctx)
	if err != nil {
		return said{}, fmt.Errorf("ask for the model: %w", err)
	}
	var s said
	for _, m := range all.Models {
		if m.Name == g.client.model+":latest" {
			s.listed = m
		}
	}
	switch {
	case s.listed.Name == "":
		return s, errGone
	case s.listed.RemoteHost != "" || s.listed.RemoteModel != "": // some show nothing of such models
		return s, fmt.Errorf("%w: the model at ollama is on another machine", process.ErrPermanent)
	}
	shown, err := g.client.Show(ctx, &api.ShowRequest{Model: g.client.model})
	if isGone(err) {
		return s, errGone
	}
	if err != nil {
		return s, fmt.Errorf("ask for the model: %w", err)
	}
	s.shown = shown
	if err := s.differs(g); err != nil {
		return s, fmt.Errorf("%w: the model at ollama is not the release: %w", process.ErrPermanent, err)
	}
	return s, nil
}

// isGone reports whether an answer was that there is no such model.
func isGone(err error) bool {
	var status api.StatusError
	return errors.As(err, &status) && status.StatusCode == http.StatusNotFound
}

var errGone = fmt.Errorf("%w: others have removed the model", process.ErrPermanent)

// sweep removes what earlier lives of this gateway have left.
func (g *guest) sweep(ctx context.Context) error {
	all, err := g.client.List(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range all.Models {
		if strings.HasPrefix(m.Name, g.owner) && !strings.HasPrefix(m.Name, g.owner+life+"-") {
			g.log.Info("model of a former life is removed", "address", g.address.String(), "model", m.Name)
			errs = append(errs, g.remove(ctx, m.Name))
		}
	}
	return errors.Join(errs...)
}

// remove unloads and removes a model, and the files that no other has.
func (g *guest) remove(ctx context.Context, model string) error {
	unload := &api.ChatRequest{Model: model, KeepAlive: new(api.Duration)}
	err := g.client.Chat(ctx, unload, func(api.ChatResponse) error { return nil })
	err = errors.Join(err, g.client.Delete(ctx, &api.DeleteRequest{Model: model}))
	if isGone(err) {
		return nil
	}
	return err
}

// leave removes the model and lets the memory go. A guest that never was has nothing there.
func (g *guest) leave() {
	if g == nil {
		return
	}
	defer g.parts.close()
	if !g.made {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	begun := time.Now()
	if err := g.remove(ctx, g.client.model); err != nil {
		g.log.Warn("the model was not removed at ollama; the gateway's next life does that", "address", g.address.String(), "model", g.client.model, "err", err)
		return
	}
	g.log.Debug("the model was removed at ollama", "model", g.client.model, "took", time.Since(begun))
}
