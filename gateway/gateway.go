// Package gateway is the front door: callers come in over gRPC or HTTP, and an answer goes back.
//
//	listen ▸ identify ▸ authorize ▸ limit ▸ catalog ▸ stream back
//
// The one rule: every check stands once, in the flow of a request (request.go), and never in a protocol. HTTP and gRPC
// only translate: they decode into the fields we allow, refuse every other, and nothing that a caller wrote reaches a
// runtime except through those fields. What a caller learns of an error is decided in status.go alone.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/gateway/access"
	"github.com/weighbridge/weighbridge/gateway/fair"
	"github.com/weighbridge/weighbridge/gateway/identity"
	"github.com/weighbridge/weighbridge/gateway/receipt"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

var (
	// ErrUnknownChannel means there is no such channel. Callers get the answer of a channel they have no right to.
	ErrUnknownChannel = errors.New("unknown channel")

	// ErrNotServing means the channel serves nothing now. The text around it is the reason, for the log; callers learn
	// only that they may try again later.
	ErrNotServing = errors.New("channel is not serving")
)

// A Catalog knows what serves each channel. Its methods are called concurrently.
type Catalog interface {
	// Acquire returns what serves the channel, which goes on serving at least until its Done is called. Where nothing
	// serves for a moment, it may wait for that. Errors wrap ErrUnknownChannel or ErrNotServing.
	Acquire(ctx context.Context, channel string) (Serving, error)
	// Channels returns every channel, serving or not, by name.
	Channels() []ChannelInfo
	// Ready reports whether a channel answers.
	Ready() bool
}

// Serving is a lease of one running release, for one request.
type Serving interface {
	Info() ServingInfo
	// Enter waits for the caller's turn at the runtime, which lasts until leave; leave may be called more than once. Errors
	// wrap a *fair.RefusedError, fair.ErrClosed if another release may serve the channel by now, or are ctx's.
	Enter(ctx context.Context, caller string) (leave func(), err error)
	// Chat is [backends.Backend.Chat] of the runtime.
	Chat(ctx context.Context, req backends.ChatRequest, emit func(backends.Chunk) error) error
	// Embed is [backends.Backend.Embed] of the runtime.
	Embed(ctx context.Context, req backends.EmbedRequest) (backends.Embeddings, error)
	// Count is [backends.Backend.Count] of the runtime.
	Count(ctx context.Context, req backends.ChatRequest) (int, error)
	// Done gives the lease back. It is called once, when nothing more of the answer is needed.
	Done()
}

// ServingInfo is what answers a request, and within which limits.
type ServingInfo struct {
	Channel string
	Release string // "sha256:…"
	Weights string // "sha256:…", the root digest
	Level   string // such as "sealed"
	Sandbox string // of the runtime, such as "full"
	Limits  Limits
	Grounds *trust.Grounds // why it is served, for receipts; nil: not known, and there are none
}

// Limits are what a release allows its callers. The zero value leaves what it does not name at the gateway's own.
type Limits struct {
	SystemPrompt string // put before every conversation; a caller's own is refused then
	Temperature  Range
	TopP         Range
	MaxTokens    int      // of an answer; 0: the release names no limit
	Tools        []string // that callers may offer

	// Plain says that a text is continued as it is. Else it is put as a question: by the release's system prompt and
	// template, around which nothing goes.
	Plain bool
}

// Range is a sampling parameter's default and the most a caller may ask for; nil: the release does not say.
type Range struct {
	Default, Max *float64
}

// ChannelInfo is a channel as it is listed.
type ChannelInfo struct {
	Channel string
	Release string // "" if nothing serves
	Weights string
	Level   string
	State   string // none, loading, ready, draining or failed
	Since   time.Time
	Size    int64    // of the weights, in bytes
	Format  string   // of them, such as "gguf"; "" if that is not known
	Does    []string // what it can be asked for: DoesChat, DoesTools, DoesEmbed
}

// What a channel can be asked for.
const (
	DoesChat  = "completion"
	DoesTools = "tools"
	DoesEmbed = "embedding"
)

// StateReady is the state of a channel that answers.
const StateReady = "ready"

// Config says what a gateway is made of. Catalog, Access and Identity are required.
type Config struct {
	Catalog  Catalog
	Access   func() *access.Policy // the rules in force; asked at each request, and nil denies all
	Identity *identity.Source
	Log      *slog.Logger    // nil: nowhere
	Meter    metric.Meter    // nil: nothing is measured
	Tracer   trace.Tracer    // nil: nothing is traced
	Drain    time.Duration   // how long a shutdown waits for answers in flight; 0: DefaultDrain
	Receipts *receipt.Issuer // nil: there are none
	InFlight int             // how many requests are answered at once; 0: DefaultInFlight
	Version  string          // of the program, for callers that ask

	Certificate *identity.CertificateFiles // of the doors for JWT-SVIDs; nil: Identity's SVID
	Now         func() time.Time           // nil: time.Now
	Grace       time.Duration              // how long an answer may outlast the SVID that shows its caller; 0: DefaultGrace

	// Refused is told of each caller whose rules do not allow a call; it must not block. nil: nobody is.
	Refused func(caller string)
}

// A Gateway answers requests. Make it with [New].
type Gateway struct {
	catalog  Catalog
	access   func() *access.Policy
	identity *identity.Source
	log      *slog.Logger
	meters   *meters
	tracer   trace.Tracer
	drain    time.Duration
	version  string

	certificate *identity.CertificateFiles
	now         func() time.Time
	grace       time.Duration

	refused  func(caller string)
	receipts *receipt.Issuer

	slots  *fair.Slots // one for each request in flight
	meter  *access.Meter
	visits visits
	ledger ledger
}

// New returns a gateway that does not listen yet.
func New(c Config) (*Gateway, error) {
	var errs []error
	for _, required := range []struct {
		field   string
		missing bool
	}{{"Catalog", c.Catalog == nil}, {"Access", c.Access == nil}, {"Identity", c.Identity == nil}} {
		if required.missing {
			errs = append(errs, fmt.Errorf("%s is required", required.field))
		}
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("gateway: %w", errors.Join(errs...))
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Tracer == nil {
		c.Tracer = tracenoop.NewTracerProvider().Tracer("")
	}
	if c.Version == "" {
		c.Version = "devel"
	}
	if c.Drain == 0 {
		c.Drain = DefaultDrain
	}
	if c.InFlight == 0 {
		c.InFlight = DefaultInFlight
	}
	if c.Grace == 0 {
		c.Grace = DefaultGrace
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Refused == nil {
		c.Refused = func(string) {}
	}
	m, err := newMeters(c.Meter)
	if err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	return &Gateway{
		catalog: c.Catalog, access: c.Access, identity: c.Identity, log: c.Log, meters: m, tracer: c.Tracer, drain: c.Drain,
		version: c.Version, certificate: c.Certificate, now: c.Now, grace: c.Grace,
		refused: c.Refused, receipts: c.Receipts, slots: fair.NewSlots(c.InFlight), meter: access.NewMeter(c.Now),
	}, nil
}
