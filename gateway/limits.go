package gateway

import "time"

// Bounds on what one caller may cost us before it is authorized, and after.
const (
	// maxBody bounds a request: more than the longest context of a text model.
	maxBody = 4 << 20
	// maxHeader bounds the header of a request, which is read before anybody is authorized.
	maxHeader = 64 << 10
	// maxMessages bounds a conversation.
	maxMessages = 2048
	// maxStops and maxStop bound the texts that end an answer, each of which is compared with every token.
	maxStops = 4
	maxStop  = 256
	// maxTools bounds what is offered to a model, as the format of releases does; maxInputs the texts of one request for
	// embeddings, as OpenAI's API does.
	maxTools  = 128
	maxInputs = 2048
	// maxOpenCalls bounds the calls among which a result's own is looked for, where it does not say which it is.
	maxOpenCalls = 1024
	// maxAnswer bounds an answer that is collected before it is sent; 4 bytes a token is usual.
	maxAnswer = 16 << 20
	// maxName bounds what goes into every log line: an x-request-id, and the name of a channel.
	maxName = 128

	// bytesPerToken is what a token of most texts has; the estimate of a prompt is charged to nobody in the end.
	bytesPerToken = 4
	// slowLimit is how long a caller may take for a part of an answer before others get its turn at the runtime.
	slowLimit = time.Second

	// DefaultInFlight bounds the requests that are answered at once, over all callers. One caller alone may have half.
	DefaultInFlight = 512
	// maxStreams bounds the concurrent requests of one connection.
	maxStreams = 128
)

// Bounds on what a caller may ask of a runtime, where its release does not set closer ones.
const (
	// DefaultMaxTokens is how long an answer may be when neither the caller nor the release says.
	DefaultMaxTokens = 1024
	// maxMaxTokens is more than any answer; a release's output.maxTokens is the limit that matters.
	maxMaxTokens = 1 << 20
	// maxTemperature is that of the OpenAI API.
	maxTemperature = 2
)

const (
	// DefaultDrain is how long a shutdown waits for answers in flight before it cuts them off.
	DefaultDrain = 30 * time.Second
	// handshakeTimeout is for connecting and the TLS handshake; nobody needs longer, except to hold sockets.
	handshakeTimeout = 10 * time.Second
	// headerTimeout and bodyTimeout bound slow senders.
	headerTimeout = 10 * time.Second
	bodyTimeout   = 30 * time.Second
	// writeTimeout bounds a reader that takes no byte of a piece of the answer. There is no limit on a whole answer.
	writeTimeout = 30 * time.Second
	// idleTimeout closes connections without requests.
	idleTimeout = 2 * time.Minute
	// DefaultGrace is how long an answer may go on after the end of the SVID that shows its caller. What begins after the end
	// is refused at once.
	DefaultGrace = 5 * time.Minute
	// maxConnectionAge makes clients connect anew. Answers in flight then have maxConnectionGrace to finish.
	maxConnectionAge   = 30 * time.Minute
	maxConnectionGrace = 10 * time.Minute
	// minPing is how often a client may ask whether the connection lives.
	minPing = 10 * time.Second
	// healthInterval is how often the health service looks at the catalog.
	healthInterval = time.Second
)
