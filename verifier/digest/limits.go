package digest

// How files stream.
const (
	// blockSize is one read. It is large enough for any device to be busy with a few of them, and one huge page.
	blockSize = 2 << 20

	// blocks are in memory at a time: 48 MiB, however many and large the files are.
	blocks = 24

	// readers wait for the device at the same time, or for the target, which takes one block after another. With four of
	// them the device was idle while they waited for the target, and more than eight gained nothing.
	readers = 8

	// maxStreams is how many places of files are read in turn. At each end of a stream a block may have to wait in memory
	// until the stream before has come so far, so there must be fewer streams than blocks.
	maxStreams = 8

	// minSplit is how many blocks a stream must have left to be worth splitting.
	minSplit = 4

	// behind is how many blocks of a stream may wait to be hashed before hashing is taken for the bottleneck.
	behind = 2

	// readAlign is what the length of a read is rounded up to, at the end of a file: direct reads ask for that.
	readAlign = 4096
)
