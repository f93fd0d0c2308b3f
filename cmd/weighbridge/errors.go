package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	exitDone    = 0
	exitRefused = 1 // verification, policy or access said no
	exitFailed  = 2 // usage, missing file, unreachable server
)

// A refusal is an answer, not a failure to give one: the command ran and the answer is no.
type refusal struct{ err error }

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

// refused makes an error that ends the program with status 1, written "weighbridge: WHAT: WHY".
func refused(what string, why error) error {
	return &refusal{fmt.Errorf("%s: %w", what, why)}
}

// hinted carries the next step beside an error.
type hinted struct {
	err  error
	hint string
}

func (h *hinted) Error() string { return h.err.Error() }
func (h *hinted) Unwrap() error { return h.err }

// withHint adds a "hint:" line to err, for when the next step is known.
func withHint(err error, hint string) error {
	if err == nil {
		return nil
	}
	return &hinted{err, hint}
}

// report writes err as users see it and returns the exit status it stands for.
func report(w io.Writer, err error) int {
	if err == nil {
		return exitDone
	}
	status := exitFailed
	if r := new(refusal); errors.As(err, &r) {
		status = exitRefused
	}
	all := []error{err}
	if joined, ok := err.(interface{ Unwrap() []error }); ok { // several answers, each with its own hints
		all = joined.Unwrap()
	}
	for _, err := range all {
		fmt.Fprintf(w, "weighbridge: %v\n", err)
		for h := new(hinted); errors.As(err, &h); err = h.err {
			fmt.Fprintf(w, "hint: %s\n", h.hint)
		}
	}
	return status
}

// refusedJSON prints the one document of a --json command that was refused before it had its own to print: shown, with
// the error in it. It returns err.
func refusedJSON(w io.Writer, asJSON bool, shown map[string]any, err error) error {
	if no := new(refusal); !asJSON || !errors.As(err, &no) {
		return err
	}
	shown["error"] = err.Error()
	return errors.Join(printJSON(w, shown), err)
}

// printJSON writes v as the one JSON document of a --json command.
func printJSON(w io.Writer, v any) error {
	if err := json.MarshalWrite(w, v, jsontext.Multiline(true), json.Deterministic(true)); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	_, err := io.WriteString(w, "\n")
	return err
}
