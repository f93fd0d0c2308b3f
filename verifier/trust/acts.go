package trust

import (
	"fmt"
	"slices"
	"time"

	"github.com/weighbridge/weighbridge/verifier/statement"
)

// An Approval says that a release may be served. Its statement's subject is the release's id.
type Approval struct {
	Channels []string  `json:"channels,omitempty"` // sorted; none: every channel
	Expires  time.Time `json:"expires,omitzero"`
	Ticket   string    `json:"ticket,omitempty"`
}

// A Publication says that a channel now serves a release. Its statement's subject is the release's id.
type Publication struct {
	Channel  string       `json:"channel"`
	Epoch    int64        `json:"epoch"`
	Previous statement.ID `json:"previous,omitempty"` // the publication it follows, where its signer knew it
	Expires  time.Time    `json:"expires,omitzero"`
}

// NewApproval checks the approval and returns the payload to sign.
func NewApproval(release statement.ID, a Approval) ([]byte, error) {
	a.Channels = slices.Compact(slices.Sorted(slices.Values(a.Channels)))
	a.Expires = a.Expires.UTC()
	if err := a.check(); err != nil {
		return nil, err
	}
	return statement.New(ApprovalType, "release", release.Hex(), a)
}

// NewPublication checks the publication and returns the payload to sign.
func NewPublication(release statement.ID, p Publication) ([]byte, error) {
	p.Expires = p.Expires.UTC()
	if err := p.check(); err != nil {
		return nil, err
	}
	return statement.New(PublicationType, "release", release.Hex(), p)
}

// ParseApproval reads an approval and the release it is about, whoever signed it.
func ParseApproval(s *statement.Signed) (release statement.ID, a Approval, err error) {
	if err := decode(s, ApprovalType, &a); err != nil {
		return "", Approval{}, fmt.Errorf("approval: %w", err)
	}
	if err := a.check(); err != nil {
		return "", Approval{}, fmt.Errorf("approval: %w: %w", ErrMalformed, err)
	}
	return subjectID(s), a, nil
}

// ParsePublication reads a publication and the release it is about, whoever signed it.
func ParsePublication(s *statement.Signed) (release statement.ID, p Publication, err error) {
	if err := decode(s, PublicationType, &p); err != nil {
		return "", Publication{}, fmt.Errorf("publication: %w", err)
	}
	if err := p.check(); err != nil {
		return "", Publication{}, fmt.Errorf("publication: %w: %w", ErrMalformed, err)
	}
	return subjectID(s), p, nil
}

// subjectID is the release that an approval or a publication is about.
func subjectID(s *statement.Signed) statement.ID {
	_, sum := s.Subject()
	return statement.ID("sha256:" + sum)
}

func (a Approval) check() error {
	var bad problems
	if len(a.Channels) > maxChannels {
		bad.add("channels", "names %d channels, more than %d", len(a.Channels), maxChannels)
		return bad.err()
	}
	for i, name := range a.Channels {
		if err := checkName(name); err != nil {
			bad.add("channels", "%v", err)
		}
		if i > 0 && a.Channels[i-1] >= name {
			bad.add("channels", "is not sorted, or names %q twice", name)
		}
	}
	checkLine(&bad, "ticket", a.Ticket, false)
	return bad.err()
}

func (p Publication) check() error {
	var bad problems
	if err := checkName(p.Channel); err != nil {
		bad.add("channel", "%v", err)
	}
	if p.Epoch < 1 || p.Epoch > maxNumber {
		bad.add("epoch", "must be from 1 to %d", int64(maxNumber))
	}
	if p.Previous != "" {
		if _, err := statement.ParseID(string(p.Previous)); err != nil {
			bad.add("previous", "%v", err)
		}
	}
	return bad.err()
}
