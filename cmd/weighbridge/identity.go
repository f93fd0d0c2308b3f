package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/weighbridge/weighbridge/gateway/identity"
	"github.com/weighbridge/weighbridge/gateway/identity/devworkload"
)

func newIdentityCmd(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "identity",
		Short:   "SPIFFE identities for development",
		Example: "  weighbridge identity dev --socket /tmp/dev.sock --trust-domain bank.example",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newIdentityDevCmd(s))
	return cmd
}

// devOptions are the flags of identity dev.
type devOptions struct {
	socket      string
	trustDomain string
	federate    []string
	ids         []string
	write       string
	audience    string
	lifetime    time.Duration
	quiet       bool
}

func newIdentityDevCmd(s streams) *cobra.Command {
	var o devOptions
	cmd := &cobra.Command{
		Use:   "dev --socket PATH --trust-domain TD",
		Short: "Run a SPIFFE Workload API for development",
		Long: `Run a SPIFFE Workload API for development, until interrupted.

It makes a new authority for the trust domain, whose key never leaves this process, and hands X.509-SVIDs and JWT-SVIDs to
every process of this user that opens the socket. Without --id they are

  spiffe://TD/apps/demo   for callers: the first, which a client takes if it does not choose
  spiffe://TD/gateway     for the gateway, which chooses it by its hint

--id replaces them: each is an identity of the trust domain, in the order in which the socket offers them. An identity
with a socket of its own, --id ID=PATH, is offered there alone. SVIDs are renewed when half of --lifetime is over.

With --write DIR each identity is kept in files too, for tools such as curl and grpcurl: DIR/apps/demo/svid.pem,
key.pem and bundle.pem for spiffe://TD/apps/demo. They are valid for the host name localhost. With --audience ID there is
token.jwt beside them, a JWT-SVID for that audience, which is replaced every few minutes.

--federate TD makes another trust domain, and each of the two knows the other. Its identities need sockets of their own
(--id spiffe://TD/app=PATH), and their files are in DIR/TD.`,
		Example: `  weighbridge identity dev --socket /tmp/dev.sock --trust-domain bank.example &
  SPIFFE_ENDPOINT_SOCKET=unix:///tmp/dev.sock weighbridge chat chat "Good morning"

  weighbridge identity dev --socket dev.sock --trust-domain bank.example --write ./svids \
    --id spiffe://bank.example/apps/demo --id spiffe://bank.example/gateway=gateway.sock \
    --federate partner.example --id spiffe://partner.example/app=partner.sock`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return o.run(ctx, s)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.socket, "socket", "", "unix socket to serve on (0600; required)")
	f.StringVar(&o.trustDomain, "trust-domain", "", "trust domain, such as bank.example (required)")
	f.StringArrayVar(&o.federate, "federate", nil, "another trust domain, known to the first; repeat for more")
	f.StringArrayVar(&o.ids, "id", nil, "identity to hand out, ID or ID=SOCKET; repeat for more")
	f.StringVar(&o.write, "write", "", "directory in which to keep the identities as PEM files")
	f.StringVar(&o.audience, "audience", "", "with --write, keep a JWT-SVID for this audience too: the gateway's SPIFFE ID")
	f.DurationVar(&o.lifetime, "lifetime", devworkload.DefaultLifetime, "how long an SVID is valid")
	f.BoolVar(&o.quiet, "quiet", false, "print nothing when ready")
	return cmd
}

