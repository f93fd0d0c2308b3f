// Package workload serves the SPIFFE Workload API, so that identities from files and development identities reach the
// gateway the way SPIRE's do.
//
// The one rule: a [Server] hands its keys to whoever reaches it, so it is reachable inside this process only, or
// through a socket that only this user may open.
package workload

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	pb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
)

const (
	// header must come with every call, so that a browser or another confused deputy can't make one (SPIFFE Workload
	// Endpoint, section 3).
	header = "workload.spiffe.io"

	// maxSocketPath keeps a path, and the temporary one it is bound under, within what the kernel takes (108 bytes).
	maxSocketPath = 90

	// probeTimeout bounds the question whether somebody serves a socket already.
	probeTimeout = time.Second

	// memoryBuffer is how many bytes an in-process connection holds.
	memoryBuffer = 64 << 10
)

// errNoIdentity is what SPIRE answers too, until it knows the workload: clients try again.
var errNoIdentity = status.Error(codes.PermissionDenied, "no identity issued")

// Issued is what a [Server] hands out.
type Issued struct {
	SVIDs     []*x509svid.SVID       // the first is the one that clients take if they don't choose
	Bundle    *spiffebundle.Bundle   // of the SVIDs' trust domain
	Federated []*spiffebundle.Bundle // of the others that are known

	// Token makes a JWT-SVID. It is called concurrently, for the identities of SVIDs alone. nil: there are none to be had.
	Token func(id spiffeid.ID, audience []string) (string, error)
}

// A Server answers requests of the Workload API with what it was last told to. All its methods may be called
// concurrently.
type Server struct {
	pb.UnimplementedSpiffeWorkloadAPIServer

	grpc   *grpc.Server
	done   chan struct{} // closed when Serve has returned
	memory *bufconn.Listener
	socket string

	mu      sync.Mutex
	now     *answers      // nil: no identity is issued
	changed chan struct{} // closed and replaced at each change
}

// answers are what is handed out, as it goes over the wire. They never change.
type answers struct {
	svids       *pb.X509SVIDResponse
	bundles     *pb.X509BundlesResponse
	jwtBundles  *pb.JWTBundlesResponse
	authorities *jwtbundle.Set
	token       func(id spiffeid.ID, audience []string) (string, error)
}

// InProcess returns a server that [Server.ClientOptions] alone lead to.
func InProcess() *Server {
	l := bufconn.Listen(memoryBuffer)
	s := serve(l)
	s.memory = l
	return s
}

// Listen serves on a unix socket that only this user may open. A socket that nobody serves any more is replaced.
func Listen(path string) (*Server, error) {
	if err := vacant(path); err != nil {
		return nil, fmt.Errorf("workload API socket: %w", err)
	}
	// The socket appears under its name only when nobody else may open it: there is no moment in between.
	dir, err := os.MkdirTemp(filepath.Dir(path), ".w")
	if err != nil {
		return nil, fmt.Errorf("workload API socket: %w", err)
	}
	defer os.RemoveAll(dir)
	private := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: private, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("workload API socket %s: %w", path, err)
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(private, 0o600), os.Rename(private, path)); err != nil {
		return nil, errors.Join(fmt.Errorf("workload API socket: %w", err), l.Close())
	}
	s := serve(l)
	s.socket = path
	return s, nil
}

// vacant returns nil if a socket may be made at path.
func vacant(path string) error {
	if len(path) > maxSocketPath {
		return fmt.Errorf("%s: the path is %d bytes long, and no socket's may be over %d: choose a shorter one", path, len(path), maxSocketPath)
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s exists and is not a socket", path)
	}
	if conn, err := (&net.Dialer{Timeout: probeTimeout}).DialContext(context.Background(), "unix", path); err == nil {
		conn.Close()
		return fmt.Errorf("%s is served by another process", path)
	}
	return nil
}

func serve(l net.Listener) *Server {
	s := &Server{grpc: grpc.NewServer(grpc.Creds(insecure.NewCredentials())), done: make(chan struct{}), changed: make(chan struct{})}
	pb.RegisterSpiffeWorkloadAPIServer(s.grpc, s)
	go func() {
		defer close(s.done)
		_ = s.grpc.Serve(l) // it ends by Close alone, and then its error says just that
	}()
	return s
}

