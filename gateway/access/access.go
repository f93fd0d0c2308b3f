// Package access answers one question: may this caller do this on this channel?
//
// The one rule: what no rule allows is denied. A nil or zero [Policy] denies everything, and there is no rule that
// takes a right away, so the order of rules means nothing.
package access

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// What a caller may do on a channel.
const (
	MethodChat     = "chat"     // have a conversation with it
	MethodGenerate = "generate" // have it go on with a text
	MethodEmbed    = "embed"    // get embeddings from it
	MethodModels   = "models"   // see it listed, with its release
)

// methods are all that a rule may allow.
var methods = []string{MethodChat, MethodGenerate, MethodEmbed, MethodModels}

// ErrDenied means no rule allows it. The caller is told no more than that; the text is for the operator.
var ErrDenied = errors.New("denied")

// A Rule allows the callers it matches every one of its methods on every one of its channels.
//
// Caller is a SPIFFE ID, in which a whole segment of the path may be "*": in the middle it matches exactly one
// segment, at the end one or more. So spiffe://bank.example/apps/teller is that caller alone,
// spiffe://bank.example/apps/* every caller below /apps/, and spiffe://bank.example/* the whole trust domain.
type Rule struct {
	Caller   string
	Channels []string
	Methods  []string
}

// A Policy is a set of rules. It never changes, so it may be shared.
type Policy struct{ rules []rule }

type rule struct {
	domain   spiffeid.TrustDomain
	path     []string // segments; "*" matches as described at Rule
	channels []string
	methods  []string
}

// Parse checks every rule and returns the policy, or all problems at once, each with the key it is found under.
func Parse(rules []Rule) (*Policy, error) {
	var p Policy
	var errs []error
	for i, r := range rules {
		parsed, problems := parse(r)
		for _, problem := range problems {
			errs = append(errs, fmt.Errorf("access[%d].%w", i, problem))
		}
		p.rules = append(p.rules, parsed)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return &p, nil
}

// Check returns nil if a rule allows the caller this method on this channel, and an error wrapping [ErrDenied] that
// says what is missing if none does.
func (p *Policy) Check(caller spiffeid.ID, channel, method string) error {
	if err := p.Knows(caller); err != nil {
		return err
	}
	for _, r := range p.rules {
		if r.matches(caller) && slices.Contains(r.channels, channel) && slices.Contains(r.methods, method) {
			return nil
		}
	}
	return fmt.Errorf("caller %s: %w: no rule for %s on channel %q", caller, ErrDenied, method, channel)
}

// Knows returns nil if any rule names the caller, whatever it allows. Others need not be listened to.
func (p *Policy) Knows(caller spiffeid.ID) error {
	if p != nil {
		for _, r := range p.rules {
			if r.matches(caller) {
				return nil
			}
		}
	}
	return fmt.Errorf("caller %s: %w: no rule names it", caller, ErrDenied)
}

func (r *rule) matches(caller spiffeid.ID) bool {
	if caller.TrustDomain() != r.domain {
		return false
	}
	path, ok := strings.CutPrefix(caller.Path(), "/")
	if !ok {
		return false // the trust domain itself is nobody
	}
	segments := strings.Split(path, "/")
	for i, want := range r.path {
		last := i == len(r.path)-1
		switch {
		case i >= len(segments):
			return false
		case want == "*" && last:
			return true
		case want != "*" && want != segments[i]:
			return false
		}
	}
	return len(segments) == len(r.path)
}

// channelName is what a trust policy may call a channel (package trust): another name can't match anyway.
var channelName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:@+-]{0,63}$`)

func parse(r Rule) (rule, []error) {
	var out rule
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	var err error
	if out.domain, out.path, err = parseCaller(r.Caller); err != nil {
		bad("caller: %w", err)
	}
	if len(r.Channels) == 0 {
		bad("channels: is required")
	}
	for _, c := range r.Channels {
		switch {
		case c == "*":
			bad("channels: %q is not a channel: name each, so that a new one starts closed", c)
		case !channelName.MatchString(c):
			bad("channels: %q is not the name of a channel", c)
		}
	}
	if len(r.Methods) == 0 {
		bad("methods: is required (known: %s)", strings.Join(methods, ", "))
	}
	for _, m := range r.Methods {
		if !slices.Contains(methods, m) {
			bad("methods: unknown method %q (known: %s)", m, strings.Join(methods, ", "))
		}
	}
	out.channels, out.methods = slices.Clone(r.Channels), slices.Clone(r.Methods)
	return out, errs
}

// parseCaller reads a SPIFFE ID or a pattern of them. What is not "*" goes through the SPIFFE ID parser, so that a
// pattern can't hold what no ID can.
func parseCaller(s string) (td spiffeid.TrustDomain, path []string, err error) {
	if s == "" {
		return td, nil, errors.New("is required")
	}
	domain, rest, _ := strings.Cut(strings.TrimPrefix(s, "spiffe://"), "/")
	if !strings.HasPrefix(s, "spiffe://") || domain == "" {
		return td, nil, fmt.Errorf("%q is not a SPIFFE ID (spiffe://trust-domain/path)", s)
	}
	if td, err = spiffeid.TrustDomainFromString(domain); err != nil {
		return td, nil, fmt.Errorf("%q: %w", s, err)
	}
	if rest == "" {
		return td, nil, fmt.Errorf("%q has no path: write spiffe://%s/* for every caller of the trust domain", s, domain)
	}
	path = strings.Split(rest, "/")
	for _, segment := range path {
		if segment == "*" {
			continue
		}
		if strings.Contains(segment, "*") {
			return td, nil, fmt.Errorf("%q: %q: * stands for a whole segment", s, segment)
		}
		if err := spiffeid.ValidatePathSegment(segment); err != nil {
			return td, nil, fmt.Errorf("%q: %w", s, err)
		}
	}
	return td, path, nil
}
