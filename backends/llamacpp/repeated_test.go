package llamacpp

import (
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
)

const eventBegin, eventEnd = `{"choices":[{"index":0,"delta":{"content":`, `},"finish_reason":null}],"id":"1"}`

func TestRepeated(t *testing.T) {
	var form repeated
	if _, ok := form.text([]byte(eventBegin + `"on"` + eventEnd)); ok {
		t.Error("text() = true before there was an event")
	}
	form.learn([]byte(eventBegin+`"on"`+eventEnd), "on")
	for _, tt := range []struct {
		name, event, want string
		ok                bool
	}{
		{"the same", eventBegin + `"on"` + eventEnd, "on", true},
		{"another text", eventBegin + `" and\n\"\u00e9\" é"` + eventEnd, " and\n\"é\" é", true},
		{"no text", eventBegin + `""` + eventEnd, "", true},
		{"its end", eventBegin + `"x"` + strings.Replace(eventEnd, "null", `"stop"`, 1), "", false},
		{"more beside the text", eventBegin + `"x","tool_calls":[]` + eventEnd, "", false},
		{"two texts", eventBegin + `"x"},"y":{"z":"x"` + eventEnd, "", false},
		{"an open text", eventBegin + `"x` + eventEnd, "", false},
		{"no string", eventBegin + `null` + eventEnd, "", false},
		{"not UTF-8", eventBegin + "\"\xff\"" + eventEnd, "", false},
		{"cut off", eventBegin + `"x"`, "", false},
		{"nothing between", eventBegin + eventEnd, "", false},
		{"empty", "", "", false},
	} {
		if got, ok := form.text([]byte(tt.event)); got != tt.want || ok != tt.ok {
			t.Errorf("%s: text() = %q, %v, want %q, %v", tt.name, got, ok, tt.want, tt.ok)
		}
	}
	// A text that is elsewhere too can't be told from it.
	form.learn([]byte(`{"choices":[{"delta":{"content":"a"}}],"x":{"content":"a"}}`), "a")
	if _, ok := form.text([]byte(`{"choices":[{"delta":{"content":"a"}}],"x":{"content":"b"}}`)); ok {
		t.Error("text() = true of an event whose text is there twice")
	}
}

// FuzzRepeated checks that what is recognized is what decoding finds.
func FuzzRepeated(f *testing.F) {
	f.Add(eventBegin+`"on"`+eventEnd, eventBegin+`"and"`+eventEnd)
	f.Add(`{"choices":[{"text":"on","index":0}]}`, `{"choices":[{"text":" ","index":0}]}`)
	f.Add(eventBegin+`"on"`+eventEnd, eventBegin+`"x"},"finish_reason":"stop"},{"delta":{"content":"y"`+eventEnd)
	f.Fuzz(func(t *testing.T, first, next string) {
		var e event
		if json.Unmarshal([]byte(first), &e) != nil || e.Error != nil || !e.plain() {
			t.Skip("no piece of a text")
		}
		choice := e.Choices[0]
		var form repeated
		form.learn([]byte(first), choice.Delta.Content+choice.Text)
		text, ok := form.text([]byte(next))
		if !ok {
			return
		}
		var got event
		if err := json.Unmarshal([]byte(next), &got); err != nil || got.Error != nil || !got.plain() || got.Choices[0].Delta.Content+got.Choices[0].Text != text {
			t.Errorf("text(%q) = %q after %q; decoded it is %+v, %v", next, text, first, got, err)
		}
	})
}
