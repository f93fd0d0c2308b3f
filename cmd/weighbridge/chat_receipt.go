package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/weighbridge/weighbridge/gateway/receipt"
	"github.com/weighbridge/weighbridge/gateway/receipt/wire"
	pb "github.com/weighbridge/weighbridge/proto/weighbridge/inference/v1"
	"github.com/weighbridge/weighbridge/verifier/store"
)

// receiptAgain is how soon a receipt that is not recorded yet is asked for again.
const receiptAgain = time.Second

// An exchange keeps the exact bytes of one call, for its receipt. A nil exchange keeps nothing.
type exchange struct {
	client            pb.InferenceClient
	request, response content
}

// content keeps what is written to it, up to what a receipt can hold.
type content struct {
	bytes.Buffer
	full bool
}

// Write implements io.Writer, and does not fail.
func (c *content) Write(p []byte) (int, error) {
	if c.full = c.full || c.Len()+len(p) > receipt.MaxContent; c.full {
		return len(p), nil
	}
	return c.Buffer.Write(p)
}

// ask has the gateway give a receipt.
func (e *exchange) ask(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "weighbridge-receipt", "1")
}

func (e *exchange) options() []grpc.CallOption {
	if e == nil {
		return nil
	}
	return []grpc.CallOption{grpc.ForceCodecV2(wire.Recorder(&e.request, &e.response))}
}

// keep fetches the receipt of a call that was answered, and writes it with the question and the answer in it.
func (o *chatOptions) keep(ctx context.Context, s streams, e *exchange, call grpc.ClientStream) error {
	document, err := e.fetch(ctx, call)
	if err == nil {
		err = store.WriteFile(o.receipt, document, 0o600) // it holds the conversation
	}
	if err != nil {
		return fmt.Errorf("%s: there is an answer, and no receipt of it: %w", o.title, err)
	}
	if !o.quiet && !o.json {
		fmt.Fprintf(s.err, "receipt  %s\n", o.receipt)
	}
	return nil
}

// get asks for a receipt until it is recorded, or ctx ends.
func (e *exchange) get(ctx context.Context, id string) (got *pb.GetReceiptResponse, err error) {
	for {
		got, err = e.client.GetReceipt(ctx, &pb.GetReceiptRequest{Id: id}, grpc.MaxCallRecvMsgSize(receipt.MaxFetched))
		if status.Code(err) != codes.Unavailable || !strings.Contains(status.Convert(err).Message(), receipt.ErrNotReady.Error()) {
			return got, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(receiptAgain):
		}
	}
}

func (e *exchange) fetch(ctx context.Context, call grpc.ClientStream) ([]byte, error) {
	header, err := call.Header()
	if err != nil {
		return nil, err
	}
	ids := header.Get("x-receipt-id")
	switch {
	case len(ids) != 1:
		return nil, errors.New("the gateway names none; it may be of an older version")
	case e.request.full || e.response.full:
		return nil, fmt.Errorf("question or answer is longer than %d bytes", receipt.MaxContent)
	}
	got, err := e.get(ctx, ids[0])
	if err != nil {
		return nil, fmt.Errorf("receipt %s: %s", ids[0], plain(status.Convert(err).Message()))
	}
	d, err := receipt.Parse(got.GetReceipt())
	if err != nil {
		return nil, err
	}
	if d.ID != ids[0] {
		return nil, fmt.Errorf("the gateway gave receipt %s, and had named %s", d.ID, ids[0])
	}
	d.Request, d.Response = e.request.Bytes(), e.response.Bytes()
	return d.Encode()
}
