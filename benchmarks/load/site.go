package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/weighbridge/weighbridge/benchmarks/bench"
	"github.com/weighbridge/weighbridge/benchmarks/site"
)

// Files in the site.
var (
	modelName = site.ModelName("model.gguf")
	filesSig  = "files.sig" // not beside the model, where the gateway would find two signatures
)

// A world is a site with one signed and published release of the model, and all else that the cases measure.
type world struct {
	*site.Site
	signing string // model_signing
	model   modelFile

	cold    eviction // what evicting the model came to, for the report
	present bool     // memory is present when cold cases begin
	huge    string   // the machine's setting for huge pages, for the report
}

// newWorld makes a site in a temporary directory beside the model, which it links and does not copy.
func newWorld(ctx context.Context, m modelFile, stderr io.Writer) (_ *world, err error) {
	w := &world{model: m}
	if w.signing, err = bench.FindPart(ctx, "model-signing", stderr); err != nil {
		return nil, err
	}
	const room = 1 << 30 // above the model's, so that the budget is not what is measured
	if w.Site, err = site.New(ctx, site.Config{Stderr: stderr, In: filepath.Dir(m.path), Memory: m.size + room}); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Close())
		}
	}()
	if err := os.Link(m.path, w.Path(modelName)); err != nil {
		return nil, fmt.Errorf("link model: %w", err)
	}
	// model_signing does not read shards, so it is given whole files.
	if _, err := w.Says(ctx, "model", "sign", modelName, "--private-key", "trainer.key", "--signature", filesSig, "--quiet"); err != nil {
		return nil, err
	}
	release, err := w.Release(ctx, modelName, "ctx-size: 256, threads: 1")
	if err != nil {
		return nil, err
	}
	publication, err := w.Publish(ctx, release, 1)
	if err != nil {
		return nil, err
	}
	return w, w.Deliver(publication)
}

// probe starts a gateway once: to find out early if something is wrong with the site, and to learn with which arguments
// it starts llama-server, so that the peers are started with the same.
func (w *world) probe(ctx context.Context) error {
	g, err := w.StartGateway()
	if err != nil {
		return err
	}
	defer g.Stop()
	if _, err := g.Await(ctx, site.MsgServes); err != nil {
		return err
	}
	if err := g.Learn(); err != nil {
		return err
	}
	c, err := g.Caller(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Check(ctx, modelConfig(1).Sentence)
}

// tooLong has more tokens than the context of the release holds.
var tooLong = site.Question{Text: strings.Repeat("?", 1000), MaxTokens: 1}

// knock returns how long llama-server takes to refuse a question that is too long. Only a server that is ready does so,
// and it computes nothing for it, while one token of a model as large as this takes longer than a restart does.
func knock(ctx context.Context, c *site.Caller) (time.Duration, error) {
	begun := time.Now()
	a, err := c.Ask(ctx, tooLong)
	took := time.Since(begun)
	if err != nil {
		return 0, err
	}
	if a.Status != http.StatusBadRequest || !strings.Contains(a.Body, "tokens") {
		return 0, fmt.Errorf("answer to a question that is too long = %d %s%s, want %d and how many tokens it has", a.Status, a.Body, a.Text, http.StatusBadRequest)
	}
	return took, nil
}
