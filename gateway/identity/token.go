package identity

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
)

const headerAuthorization = "authorization"

// bearer holds a token to the JWT-SVID specification, and to more: its one audience is us, and it lasts an hour at most.
func (s *Source) bearer(values []string, now time.Time) (Caller, error) {
	if s.jwt == nil {
		return Caller{}, fmt.Errorf("%w: tokens are not taken here", ErrNoToken)
	}
	if len(values) != 1 {
		return Caller{}, fmt.Errorf("%w: %d authorization headers, want one", ErrNoToken, len(values))
	}
	token, ok := bearerToken(values[0])
	if !ok || len(token) > maxToken {
		return Caller{}, fmt.Errorf("%w: the authorization header is not a bearer token of at most %d bytes", ErrNoToken, maxToken)
	}
	own, err := s.ID()
	if err != nil {
		return Caller{}, err
	}
	svid, err := jwtsvid.ParseAndValidate(token, s.jwt, []string{own.String()})
	if err != nil {
		// Its text alone, and not all: it may quote what a stranger wrote.
		return Caller{}, fmt.Errorf("%w: %.*s", ErrNoToken, maxReason, err.Error())
	}
	c := Caller{ID: svid.ID, By: ByJWT, Until: svid.Expiry}
	switch {
	case len(svid.Audience) != 1:
		return c, fmt.Errorf("caller %s: %w: it is for %d audiences, want us alone", c.ID, ErrNoToken, len(svid.Audience))
	case svid.ID.Path() == "":
		return c, fmt.Errorf("caller %s: %w: a trust domain is no workload", c.ID, ErrNoToken)
	case svid.Expiry.After(now.Add(maxTokenLife)):
		return c, fmt.Errorf("caller %s: %w: it is valid until %s, over an hour ahead", c.ID, ErrNoToken, svid.Expiry.Format(time.RFC3339))
	}
	return c, nil
}

// bearerToken returns the token of an authorization header (RFC 6750, section 2.1).
func bearerToken(value string) (string, bool) {
	scheme, token, ok := strings.Cut(value, " ")
	return strings.TrimSpace(token), ok && strings.EqualFold(scheme, "bearer")
}

// noOther refuses tokens that claim another identity than the connection's: whoever sends one may take it for what counts.
// Any other text is nobody's business, such as the API key that an OpenAI client always sends.
func noOther(values []string, id spiffeid.ID) error {
	for _, value := range values {
		token, _ := bearerToken(value)
		if claimed, err := claimedBy(token); err == nil && claimed != id.String() {
			return fmt.Errorf("caller %s: %w", id, ErrTwoIdentities)
		}
	}
	return nil
}

// claimedBy returns the SPIFFE ID that a token claims, without any check.
func claimedBy(token string) (string, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "", errors.New("not a JWT")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return "", err
	}
	var claims struct {
		Sub string `json:"sub"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return "", err
	}
	if scheme, _, _ := strings.Cut(claims.Sub, "://"); !strings.EqualFold(scheme, "spiffe") {
		return "", errors.New("no SPIFFE ID")
	}
	return claims.Sub, nil
}
