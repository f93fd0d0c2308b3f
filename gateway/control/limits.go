package control

import "github.com/weighbridge/weighbridge/verifier/statement"

const (
	// maxRequest bounds a request, in bytes.
	maxRequest = 32 << 20
	// maxSubmitted bounds the bundles of one request.
	maxSubmitted = 1000
	// MaxAnswer bounds one message of an answer, in bytes; both sides set it, since gRPC's own bound for what arrives is
	// 4 MiB, and a release that lists the shards of large weights can have more. The largest are a single statement, and
	// a policy with the floor, which may have 16 MiB.
	MaxAnswer = statement.MaxBundle + 17<<20
)
