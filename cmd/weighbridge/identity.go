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
	ids         []string
	write       string
	lifetime    time.Duration
	quiet       bool
}

func newIdentityDevCmd(s streams) *cobra.Command {
	var o devOptions
	cmd := &cobra.Command{
		Use:   "dev --socket PATH --trust-domain TD",
		Short: "Run a SPIFFE Workload API for development",
		Long: `Run a SPIFFE Workload API for development, until interrupted.

It makes a new authority for the trust domain, whose key never leaves this process, and hands X.509-SVIDs to every
process of this user that opens the socket. Without --id they are

  spiffe://TD/apps/demo   for callers: the first, which a client takes if it does not choose
  spiffe://TD/gateway     for the gateway, which chooses it by its hint

--id replaces them: each is an identity of the trust domain, in the order in which the socket offers them. An identity
with a socket of its own, --id ID=PATH, is offered there alone. SVIDs are renewed when half of --lifetime is over.

With --write DIR each identity is kept in files too, for tools such as curl and grpcurl: DIR/apps/demo/svid.pem,
key.pem and bundle.pem for spiffe://TD/apps/demo. They are valid for the host name localhost.`,
		Example: `  weighbridge identity dev --socket /tmp/dev.sock --trust-domain bank.example &
  SPIFFE_ENDPOINT_SOCKET=unix:///tmp/dev.sock weighbridge chat chat "Good morning"

  weighbridge identity dev --socket dev.sock --trust-domain bank.example --write ./svids \
    --id spiffe://bank.example/apps/demo --id spiffe://bank.example/gateway=gateway.sock`,
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
	f.StringArrayVar(&o.ids, "id", nil, "identity to hand out, ID or ID=SOCKET; repeat for more")
	f.StringVar(&o.write, "write", "", "directory in which to keep the identities as PEM files")
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
	sockets, err := o.sockets(td)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	agent, err := devworkload.Open(devworkload.Config{TrustDomain: td, Lifetime: o.lifetime, Log: slog.New(slog.NewTextHandler(s.err, nil))})
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer func() {
		if closed := agent.Close(); err == nil {
			err = closed
		}
	}()
	for _, w := range sockets {
		if o.write != "" {
			if err := agent.Write(o.write, w.ids...); err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
		}
		if err := agent.Serve(w.path, w.ids...); err != nil {
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

// A devSocket offers some identities.
type devSocket struct {
	path string
	ids  []devworkload.Identity
}

// sockets returns what to serve where, the socket of --socket first.
func (o *devOptions) sockets(td spiffeid.TrustDomain) ([]*devSocket, error) {
	main, err := filepath.Abs(o.socket)
	if err != nil {
		return nil, err
	}
	caller, gateway, err := identity.DevelopmentIDs(td)
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
		if !id.ID.MemberOf(td) || id.ID.Path() == "" {
			return nil, fmt.Errorf("--id %q: must be spiffe://%s/ and a path", arg, td)
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
