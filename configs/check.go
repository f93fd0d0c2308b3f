package configs

import (
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.yaml.in/yaml/v3"

	"github.com/weighbridge/weighbridge/gateway/access"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// Bytes is a size such as 8GiB, 500MB or a plain number of bytes.
type Bytes int64

// UnmarshalYAML reads the size.
func (b *Bytes) UnmarshalYAML(n *yaml.Node) error {
	size, err := humanize.ParseBytes(n.Value)
	if err != nil || n.Kind != yaml.ScalarNode || size == 0 || size > 1<<62 {
		return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: %q is not a size such as 8GiB", n.Line, n.Value)}}
	}
	*b = Bytes(size)
	return nil
}

// Count is a whole number. The YAML library would cut the fraction off one that is not.
type Count int

// UnmarshalYAML reads the number.
func (c *Count) UnmarshalYAML(n *yaml.Node) error {
	if n.ShortTag() != "!!int" {
		return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: %q is not a whole number", n.Line, n.Value)}}
	}
	return n.Decode((*int)(c))
}

// checks collects what is wrong, each with its key.
type checks struct{ errs []error }

func (c *checks) bad(key, format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf("%s: %w", key, fmt.Errorf(format, args...)))
}

func (c *checks) required(key, value string) bool {
	if value == "" {
		c.bad(key, "is required")
	}
	return value != ""
}

func (c *Gateway) check() []error {
	var is checks
	c.Listen.check(&is)
	c.Identity.check(&is)
	c.Trust.check(&is)
	if len(c.Weights) == 0 {
		is.bad("weights", "is required: the directories that hold the weights")
	}
	if c.Runtimes == (Runtimes{}) {
		is.bad("runtimes", "is required: e.g. llamacpp: {command: llama-server}")
	}
	if l := c.Runtimes.LlamaCPP; l != nil {
		is.required("runtimes.llamacpp.command", l.Command)
	}
	if o := c.Runtimes.Ollama; o != nil {
		o.check(&is, c.Offline)
	}
	if len(c.Channels) == 0 {
		is.bad("channels", "is required: the channels to serve, e.g. chat: {}")
	}
	if _, err := access.Parse(c.Access); err != nil {
		is.errs = append(is.errs, err)
	}
	for i, r := range c.Access {
		for _, channel := range r.Channels {
			if _, known := c.Channels[channel]; !known {
				is.bad(fmt.Sprintf("access[%d].channels", i), "%q is not a channel of this gateway", channel)
			}
		}
	}
	if l := c.Lease; l != nil {
		if _, err := trust.ParseAge(l.MaxStaleness); err != nil {
			is.bad("lease.maxStaleness", "%w", err)
		}
		if l.Then != "deny" && l.Then != "warn" {
			is.bad("lease.then", "%q is not one of deny and warn", l.Then)
		}
	}
	c.Scrub.check(&is)
	if c.Offline && c.Identity.WorkloadAPI != "" && !strings.HasPrefix(c.Identity.WorkloadAPI, "unix:") {
		is.bad("identity.workloadAPI", "%q is not on this machine for sure, and offline is true: use unix:///PATH", c.Identity.WorkloadAPI)
	}
	for i, o := range c.Operators {
		o.check(&is, fmt.Sprintf("operators[%d]", i))
	}
	return is.errs
}

func (l Listen) check(is *checks) {
	address := func(key, value string) {
		if _, _, err := net.SplitHostPort(value); err != nil {
			is.bad(key, "%q is not host:port", value)
		}
	}
	if l.GRPC == "" && l.HTTP == "" {
		is.bad("listen", "at least one of grpc and http is required")
	}
	seen := map[string]string{}
	addresses := []struct{ key, value string }{
		{"listen.grpc", l.GRPC}, {"listen.http", l.HTTP}, {"listen.metrics", l.Metrics}, {"listen.control", l.Control},
	}
	if j := l.JWT; j != nil {
		if j.GRPC == "" && j.HTTP == "" {
			is.bad("listen.jwt", "at least one of grpc and http is required")
		}
		if j.TLS != nil {
			is.required("listen.jwt.tls.certificate", j.TLS.Certificate)
			is.required("listen.jwt.tls.key", j.TLS.Key)
		}
		addresses = append(addresses, []struct{ key, value string }{{"listen.jwt.grpc", j.GRPC}, {"listen.jwt.http", j.HTTP}}...)
	}
	for _, a := range addresses {
		switch {
		case a.value == "":
			continue
		case a.key == "listen.control" && strings.HasPrefix(a.value, "unix:"):
			is.required(a.key, strings.TrimPrefix(a.value, "unix:"))
		case a.key == "listen.control":
			is.bad(a.key, "%q: this version listens for operators on unix:PATH only", a.value)
		default:
			address(a.key, a.value)
		}
		if other, taken := seen[a.value]; taken && !strings.HasSuffix(a.value, ":0") {
			is.bad(a.key, "must differ from %s (%q)", other, a.value)
		}
		seen[a.value] = a.key
	}
}

