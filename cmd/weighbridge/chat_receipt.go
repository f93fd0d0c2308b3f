package main

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/status"

	"github.com/weighbridge/weighbridge/gateway/client"
	"github.com/weighbridge/weighbridge/verifier/store"
)

// A remoteError is what the gateway says.
type remoteError interface {
	error
	GRPCStatus() *status.Status
}

// keep fetches the receipt of a call that was answered, and writes it with the question and the answer in it.
func (o *chatOptions) keep(ctx context.Context, s streams, e *client.Exchange) error {
	document, err := e.Receipt(ctx)
	if remote, ok := errors.AsType[remoteError](err); ok {
		err = fmt.Errorf("receipt: %s", plain(remote.GRPCStatus().Message()))
	}
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
