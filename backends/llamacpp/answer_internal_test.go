package llamacpp

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/backends"
)

// TestWholeSince has llama-server say how long an answer took after its first token: what can't be is held to what can.
func TestWholeSince(t *testing.T) {
	const text = `{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2},"timings":%s}`
	tests := []struct {
		timings  string
		min, max time.Duration
	}{
		{`{}`, 0, 0},
		{`{"predicted_ms":250}`, 250 * time.Millisecond, 250 * time.Millisecond},
		{`{"predicted_ms":0}`, 0, 0},
		{`{"predicted_ms":-250}`, 0, 0},
		{`{"predicted_ms":1e300}`, time.Second, time.Minute},
		{`{"predicted_ms":10000000}`, time.Second, time.Minute},
		{`{"other":1,"other":2}`, 0, 0}, // names given twice are not looked for
	}
	for _, tt := range tests {
		c := &call{begun: time.Now().Add(-time.Second)}
		var last backends.Chunk
		err := c.whole(t.Context(), strings.NewReader(fmt.Sprintf(text, tt.timings)), func(chunk backends.Chunk) error {
			last = chunk
			return nil
		})
		if err != nil || last.FinishReason != "stop" || last.Since < tt.min || last.Since > tt.max {
			t.Errorf("timings %s: whole() = %v with %+v, want since %s to %s", tt.timings, err, last, tt.min, tt.max)
		}
	}
}
