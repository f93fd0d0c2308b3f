package ollama

import (
	"context"
	"fmt"
	"slices"

	"github.com/ollama/ollama/api"

	"github.com/weighbridge/weighbridge/backends"
)

// embed asks this launch of Ollama for vectors.
func (l *launch) embed(ctx context.Context, req backends.EmbedRequest) (backends.Embeddings, error) {
	return l.client.embed(req, func(do func(context.Context, *call) error) error {
		return l.inTurn(ctx, func(c *call) error { return do(ctx, c) })
	})
}

// embed asks Ollama for vectors, for a few at a time, each by ask: so that answers are of bounded size, and others have
// their turn.
func (cl *client) embed(req backends.EmbedRequest, ask func(func(context.Context, *call) error) error) (all backends.Embeddings, err error) {
	if err := req.Check(); err != nil {
		return all, err
	}
	for group := range slices.Chunk(req.Inputs, embedGroup) {
		if err := ask(func(ctx context.Context, c *call) error { return c.embed(ctx, cl, group, &all) }); err != nil {
			return backends.Embeddings{}, err
		}
	}
	if err := all.Check(len(req.Inputs)); err != nil {
		return backends.Embeddings{}, fmt.Errorf("ollama: %w", err)
	}
	return all, nil
}

// embed adds the vectors of a group of texts. Ollama is told nothing else, and to cut none of them short.
func (c *call) embed(ctx context.Context, cl *client, texts []string, all *backends.Embeddings) error {
	off := false
	c.limit = maxVectors
	e, err := cl.Embed(c.watched(ctx), &api.EmbedRequest{Model: cl.model, Input: texts, Truncate: &off, KeepAlive: cl.keepAlive})
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return c.translate(err, cl.context)
	case len(e.Embeddings) != len(texts):
		return fmt.Errorf("ollama made %d vectors of %d texts", len(e.Embeddings), len(texts))
	}
	all.Vectors = append(all.Vectors, e.Embeddings...)
	all.PromptTokens += e.PromptEvalCount
	return nil
}
