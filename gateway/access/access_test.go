package access_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/weighbridge/weighbridge/gateway/access"
)

func rule(caller string) access.Rule {
	return access.Rule{Caller: caller, Channels: []string{"chat"}, Methods: []string{"chat", "models"}}
}

// act is a request that comes on a Wednesday at noon.
func act(caller, channel, method string) access.Act {
	return access.Act{Caller: spiffeid.RequireFromString(caller), Channel: channel, Method: method, Time: time.Date(2030, 5, 15, 12, 0, 0, 0, time.UTC)}
}

func TestCheck(t *testing.T) {
	tests := []struct {
		name    string
		pattern string
		caller  string
		channel string
		method  string
		allowed bool
	}{
		{"exact", "spiffe://bank.example/apps/teller", "spiffe://bank.example/apps/teller", "chat", "chat", true},
		{"other path", "spiffe://bank.example/apps/teller", "spiffe://bank.example/apps/other", "chat", "chat", false},
		{"longer path", "spiffe://bank.example/apps/teller", "spiffe://bank.example/apps/teller/2", "chat", "chat", false},
		{"shorter path", "spiffe://bank.example/apps/teller", "spiffe://bank.example/apps", "chat", "chat", false},
		{"prefix of a segment", "spiffe://bank.example/apps/teller", "spiffe://bank.example/apps/teller2", "chat", "chat", false},
		{"case of the path", "spiffe://bank.example/apps/teller", "spiffe://bank.example/apps/Teller", "chat", "chat", false},
		{"other trust domain", "spiffe://bank.example/apps/teller", "spiffe://evil.example/apps/teller", "chat", "chat", false},
		{"subdomain", "spiffe://bank.example/*", "spiffe://a.bank.example/apps/teller", "chat", "chat", false},
		{"trust domain itself", "spiffe://bank.example/*", "spiffe://bank.example", "chat", "chat", false},
		{"other channel", "spiffe://bank.example/apps/teller", "spiffe://bank.example/apps/teller", "chat2", "chat", false},
		{"case of the channel", "spiffe://bank.example/apps/teller", "spiffe://bank.example/apps/teller", "Chat", "chat", false},
		{"no channel", "spiffe://bank.example/apps/teller", "spiffe://bank.example/apps/teller", "", "chat", false},
		{"other method", "spiffe://bank.example/apps/teller", "spiffe://bank.example/apps/teller", "chat", "embed", false},
		{"glob, one segment", "spiffe://bank.example/apps/*", "spiffe://bank.example/apps/a", "chat", "models", true},
		{"glob, more segments", "spiffe://bank.example/apps/*", "spiffe://bank.example/apps/a/b", "chat", "chat", true},
		{"glob, none", "spiffe://bank.example/apps/*", "spiffe://bank.example/apps", "chat", "chat", false},
		{"glob, beside", "spiffe://bank.example/apps/*", "spiffe://bank.example/apps2/a", "chat", "chat", false},
		{"whole trust domain", "spiffe://bank.example/*", "spiffe://bank.example/ns/a/sa/b", "chat", "chat", true},
		{"middle", "spiffe://bank.example/ns/*/sa/web", "spiffe://bank.example/ns/a/sa/web", "chat", "chat", true},
		{"middle, two segments", "spiffe://bank.example/ns/*/sa/web", "spiffe://bank.example/ns/a/b/sa/web", "chat", "chat", false},
		{"middle, other end", "spiffe://bank.example/ns/*/sa/web", "spiffe://bank.example/ns/a/sa/db", "chat", "chat", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := access.Parse([]access.Rule{rule("spiffe://other.example/x"), rule(tt.pattern)})
			if err != nil {
				t.Fatal(err)
			}
			err = p.Check(act(tt.caller, tt.channel, tt.method))
			if tt.allowed != (err == nil) {
				t.Errorf("Check(%s, %q, %q) = %v, want allowed %v", tt.caller, tt.channel, tt.method, err, tt.allowed)
			}
			if err != nil && !errors.Is(err, access.ErrDenied) {
				t.Errorf("Check = %v, want ErrDenied", err)
			}
			if known := p.Knows(spiffeid.RequireFromString(tt.caller)); known != nil && tt.allowed {
				t.Errorf("Knows(%s) = %v, want nil for a caller that is allowed something", tt.caller, known)
			}
		})
	}
}

