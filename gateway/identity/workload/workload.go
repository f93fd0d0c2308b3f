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

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	pb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
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

// A Server answers X.509 requests of the Workload API with what it was last told to. All its methods may be called
// concurrently.
type Server struct {
	pb.UnimplementedSpiffeWorkloadAPIServer

	grpc   *grpc.Server
	done   chan struct{} // closed when Serve has returned
	memory *bufconn.Listener
	socket string

	mu      sync.Mutex
	svids   *pb.X509SVIDResponse // nil: no identity is issued
	bundles *pb.X509BundlesResponse
	changed chan struct{} // closed and replaced at each change
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

// Set replaces what is handed out, and sends it to every client that waits. The first SVID is the one that clients
// take if they don't choose.
func (s *Server) Set(svids []*x509svid.SVID, bundle *x509bundle.Bundle) error {
	var authorities []byte
	for _, ca := range bundle.X509Authorities() {
		authorities = append(authorities, ca.Raw...)
	}
	out := &pb.X509SVIDResponse{}
	for _, svid := range svids {
		chain, key, err := svid.MarshalRaw()
		if err != nil {
			return fmt.Errorf("encode SVID %s: %w", svid.ID, err)
		}
		out.Svids = append(out.Svids, &pb.X509SVID{
			SpiffeId: svid.ID.String(), X509Svid: chain, X509SvidKey: key, Bundle: authorities, Hint: svid.Hint,
		})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.svids = out
	s.bundles = &pb.X509BundlesResponse{Bundles: map[string][]byte{bundle.TrustDomain().IDString(): authorities}}
	close(s.changed)
	s.changed = make(chan struct{})
	return nil
}

func (s *Server) current() (*pb.X509SVIDResponse, *pb.X509BundlesResponse, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.svids, s.bundles, s.changed
}

// FetchX509SVID implements the Workload API.
func (s *Server) FetchX509SVID(_ *pb.X509SVIDRequest, stream grpc.ServerStreamingServer[pb.X509SVIDResponse]) error {
	return s.stream(stream.Context(), func() (<-chan struct{}, error) {
		svids, _, changed := s.current()
		if svids == nil {
			return nil, errNoIdentity
		}
		return changed, stream.Send(svids)
	})
}

// FetchX509Bundles implements the Workload API.
func (s *Server) FetchX509Bundles(_ *pb.X509BundlesRequest, stream grpc.ServerStreamingServer[pb.X509BundlesResponse]) error {
	return s.stream(stream.Context(), func() (<-chan struct{}, error) {
		_, bundles, changed := s.current()
		if bundles == nil {
			return nil, errNoIdentity
		}
		return changed, stream.Send(bundles)
	})
}

// stream sends now and at each change, until the client goes or send fails.
func (s *Server) stream(ctx context.Context, send func() (<-chan struct{}, error)) error {
	if md, _ := metadata.FromIncomingContext(ctx); len(md[header]) != 1 || md[header][0] != "true" {
		return status.Errorf(codes.InvalidArgument, "security header %s: true is missing from the request", header)
	}
	for {
		changed, err := send()
		if err != nil {
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
