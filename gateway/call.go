package gateway

import (
	"crypto/rand"
	"encoding/hex"

	"go.opentelemetry.io/otel/propagation"
)

const (
	protocolHTTP = "http"
	protocolGRPC = "grpc"

	// Headers of HTTP, in the form in which net/http takes them as they are, and metadata of gRPC, which makes them lower case.
	headerRelease   = "Weighbridge-Release"
	headerWeights   = "Weighbridge-Weights"
	headerLevel     = "Weighbridge-Level"
	headerRequestID = "X-Request-Id"
)

// traceContext reads the W3C traceparent, and nothing else that callers may send: baggage stays outside.
var traceContext = propagation.TraceContext{}

// requestID keeps a caller's id if it is fit for a log, or makes one.
func requestID(given string) string {
	if sane(given) {
		return given
	}
	var id [16]byte
	_, _ = rand.Read(id[:]) // it does not fail
	return hex.EncodeToString(id[:])
}

// sane reports whether a text has the form of a name of ours, and so is fit for a log.
func sane(id string) bool {
	if id == "" || len(id) > maxName {
		return false
	}
	for i := range len(id) {
		c := id[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return true
}
