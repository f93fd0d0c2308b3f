package backends_test

import (
	"reflect"
	"slices"
	"testing"

	"github.com/weighbridge/weighbridge/backends"
)

// TestWhatCallersSay lists all that a caller's words can reach a runtime by: another method or field here is another thing
// that callers may do to it. None loads, unloads or names a model, an adapter or a template.
func TestWhatCallersSay(t *testing.T) {
	names := func(of reflect.Type) (all []string) {
		if of.Kind() == reflect.Interface {
			for i := range of.NumMethod() {
				all = append(all, of.Method(i).Name)
			}
			return all
		}
		for _, f := range reflect.VisibleFields(of) {
			all = append(all, f.Name)
		}
		return all
	}
	for _, tt := range []struct {
		of   reflect.Type
		want []string
	}{
		{reflect.TypeFor[backends.Backend](), []string{"Chat", "Count", "Embed", "Start", "Status", "Stop"}}, // of which callers have the first three
		{reflect.TypeFor[backends.ChatRequest](), []string{"Messages", "Prompt", "MaxTokens", "Temperature", "TopP", "Stop", "Seed", "Tools", "ToolChoice", "OneTool", "Whole"}},
		{reflect.TypeFor[backends.Message](), []string{"Role", "Content", "ToolCalls", "ToolCallID"}},
		{reflect.TypeFor[backends.Tool](), []string{"Name", "Description", "Parameters"}},
		{reflect.TypeFor[backends.EmbedRequest](), []string{"Inputs"}},
	} {
		if got := names(tt.of); !slices.Equal(got, tt.want) {
			t.Errorf("%v has %q, want %q", tt.of, got, tt.want)
		}
	}
}