// ClientOptions lead a Workload API client to this server.
func (s *Server) ClientOptions() []workloadapi.ClientOption {
	if s.memory == nil {
		return []workloadapi.ClientOption{workloadapi.WithAddr("unix://" + s.socket)}
	}
	return []workloadapi.ClientOption{
		// The client insists on an address; the dialer makes it a name only.
		workloadapi.WithAddr("unix:///in-process"),
		workloadapi.WithDialOptions(grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return s.memory.DialContext(ctx)
		})),
	}
}

// Set replaces what is handed out, and sends it to every client that waits.
func (s *Server) Set(i Issued) error {
	now, err := answersOf(i)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = now
	close(s.changed)
	s.changed = make(chan struct{})
	return nil
}

func answersOf(i Issued) (*answers, error) {
	a := &answers{
		svids:      &pb.X509SVIDResponse{FederatedBundles: map[string][]byte{}},
		bundles:    &pb.X509BundlesResponse{Bundles: map[string][]byte{}},
		jwtBundles: &pb.JWTBundlesResponse{Bundles: map[string][]byte{}}, authorities: jwtbundle.NewSet(), token: i.Token,
	}
	for n, bundle := range append([]*spiffebundle.Bundle{i.Bundle}, i.Federated...) {
		td := bundle.TrustDomain().IDString()
		a.bundles.Bundles[td] = rawAuthorities(bundle)
		if n > 0 {
			a.svids.FederatedBundles[td] = a.bundles.Bundles[td]
		}
		keys, err := bundle.JWTBundle().Marshal()
		if err != nil {
			return nil, fmt.Errorf("encode JWT bundle of %s: %w", td, err)
		}
		a.jwtBundles.Bundles[td] = keys
		a.authorities.Add(bundle.JWTBundle())
	}
	for _, svid := range i.SVIDs {
		chain, key, err := svid.MarshalRaw()
		if err != nil {
			return nil, fmt.Errorf("encode SVID %s: %w", svid.ID, err)
		}
		a.svids.Svids = append(a.svids.Svids, &pb.X509SVID{
			SpiffeId: svid.ID.String(), X509Svid: chain, X509SvidKey: key, Bundle: rawAuthorities(i.Bundle), Hint: svid.Hint,
		})
	}
	return a, nil
}

func rawAuthorities(b *spiffebundle.Bundle) (raw []byte) {
	for _, ca := range b.X509Authorities() {
		raw = append(raw, ca.Raw...)
	}
	return raw
}

func (s *Server) current() (*answers, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now, s.changed
}

// FetchX509SVID implements the Workload API.
func (s *Server) FetchX509SVID(_ *pb.X509SVIDRequest, stream grpc.ServerStreamingServer[pb.X509SVIDResponse]) error {
	return s.stream(stream.Context(), func(a *answers) error { return stream.Send(a.svids) })
}

// FetchX509Bundles implements the Workload API.
func (s *Server) FetchX509Bundles(_ *pb.X509BundlesRequest, stream grpc.ServerStreamingServer[pb.X509BundlesResponse]) error {
	return s.stream(stream.Context(), func(a *answers) error { return stream.Send(a.bundles) })
}

// FetchJWTBundles implements the Workload API.
func (s *Server) FetchJWTBundles(_ *pb.JWTBundlesRequest, stream grpc.ServerStreamingServer[pb.JWTBundlesResponse]) error {
	return s.stream(stream.Context(), func(a *answers) error { return stream.Send(a.jwtBundles) })
}

// asked checks the header that every call must bring.
func asked(ctx context.Context) error {
	if md, _ := metadata.FromIncomingContext(ctx); len(md[header]) != 1 || md[header][0] != "true" {
		return status.Errorf(codes.InvalidArgument, "security header %s: true is missing from the request", header)
	}
	return nil
}

// stream sends now and at each change, until the client goes or send fails.
func (s *Server) stream(ctx context.Context, send func(*answers) error) error {
	if err := asked(ctx); err != nil {
		return err
	}
	for {
		now, changed := s.current()
		if now == nil {
			return errNoIdentity
		}
		if err := send(now); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Close ends every stream and removes the socket.
func (s *Server) Close() error {
	s.grpc.Stop()
	<-s.done
	if s.socket == "" {
		return nil
	}
	if err := os.Remove(s.socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove workload API socket: %w", err)
	}
	return nil
}
