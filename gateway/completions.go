package gateway

import (
	"encoding/base64"
	"encoding/binary"
	"io"
	"math"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/gateway/access"
)

// A textBody is every field of OpenAI's completion request that we take; see [chatBody].
type textBody struct {
	Model         string         `json:"model"`
	Prompt        texts          `json:"prompt"` // one
	Stream        bool           `json:"stream"`
	StreamOptions *streamOptions `json:"stream_options"`
	MaxTokens     *int64         `json:"max_tokens"`
	Temperature   *float64       `json:"temperature"`
	TopP          *float64       `json:"top_p"`
	Stop          texts          `json:"stop"`
	Seed          *int64         `json:"seed"`
	N             *int64         `json:"n"`    // 1 is all we do
	User          string         `json:"user"` // see chatBody
}

// decodeText reads OpenAI's request to go on with a text.
func decodeText(body io.Reader) (*request, style, error) {
	var b textBody
	if err := decode(body, &b); err != nil {
		return nil, nil, err
	}
	switch {
	case b.Model == "":
		return nil, nil, invalid("model", "is required")
	case len(b.Prompt) != 1:
		return nil, nil, invalid("prompt", "must be one text")
	case b.N != nil && *b.N != 1:
		return nil, nil, invalid("n", "must be 1: there is one answer to a request")
	case b.StreamOptions != nil && !b.Stream:
		return nil, nil, invalid("stream_options", "is for requests with stream")
	}
	return &request{
		method: access.MethodGenerate, names: openAINames, channel: b.Model, prompt: b.Prompt[0], maxTokens: b.MaxTokens,
		temperature: b.Temperature, topP: b.TopP, stop: b.Stop, seed: b.Seed, stream: b.Stream,
	}, &openAIText{usage: b.StreamOptions != nil && b.StreamOptions.IncludeUsage}, nil
}

// textCompletion is OpenAI's text_completion, whole or a piece of it.
type textCompletion struct {
	ID                string       `json:"id"`
	Object            string       `json:"object"`
	Created           int64        `json:"created"`
	Model             string       `json:"model"`
	SystemFingerprint string       `json:"system_fingerprint"` // the release
	Choices           []textChoice `json:"choices"`
	Usage             *usage       `json:"usage,omitzero"`
}

type textChoice struct {
	Index        int     `json:"index"`
	Text         string  `json:"text"`
	Logprobs     *string `json:"logprobs"` // null: there are none
	FinishReason *string `json:"finish_reason"`
}

// openAIText writes answers as OpenAI's text completions.
type openAIText struct {
	openAIErrors
	usage bool // whether the caller wants the usage of a stream
	text  textFrame
}

func (*openAIText) completion(m meta, choices []textChoice) textCompletion {
	return textCompletion{
		ID: "cmpl-" + m.id, Object: "text_completion", Created: m.created.Unix(), Model: m.info.Channel, SystemFingerprint: m.info.Release, Choices: choices,
	}
}

func (s *openAIText) whole(m meta, a collected) []byte {
	c := s.completion(m, []textChoice{{Text: a.text.String(), FinishReason: &a.reason}})
	c.Usage = usageOf(a.used)
	return encode(c)
}

func (*openAIText) begin(meta) [][]byte { return nil }

func (s *openAIText) piece(m meta, c backends.Chunk) (frames [][]byte) {
	if c.Text != "" {
		frames = append(frames, s.text.with(c.Text, func(text string) []byte { return event(s.completion(m, []textChoice{{Text: text}})) }))
	}
	if c.FinishReason != "" {
		frames = append(frames, event(s.completion(m, []textChoice{{FinishReason: &c.FinishReason}})))
	}
	return frames
}

func (s *openAIText) end(m meta, used backends.Usage) (frames [][]byte) {
	if s.usage {
		last := s.completion(m, []textChoice{})
		last.Usage = usageOf(used)
		frames = append(frames, event(last))
	}
	return append(frames, doneEvent)
}

// An embedBody is every field of OpenAI's request for embeddings that we take; see [chatBody].
type embedBody struct {
	Model          string `json:"model"`
	Input          texts  `json:"input"`
	EncodingFormat string `json:"encoding_format"` // float or base64
	User           string `json:"user"`            // see chatBody
}

// decodeEmbed reads OpenAI's request for embeddings.
func decodeEmbed(body io.Reader) (*request, vectorStyle, error) {
	var b embedBody
	if err := decode(body, &b); err != nil {
		return nil, nil, err
	}
	switch {
	case b.Model == "":
		return nil, nil, invalid("model", "is required")
	case b.EncodingFormat != "" && b.EncodingFormat != "float" && b.EncodingFormat != "base64":
		return nil, nil, invalid("encoding_format", "must be float or base64")
	}
	r := &request{method: access.MethodEmbed, names: openAINames, channel: b.Model, inputs: b.Input}
	return r, &openAIVectors{base64: b.EncodingFormat == "base64"}, nil
}

// openAIVectors writes embeddings as OpenAI does.
type openAIVectors struct {
	openAIErrors
	base64 bool
}

type embedding struct {
	Object    string         `json:"object"`
	Index     int            `json:"index"`
	Embedding jsontext.Value `json:"embedding"`
}

func (s *openAIVectors) vectors(info ServingInfo, e backends.Embeddings, _ time.Duration) any {
	out := struct {
		Object string      `json:"object"`
		Data   []embedding `json:"data"`
		Model  string      `json:"model"`
		Usage  struct {
			PromptTokens int `json:"prompt_tokens"`
			TotalTokens  int `json:"total_tokens"`
		} `json:"usage"`
	}{Object: "list", Data: []embedding{}, Model: info.Channel}
	out.Usage.PromptTokens, out.Usage.TotalTokens = e.PromptTokens, e.PromptTokens
	for i, v := range e.Vectors {
		value := any(v)
		if s.base64 {
			value = base64.StdEncoding.EncodeToString(littleEndian(v))
		}
		out.Data = append(out.Data, embedding{"embedding", i, encode(value)})
	}
	return out
}

// littleEndian are the bytes by which OpenAI's clients read numbers that are not text.
func littleEndian(v []float32) []byte {
	out := make([]byte, 0, 4*len(v))
	for _, x := range v {
		out = binary.LittleEndian.AppendUint32(out, math.Float32bits(x))
	}
	return out
}

var (
	_ style       = (*openAIText)(nil)
	_ vectorStyle = (*openAIVectors)(nil)
)
