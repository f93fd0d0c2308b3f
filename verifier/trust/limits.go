package trust

// Bounds on what is read, within those of package statement on a whole bundle. Nothing here is close to what a real
// site needs; they keep a hostile document from costing more than a refusal.
const (
	maxName           = 64        // bytes of the name of an identity, role or channel
	maxText           = 1 << 10   // bytes of a free text such as a ticket or a version
	maxSystemPrompt   = 256 << 10 // bytes
	maxTemplate       = 1 << 20   // bytes
	maxArgs           = 64        // arguments of a runtime
	maxIdentities     = 4096
	maxKeys           = 64 // keys of one identity
	maxRoots          = 64 // trusted certificates of one identity, or for the time
	maxTrustedRoots   = 64
	MaxTrustedRoot    = 1 << 20 // bytes of the description of a Sigstore instance; the public one has 7 KiB
	maxRoles          = 256
	maxChannels       = 1024
	maxTests          = 4096    // tests that an evaluation or a requirement names
	maxConfigurations = 64      // of an evaluation
	maxServed         = 4096    // releases that a floor remembers for one channel
	maxCounted        = 1 << 15 // acts that a floor remembers for one channel
	maxMaxTokens      = 1 << 30
	maxAdapters       = 16 // of a release
	maxTools          = 128
	receiptID         = 16 // bytes of the id of a receipt

	// A scale is one on all but odd days. At 0 an adapter would be named and not applied, and below that taken away.
	minScale, maxScale = 0.001, 100

	// maxNumber is the largest integer that JSON carries exactly everywhere (RFC 8785 section 3.2.2.3).
	maxNumber = 1<<53 - 1

	// MaxEpochJump is how far above the accepted epoch a publication may be. Without it one publication of the
	// highest epoch there is would make every later one a replay.
	MaxEpochJump = 1000
)