func (o *devOptions) run(ctx context.Context, s streams) (err error) {
	const what = "identity dev"
	if o.socket == "" || o.trustDomain == "" {
		return fmt.Errorf("%s: --socket and --trust-domain are required", what)
	}
	td, err := spiffeid.TrustDomainFromString(o.trustDomain)
	if err != nil {
		return fmt.Errorf("%s: --trust-domain %q: %w", what, o.trustDomain, err)
	}
	domains := []spiffeid.TrustDomain{td}
	for _, name := range o.federate {
		other, err := spiffeid.TrustDomainFromString(name)
		if err != nil || slices.Contains(domains, other) {
			return fmt.Errorf("%s: --federate %q: is not another trust domain", what, name)
		}
		domains = append(domains, other)
	}
	sockets, err := o.sockets(domains)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	agents, err := o.agents(domains, slog.New(slog.NewTextHandler(s.err, nil)))
	defer func() {
		for _, agent := range agents {
			if closed := agent.Close(); err == nil {
				err = closed
			}
		}
	}()
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	for _, w := range sockets {
		if err := o.serve(agents[w.ids[0].ID.TrustDomain()], w, td); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	if !o.quiet {
		for _, w := range sockets {
			fmt.Fprintf(s.out, "SPIFFE_ENDPOINT_SOCKET=unix://%s\n", w.path)
			for _, id := range w.ids {
				fmt.Fprintf(s.out, "  %s\n", id.ID)
			}
		}
		fmt.Fprintln(s.err, "for development only: whoever may open a socket has its identities; interrupt to end")
	}
	<-ctx.Done()
	return nil
}

// agents makes one for each trust domain, all of which know each other. Those it made are to be closed even if it fails.
func (o *devOptions) agents(domains []spiffeid.TrustDomain, log *slog.Logger) (map[spiffeid.TrustDomain]*devworkload.Agent, error) {
	agents := map[spiffeid.TrustDomain]*devworkload.Agent{}
	for _, td := range domains {
		agent, err := devworkload.Open(devworkload.Config{TrustDomain: td, Lifetime: o.lifetime, Audience: o.audience, Log: log})
		if err != nil {
			return agents, err
		}
		agents[td] = agent
	}
	for _, td := range domains {
		for other, agent := range agents {
			if other == td {
				continue
			}
			if err := agents[td].Federate(agent); err != nil {
				return agents, err
			}
		}
	}
	return agents, nil
}

// serve offers the identities of one socket, there and in files.
func (o *devOptions) serve(agent *devworkload.Agent, w *devSocket, first spiffeid.TrustDomain) error {
	if o.write != "" {
		dir := o.write
		if td := w.ids[0].ID.TrustDomain(); td != first {
			dir = filepath.Join(dir, td.Name())
		}
		if err := agent.Write(dir, w.ids...); err != nil {
			return err
		}
	}
	return agent.Serve(w.path, w.ids...)
}

// A devSocket offers some identities of one trust domain.
type devSocket struct {
	path string
	ids  []devworkload.Identity
}

// sockets returns what to serve where, the socket of --socket first.
func (o *devOptions) sockets(domains []spiffeid.TrustDomain) ([]*devSocket, error) {
	main, err := filepath.Abs(o.socket)
	if err != nil {
		return nil, err
	}
	caller, gateway, err := identity.DevelopmentIDs(domains[0])
	if err != nil {
		return nil, err
	}
	if len(o.ids) == 0 {
		return []*devSocket{{main, []devworkload.Identity{caller, gateway}}}, nil
	}
	var out []*devSocket
	for _, arg := range o.ids {
		text, path, own := strings.Cut(arg, "=")
		id := devworkload.Identity{}
		if id.ID, err = spiffeid.FromString(text); err != nil {
			return nil, fmt.Errorf("--id %q: %w", arg, err)
		}
		if !slices.Contains(domains, id.ID.TrustDomain()) || id.ID.Path() == "" {
			return nil, fmt.Errorf("--id %q: must be spiffe://%s/ and a path", arg, domains[0])
		}
		if id.ID == gateway.ID {
			id.Hint = gateway.Hint
		}
		socket := main
		if own {
			if socket, err = filepath.Abs(path); err != nil || path == "" {
				return nil, fmt.Errorf("--id %q: needs a path after =", arg)
			}
		}
		if i := indexSocket(out, socket); i >= 0 {
			if !out[i].ids[0].ID.MemberOf(id.ID.TrustDomain()) {
				return nil, fmt.Errorf("--id %q: a socket has identities of one trust domain: give it one of its own", arg)
			}
			out[i].ids = append(out[i].ids, id)
			continue
		}
		out = append(out, &devSocket{socket, []devworkload.Identity{id}})
	}
	if indexSocket(out, main) < 0 {
		return nil, errors.New("every --id has a socket of its own: leave one for --socket")
	}
	return out, nil
}

func indexSocket(sockets []*devSocket, path string) int {
	return slices.IndexFunc(sockets, func(s *devSocket) bool { return s.path == path })
}
