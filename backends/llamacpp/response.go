package llamacpp

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http/httputil"
	"strconv"
)

// A response is what llama-server answers, of which the header was read. It is read by hand, as requests are written: of a
// header two fields count, and http.Response takes as long over it as all else that is done to an answer.
type response struct {
	status int
	body   io.Reader // to its end
	again  bool      // whether another request may follow on its connection
}

// What a header may not be. llama-server writes neither.
var (
	errNotHTTP  = errors.New("the answer is not of HTTP/1.1")
	errNoLength = errors.New("the answer says not where it ends, or in two ways")
)

// readResponse reads a header (RFC 9112, sections 4 to 6).
func readResponse(r *bufio.Reader) (*response, error) {
	line, err := readLine(r)
	if err != nil {
		return nil, err
	}
	status, ok := statusOf(line)
	if !ok {
		return nil, errNotHTTP
	}
	answer := &response{status: status, again: true}
	length, chunked := int64(-1), false
	for {
		line, err := readLine(r)
		switch {
		case err != nil:
			return nil, err
		case len(line) == 0 && chunked == (length >= 0):
			return nil, errNoLength
		case len(line) == 0 && chunked:
			answer.body, answer.again = httputil.NewChunkedReader(r), false
			return answer, nil
		case len(line) == 0:
			answer.body = &sized{r, length}
			return answer, nil
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		if value = bytes.Trim(value, " \t"); !ok || len(name) == 0 || bytes.ContainsFunc(name, unprinted) {
			return nil, errNotHTTP
		}
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			n, err := strconv.ParseUint(string(value), 10, 62)
			if err != nil || length >= 0 {
				return nil, errNoLength
			}
			length = int64(n)
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			if chunked || !bytes.EqualFold(value, []byte("chunked")) {
				return nil, errNoLength
			}
			chunked = true
		case bytes.EqualFold(name, []byte("Connection")):
			answer.again = answer.again && bytes.EqualFold(value, []byte("keep-alive"))
		}
	}
}

// unprinted reports what no name of a field has: blanks, control characters, and what is not ASCII.
func unprinted(r rune) bool { return r <= ' ' || r >= 0x7f }

// statusOf reads the first line: HTTP/1.1 200 OK.
func statusOf(line []byte) (status int, ok bool) {
	rest, ok := bytes.CutPrefix(line, []byte("HTTP/1.1 "))
	code, _, _ := bytes.Cut(rest, []byte(" "))
	status, err := strconv.Atoi(string(code))
	return status, ok && err == nil && len(code) == 3 && status >= 200 // before it another would come
}

// readLine reads a line of a header, which is good until the next.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	switch {
	case errors.Is(err, io.EOF):
		return nil, io.ErrUnexpectedEOF
	case err != nil:
		return nil, fmt.Errorf("read header: %w", err)
	}
	return bytes.TrimSuffix(line[:len(line)-1], []byte("\r")), nil
}

// sized is a body whose length is known.
type sized struct {
	from io.Reader
	left int64
}

// Read implements io.Reader.
func (s *sized) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	n, err := s.from.Read(p[:min(int64(len(p)), s.left)])
	s.left -= int64(n)
	if errors.Is(err, io.EOF) && s.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}
