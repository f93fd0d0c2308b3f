// Package access answers one question: may this caller do this on this channel, and how much of it?
//
// The one rule: what no rule allows is denied. A nil or zero [Policy] denies everything, and there is no rule that
// takes a right away, so the order of rules means nothing for what is allowed.
//
// A [Policy] is pure: the same [Act] gets the same answer, and the time is part of the act. What callers have used up
// is counted by a [Meter] beside it, which outlives each policy.
package access

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// What a caller may do on a channel.
const (
	MethodChat     = "chat"     // have a conversation with it
	MethodGenerate = "generate" // have it go on with a text
	MethodEmbed    = "embed"    // get embeddings from it
	MethodModels   = "models"   // see it listed, with its release
)

// Methods returns all that a rule may allow.
func Methods() []string { return slices.Clone(methods) }

var methods = []string{MethodChat, MethodGenerate, MethodEmbed, MethodModels}

// ErrDenied means no rule allows it. The caller is told no more than that; the text is for the operator.
var ErrDenied = errors.New("denied")

// A Rule allows the callers it matches every one of its methods on every one of its channels, within its limits.
//
// Caller is a SPIFFE ID, in which a whole segment of the path may be "*": in the middle it matches exactly one
// segment, at the end one or more. So spiffe://bank.example/apps/teller is that caller alone,
// spiffe://bank.example/apps/* every caller below /apps/, and spiffe://bank.example/* the whole trust domain.
type Rule struct {
	Caller   string
	Channels []string
	Methods  []string

	// When is a condition in CEL, https://cel.dev: the rule allows nothing where it is false, or can't be evaluated. It
	// may use caller.id, caller.trustDomain, caller.path, channel, method, time (a timestamp: time.getHours("+01:00"),
	// time.getDayOfWeek(), of when the request came), request.api ("openai", "grpc", "oip"), request.stream, request.tools
	// and request.maxTokens, which is the largest number there is if the caller names none.
	When string

	// Limits are for each caller by itself, however many the rule matches. nil: there are none.
	Limits *Limits
}

// Limits are how much a rule allows one caller of chat, generate and embed. What is left out has no limit. Numbers are
// whole and above 0; k and M stand for a thousand and a million.
//
// What was used comes back evenly: of a rate of 60/m one request each second, of a million tokens a day eleven or so
// each second. So it may be used up at once, and there is no hour at which all callers come back.
type Limits struct {
	Rate       string // requests, such as 10/s, 60/m, 1000/h or 5k/d
	Burst      string // how many of these may come at once; as many as the rate names
	Concurrent string // requests at the same time, those that wait among them
	Tokens     TokenLimits
}

// TokenLimits are the tokens of prompts and of answers. A request is let in if what it may take at most has room, its
// max_tokens and an estimate of its prompt; at its end it is charged with what it took. If that is more than there
// was, the rest has to come back first.
type TokenLimits struct {
	Prompt, Completion Windows
}

// Windows are numbers of tokens.
type Windows struct {
	Minute, Day string
}

// An Act is what a caller wants to do, and when.
type Act struct {
	Caller  spiffeid.ID
	Channel string
	Method  string
	Time    time.Time
	Request Request
}

// Request is what conditions may see of a request.
type Request struct {
	API       string // by which it came
	Stream    bool   // the answer is wanted in pieces
	Tools     bool   // it brings tools
	MaxTokens int64  // of the answer; 0: the caller names no number
}

// A Policy is a set of rules. It never changes, so it may be shared.
type Policy struct{ rules []*rule }

type rule struct {
	index    int    // among the rules
	key      string // by which a Meter knows it
	domain   spiffeid.TrustDomain
	path     []string // segments; "*" matches as described at Rule
	channels []string
	methods  []string
	when     *condition // nil: always
	limits   *limits    // nil: none
}

// A Grant is a rule that allows an act.
type Grant struct{ rule *rule }

// Rule returns the rule's place among the rules, from 0.
func (g Grant) Rule() int { return g.rule.index }

// Grants returns the rules that allow an act, in their order, or an error wrapping [ErrDenied] that says what is
// missing if none does.
func (p *Policy) Grants(a Act) ([]Grant, error) {
	if err := p.Knows(a.Caller); err != nil {
		return nil, err
	}
	var grants []Grant
	var unmet []string
	for _, r := range p.rules {
		switch why, near := r.judge(&a); {
		case why == "":
			grants = append(grants, Grant{r})
		case near:
			unmet = append(unmet, fmt.Sprintf("; access[%d]: %s", r.index, why))
		}
	}
	if len(grants) == 0 {
		return nil, fmt.Errorf("caller %s: %w: no rule for %s on channel %q%s", a.Caller, ErrDenied, a.Method, a.Channel, strings.Join(unmet, ""))
	}
	return grants, nil
}

// Check returns nil if a rule allows the act, and else the error of [Policy.Grants].
func (p *Policy) Check(a Act) error {
	_, err := p.Grants(a)
	return err
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

// Naming returns the rules that name the caller and the method, whatever the channel and the condition, or an error wrapping
// [ErrDenied] if there are none. Those that allow such an act are among them.
func (p *Policy) Naming(caller spiffeid.ID, method string) ([]Grant, error) {
	var grants []Grant
	if p != nil {
		for _, r := range p.rules {
			if slices.Contains(r.methods, method) && r.matches(caller) {
				grants = append(grants, Grant{r})
			}
		}
	}
	if len(grants) == 0 {
		return nil, fmt.Errorf("caller %s: %w: no rule for %s on any channel", caller, ErrDenied, method)
	}
	return grants, nil
}

// A Verdict is what one rule says of an act.
type Verdict struct {
	Rule    int
	Matches bool     // it names the caller
	Why     string   // why it does not allow the act; "" if it does
	Limits  []string // within which it allows it, in words
}

// Explain returns the verdict of every rule. They are what [Policy.Grants] goes by.
func (p *Policy) Explain(a Act) []Verdict {
	var all []Verdict
	if p != nil {
		for _, r := range p.rules {
			why, _ := r.judge(&a)
			all = append(all, Verdict{r.index, r.matches(a.Caller), why, r.limits.words()})
		}
	}
	return all
}

// judge returns why the rule does not allow an act, or "". It is near if only the condition is not met.
func (r *rule) judge(a *Act) (why string, near bool) {
	switch {
	case !r.matches(a.Caller):
		return "it names other callers", false
	case !slices.Contains(r.channels, a.Channel):
		return "it is for other channels", false
	case !slices.Contains(r.methods, a.Method):
		return "it allows other methods", false
	case r.when == nil:
		return "", false
	}
	why = r.when.judge(a)
	return why, why != ""
}

func (r *rule) matches(caller spiffeid.ID) bool {
	if caller.TrustDomain() != r.domain {
		return false
	}
	rest, more := strings.CutPrefix(caller.Path(), "/")
	if !more {
		return false // the trust domain itself is nobody
	}
	for i, want := range r.path {
		if !more {
			return false
		}
		if last := i == len(r.path)-1; want == "*" && last {
			return true
		}
		var segment string
		if segment, rest, more = strings.Cut(rest, "/"); want != "*" && want != segment {
			return false
		}
	}
	return !more
}
