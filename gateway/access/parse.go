package access

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Parse checks every rule and returns the policy, or all problems at once, each with the key it is found under.
func Parse(rules []Rule) (*Policy, error) {
	var p Policy
	var errs []error
	alike := map[string]int{}
	for i, r := range rules {
		parsed, problems := parse(i, r)
		for _, problem := range problems {
			errs = append(errs, fmt.Errorf("access[%d].%w", i, problem))
		}
		parsed.key = keyOf(r, alike)
		p.rules = append(p.rules, parsed)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return &p, nil
}

// keyOf names a rule for as long as it is for the same callers and channels, wherever it stands: what a caller has used
// is not forgotten because limits, methods or other rules change.
func keyOf(r Rule, alike map[string]int) string {
	key := r.Caller + " " + strings.Join(slices.Sorted(slices.Values(r.Channels)), " ")
	alike[key]++
	return fmt.Sprintf("%d %s", alike[key], key)
}

// channelName is what a trust policy may call a channel (package trust): another name can't match anyway.
var channelName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:@+-]{0,63}$`)

func parse(index int, r Rule) (*rule, []error) {
	out := &rule{index: index}
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
	if r.When != "" {
		if out.when, err = compile(r.When); err != nil {
			bad("when: %w", err)
		}
	}
	if r.Limits != nil {
		var problems []error
		out.limits, problems = parseLimits(*r.Limits)
		errs = append(errs, problems...)
	}
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
