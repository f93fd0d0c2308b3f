package oms

// Bounds on a manifest, far above real ones: 140 GB in 64 MiB shards are about 2,100 resources.
const (
	MaxResources   = 1 << 18 // entries
	MaxIgnorePaths = 1 << 12 // entries
	maxName        = 4096    // bytes of a path, as PATH_MAX
	maxComponent   = 255     // bytes between slashes, as NAME_MAX
	MaxDepth       = 128     // parts of a path: each costs a look-up, and no model is walked deeper
	MaxFileSize    = 1 << 50 // bytes of a file or shard: 1 PiB, and exact in a JSON number
)
