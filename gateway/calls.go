package gateway

import (
	"errors"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/backends"
)

// callsWhole keeps what a model calls back until it is whole, for APIs in which arguments are an object: what a model wrote
// that is none is an error, and no caller's to repair.
type callsWhole struct {
	answer
	call *backends.ToolCall // that has begun
}

func (w *callsWhole) send(c backends.Chunk) error {
	if t := c.ToolCall; t != nil {
		if t.ID != "" || w.call == nil {
			if err := w.flush(); err != nil {
				return err
			}
			w.call = &backends.ToolCall{}
		}
		w.call.ID, w.call.Name, w.call.Arguments = w.call.ID+t.ID, w.call.Name+t.Name, w.call.Arguments+t.Arguments
		if len(w.call.Arguments) > maxAnswer {
			return fmt.Errorf("arguments of a call are larger than %d bytes", maxAnswer)
		}
		c.ToolCall = nil
	}
	if c.Text == "" && c.FinishReason == "" && c.Usage == nil {
		return nil
	}
	if err := w.flush(); err != nil {
		return err
	}
	return w.answer.send(c)
}

// flush passes the call on that has begun.
func (w *callsWhole) flush() error {
	if w.call == nil {
		return nil
	}
	c := *w.call
	w.call = nil
	if c.Arguments == "" {
		c.Arguments = "{}"
	}
	if v := jsontext.Value(c.Arguments); !v.IsValid() || v.Kind() != '{' {
		return errors.New("the model made a call whose arguments are no JSON object")
	}
	return w.answer.send(backends.Chunk{ToolCall: &c})
}
