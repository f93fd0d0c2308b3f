package client

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
)

// receiptAgain is how soon a receipt that is not recorded yet is asked for again.
const receiptAgain = time.Second

// An Exchange is one call of which a receipt is wanted: it keeps the exact bytes of the request and of the answer.
//
//	e := c.Exchange()
//	stream, err := c.Chat(e.Ask(ctx), request, e.Options()...)
//	… // read to the end
//	document, err := e.Receipt(ctx)
type Exchange struct {
	client            pb.InferenceClient
	request, response content
	header            metadata.MD
}

// Exchange returns one for the next call.
func (c *Client) Exchange() *Exchange { return &Exchange{client: c.InferenceClient} }

// Ask has the gateway give a receipt of the call with this context.
func (e *Exchange) Ask(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "weighbridge-receipt", "1")
}

// Options are of the call: by them its bytes are kept.
func (e *Exchange) Options() []grpc.CallOption {
	return []grpc.CallOption{grpc.ForceCodecV2(wire.Recorder(&e.request, &e.response)), grpc.Header(&e.header)}
}

// Receipt returns the receipt of a call that was answered and read to its end, with question and answer in it, as
// `weighbridge receipt verify` takes it. It waits until the receipt is recorded, or ctx ends.
func (e *Exchange) Receipt(ctx context.Context) ([]byte, error) {
	ids := e.header.Get("x-receipt-id")
	switch {
	case len(ids) != 1:
		return nil, errors.New("the gateway names none; it may be of an older version")
	case e.request.full || e.response.full:
		return nil, fmt.Errorf("question or answer is longer than %d bytes", receipt.MaxContent)
	}
	got, err := e.get(ctx, ids[0])
	if err != nil {
		return nil, fmt.Errorf("receipt %s: %w", ids[0], err)
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

// get asks for a receipt until it is recorded, or ctx ends.
func (e *Exchange) get(ctx context.Context, id string) (got *pb.GetReceiptResponse, err error) {
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
