package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/gateway/access"
	"github.com/weighbridge/weighbridge/gateway/identity"
	"github.com/weighbridge/weighbridge/gateway/receipt"
)

// A call is who asks, and through which door.
type call struct {
	caller   spiffeid.ID
	shown    identity.Caller // how caller is known, and until when
	id       string          // request id
	protocol string          // "http" or "grpc"

	receipt *receipt.Draft // nil: none was asked for
}

// A request is what a caller asks, as all doors understand it: decoded, but not checked yet.
type request struct {
	call
	method      string // access.MethodChat, MethodGenerate or MethodEmbed
	channel     string
	release     string             // the only one that may answer; "": whichever serves
	messages    []backends.Message // of a chat, or of generate where the API puts a text as a question
	prompt      string             // of generate
	inputs      []string           // of embed
	tools       []backends.Tool
	toolChoice  string // backends.ToolsAuto, ToolsNone or ToolsRequired
	oneTool     bool
	maxTokens   *int64
	temperature *float64
	topP        *float64
	stop        []string
	seed        *int64
	stream      bool // whether the caller wants the answer in pieces
	load        bool // nothing is asked but whether the channel answers
	counts      bool // how long it is is asked, and no answer to it
	wholeCalls  bool // what the model calls is wanted call by call, and with arguments that are an object

	places []string // where the API has each of the messages; nil: one after the other

	api   string // of the log and of rules: openai, ollama, anthropic or grpc
	names names
}

// A receiver is where what becomes of a request goes.
type receiver interface {
	// begin says who answers. It may set headers, but an error may still follow instead of an answer.
	begin(ServingInfo)
	// finish is called once, at the end, with what went wrong, if anything did; begin may not have been. What it returns is
	// what became of the request in the end.
	finish(error) error
}

// An answer is where the parts of an answer go.
type answer interface {
	receiver
	// send passes a part on. Its error wraps errGone if the caller is no longer there.
	send(backends.Chunk) error
}

// taker is where what is found out at once goes: embeddings, or a count.
type taker[T any] interface {
	receiver
	take(T)
}

// admit turns a caller away whom no rule names, before anything of what it sends is read.
func (g *Gateway) admit(c call) error { return g.access().Knows(c.caller) }

// hasRoom turns a caller away whom no rule allows the method, or who has no room for another request of it, whatever else it asks
// for: over HTTP before that is read, else a caller could have others wait by the length of what is refused.
func (g *Gateway) hasRoom(r *request) error {
	grants, err := g.access().Naming(r.caller, r.method)
	if err != nil {
		return err
	}
	return g.meter.Full(r.caller, grants)
}

// unread records a request that came at that time and went wrong before it was read, as what goes wrong later.
func (g *Gateway) unread(ctx context.Context, begun time.Time, r *request, err error) {
	r.channel = channelOf(r.channel)
	_, o := g.observe(ctx, r)
	o.start, o.unread = begun, true
	o.end(err)
}

// chat answers a request to have a conversation, or to go on with a text.
func (g *Gateway) chat(ctx context.Context, r *request, to answer) error {
	var req backends.ChatRequest
	suits := func(info ServingInfo) (err error) {
		req, err = r.complete(info.Limits)
		return err
	}
	return g.serve(ctx, r, to, suits, func(ctx context.Context, v *visit, serving Serving) error {
		if err := r.receipt.Begin(v.o.info.by()); err != nil {
			return err
		}
		to.begin(v.o.info)
		if r.load {
			v.o.asked = false // nothing is, and nothing is charged
			return to.send(backends.Chunk{FinishReason: loaded})
		}
		if r.wholeCalls {
			to = &callsWhole{answer: to}
		}
		if req.Whole {
			v.o.unseen = int64(req.MaxTokens)
		}
		finished := false
		err := v.o.timed(func() error {
			return serving.Chat(ctx, req, func(c backends.Chunk) error {
				c.Text = strings.ToValidUTF8(c.Text, "\uFFFD")
				finished = finished || c.FinishReason != ""
				v.o.chunk(c)
				if req.Whole {
					return to.send(c) // which keeps it
				}
				return v.send(c, to)
			})
		})
		if err == nil && !finished {
			// An answer that was cut short must not look whole.
			err = fmt.Errorf("the answer ended without a reason: %w", backends.ErrInterrupted)
		}
		return r.ended(ctx, err)
	})
}

// loaded is how an answer ends for which nothing was asked.
const loaded = "load"

