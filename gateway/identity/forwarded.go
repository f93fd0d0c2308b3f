package identity

import (
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// headerForwarded is Envoy's. No other header that names a caller is ever looked at.
const headerForwarded = "x-forwarded-client-cert"

// forwarded returns who a proxy speaks for: the peer of the proxy itself, which is the last element of the header.
func (s *Source) forwarded(proxy Caller, values []string) (Caller, error) {
	if len(values) != 1 {
		return proxy, fmt.Errorf("proxy %s: %w: %d headers %s, want one", proxy.ID, ErrNoPeer, len(values), headerForwarded)
	}
	c := Caller{By: ByProxy, Proxy: proxy.ID, Until: proxy.Until, Renew: proxy.Renew}
	e, err := lastElement(values[0])
	if err == nil {
		c.ID, err = e.peerOf(proxy.ID)
	}
	if err == nil {
		c.Until, err = s.confirm(e, c)
	}
	if err != nil {
		return proxy, fmt.Errorf("proxy %s: %w: %s: %.*s", proxy.ID, ErrNoPeer, headerForwarded, maxReason, err.Error())
	}
	return c, nil
}

// An element is what one proxy wrote, its keys in lower case.
type element map[string][]string

// peerOf returns the SPIFFE ID of the proxy's peer. By is the proxy's own identity: another proxy's words don't count.
func (e element) peerOf(proxy spiffeid.ID) (spiffeid.ID, error) {
	if by := e["by"]; len(by) != 1 || by[0] != proxy.String() {
		return spiffeid.ID{}, errors.New("the last element is not by this proxy")
	}
	if len(e["uri"]) != 1 {
		return spiffeid.ID{}, fmt.Errorf("the last element has %d URIs, want one", len(e["uri"]))
	}
	id, err := spiffeid.FromString(e["uri"][0])
	if err == nil && id.Path() == "" {
		err = errors.New("a trust domain is no workload")
	}
	return id, err
}

// confirm verifies the caller's certificate if the proxy sends it along, and returns when the first of the two ends.
func (s *Source) confirm(e element, c Caller) (time.Time, error) {
	encoded := slices.Concat(e["chain"], e["cert"])
	if len(encoded) == 0 {
		return c.Until, nil
	}
	text, err := url.PathUnescape(encoded[0])
	if err != nil {
		return c.Until, err
	}
	var chain [][]byte
	for block, rest := pem.Decode([]byte(text)); block != nil; block, rest = pem.Decode(rest) {
		chain = append(chain, block.Bytes)
	}
	id, verified, err := x509svid.ParseAndVerify(chain, s)
	switch {
	case err != nil:
		return c.Until, err
	case id != c.ID:
		return c.Until, fmt.Errorf("the certificate is that of %s", id)
	}
	if end := verified[0][0].NotAfter; end.Before(c.Until) {
		return end, nil
	}
	return c.Until, nil
}

// lastElement reads the header as Envoy writes it: elements apart by commas, pairs by semicolons, and values in double quotes
// if they hold one of those, with \" for a quote. What Envoy would not write is an error, so that nobody can move the places
// where elements end.
func lastElement(header string) (element, error) {
	last := element{}
	for rest := header; ; {
		key, after, ok := strings.Cut(rest, "=")
		if key = strings.ToLower(strings.TrimSpace(key)); !ok || key == "" || strings.ContainsAny(key, `",;`) {
			return nil, errors.New("is not a list of pairs")
		}
		value, after, err := cutValue(after)
		if err != nil {
			return nil, err
		}
		last[key] = append(last[key], value)
		switch {
		case after == "":
			return last, nil
		case after[0] == ',':
			last = element{}
		}
		rest = after[1:]
	}
}

// cutValue returns a value, and what follows it: nothing, or text that begins with a comma or a semicolon.
func cutValue(s string) (value, after string, err error) {
	if !strings.HasPrefix(s, `"`) {
		end := strings.IndexAny(s, ",;")
		if end < 0 {
			end = len(s)
		}
		if strings.ContainsAny(s[:end], `"=`) {
			return "", "", errors.New("a value has no quotes and needs them")
		}
		return s[:end], s[end:], nil
	}
	var text strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case strings.HasPrefix(s[i:], `\\`):
			return "", "", errors.New("a value has a backslash that can be read in two ways")
		case strings.HasPrefix(s[i:], `\"`):
			text.WriteByte('"')
			i++
		case s[i] != '"':
			text.WriteByte(s[i])
		case i+1 < len(s) && s[i+1] != ',' && s[i+1] != ';':
			return "", "", errors.New("a value goes on after its quotes")
		default:
			return text.String(), s[i+1:], nil
		}
	}
	return "", "", errors.New("a quote is not closed")
}
