package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/weighbridge/weighbridge/gateway/receipt"
	pb "github.com/weighbridge/weighbridge/proto/weighbridge/inference/v1"
)

const (
	headerReceipt   = "weighbridge-receipt" // of a request: 1 asks for a receipt
	headerReceiptID = "X-Receipt-Id"        // of an answer: by which it is asked for

	methodReceipt = "receipt" // in the log
)

// errUnended is how a call ended whose handler did not come to its end.
var errUnended = errors.New("the call did not come to its end")

// draft begins a receipt if the values of a caller's header ask for one, else it returns nil.
func (g *Gateway) draft(c call, asked []string) (*receipt.Draft, error) {
	switch {
	case len(asked) == 0:
		return nil, nil //nolint:nilnil // nil is the draft of a call that asked for none
	case len(asked) > 1 || asked[0] != "1" && asked[0] != "true":
		return nil, invalid(headerReceipt, "must be 1 or true, or be left out")
	case g.receipts == nil:
		return nil, receipt.ErrUnlisted
	}
	return g.receipts.Draft(c.caller.String())
}

// receiptOf returns a receipt to the caller of its call.
func (g *Gateway) receiptOf(ctx context.Context, c call, id string) ([]byte, error) {
	if g.receipts == nil {
		return nil, receipt.ErrUnknown
	}
	document, err := g.receipts.Fetch(ctx, c.caller.String(), id)
	if err != nil && ctx.Err() != nil {
		return nil, fmt.Errorf("%w: %w", errGone, err)
	}
	return document, err
}

// by says what answers, in the words of receipts.
func (i ServingInfo) by() receipt.Served {
	return receipt.Served{Channel: i.Channel, Release: i.Release, Weights: i.Weights, Level: i.Level, Sandbox: i.Sandbox, Grounds: i.Grounds}
}

// receiptOutcomes are how callers see errors about receipts. An error is one of them at most.
var receiptOutcomes = outcomes{
	{receipt.ErrUnlisted, outcome{http.StatusBadRequest, codes.FailedPrecondition, "invalid_request_error", "no_receipts", headerReceipt, receipt.ErrUnlisted.Error()}},
	{receipt.ErrFull, outcome{http.StatusTooManyRequests, codes.ResourceExhausted, "rate_limit_error", "busy", "", receipt.ErrFull.Error() + ", retry later"}},
	{receipt.ErrUnknown, outcome{http.StatusNotFound, codes.NotFound, "invalid_request_error", "no_receipt", "", receipt.ErrUnknown.Error()}},
	{receipt.ErrNone, outcome{http.StatusNotFound, codes.NotFound, "invalid_request_error", "no_receipt", "", receipt.ErrNone.Error()}},
	{receipt.ErrNotReady, outcome{http.StatusServiceUnavailable, codes.Unavailable, "server_error", "not_ready", "", receipt.ErrNotReady.Error() + ", retry later"}},
	{receipt.ErrUnrecorded, outcome{http.StatusServiceUnavailable, codes.Unavailable, "server_error", "unrecorded", "", receipt.ErrUnrecorded.Error()}},
}

// receiptWriter shows the body of an answer to its receipt, as it is written.
type receiptWriter struct {
	http.ResponseWriter
	draft *receipt.Draft
	err   error // of a write
}

// Write implements http.ResponseWriter.
func (w *receiptWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	_, _ = w.draft.Response().Write(p[:n]) // a hash
	if err != nil {
		w.err = err
	}
	return n, err
}

func (g *Gateway) serveReceipt(w http.ResponseWriter, r *http.Request, c call) {
	document, err := g.receiptOf(r.Context(), c, r.PathValue("id"))
	g.logOther(r.Context(), c, methodReceipt, err)
	if err != nil {
		writeError(w, openAIErrors{}, err)
		return
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(document) // without a newline: a receipt has one form
}

// GetReceipt implements the service.
func (s *inference) GetReceipt(ctx context.Context, in *pb.GetReceiptRequest) (*pb.GetReceiptResponse, error) {
	c := callOf(ctx)
	err := known(in)
	var document []byte
	if err == nil {
		document, err = s.g.receiptOf(ctx, c, in.GetId())
	}
	s.g.logOther(ctx, c, methodReceipt, err)
	if err != nil {
		return nil, toGRPC(err)
	}
	return &pb.GetReceiptResponse{Receipt: document}, nil
}