// embed answers a request for embeddings.
func (g *Gateway) embed(ctx context.Context, r *request, to taker[backends.Embeddings]) error {
	suits := func(ServingInfo) error { return nil }
	return g.serve(ctx, r, to, suits, func(ctx context.Context, v *visit, serving Serving) error {
		if err := r.receipt.Begin(v.o.info.by()); err != nil {
			return err
		}
		to.begin(v.o.info)
		var e backends.Embeddings
		err := v.o.timed(func() (err error) {
			e, err = serving.Embed(ctx, backends.EmbedRequest{Inputs: r.inputs})
			return err
		})
		if err == nil {
			v.o.chunk(backends.Chunk{Usage: &backends.Usage{PromptTokens: e.PromptTokens}})
			to.take(e)
		}
		return r.ended(ctx, err)
	})
}

// count answers how many tokens a model would read of a request. It is charged nothing: no model reads it.
func (g *Gateway) count(ctx context.Context, r *request, to taker[int]) error {
	r.counts = true
	var req backends.ChatRequest
	suits := func(info ServingInfo) (err error) {
		req, err = r.complete(info.Limits)
		return err
	}
	return g.serve(ctx, r, to, suits, func(ctx context.Context, v *visit, serving Serving) error {
		v.o.asked = false
		if err := r.receipt.Begin(v.o.info.by()); err != nil {
			return err
		}
		to.begin(v.o.info)
		var tokens int
		err := v.o.timed(func() (err error) {
			tokens, err = serving.Count(ctx, req)
			return err
		})
		if err == nil {
			to.take(tokens)
		}
		return r.ended(ctx, err)
	})
}

// serve answers one request, by ask, once what serves suits it. An error it returns goes through [outcomeOf] to the caller,
// and every request, answered or not, leaves one line in the log.
func (g *Gateway) serve(ctx context.Context, r *request, to receiver, suits func(ServingInfo) error, ask func(context.Context, *visit, Serving) error) (err error) {
	r.channel = channelOf(r.channel)
	ctx, o := g.observe(ctx, r)
	err = errUnended // what a panic leaves must not look whole
	defer func() {
		err = to.finish(err)
		o.end(err)
	}()
	err = g.pass(ctx, o, r, suits, ask)
	return err
}

// pass is the whole flow of a request, in order.
func (g *Gateway) pass(ctx context.Context, o *observation, r *request, suits func(ServingInfo) error, ask func(context.Context, *visit, Serving) error) (err error) {
	ctx, v, err := g.enter(ctx, o, r.act(), r.expected())
	if err != nil {
		return revoked(ctx, err)
	}
	defer func() {
		v.leave(err)
		err = revoked(ctx, err)
	}()
	if err := r.check(); err != nil {
		return err
	}
	serving, err := v.acquire(ctx, func(info ServingInfo) error {
		if r.release != "" && r.release != info.Release {
			return errOtherRelease
		}
		return suits(info)
	})
	if err != nil {
		return err
	}
	return ask(ctx, v, serving)
}

// act is what a request wants to do, as rules see it.
func (r *request) act() access.Act {
	a := access.Act{
		Caller: r.caller, Channel: r.channel, Method: r.method, Time: time.Now(),
		Request: access.Request{API: r.api, Stream: r.stream, Tools: len(r.tools) > 0},
	}
	if r.maxTokens != nil {
		a.Request.MaxTokens = *r.maxTokens
	}
	return a
}

// expected is what a request takes at most, as far as that can be told before it is known who answers: of its prompt it
// is an estimate. A request that is invalid takes nothing in the end.
func (r *request) expected() access.Tokens {
	bytes := len(r.prompt)
	for _, m := range r.messages {
		bytes += len(m.Content)
		for _, c := range m.ToolCalls {
			bytes += len(c.Name) + len(c.Arguments)
		}
	}
	for _, t := range r.tools {
		bytes += len(t.Name) + len(t.Description) + len(t.Parameters)
	}
	for _, text := range r.inputs {
		bytes += len(text)
	}
	t := access.Tokens{Prompt: int64(bytes/bytesPerToken) + 1, Completion: DefaultMaxTokens}
	switch {
	case r.method == access.MethodEmbed, r.load, r.counts:
		t.Completion = 0
	case r.maxTokens != nil:
		t.Completion = min(max(*r.maxTokens, 0), maxMaxTokens)
	}
	return t
}

// ended tells apart who ended an answer: the caller, or the runtime.
func ended(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errGone):
		return err
	case ctx.Err() != nil:
		return fmt.Errorf("%w: %w", errGone, context.Cause(ctx))
	default:
		return &runtimeError{err: err}
	}
}

// ended is that of an answer to this request.
func (r *request) ended(ctx context.Context, err error) error {
	err = ended(ctx, err)
	if failed := new(runtimeError); errors.As(err, &failed) {
		failed.field = r.content()
	}
	return err
}

