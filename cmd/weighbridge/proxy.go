package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/weighbridge/weighbridge/gateway/identity"
	"github.com/weighbridge/weighbridge/gateway/proxy"
)

const (
	// defaultProxyListen is where Ollama's clients look.
	defaultProxyListen = "127.0.0.1:11434"
	// defaultProxyServer is listen.http of the samples.
	defaultProxyServer = "127.0.0.1:8443"
)

// proxyOptions are the flags of proxy.
type proxyOptions struct {
	callerOptions
	listen, server string
	origins        []string
	remote         bool
}

func newProxyCmd(s streams) *cobra.Command {
	var o proxyOptions
	cmd := &cobra.Command{
		Use:   "proxy",
		Short: "Lend our identity to local tools that can't do mTLS",
		Long: `Listen on this machine for plain HTTP, and pass every request on to a gateway's HTTP listener with SPIFFE mTLS: for
tools that speak the APIs of OpenAI, Ollama or Anthropic and know no SVIDs. Whoever reaches the listener is answered as
this identity, within its access rules. So it is on loopback, or a unix socket of our own user (--listen unix:PATH); a
request must ask for localhost by its Host, and browsers may ask from pages of this machine alone, unless --origin names
another. API keys are dropped on the way: give tools any.

The identity comes from the Workload API at SPIFFE_ENDPOINT_SOCKET, or from the files --svid, --svid-key and --bundle, and is
renewed while the proxy runs. The server must be a member of the same trust domain, or be the very one that --server-id
names.`,
		Example: `  weighbridge proxy --server gateway.example:8443 &
  OLLAMA_HOST=127.0.0.1:11434 ollama run chat
  OPENAI_BASE_URL=http://127.0.0.1:11434/v1 OPENAI_API_KEY=none python app.py`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			if err := o.run(ctx, s); err != nil {
				return fmt.Errorf("proxy: %w", err)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.listen, "listen", defaultProxyListen, "HOST:PORT on loopback, or unix:PATH")
	f.StringVar(&o.server, "server", "", "HOST:PORT of the gateway's HTTP listener (default "+defaultProxyServer+")")
	o.add(f)
	f.StringArrayVar(&o.origins, "origin", nil, "origin whose web pages may ask, such as https://tool.example; repeat for more")
	f.BoolVar(&o.remote, "unsafe-remote", false, "listen beyond this machine, too, for who asks by its address: whoever reaches that is answered as us")
	return cmd
}

func (o *proxyOptions) run(ctx context.Context, s streams) error {
	if o.server == "" {
		o.server = defaultProxyServer
	}
	if err := o.check(); err != nil {
		return err
	}
	options, err := o.options()
	if err != nil {
		return err
	}
	log := slog.New(slog.NewJSONHandler(s.err, nil))
	options.Identity.Log = log
	listen := proxy.Listen
	if o.remote {
		listen = proxy.ListenUnsafeRemote
	}
	l, err := listen(ctx, o.listen)
	if errors.Is(err, proxy.ErrRemote) {
		err = withHint(err, "listen on 127.0.0.1 or unix:PATH; --unsafe-remote is for networks that nobody else is in")
	}
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	defer l.Close()
	us, err := identity.Open(ctx, options.Identity)
	if err != nil {
		return err
	}
	defer us.Close() // it was only read from
	p, err := proxy.New(proxy.Config{Server: o.server, Identity: us, Authorize: options.Authorize(us), Origins: o.origins, Log: log})
	if err != nil {
		return err
	}
	log.Info("proxy listens", "listen", l.Addr().String(), "server", o.server)
	return p.Serve(ctx, l)
}
