package statement

// Bounds on what is parsed before any signature was checked. They are far above what real statements need: the
// manifest of a 140 GB model in 64 MiB shards has about 2,100 entries and takes less than 1 MiB.
const (
	MaxBundle       = 64 << 20 // bytes of one bundle
	MaxLines        = 256      // bundles in one JSON Lines file
	MaxCertificates = 16       // certificates in one chain
	maxTimestamps   = 16       // RFC 3161 responses in one bundle
	MaxKeyFile      = 64 << 10 // bytes of one PEM key file
)
