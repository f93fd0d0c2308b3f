package llamacpp

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

// responses are answers, and what is read of them: one of each kind that llama-server sends, and then one thing broken in each.
var responses = []struct {
	name, text string
	status     int
	body       string
	again      bool
	err        error // of the header
	bodyErr    error
}{
	{"whole", "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5, max=100\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", 200, "{}", true, nil, nil},
	{"more behind it", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}{}", 200, "{}", true, nil, nil},
	{"other case", "HTTP/1.1 503 Service Unavailable\r\ncontent-LENGTH:2 \r\n\r\n{}", 503, "{}", true, nil, nil},
	{"empty", "HTTP/1.1 500\r\nContent-Length: 0\r\n\r\n", 500, "", true, nil, nil},
	{"bare line ends", "HTTP/1.1 200 OK\nContent-Length: 2\n\n{}", 200, "{}", true, nil, nil},
	{"to be closed", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}", 200, "{}", false, nil, nil},
	{"to be closed after all", "HTTP/1.1 200 OK\r\nConnection: close\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}", 200, "{}", false, nil, nil},
	{"to be kept", "HTTP/1.1 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\n{}", 200, "{}", true, nil, nil},
	{"Chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 200, "{}", false, nil, nil},
	{"chunked", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 200, "{}", false, nil, nil},

	{"cut off", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}", 200, "{}", true, nil, io.ErrUnexpectedEOF},
	{"chunk cut off", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{}", 200, "{}", false, nil, io.ErrUnexpectedEOF},
	{"header cut off", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", 0, "", false, io.ErrUnexpectedEOF, nil},
	{"nothing", "", 0, "", false, io.ErrUnexpectedEOF, nil},
	{"line too long", "HTTP/1.1 200 OK\r\nServer: " + strings.Repeat("a", maxLine) + "\r\n\r\n", 0, "", false, bufio.ErrBufferFull, nil},
	{"other version", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", 0, "", false, errNotHTTP, nil},
	{"no version", "200 OK\r\nContent-Length: 2\r\n\r\n{}", 0, "", false, errNotHTTP, nil},
	{"no byte of a name", "HTTP/1.1 200 OK\r\nContent-Length\x00: 2\r\nContent-Length: 2\r\n\r\n{}", 0, "", false, errNotHTTP, nil},
	{"interim", "HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n", 0, "", false, errNotHTTP, nil},
	{"no status", "HTTP/1.1 OK\r\nContent-Length: 2\r\n\r\n{}", 0, "", false, errNotHTTP, nil},
	{"long status", "HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\n{}", 0, "", false, errNotHTTP, nil},
	{"no name", "HTTP/1.1 200 OK\r\n: 2\r\n\r\n{}", 0, "", false, errNotHTTP, nil},
	{"no field", "HTTP/1.1 200 OK\r\nContent-Length\r\n\r\n{}", 0, "", false, errNotHTTP, nil},
	{"blank in a name", "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\n{}", 0, "", false, errNotHTTP, nil},
	{"folded", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n a: b\r\n\r\n{}", 0, "", false, errNotHTTP, nil},
	{"no length", "HTTP/1.1 200 OK\r\n\r\n{}", 0, "", false, errNoLength, nil},
	{"negative", "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n{}", 0, "", false, errNoLength, nil},
	{"signed", "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n{}", 0, "", false, errNoLength, nil},
	{"too large", "HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775807\r\n\r\n{}", 0, "", false, errNoLength, nil},
	{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}", 0, "", false, errNoLength, nil},
	{"length and chunks", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}", 0, "", false, errNoLength, nil},
	{"other coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n{}", 0, "", false, errNoLength, nil},
	{"chunked twice", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0, "", false, errNoLength, nil},
}

func TestReadResponse(t *testing.T) {
	for _, tt := range responses {
		t.Run(tt.name, func(t *testing.T) {
			got, err := readResponse(bufio.NewReaderSize(strings.NewReader(tt.text), maxLine))
			if !errors.Is(err, tt.err) || err != nil {
				if !errors.Is(err, tt.err) {
					t.Errorf("readResponse() = %v, want %v", err, tt.err)
				}
				return
			}
			body, err := io.ReadAll(got.body)
			if got.status != tt.status || got.again != tt.again || string(body) != tt.body || !errors.Is(err, tt.bodyErr) {
				t.Errorf("readResponse() = %d, %t, body %q, %v; want %d, %t, %q, %v", got.status, got.again, body, err, tt.status, tt.again, tt.body, tt.bodyErr)
			}
		})
	}
}

// FuzzReadResponse holds every answer that is read to what net/http reads of it. What comes behind the last chunk is not read:
// the connection is closed.
func FuzzReadResponse(f *testing.F) {
	for _, tt := range responses {
		f.Add(tt.text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := readResponse(bufio.NewReader(strings.NewReader(text)))
		if err != nil {
			return
		}
		body, err := io.ReadAll(got.body)
		want, wantErr := http.ReadResponse(bufio.NewReader(strings.NewReader(text)), nil)
		if wantErr != nil {
			return // net/http looks at fields that we don't
		}
		defer want.Body.Close()
		wanted, wantErr := io.ReadAll(want.Body)
		switch {
		case got.status == http.StatusNoContent || got.status == http.StatusNotModified:
			return // which llama-server does not send
		case got.status != want.StatusCode, string(body) != string(wanted), (err == nil) != (wantErr == nil) && got.again, got.again && want.Close:
			t.Errorf("readResponse(%q) = %d, %q, %v, again %t; net/http reads %d, %q, %v, close %t",
				text, got.status, body, err, got.again, want.StatusCode, wanted, wantErr, want.Close)
		}
	})
}