// TestCheckZero holds the zero values to denial.
func TestCheckZero(t *testing.T) {
	teller := act("spiffe://bank.example/apps/teller", "chat", access.MethodChat)
	for name, p := range map[string]*access.Policy{"nil": nil, "zero": {}} {
		if err := p.Check(teller); !errors.Is(err, access.ErrDenied) {
			t.Errorf("%s policy: Check = %v, want ErrDenied", name, err)
		}
	}
	p, err := access.Parse([]access.Rule{rule("spiffe://bank.example/*")})
	if err != nil {
		t.Fatal(err)
	}
	stranger := spiffeid.RequireFromString("spiffe://evil.example/apps/teller")
	if err := p.Knows(stranger); !errors.Is(err, access.ErrDenied) {
		t.Errorf("Knows(%s) = %v, want ErrDenied", stranger, err)
	}
	if err := p.Check(access.Act{Channel: "chat", Method: access.MethodChat}); !errors.Is(err, access.ErrDenied) {
		t.Errorf("no caller: Check = %v, want ErrDenied", err)
	}
}

// TestCheckDoesNotAddRules keeps the rights of two rules apart.
func TestCheckDoesNotAddRules(t *testing.T) {
	p, err := access.Parse([]access.Rule{
		{Caller: "spiffe://bank.example/a", Channels: []string{"one"}, Methods: []string{"chat"}},
		{Caller: "spiffe://bank.example/a", Channels: []string{"two"}, Methods: []string{"models"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Check(act("spiffe://bank.example/a", "two", "chat")); !errors.Is(err, access.ErrDenied) {
		t.Errorf("Check(two, chat) = %v, want ErrDenied", err)
	}
}

func limits(l access.Limits) func(*access.Rule) {
	return func(r *access.Rule) { r.Limits = &l }
}

func TestParse(t *testing.T) {
	tests := []struct {
		name   string
		change func(*access.Rule)
		want   string // "" for no error
	}{
		{"valid", func(*access.Rule) {}, ""},
		{"no caller", func(r *access.Rule) { r.Caller = "" }, "access[0].caller: is required"},
		{"no scheme", func(r *access.Rule) { r.Caller = "bank.example/apps" }, "not a SPIFFE ID"},
		{"other scheme", func(r *access.Rule) { r.Caller = "https://bank.example/apps" }, "not a SPIFFE ID"},
		{"no trust domain", func(r *access.Rule) { r.Caller = "spiffe:///apps" }, "not a SPIFFE ID"},
		{"any trust domain", func(r *access.Rule) { r.Caller = "spiffe://*/apps" }, "access[0].caller"},
		{"no path", func(r *access.Rule) { r.Caller = "spiffe://bank.example" }, "write spiffe://bank.example/*"},
		{"trailing slash", func(r *access.Rule) { r.Caller = "spiffe://bank.example/apps/" }, "access[0].caller"},
		{"parent", func(r *access.Rule) { r.Caller = "spiffe://bank.example/../apps" }, "access[0].caller"},
		{"part of a segment", func(r *access.Rule) { r.Caller = "spiffe://bank.example/app*" }, "whole segment"},
		{"two stars", func(r *access.Rule) { r.Caller = "spiffe://bank.example/**" }, "whole segment"},
		{"space", func(r *access.Rule) { r.Caller = "spiffe://bank.example/a b" }, "access[0].caller"},
		{"no channels", func(r *access.Rule) { r.Channels = nil }, "access[0].channels: is required"},
		{"channel with every character that a trust policy allows", func(r *access.Rule) { r.Channels = []string{"Chat.2:eu@x+y_z-1"} }, ""},
		{"channel that no trust policy can name", func(r *access.Rule) { r.Channels = []string{strings.Repeat("c", 65)} }, "not the name of a channel"},
		{"all channels", func(r *access.Rule) { r.Channels = []string{"*"} }, "name each"},
		{"bad channel", func(r *access.Rule) { r.Channels = []string{"a/b"} }, `"a/b" is not the name of a channel`},
		{"no methods", func(r *access.Rule) { r.Methods = nil }, "access[0].methods: is required"},
		{"unknown method", func(r *access.Rule) { r.Methods = []string{"Chat"} }, `unknown method "Chat"`},
		{"every method", func(r *access.Rule) { r.Methods = []string{"chat", "generate", "embed", "models"} }, ""},

		{"every limit", func(r *access.Rule) {
			r.Limits = &access.Limits{Rate: "10/s", Burst: "20", Concurrent: "4", Tokens: access.TokenLimits{
				Prompt: access.Windows{Minute: "20k", Day: "1M"}, Completion: access.Windows{Minute: "5000", Day: "100k"}}}
		}, ""},
		{"no limit", limits(access.Limits{}), "access[0].limits: names none"},
		{"rate without a unit", limits(access.Limits{Rate: "10"}), `access[0].limits.rate: "10" is not a rate`},
		{"rate of another unit", limits(access.Limits{Rate: "10/w"}), "is not a rate"},
		{"rate of nothing", limits(access.Limits{Rate: "0/s"}), `access[0].limits.rate: "0" is not a whole number above 0`},
		{"rate below nothing", limits(access.Limits{Rate: "-1/s"}), "limits.rate"},
		{"rate of a half", limits(access.Limits{Rate: "0.5/s"}), "limits.rate"},
		{"burst of nothing", limits(access.Limits{Rate: "1/s", Burst: "0"}), "access[0].limits.burst"},
		{"burst without a rate", limits(access.Limits{Burst: "5"}), "access[0].limits.burst: is of a rate"},
		{"concurrent below nothing", limits(access.Limits{Concurrent: "-1"}), "access[0].limits.concurrent"},
		{"concurrent beyond all bounds", limits(access.Limits{Concurrent: "9999999999999M"}), "access[0].limits.concurrent"},
		{"tokens of a half", limits(access.Limits{Tokens: access.TokenLimits{Prompt: access.Windows{Minute: "1.5"}}}), "access[0].limits.tokens.prompt.minute"},
		{"tokens of a word", limits(access.Limits{Tokens: access.TokenLimits{Prompt: access.Windows{Day: "many"}}}), "access[0].limits.tokens.prompt.day"},
		{"tokens in hexadecimal", limits(access.Limits{Tokens: access.TokenLimits{Completion: access.Windows{Minute: "0x10"}}}), "access[0].limits.tokens.completion.minute"},
		{"tokens with another suffix", limits(access.Limits{Tokens: access.TokenLimits{Completion: access.Windows{Day: "1G"}}}), "access[0].limits.tokens.completion.day"},

		{"condition", func(r *access.Rule) { r.When = `caller.path.startsWith("/apps/") && time.getHours() < 18` }, ""},
		{"condition that is no bool", func(r *access.Rule) { r.When = "caller.id" }, "access[0].when: is of type string, and must be a bool"},
		{"condition that may be no bool", func(r *access.Rule) { r.When = "dyn(true)" }, "must be a bool"},
		{"condition that is not CEL", func(r *access.Rule) { r.When = "true &&" }, "access[0].when: column 8: Syntax error"},
		{"condition on what is not there", func(r *access.Rule) { r.When = `caller.name == "a"` }, "undeclared reference"},
		{"condition of other types", func(r *access.Rule) { r.When = `request.maxTokens < "5"` }, "no matching overload"},
		{"condition with a bad pattern", func(r *access.Rule) { r.When = `caller.id.matches("(")` }, "access[0].when"},
		{"condition without an end", func(r *access.Rule) { r.When = "true" + strings.Repeat(" || true", 1000) }, "access[0].when"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := rule("spiffe://bank.example/apps/*")
			tt.change(&r)
			p, err := access.Parse([]access.Rule{r})
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("Parse(%+v) = %v, want no error", r, err)
			case tt.want != "" && (err == nil || p != nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("Parse(%+v) = %v, %v, want an error with %q", r, p, err, tt.want)
			}
		})
	}
}

// TestParseReportsEverything expects one error for each of several mistakes.
func TestParseReportsEverything(t *testing.T) {
	_, err := access.Parse([]access.Rule{{}, rule("nonsense")})
	for _, want := range []string{"access[0].caller", "access[0].channels", "access[0].methods", "access[1].caller"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse = %v, want it to name %s", err, want)
		}
	}
}

// TestCondition evaluates conditions on one act: a request for a stream of at most 100 tokens, on a Wednesday at noon.
func TestCondition(t *testing.T) {
	tests := []struct {
		when    string
		allowed bool
		why     string
	}{
		{"true", true, ""},
		{"false", false, "access[1]: its condition is false"},
		{`caller.id == "spiffe://bank.example/apps/teller" && caller.trustDomain == "bank.example" && caller.path == "/apps/teller"`, true, ""},
		{`channel == "chat" && method in ["chat", "generate"]`, true, ""},
		{`method == "embed"`, false, "is false"},
		{`time.getHours() == 12 && time.getDayOfWeek() == 3`, true, ""},
		{`time.getHours("+01:00") == 13`, true, ""},
		{`request.stream && !request.tools && request.api == "openai" && request.maxTokens <= 100`, true, ""},
		{`request.maxTokens < 100`, false, "is false"},
		{`1 / (request.maxTokens - 100) == 0 || false`, false, "could not be evaluated: division by zero"},
		{`[1,2,3,4,5,6,7,8,9].all(a, [1,2,3,4,5,6,7,8,9].all(b, [1,2,3,4,5,6,7,8,9].all(c, [1,2,3,4,5,6,7,8,9].all(d, a + b + c + d > 0))))`, false, "cost"},
	}
	for _, tt := range tests {
		t.Run(tt.when, func(t *testing.T) {
			r := rule("spiffe://bank.example/apps/*")
			r.When = tt.when
			p, err := access.Parse([]access.Rule{{Caller: "spiffe://bank.example/*", Channels: []string{"other"}, Methods: []string{"chat"}}, r})
			if err != nil {
				t.Fatal(err)
			}
			a := act("spiffe://bank.example/apps/teller", "chat", "chat")
			a.Request = access.Request{API: "openai", Stream: true, MaxTokens: 100}
			err = p.Check(a)
			if tt.allowed != (err == nil) || err != nil && (!errors.Is(err, access.ErrDenied) || !strings.Contains(err.Error(), tt.why)) {
				t.Errorf("Check = %v, want allowed %v, %q", err, tt.allowed, tt.why)
			}
			if v := p.Explain(a); len(v) != 2 || !v[1].Matches || tt.allowed != (v[1].Why == "") || v[0].Why != "it is for other channels" {
				t.Errorf("Explain = %+v, want what Check says", v)
			}
		})
	}
}

// TestConditionWithoutMaxTokens keeps who names no number from being below every number.
func TestConditionWithoutMaxTokens(t *testing.T) {
	r := rule("spiffe://bank.example/apps/*")
	r.When = "request.maxTokens <= 256"
	p, err := access.Parse([]access.Rule{r})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Check(act("spiffe://bank.example/apps/teller", "chat", "chat")); !errors.Is(err, access.ErrDenied) {
		t.Errorf("Check = %v, want ErrDenied", err)
	}
}

// TestGrants wants every rule that allows an act, in order.
func TestGrants(t *testing.T) {
	p, err := access.Parse([]access.Rule{rule("spiffe://bank.example/*"), rule("spiffe://bank.example/b/*"), rule("spiffe://bank.example/a/*")})
	if err != nil {
		t.Fatal(err)
	}
	grants, err := p.Grants(act("spiffe://bank.example/a/teller", "chat", "chat"))
	if err != nil || len(grants) != 2 || grants[0].Rule() != 0 || grants[1].Rule() != 2 {
		t.Errorf("Grants = %v, %v, want the rules 0 and 2", grants, err)
	}
}

func TestExplainLimits(t *testing.T) {
	r := rule("spiffe://bank.example/apps/*")
	limits(access.Limits{Rate: "60/m", Burst: "5", Concurrent: "2", Tokens: access.TokenLimits{Completion: access.Windows{Day: "1M"}}})(&r)
	p, err := access.Parse([]access.Rule{r})
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(p.Explain(act(teller, "chat", "chat"))[0].Limits, ", ")
	if want := "60 requests a minute, 5 of them at once, 1000000 completion tokens a day, 2 requests at a time"; got != want {
		t.Errorf("Limits = %q, want %q", got, want)
	}
}
