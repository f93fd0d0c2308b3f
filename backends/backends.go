// Package backends says what a model server must do to be served by the gateway.
//
// The one rule: a runtime gets its weights, adapters too, from a [*seal.Weights] and from nowhere else. There is no way to name a
// file, a directory or a registry here, so that whatever answers a request was verified byte for byte. A kind that can't
// vouch for what a runtime then does with them says so by its Level in [Status].
package backends

import (
	"context"
	"errors"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/verifier/seal"
)

// Errors of a [Backend]. Callers branch on them with [errors.Is].
var (
	// ErrNotRunning means the backend was not started or was stopped. Start another one.
	ErrNotRunning = errors.New("runtime is not running")

	// ErrStarted means Start was called before. A backend starts once: make a new one.
	ErrStarted = errors.New("runtime was started before")

	// ErrFailed means the runtime could not be started, or died more often than it may be restarted. The backend stays
	// failed: make a new one from the same weights. [Status] says why.
	ErrFailed = errors.New("runtime failed")

	// ErrInterrupted means the runtime died or was stopped while it answered. What was emitted so far is incomplete;
	// the same request may be sent again.
	ErrInterrupted = errors.New("runtime was interrupted")

	// ErrInvalidRequest means that the request can't be answered by this model, whoever asks: it is longer than the
	// context, say. The error's whole text is written for the caller and holds nothing of the runtime's own.
	ErrInvalidRequest = errors.New("invalid request")

	// ErrUnsupported means that this model does not do what was asked, to chat or to embed, as its release starts it. Like
	// ErrInvalidRequest its whole text is written for the caller.
	ErrUnsupported = errors.New("not supported")
)

// A Backend runs one model server, from sealed weights only, for one life: it is started once and stopped once.
//
// Its methods may be called concurrently, from any state:
//
//	            Start            Chat, Embed, Count          Stop
//	none        starts, waits    ErrNotRunning               then stopped
//	loading     ErrStarted       wait                        aborts the start
//	ready       ErrStarted       forward                     stops, interrupting requests
//	restarting  ErrStarted       wait                        gives the restart up
//	failed      ErrStarted       ErrFailed                   nil
//	stopped     ErrStarted       ErrNotRunning               nil
//
// A runtime that dies while ready is restarted from the same sealed memory, without reading any file again, a bounded
// number of times; after that, and at once if it gave the weights back, the backend is failed and stays so. A runtime that
// others started is not restarted but looked for again, while it can't be reached; once it says that it has not what it
// was given, the backend is failed.
type Backend interface {
	// Start returns when the runtime is healthy. If ctx ends first the start is given up. It refuses the zero Weights.
	// The backend takes descriptors of its own, so that w may be closed when Start has returned; the memory is let go
	// when w is closed and Stop has returned, whatever order they come in.
	Start(ctx context.Context, w *seal.Weights, spec Spec) error

	// Chat calls emit with each piece of the answer as it comes, from this goroutine, and last with a chunk that has a
	// FinishReason and the Usage. When ctx ends, or emit returns an error, the runtime's work for it is aborted and
	// that error is returned. ErrInterrupted is the only error after which a retry may go better.
	Chat(ctx context.Context, req ChatRequest, emit func(Chunk) error) error

	// Embed returns a vector for each input, in their order; the whole of each counts. A vector depends on the input alone,
	// not on what else is asked, by whomever. When ctx ends its cause is returned, and of other errors the same holds as
	// for Chat.
	Embed(ctx context.Context, req EmbedRequest) (Embeddings, error)

	// Count returns how many tokens a model would read if it were asked so: the PromptTokens of that chat. Errors are those
	// of Chat; a kind that can't tell returns ErrUnsupported.
	Count(ctx context.Context, req ChatRequest) (int, error)

	// Status never blocks.
	Status() Status

	// Stop asks the runtime to end, and kills it when ctx ends or a moment has passed. Requests that still run then get
	// ErrInterrupted: drain before. When it returns no process started here holds the weights open.
	Stop(ctx context.Context) error
}

