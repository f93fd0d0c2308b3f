package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/weighbridge/weighbridge/gateway/socket"
)

// ErrRemote means that others than this machine could reach an address: they would all be answered as us.
var ErrRemote = errors.New("is not of this machine alone")

// Listen listens on HOST:PORT, which must be loopback, or on unix:PATH, a socket for our own user alone.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return socket.Listen(ctx, path)
	}
	return listen(ctx, address, true)
}

// ListenUnsafeRemote listens on HOST:PORT wherever that is reached from. Whoever can is answered as the proxy's identity.
func ListenUnsafeRemote(ctx context.Context, address string) (net.Listener, error) {
	return listen(ctx, address, false)
}

func listen(ctx context.Context, address string, local bool) (net.Listener, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if local && !isLoopback(l.Addr()) { // of the address itself: a name may be any
		l.Close()
		return nil, fmt.Errorf("%s %w", address, ErrRemote)
	}
	return l, nil
}

func isLoopback(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}
