package llamacpp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/backends"
)

// An embedRequest is everything that llama-server is asked to embed by.
type embedRequest struct {
	Input          []string `json:"input"`
	EncodingFormat string   `json:"encoding_format"`
}

// An embedAnswer is what is used of its answer.
type embedAnswer struct {
	Data []struct {
		Index     int    `json:"index"`
		Embedding vector `json:"embedding"`
	} `json:"data"`
	Usage struct {
		PromptTokens int `json:"prompt_tokens"`
	} `json:"usage"`
}

// A vector is read from numbers alone. What is not finite llama-server writes as null, which would be read as zero.
type vector []float32

// UnmarshalJSONFrom implements [json.UnmarshalerFrom].
func (v *vector) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if token, err := dec.ReadToken(); err != nil || token.Kind() != '[' {
		return cmp.Or(err, errors.New("a vector is no list"))
	}
	for dec.PeekKind() == '0' {
		token, err := dec.ReadToken()
		if err != nil {
			return err
		}
		number, err := token.Float()
		if err != nil {
			return err
		}
		*v = append(*v, float32(number))
	}
	if token, err := dec.ReadToken(); err != nil || token.Kind() != ']' {
		return cmp.Or(err, errors.New("a vector holds what is no number"))
	}
	return nil
}

// embed asks this launch of llama-server, for a few vectors at a time: so that answers are of bounded size, and others
// have their turn.
func (l *launch) embed(ctx context.Context, req backends.EmbedRequest) (all backends.Embeddings, err error) {
	if !l.embeds {
		return all, fmt.Errorf("%w: this model chats, and makes no embeddings", backends.ErrUnsupported)
	}
	if err := req.Check(); err != nil {
		return all, err
	}
	for group := range slices.Chunk(req.Inputs, embedGroup) {
		body, err := json.Marshal(embedRequest{group, "float"})
		if err != nil {
			panic("llamacpp: internal error: " + err.Error())
		}
		err = l.post(ctx, "/v1/embeddings", body, func(c *call, answer io.Reader) error { return l.collect(ctx, c, answer, len(group), &all) })
		if err != nil {
			return backends.Embeddings{}, err
		}
	}
	if err := all.Check(len(req.Inputs)); err != nil {
		return backends.Embeddings{}, fmt.Errorf("llama-server: %w", err)
	}
	return all, nil
}

// collect adds a group's vectors, which may come in any order.
func (l *launch) collect(ctx context.Context, c *call, answer io.Reader, texts int, all *backends.Embeddings) error {
	data, err := io.ReadAll(io.LimitReader(answer, maxVectors+1))
	switch {
	case err != nil:
		return c.broken(ctx, err)
	case len(data) > maxVectors:
		return fmt.Errorf("llama-server answered with more than %d bytes", maxVectors)
	}
	var a embedAnswer
	if err := json.Unmarshal(data, &a); err != nil {
		return fmt.Errorf("decode llama-server's answer: %w", err)
	}
	made := make([][]float32, texts)
	for _, d := range a.Data {
		if d.Index < 0 || d.Index >= texts || made[d.Index] != nil {
			return fmt.Errorf("llama-server made vector %d of %d texts, or made it twice", d.Index, texts)
		}
		made[d.Index] = d.Embedding
	}
	if slices.ContainsFunc(made, func(v []float32) bool { return v == nil }) {
		return fmt.Errorf("llama-server made %d vectors of %d texts", len(a.Data), texts)
	}
	all.Vectors = append(all.Vectors, made...)
	all.PromptTokens += a.Usage.PromptTokens
	return nil
}

// tryEmbedding embeds a text where that is what a release is for: whether its weights can is known only then.
func (l *launch) tryEmbedding(ctx context.Context) error {
	if !l.embeds {
		return nil
	}
	_, err := l.embed(ctx, backends.EmbedRequest{Inputs: []string{" "}})
	if errors.Is(err, backends.ErrInvalidRequest) {
		return errors.New("llama-server can't embed with these weights: they name no pooling, so runtime.args.pooling has to")
	}
	return err
}
