package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/configs"
	"github.com/weighbridge/weighbridge/gateway"
	"github.com/weighbridge/weighbridge/gateway/access"
	"github.com/weighbridge/weighbridge/gateway/catalog"
	"github.com/weighbridge/weighbridge/gateway/control"
	"github.com/weighbridge/weighbridge/gateway/identity"
	"github.com/weighbridge/weighbridge/gateway/receipt"
	"github.com/weighbridge/weighbridge/gateway/telemetry"
	"github.com/weighbridge/weighbridge/verifier/seal"
	"github.com/weighbridge/weighbridge/verifier/store"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

func newServeCmd(s streams) *cobra.Command {
	var config string
	var initState, debug bool
	cmd := &cobra.Command{
		Use:   "serve --config FILE",
		Short: "Serve the releases that signed statements approve",
		Long: `Serve the channels of a configuration. A new valid publication in the statements directories
is loaded and switched to; an invalid one changes nothing and the log says why.

SIGHUP reads the configuration again: access rules, channels, directories and the trust policy
change without a restart, and an invalid new file keeps the old one. Requests in flight that the
new rules do not allow are ended, streams too.`,
		Example: "  weighbridge serve --config gateway.yaml --init-state",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			level := slog.LevelInfo
			if debug {
				level = slog.LevelDebug
			}
			log := slog.New(slog.NewJSONHandler(s.err, &slog.HandlerOptions{Level: level}))
			return serve(cmd.Context(), log, config, initState)
		},
	}
	cmd.Flags().StringVar(&config, "config", "", "the gateway's configuration (required)")
	cmd.Flags().BoolVar(&initState, "init-state", false, "make the state directory if it does not exist; it forgets what was accepted before")
	cmd.Flags().BoolVar(&debug, "debug", false, "log the runtimes' output and other details")
	cobra.CheckErr(cmd.MarkFlagRequired("config"))
	return cmd
}

// serve builds the gateway and serves until a signal arrives or a part fails. Each value is built from the ones above
// it, and the defers undo that order: calls drain first, then runtimes stop, and the state is let go last.
func serve(ctx context.Context, log *slog.Logger, path string, initState bool) error {
	leaveRoom()
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	// Other processes of this user must not read keys or weights out of this one's memory.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		log.Warn("the gateway's memory can be read by this user's other processes", "err", err)
	}

	cfg, err := configs.Load(path)
	if err != nil {
		return err
	}
	tel, err := telemetry.Open(ctx, telemetry.Config{Version: version, Log: log, Offline: cfg.Offline})
	if err != nil {
		return fmt.Errorf("open telemetry: %w", err)
	}
	defer closeWithin(log, "telemetry", tel.Close)

	if initState {
		if err := store.CreateState(cfg.Trust.State); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	state, err := store.OpenState(cfg.Trust.State)
	if errors.Is(err, store.ErrNoState) {
		return withHint(err, "for a new gateway run: weighbridge serve --config "+path+" --init-state; an existing one needs its state back, or old publications count again")
	} else if err != nil {
		return err
	}
	defer state.Close()

	if err := readable(cfg.Trust.Statements); err != nil {
		return err
	}
	trail, key, err := openTrail(cfg.Audit, initState, log)
	if err != nil {
		return err
	}
	defer closeTrail(log, trail)
	policy, err := acceptPolicy(ctx, log, cfg.Trust, state, trail)
	if err != nil {
		return err
	}
	sockets, err := runtimesDir(cfg.Trust.State)
	if err != nil {
		return err
	}
	defer os.RemoveAll(sockets)
	backend, err := backendFactory(cfg, sockets, ownerOf(key), log)
	if err != nil {
		return err
	}
	pool := seal.NewPool(memoryBudget(cfg))
	defer pool.Close()
	cat, err := catalog.New(catalog.Config{
		State: state, Trail: trail, NewBackend: backend, Pool: pool, Now: time.Now, Log: log,
		Meter: tel.Meter("weighbridge/catalog"), Tracer: tel.Tracer("weighbridge/catalog"),
	})
	if err != nil {
		return err
	}
	idCfg, err := identityConfig(cfg, log)
	if err != nil {
		return err
	}
	id, err := identity.Open(ctx, idCfg)
	if err != nil {
		return fmt.Errorf("open identity: %w", err)
	}
	defer id.Close()
	if err := watchSVID(tel.Meter("weighbridge/identity"), id); err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	var rules atomic.Pointer[access.Policy]
	first, err := access.Parse(cfg.Access)
	if err != nil {
		return err
	}
	rules.Store(first)
	receipts, err := receipt.New(receipt.Config{Key: key, Origin: auditOrigin, Log: trail, Policy: cat.Policy, Logger: log})
	if err != nil {
		return err
	}
	defer receipts.Close()
	certificate, err := tokenCertificate(cfg.Listen.JWT)
	if err != nil {
		return err
	}
	gw, err := gateway.New(gateway.Config{
		Catalog: frontDoor{cat}, Access: rules.Load, Identity: id, Certificate: certificate, Log: log, Receipts: receipts,
		Version: version,
		Refused: func(caller string) { trail.RefusedCaller(caller, "", "access") },
		Meter:   tel.Meter("weighbridge/gateway"), Tracer: tel.Tracer("weighbridge/gateway"),
	})
	if err != nil {
		return err
	}

	listeners, err := listen(ctx, cfg.Listen)
	if err != nil {
		return err
	}
	defer listeners.close()
	var current atomic.Pointer[configs.Gateway]
	current.Store(cfg)
	scrubber, err := newScrubber(cat, &current, trail, tel.Meter("weighbridge/scrub"), log)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	// Runtimes outlive the front door: they stop once its last answer is through.
	running, stopRunning := context.WithCancel(context.WithoutCancel(ctx))
	defer stopRunning()
	g.Go(func() error { cat.Run(running, catalogInputs(cfg, policy)); return nil })
	g.Go(func() error {
		defer stopRunning()
		return gw.Serve(ctx, gateway.Listeners{
			GRPC: listeners.grpc, HTTP: listeners.http, TokenGRPC: listeners.jwtGRPC, TokenHTTP: listeners.jwtHTTP,
		})
	})
	g.Go(func() error { scrubber.Run(ctx); return nil })
	if listeners.control != nil {
		view := operatorsView{cat, scrubber, id}
		g.Go(func() error { return control.Serve(running, listeners.control, view, mailbox{cat, state, &current}) })
	}
	if listeners.metrics != nil {
		g.Go(func() error { return serveMetrics(running, listeners.metrics, tel.Handler()) })
	}
	r := reloader{log: log, path: path, running: &current, state: state, trail: trail, rules: &rules, recheck: gw.Recheck, catalog: cat, identity: id}
	g.Go(func() error { return r.run(ctx, hangups) })
	log.Info("gateway listens", "grpc", address(listeners.grpc), "http", address(listeners.http), "control", cfg.Listen.Control,
		"jwtGRPC", address(listeners.jwtGRPC), "jwtHTTP", address(listeners.jwtHTTP),
		"metrics", address(listeners.metrics), "channels", len(cfg.Channels), "policy", policy.Digest())
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	log.Info("gateway stopped")
	return nil
}

