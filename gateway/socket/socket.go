// Package socket makes unix sockets that other users of this machine can't reach.
//
// The one rule: a socket never has another mode than 0600, not even while it is made.
package socket

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// Listen opens a socket for this user alone, and removes it when it is closed. One that was left by a program that was
// killed is replaced; one that answers is not.
func Listen(ctx context.Context, path string) (net.Listener, error) {
	if conn, err := new(net.Dialer).DialContext(ctx, "unix", path); err == nil {
		conn.Close()
		return nil, fmt.Errorf("%s is in use by another program", path)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket == 0 {
		return nil, fmt.Errorf("%s exists and is no socket", path)
	}
	// Between bind and chmod the socket has the umask's mode, so it is made in a directory of its own and moved.
	private, err := os.MkdirTemp(filepath.Dir(path), ".socket-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(private)
	made := filepath.Join(private, "s")
	l, err := new(net.ListenConfig).Listen(ctx, "unix", made)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(made, 0o600), os.Rename(made, path)); err != nil {
		l.Close()
		return nil, err
	}
	return &named{l, path}, nil
}

// named removes its name when it is closed.
type named struct {
	net.Listener
	path string
}

func (s *named) Addr() net.Addr { return &net.UnixAddr{Name: s.path, Net: "unix"} }

func (s *named) Close() error { return errors.Join(s.Listener.Close(), os.Remove(s.path)) }