// A Spec is what a release says about how its weights are run.
type Spec struct {
	Args         map[string]string // runtime.args of the release; each kind of backend has its own list of allowed ones
	ChatTemplate string            // the text of the template; empty: the one in the weights
	Build        string            // "sha256:…" of the runtime's binary, or empty: any
	Adapters     []Adapter         // all of them are applied, to every request; a kind that can't refuses to start
	Tools        bool              // requests may offer functions to the model; a kind that can't pass them on refuses to start

	// Yield says that what is started first is not waited for, as something else serves: until it is ready it should leave
	// the processor to that, if it can.
	Yield bool
}

// An Adapter is applied to the weights as they are loaded. Like these it is sealed, and the backend takes descriptors of
// its own.
type Adapter struct {
	Weights *seal.Weights
	Scale   float64
}

// A Message is one turn of a conversation.
type Message struct {
	Role, Content string
	ToolCalls     []ToolCall // by an assistant
	ToolCallID    string     // of role tool: the call that Content is the result of
}

// A Tool is a function that a caller offers to the model. It is the caller who carries out what the model calls.
type Tool struct {
	Name, Description string
	Parameters        jsontext.Value // a JSON schema, an object; nil: there are none
}

// A ToolCall is what the model calls, or in a [Chunk] a piece of that.
type ToolCall struct {
	ID, Name  string // of a piece: in the first one of its call alone
	Arguments string // JSON, as the model wrote it: it may be malformed
}

// How a request may say whether the model is to call its tools. The zero value is auto.
const (
	ToolsAuto     = ""
	ToolsNone     = "none"
	ToolsRequired = "required"
)

// A ChatRequest has been checked against the release's limits, and completed with its defaults, by the gateway.
type ChatRequest struct {
	Messages    []Message
	Prompt      string // in place of Messages: a text to be continued as it is, by no template
	MaxTokens   int    // at most so many tokens are generated; 0: as many as the context holds
	Temperature *float64
	TopP        *float64
	Stop        []string
	Seed        *int64
	Tools       []Tool
	ToolChoice  string // ToolsAuto, ToolsNone or ToolsRequired
	OneTool     bool   // the model may call no more than one

	// Whole says that nobody looks at the answer before its end. A kind that can asks for it so, which costs less.
	Whole bool
}

// A Chunk is one piece of an answer.
type Chunk struct {
	Text         string
	ToolCall     *ToolCall // a piece of a call; those with an ID begin the next one
	FinishReason string    // "stop", "length" or "tool_calls" in the last chunk, else empty
	Usage        *Usage    // in the last chunk, else nil

	// Since is how long ago the first token was made, of an answer that came whole; 0: now, as far as is known.
	Since time.Duration
}

// Usage counts the tokens of one request.
type Usage struct {
	PromptTokens, CompletionTokens int
}

// A State is where a [Backend] is in its life.
type State string

// The states; the table at [Backend] says what each allows.
const (
	None       State = "none"
	Loading    State = "loading"
	Ready      State = "ready"
	Restarting State = "restarting"
	Failed     State = "failed"
	Stopped    State = "stopped"
)

// Status is a snapshot, for operators: none of it is meant for callers.
type Status struct {
	// Level is the most that this kind of runtime guarantees about the bytes it answers by, however well they were
	// guarded before; it never changes, and is known before Start. Empty guarantees nothing: no channel accepts it.
	Level seal.Level

	State    State
	Since    time.Time // when State was entered
	Restarts int       // since Start
	GaveBack bool      // it holds the weights no more: they must be loaded again before a runtime can start
	PID      int       // of the runtime; 0 if there is none, or if others started it
	Build    string    // "sha256:…" of the binary that runs; empty if that is not known
	Sandbox  Sandbox
	Error    string // why the runtime failed or last died; empty if it never did
}

// A SandboxLevel says how much of the sandbox the kernel granted.
type SandboxLevel string

// The sandbox levels. The zero value claims nothing.
const (
	SandboxFull    SandboxLevel = "full"
	SandboxPartial SandboxLevel = "partial"
	SandboxNone    SandboxLevel = "none"
)

// Sandbox is what confines a runtime process.
type Sandbox struct {
	Level   SandboxLevel
	Missing []string // what the kernel did not grant, and what that leaves open
}
