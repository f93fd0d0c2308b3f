package ollama

import (
	"context"
	"fmt"
	"slices"

	"github.com/ollama/ollama/api"

	"github.com/weighbridge/weighbridge/backends"
)

// embed asks this launch of Ollama for vectors, for a few at a time: so that answers are of bounded size, and others have
// their turn.
func (l *launch) embed(ctx context.Context, req backends.EmbedRequest) (all backends.Embeddings, err error) {
	if err := req.Check(); err != nil {
		return all, err
	}
	for group := range slices.Chunk(req.Inputs, embedGroup) {
		if err := l.inTurn(ctx, func(c *call) error { return c.embed(ctx, l, group, &all) }); err != nil {
			return backends.Embeddings{}, err
		}
	}
	if err := all.Check(len(req.Inputs)); err != nil {
		return backends.Embeddings{}, fmt.Errorf("ollama: %w", err)
	}
	return all, nil
}

// embed adds the vectors of a group of texts. Ollama is told nothing else, and to cut none of them short.
func (c *call) embed(ctx context.Context, l *launch, texts []string, all *backends.Embeddings) error {
	off := false
	c.limit = maxVectors
	e, err := l.client.Embed(c.watched(ctx), &api.EmbedRequest{Model: modelName, Input: texts, Truncate: &off})
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return c.translate(err, l.context)
	case len(e.Embeddings) != len(texts):
		return fmt.Errorf("ollama made %d vectors of %d texts", len(e.Embeddings), len(texts))
	}
	all.Vectors = append(all.Vectors, e.Embeddings...)
	all.PromptTokens += e.PromptEvalCount
	return nil
}