// models returns the channels that the caller may see, or an error if no rule shows it any.
func (g *Gateway) models(c call) ([]ChannelInfo, error) {
	rules := g.access()
	var seen []ChannelInfo
	for _, info := range g.catalog.Channels() {
		if rules.Check(c.listing(info.Channel)) == nil {
			seen = append(seen, info)
		}
	}
	if len(seen) == 0 {
		return nil, fmt.Errorf("caller %s: %w: no rule for %s on any channel", c.caller, access.ErrDenied, access.MethodModels)
	}
	slices.SortFunc(seen, func(a, b ChannelInfo) int { return strings.Compare(a.Channel, b.Channel) })
	return seen, nil
}

// listing is the act of seeing a channel listed.
func (c *call) listing(channel string) access.Act {
	return access.Act{Caller: c.caller, Channel: channel, Method: access.MethodModels, Time: time.Now()}
}

// model returns one channel that the caller may see.
func (g *Gateway) model(c call, channel string) (ChannelInfo, error) {
	channel = channelOf(channel)
	if err := g.access().Check(c.listing(channel)); err != nil {
		return ChannelInfo{}, err
	}
	for _, info := range g.catalog.Channels() {
		if info.Channel == channel {
			return info, nil
		}
	}
	return ChannelInfo{}, fmt.Errorf("channel %q: %w", channel, ErrUnknownChannel)
}

// channelOf returns what a caller calls a model, if a channel can have that name. Else it is the caller's text, of any
// length, and nobody's channel: it goes no further, and into no log.
func channelOf(model string) string {
	if !sane(model) {
		return ""
	}
	return model
}

// complete holds a checked request to the limits of a release and fills in its defaults. What is above a limit is
// refused, never lowered: an answer that was sampled otherwise than asked for would mislead.
func (r *request) complete(l Limits) (backends.ChatRequest, error) {
	req := backends.ChatRequest{Stop: r.stop, Seed: r.seed, Tools: r.tools, ToolChoice: r.toolChoice, OneTool: r.oneTool, Whole: !r.stream}
	err := r.allowed(l)
	if err != nil {
		return req, err
	}
	if req.Temperature, err = limited(r.names.temperature, r.temperature, l.Temperature); err != nil {
		return req, err
	}
	if req.TopP, err = limited(r.names.topP, r.topP, l.TopP); err != nil {
		return req, err
	}
	switch {
	case r.maxTokens != nil && l.MaxTokens > 0 && *r.maxTokens > int64(l.MaxTokens):
		return req, invalid(r.names.maxTokens, "is above %d, the most that the release allows", l.MaxTokens)
	case r.maxTokens != nil:
		req.MaxTokens = int(*r.maxTokens)
	case l.MaxTokens > 0:
		req.MaxTokens = l.MaxTokens
	default:
		req.MaxTokens = DefaultMaxTokens
	}
	messages := r.messages
	if r.prompt != "" {
		if l.Plain {
			req.Prompt = r.prompt
			return req, nil
		}
		messages = append(messages, backends.Message{Role: "user", Content: r.prompt})
	}
	if l.SystemPrompt != "" {
		req.Messages = append(req.Messages, backends.Message{Role: "system", Content: l.SystemPrompt})
	}
	for i, m := range messages {
		if m.Role == "developer" {
			m.Role = "system" // its newer name; templates know the old one
		}
		if m.Role == "system" && l.SystemPrompt != "" {
			return req, invalid(r.systemName(i), "the release brings its own system prompt, and allows no other")
		}
		req.Messages = append(req.Messages, m)
	}
	return req, nil
}

// allowed holds the tools of a request to those that the release names.
func (r *request) allowed(l Limits) error {
	for i, t := range r.tools {
		if !slices.Contains(l.Tools, t.Name) {
			return invalid(fmt.Sprintf("%s[%d].%s", r.names.tools, i, r.names.toolName), "is not among the tools that this release allows: it allows %s", someOf(l.Tools))
		}
	}
	for i, m := range r.messages {
		if (m.Role == "tool" || len(m.ToolCalls) > 0) && len(l.Tools) == 0 {
			return invalid(r.place(i), "is of a tool, and this release allows no tools")
		}
	}
	return nil
}

func someOf(names []string) string {
	if len(names) == 0 {
		return "no tools"
	}
	return strings.Join(names, ", ")
}

// limited returns the value asked for if the release allows it, or else the release's default.
func limited(field string, asked *float64, r Range) (*float64, error) {
	if asked == nil {
		return r.Default, nil
	}
	if r.Max != nil && *asked > *r.Max {
		return nil, invalid(field, "is above %v, the most that the release allows", *r.Max)
	}
	return asked, nil
}
