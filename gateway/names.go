package gateway

import (
	"strconv"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/gateway/access"
)

// names are how an API spells what a request may hold, for what is said of it.
type names struct {
	messages, prompt, inputs, tools, toolChoice, maxTokens, temperature, topP, stop string

	system               string // where it has a place of its own, beside the messages
	toolName, toolSchema string // of a tool
}

// content is where the API has what a model is to read.
func (r *request) content() string {
	switch r.method {
	case access.MethodGenerate:
		return r.names.prompt
	case access.MethodEmbed:
		return r.names.inputs
	default:
		return r.names.messages
	}
}

// systemName is how the API calls the system prompt that is the i-th message.
func (r *request) systemName(i int) string {
	if r.names.system != "" {
		return r.names.system
	}
	return r.place(i) + ".role"
}

// add adds a message that an API has elsewhere.
func (r *request) add(place string, m backends.Message) {
	r.messages, r.places = append(r.messages, m), append(r.places, place)
}

// place is where the API has the i-th message.
func (r *request) place(i int) string {
	if r.places != nil {
		return r.places[i]
	}
	return r.names.messages + "[" + strconv.Itoa(i) + "]"
}
