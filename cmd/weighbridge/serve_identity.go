package main

import (
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/weighbridge/weighbridge/configs"
	"github.com/weighbridge/weighbridge/gateway/identity"
)

// identityConfig says where the gateway's own SVID comes from, and what its callers may show.
func identityConfig(g *configs.Gateway, log *slog.Logger) (identity.Config, error) {
	c := g.Identity
	if agent := os.Getenv("SPIFFE_ENDPOINT_SOCKET"); g.Offline && c.WorkloadAPI == "" && c.Files == nil && c.Development == nil && strings.HasPrefix(agent, "tcp:") {
		return identity.Config{}, fmt.Errorf("SPIFFE_ENDPOINT_SOCKET is %s, and offline is true: only unix sockets are dialed", agent)
	}
	cfg := identity.Config{WorkloadAPI: c.WorkloadAPI, Hint: identity.HintGateway, Tokens: g.Listen.JWT != nil, Log: log}
	if c.Files != nil {
		cfg.Files = &identity.Files{SVID: c.Files.SVID, Key: c.Files.Key, Bundle: c.Files.Bundle, Bundles: c.Files.Bundles}
	}
	if c.Development != nil {
		log.Warn("development identities: this process issues its own SVIDs, for whoever opens its socket as this user",
			"trustDomain", c.Development.TrustDomain, "socket", c.Development.Socket)
		cfg.Development = &identity.Development{TrustDomain: c.Development.TrustDomain, Socket: c.Development.Socket}
	}
	if c.SPIFFEID != "" {
		id, err := spiffeid.FromString(c.SPIFFEID)
		if err != nil {
			return cfg, fmt.Errorf("identity.spiffeID: %w", err)
		}
		cfg.ID = id
	}
	for _, proxy := range c.Proxies {
		id, err := spiffeid.FromString(proxy)
		if err != nil {
			return cfg, fmt.Errorf("identity.proxies: %w", err)
		}
		cfg.Proxies = append(cfg.Proxies, id)
	}
	return cfg, nil
}

// tokenCertificate reads what the listeners for JWT-SVIDs present; nil is the gateway's own SVID.
func tokenCertificate(j *configs.JWT) (*identity.CertificateFiles, error) {
	if j == nil || j.TLS == nil {
		return nil, nil //nolint:nilnil // nil is the gateway's own SVID
	}
	files, err := identity.OpenCertificate(j.TLS.Certificate, j.TLS.Key)
	if err != nil {
		return nil, fmt.Errorf("listen.jwt.tls: %w", err)
	}
	return files, nil
}