func (i Identity) check(is *checks) {
	sources := 0
	if i.WorkloadAPI != "" {
		sources++
	}
	if f := i.Files; f != nil {
		sources++
		is.required("identity.files.svid", f.SVID)
		is.required("identity.files.key", f.Key)
		is.required("identity.files.bundle", f.Bundle)
		for name, path := range f.Bundles {
			if _, err := spiffeid.TrustDomainFromString(name); err != nil {
				is.bad("identity.files.bundles", "%q: %w", name, err)
			}
			is.required("identity.files.bundles."+name, path)
		}
	}
	if d := i.Development; d != nil {
		sources++
		if is.required("identity.development.trustDomain", d.TrustDomain) {
			if _, err := spiffeid.TrustDomainFromString(d.TrustDomain); err != nil {
				is.bad("identity.development.trustDomain", "%w", err)
			}
		}
		is.required("identity.development.socket", d.Socket)
	}
	if sources > 1 {
		is.bad("identity", "workloadAPI, files and development exclude each other")
	}
	if i.SPIFFEID != "" {
		if _, err := spiffeid.FromString(i.SPIFFEID); err != nil {
			is.bad("identity.spiffeID", "%w", err)
		}
	}
	for n, proxy := range i.Proxies {
		if id, err := spiffeid.FromString(proxy); err != nil {
			is.bad(fmt.Sprintf("identity.proxies[%d]", n), "%w", err)
		} else if id.Path() == "" {
			is.bad(fmt.Sprintf("identity.proxies[%d]", n), "%q is a whole trust domain: name each proxy", proxy)
		}
	}
}

func (t Trust) check(is *checks) {
	distinct := slices.Compact(slices.Sorted(slices.Values(t.Root.Keys)))
	switch {
	case len(t.Root.Keys) == 0:
		is.bad("trust.root.keys", "is required: the ids of the keys that sign the trust policy (weighbridge key id FILE)")
	case len(distinct) != len(t.Root.Keys):
		is.bad("trust.root.keys", "names a key twice")
	case t.Root.Threshold < 1 || int(t.Root.Threshold) > len(t.Root.Keys):
		is.bad("trust.root.threshold", "%d is not between 1 and the number of keys, %d", t.Root.Threshold, len(t.Root.Keys))
	}
	for n, key := range t.Root.Keys {
		if _, err := statement.ParseKeyID(key); err != nil {
			is.bad(fmt.Sprintf("trust.root.keys[%d]", n), "%w", err)
		}
	}
	is.required("trust.policy", t.Policy)
	is.required("trust.state", t.State)
	if len(t.Statements) == 0 {
		is.bad("trust.statements", "is required: the directories that hold the signed statements")
	}
}

func (o Operator) check(is *checks, key string) {
	if is.required(key+".caller", o.Caller) {
		if _, err := access.Parse([]access.Rule{{Caller: o.Caller, Channels: []string{"control"}, Methods: []string{access.MethodModels}}}); err != nil {
			is.bad(key+".caller", "%q is not a SPIFFE ID or pattern", o.Caller)
		}
	}
	if len(o.Allow) == 0 {
		is.bad(key+".allow", "is required")
	}
	for _, act := range o.Allow {
		if act != "status" && act != "submit" {
			is.bad(key+".allow", "%q is not one of status and submit", act)
		}
	}
}
