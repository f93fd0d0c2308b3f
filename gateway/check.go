package gateway

import (
	"fmt"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/gateway/access"
)

// check holds a request to what is valid whatever the release.
func (r *request) check() error {
	switch {
	case r.method == access.MethodEmbed:
		return r.checkInputs()
	case r.method == access.MethodGenerate && r.prompt == "" && len(r.messages) == 0 && !r.load:
		return invalid(r.names.prompt, "is required")
	case r.method == access.MethodChat && len(r.messages) == 0 && !r.load:
		return invalid(r.names.messages, "must hold at least one message")
	case len(r.messages) > maxMessages:
		return invalid(r.names.messages, "must hold at most %d messages", maxMessages)
	case r.maxTokens != nil && (*r.maxTokens < 1 || *r.maxTokens > maxMaxTokens):
		return invalid(r.names.maxTokens, "must be from 1 to %d", maxMaxTokens)
	// Written so that NaN, which gRPC can carry, fails.
	case r.temperature != nil && !(*r.temperature >= 0 && *r.temperature <= maxTemperature):
		return invalid(r.names.temperature, "must be from 0 to %d", maxTemperature)
	case r.topP != nil && !(*r.topP > 0 && *r.topP <= 1):
		return invalid(r.names.topP, "must be above 0 and at most 1")
	case len(r.stop) > maxStops:
		return invalid(r.names.stop, "must hold at most %d texts", maxStops)
	}
	for i, s := range r.stop {
		if s == "" || len(s) > maxStop {
			return invalid(fmt.Sprintf("%s[%d]", r.names.stop, i), "must be 1 to %d bytes long", maxStop)
		}
	}
	if err := r.checkTools(); err != nil {
		return err
	}
	for i, m := range r.messages {
		field := r.place(i) + "."
		switch m.Role {
		case "system", "developer", "user", "assistant", "tool":
		case "":
			return invalid(field+"role", "is required")
		default:
			return invalid(field+"role", "must be system, developer, user, assistant or tool")
		}
		if len(m.ToolCalls) > 0 && m.Role != "assistant" {
			return invalid(field+"tool_calls", "is for role assistant")
		}
		if m.ToolCallID != "" && m.Role != "tool" {
			return invalid(field+"tool_call_id", "is for role tool")
		}
	}
	return nil
}

func (r *request) checkInputs() error {
	switch {
	case len(r.inputs) == 0:
		return invalid(r.names.inputs, "must hold at least one text")
	case len(r.inputs) > maxInputs:
		return invalid(r.names.inputs, "must hold at most %d texts", maxInputs)
	}
	return nil
}

// checkTools holds what a request offers to the form of a tool. Which tools there may be is the release's to say.
func (r *request) checkTools() error {
	if len(r.tools) > maxTools {
		return invalid(r.names.tools, "must hold at most %d tools", maxTools)
	}
	seen := map[string]bool{}
	for i, t := range r.tools {
		field := fmt.Sprintf("%s[%d].", r.names.tools, i)
		switch {
		case t.Name == "":
			return invalid(field+r.names.toolName, "is required")
		case seen[t.Name]:
			return invalid(field+r.names.toolName, "is the name of an earlier tool too")
		case t.Parameters != nil && t.Parameters.Kind() != '{':
			return invalid(field+r.names.toolSchema, "must be a JSON schema, an object")
		}
		seen[t.Name] = true
	}
	if r.toolChoice != backends.ToolsAuto && len(r.tools) == 0 {
		return invalid(r.names.toolChoice, "is for requests with %s", r.names.tools)
	}
	return nil
}
