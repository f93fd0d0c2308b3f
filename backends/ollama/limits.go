package ollama

import "time"

const (
	// restartTimeout is how long a restart may load. The weights are in memory already; Ollama maps them, or copies them
	// where it runs a model by its own engine.
	restartTimeout = 2 * time.Minute

	// healthInterval is how often a runtime that starts is looked at, and healthTimeout bounds one look.
	healthInterval = 20 * time.Millisecond
	healthTimeout  = 5 * time.Second

	// forgetTimeout is how long the runtime may take to forget a request: one token, but Ollama may have to start its
	// runner again, which then loads.
	forgetTimeout = restartTimeout

	embedGroup = 16                     // texts embedded by one request to the runtime
	maxVectors = embedGroup * (1 << 20) // bytes of its answer: vectors of 40,000 numbers

	// deathTimeout is how long a runtime that can't be reached may take to be found dead.
	deathTimeout = 5 * time.Second

	// defaultContext is the context of a release that sets no num_ctx: Ollama's own for the smallest machines, since its
	// others depend on the machine. It is less if the model was trained with less.
	defaultContext = 4096

	// Of an Ollama that others started.
	dialTimeout   = 5 * time.Second
	checkInterval = 10 * time.Second       // how often it is asked whether it still has what it was given
	checkTimeout  = 10 * time.Second       // of one such question, on a machine that is busy answering
	firstLook     = 100 * time.Millisecond // after which one that can't be reached is looked for again, each time
	lastLook      = 2 * time.Second        // after twice as long, up to this
	leaveTimeout  = 5 * time.Second        // for removing a model there: the gateway does not wait longer to stop

	// maxOverhead is how many bytes a model's files may have at Ollama beyond those that the release brings: there is one
	// for its parameters and one for its configuration.
	maxOverhead = 64 << 10
)
