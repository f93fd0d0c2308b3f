// Package wire shows the exact bytes of gRPC messages to who asks for them.
//
// The one rule: what is shown is what was, or will be, on the wire, never a message that was encoded again: the same
// message has many encodings. Each is shown as gRPC frames it when nothing is compressed: a byte 0, its length in four
// bytes, the most significant first, and the message. A message that nobody watches costs nothing more than without
// this package.
package wire

import (
	"encoding/binary"
	"io"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// Codec is gRPC's codec for protobuf, that knows watched messages. It is set by grpc.ForceServerCodecV2.
func Codec() encoding.CodecV2 { return codec{encoding.GetCodecV2(proto.Name)} }

// Watch returns a message for SendMsg or RecvMsg of a connection with [Codec], whose bytes are written to a writer that
// does not fail, such as a hash.
func Watch(message any, to io.Writer) any { return &watched{message, to} }

type watched struct {
	message any
	to      io.Writer
}

type codec struct{ encoding.CodecV2 }

// Marshal implements [encoding.CodecV2].
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	w, ok := v.(*watched)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	data, err := c.CodecV2.Marshal(w.message)
	if err == nil {
		frame(w.to, data)
	}
	return data, err
}

// Unmarshal implements [encoding.CodecV2].
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	w, ok := v.(*watched)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	frame(w.to, data)
	return c.CodecV2.Unmarshal(data, w.message)
}

// Recorder returns a codec for one call of a client, whose requests and responses it writes.
func Recorder(requests, responses io.Writer) encoding.CodecV2 {
	return recorder{encoding.GetCodecV2(proto.Name), requests, responses}
}

type recorder struct {
	encoding.CodecV2
	requests, responses io.Writer
}

// Marshal implements [encoding.CodecV2].
func (r recorder) Marshal(v any) (mem.BufferSlice, error) {
	data, err := r.CodecV2.Marshal(v)
	if err == nil {
		frame(r.requests, data)
	}
	return data, err
}

// Unmarshal implements [encoding.CodecV2].
func (r recorder) Unmarshal(data mem.BufferSlice, v any) error {
	frame(r.responses, data)
	return r.CodecV2.Unmarshal(data, v)
}

// frame writes a message as it stands on the wire, uncompressed (gRPC over HTTP/2, "Length-Prefixed-Message").
func frame(to io.Writer, data mem.BufferSlice) {
	var prefix [5]byte
	binary.BigEndian.PutUint32(prefix[1:], uint32(data.Len()))
	_, _ = to.Write(prefix[:])
	for _, buffer := range data {
		_, _ = to.Write(buffer.ReadOnlyData())
	}
}