// runtimesDir makes the directory for the runtimes' sockets, where no other user can look. It stands in the state, of
// which this process has the lock: so what is there was left by a gateway that was killed.
func runtimesDir(state string) (string, error) {
	dir := filepath.Join(state, "runtimes")
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
		return "", fmt.Errorf("make the runtimes' directory: %w", err)
	}
	return dir, nil
}

// catalogInputs are the parts of a configuration that the catalog follows.
func catalogInputs(cfg *configs.Gateway, policy *trust.Policy) catalog.Inputs {
	in := catalog.Inputs{Policy: policy, Statements: cfg.Trust.Statements, Weights: cfg.Weights}
	if l := cfg.Lease; l != nil {
		most, _ := trust.ParseAge(l.MaxStaleness) // configs has checked it
		in.Lease = trust.Lease{MaxStaleness: most, Deny: l.Then == "deny"}
	}
	for name := range cfg.Channels {
		in.Channels = append(in.Channels, name)
	}
	return in
}

// memoryBudget is what the configuration says, or half of the machine's memory.
func memoryBudget(cfg *configs.Gateway) int64 {
	if cfg.Memory != 0 {
		return int64(cfg.Memory)
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 1 << 30 // small, so that a wrong guess refuses a load and does not starve the machine
	}
	return int64(info.Totalram) * int64(info.Unit) / 2
}

// closeTimeout bounds the flushing of telemetry when the gateway ends.
const closeTimeout = 5 * time.Second

func closeWithin(log *slog.Logger, what string, close func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := close(ctx); err != nil {
		log.Warn("close", "what", what, "err", err)
	}
}

// openListeners are the gateway's sockets; those not configured are nil.
type openListeners struct{ grpc, http, jwtGRPC, jwtHTTP, control, metrics net.Listener }

func listen(ctx context.Context, l configs.Listen) (openListeners, error) {
	var open openListeners
	var errs []error
	if l.JWT == nil {
		l.JWT = &configs.JWT{}
	}
	for _, a := range []struct {
		key, address string
		into         *net.Listener
	}{{"grpc", l.GRPC, &open.grpc}, {"http", l.HTTP, &open.http}, {"metrics", l.Metrics, &open.metrics},
		{"jwt.grpc", l.JWT.GRPC, &open.jwtGRPC}, {"jwt.http", l.JWT.HTTP, &open.jwtHTTP}} {
		if a.address == "" {
			continue
		}
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", a.address)
		if err != nil {
			errs = append(errs, fmt.Errorf("listen.%s: %w", a.key, err))
			continue
		}
		*a.into = listener
	}
	if socket, ok := strings.CutPrefix(l.Control, "unix:"); ok {
		listener, err := control.Listen(ctx, socket)
		if err != nil {
			errs = append(errs, err)
		} else {
			open.control = listener
		}
	}
	if len(errs) > 0 {
		open.close()
		return openListeners{}, errors.Join(errs...)
	}
	return open, nil
}

// address is where a listener really listens, which a configured port 0 does not say.
func address(l net.Listener) string {
	if l == nil {
		return ""
	}
	return l.Addr().String()
}

func (o openListeners) close() {
	for _, l := range []net.Listener{o.grpc, o.http, o.jwtGRPC, o.jwtHTTP, o.control, o.metrics} {
		if l != nil {
			l.Close()
		}
	}
}

// headerTimeout is for the metrics listener, which faces the site's own collector.
const headerTimeout = 5 * time.Second

func serveMetrics(ctx context.Context, l net.Listener, metrics http.Handler) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	s := &http.Server{Handler: mux, ReadHeaderTimeout: headerTimeout}
	stopped := context.AfterFunc(ctx, func() { s.Close() })
	defer stopped()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve metrics: %w", err)
	}
	return nil
}
