package access_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/weighbridge/weighbridge/gateway/access"
)

func rule(caller string) access.Rule {
	return access.Rule{Caller: caller, Channels: []string{"chat"}, Methods: []string{"chat", "models"}}
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
			err = p.Check(spiffeid.RequireFromString(tt.caller), tt.channel, tt.method)
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
	caller := spiffeid.RequireFromString("spiffe://bank.example/apps/teller")
	for name, p := range map[string]*access.Policy{"nil": nil, "zero": {}} {
		if err := p.Check(caller, "chat", access.MethodChat); !errors.Is(err, access.ErrDenied) {
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
	if err := p.Check(spiffeid.ID{}, "chat", access.MethodChat); !errors.Is(err, access.ErrDenied) {
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
	caller := spiffeid.RequireFromString("spiffe://bank.example/a")
	if err := p.Check(caller, "two", "chat"); !errors.Is(err, access.ErrDenied) {
		t.Errorf("Check(two, chat) = %v, want ErrDenied", err)
	}
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
