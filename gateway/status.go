package gateway

import (
	"errors"
	"fmt"
	"net/http"
	"slices"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/gateway/access"
)

var (
	errGone     = errors.New("the caller went away") // nobody is there to be told
	errTooLarge = errors.New("request is too large")
	errNoRoute  = errors.New("no such path")
	errMethod   = errors.New("method is not allowed")

	errOtherRelease = errors.New("another version serves")
)

// A fieldError is a mistake of the caller. Its text is shown to the caller, so it repeats nothing but field names.
type fieldError struct{ field, why string }

func (e *fieldError) Error() string {
	if e.field == "" {
		return e.why
	}
	return e.field + ": " + e.why
}

// invalid says which field is wrong and what it should be.
func invalid(field, format string, args ...any) error {
	return &fieldError{field, fmt.Sprintf(format, args...)}
}

// A runtimeError is anything that went wrong after a runtime took a request. What is said in field may be the reason.
type runtimeError struct {
	err   error
	field string
}

func (e *runtimeError) Error() string { return "runtime: " + e.err.Error() }
func (e *runtimeError) Unwrap() error { return e.err }

// An outcome is an error as a caller sees it, over either protocol.
type outcome struct {
	http    int
	grpc    codes.Code
	kind    string // OpenAI's error.type
	code    string // OpenAI's error.code, and error.type of our metrics
	param   string // the field, if it is one's fault
	message string
}

// outcomes are how callers see errors of one part. An error is one of them at most.
type outcomes []struct {
	err error
	as  outcome
}

// statusClientGone is what proxies log for a request whose caller left; nobody receives it.
const statusClientGone = 499

// outcomeOf is the only place where an error becomes something a caller can see. Callers learn what they may do next;
// why goes to the log, for operators.
func outcomeOf(err error) outcome {
	var field *fieldError
	var failed *runtimeError
	if err == nil {
		return outcome{http: http.StatusOK, grpc: codes.OK}
	}
	for _, known := range slices.Concat(receiptOutcomes, identityOutcomes) {
		if errors.Is(err, known.err) {
			return known.as
		}
	}
	if o, ok := overloadOutcome(err); ok {
		return o
	}
	switch {
	case errors.Is(err, errRevoked):
		return outcome{http.StatusForbidden, codes.PermissionDenied, "permission_error", "permission_revoked", "", "permission was taken back while the request ran"}
	case errors.Is(err, errGone):
		return outcome{statusClientGone, codes.Canceled, "server_error", "canceled", "", "the request was canceled"}
	case errors.Is(err, access.ErrDenied), errors.Is(err, ErrUnknownChannel):
		// The same for both, so that callers can't list our channels.
		return outcome{http.StatusForbidden, codes.PermissionDenied, "permission_error", "permission_denied", "", "permission denied"}
	case errors.As(err, &field):
		return outcome{http.StatusBadRequest, codes.InvalidArgument, "invalid_request_error", "invalid_argument", field.field, field.Error()}
	case errors.Is(err, errTooLarge):
		return outcome{http.StatusRequestEntityTooLarge, codes.ResourceExhausted, "invalid_request_error", "too_large", "", fmt.Sprintf("request is larger than %d bytes", maxBody)}
	case errors.Is(err, errOtherRelease):
		return outcome{http.StatusNotFound, codes.NotFound, "invalid_request_error", "not_found", "version", errOtherRelease.Error()}
	case errors.Is(err, errNoRoute):
		return outcome{http.StatusNotFound, codes.Unimplemented, "invalid_request_error", "not_found", "", "no such path"}
	case errors.Is(err, errMethod):
		return outcome{http.StatusMethodNotAllowed, codes.Unimplemented, "invalid_request_error", "method_not_allowed", "", "method is not allowed here"}
	case errors.Is(err, ErrNotServing):
		return outcome{http.StatusServiceUnavailable, codes.Unavailable, "server_error", "not_serving", "", "channel is not serving, retry later"}
	case errors.As(err, &failed) && errors.Is(err, backends.ErrInvalidRequest):
		// Its text is written for callers: that is its contract.
		return outcome{http.StatusBadRequest, codes.InvalidArgument, "invalid_request_error", "invalid_argument", failed.field, failed.field + ": " + failed.err.Error()}
	case errors.As(err, &failed) && errors.Is(err, backends.ErrUnsupported):
		return outcome{http.StatusBadRequest, codes.InvalidArgument, "invalid_request_error", "unsupported", "model", "model: " + failed.err.Error()}
	case errors.As(err, &failed):
		return outcome{http.StatusBadGateway, codes.Unavailable, "server_error", "runtime_failed", "", "the model server failed, retry later"}
	default:
		return outcome{http.StatusInternalServerError, codes.Internal, "server_error", "internal", "", "internal error"}
	}
}

// toGRPC is an error as a gRPC caller sees it.
func toGRPC(err error) error {
	if err == nil {
		return nil
	}
	o := outcomeOf(err)
	s := status.New(o.grpc, o.message)
	if d := retryAfter(err); d > 0 {
		if with, err := s.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(d)}); err == nil {
			s = with
		}
	}
	return s.Err()
}
