package process

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// errNoNamespaces means that a child can't have namespaces of its own here, in this way at least.
var errNoNamespaces = errors.New("no namespaces of its own")

// A namespaces says in which new namespaces a child starts.
type namespaces int

const (
	sharedNamespaces  namespaces = iota // this process's
	ownNamespaces                       // of network, mounts and processes
	ownUserNamespaces                   // of users too, in which it may make the others
)

// attempts lists what to try, in order. A user namespace is for those who may not make the others without one; where
// one is forbidden, root may still do without.
func (c Config) attempts() []namespaces {
	switch {
	case !c.Network:
		return []namespaces{sharedNamespaces}
	case os.Geteuid() == 0:
		return []namespaces{ownNamespaces, ownUserNamespaces, sharedNamespaces}
	default:
		return []namespaces{ownUserNamespaces, sharedNamespaces}
	}
}

// apply sets how the child is forked. The namespace of processes is made by the child itself, which stays outside.
func (n namespaces) apply(attr *syscall.SysProcAttr) {
	if n == sharedNamespaces {
		return
	}
	attr.Cloneflags = unix.CLONE_NEWNET | unix.CLONE_NEWNS
	if n == ownUserNamespaces {
		attr.Cloneflags |= unix.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
}

// refused reports whether it was the namespaces that a process could not be forked with.
func (n namespaces) refused(err error) bool {
	return n != sharedNamespaces && slices.ContainsFunc(
		[]syscall.Errno{unix.EPERM, unix.EACCES, unix.EINVAL, unix.ENOSPC, unix.EUSERS, unix.ENOSYS},
		func(errno syscall.Errno) bool { return errors.Is(err, errno) })
}

// controlSocket returns the two ends of what Dial asks by, which keeps requests apart.
func controlSocket() (ours *net.UnixConn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make control socket: %w", os.NewSyscallError("socketpair", err))
	}
	f, theirs := os.NewFile(uintptr(fds[0]), "control"), os.NewFile(uintptr(fds[1]), "control")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("make control socket: %w", err), theirs.Close())
	}
	return conn.(*net.UnixConn), theirs, nil
}

// Dial connects to a port of the child's loopback interface: the process beside it does, and hands the connection over,
// so that nothing stands between when it is used. It is for children that have a network, and it does not wait: a port
// at which nobody listens is an error.
func (p *Process) Dial(ctx context.Context, port int) (net.Conn, error) {
	if p.control == nil {
		return nil, errors.New("dial the child: it has no network")
	}
	conn, err := p.dial(ctx, port)
	if err != nil {
		return nil, fmt.Errorf("dial the child: %w", err)
	}
	return conn, nil
}

func (p *Process) dial(ctx context.Context, port int) (net.Conn, error) {
	ours, theirs, err := socketPair("dial")
	if err != nil {
		return nil, err
	}
	answer, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		theirs.Close()
		return nil, err
	}
	defer answer.Close()
	defer context.AfterFunc(ctx, func() { answer.Close() })()

	request := binary.BigEndian.AppendUint16(nil, uint16(port))
	_, _, err = p.control.WriteMsgUnix(request, unix.UnixRights(int(theirs.Fd())), nil)
	theirs.Close()
	if err != nil {
		return nil, err
	}
	conn, err := receiveConn(answer.(*net.UnixConn))
	if ctx.Err() != nil {
		if err == nil {
			conn.Close()
		}
		return nil, context.Cause(ctx)
	}
	return conn, err
}

// receiveConn returns the connection that comes along with an empty message, or the error that a message is.
func receiveConn(from *net.UnixConn) (net.Conn, error) {
	text, rights := make([]byte, maxDialError), make([]byte, unix.CmsgSpace(4))
	n, rightsLen, _, _, err := from.ReadMsgUnix(text, rights)
	if err != nil {
		return nil, err
	}
	fd, err := receivedDescriptor(rights[:rightsLen])
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, text[:n])
	}
	f := os.NewFile(uintptr(fd), "connection")
	defer f.Close()
	return net.FileConn(f)
}

// receivedDescriptor returns the only descriptor in a control message.
func receivedDescriptor(rights []byte) (int, error) {
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil || len(messages) != 1 {
		return -1, errors.New("no descriptor came")
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1, errors.New("no descriptor came")
	}
	unix.CloseOnExec(fds[0])
	return fds[0], nil
}

// serveDials carries out what Dial asks for, in the process beside the child, until nobody can ask any more.
func serveDials(control int) {
	for {
		request, rights := make([]byte, 2), make([]byte, unix.CmsgSpace(4))
		n, rightsLen, _, _, err := unix.Recvmsg(control, request, rights, unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		answer, bad := receivedDescriptor(rights[:max(rightsLen, 0)])
		if err != nil || n != len(request) || bad != nil {
			return
		}
		go func() {
			defer unix.Close(answer)
			conn, err := dialLoopback(binary.BigEndian.Uint16(request))
			if err != nil {
				_ = unix.Sendmsg(answer, []byte(err.Error()), nil, nil, unix.MSG_NOSIGNAL) // who asked may have gone
				return
			}
			defer unix.Close(conn)
			_ = unix.Sendmsg(answer, []byte{0}, unix.UnixRights(conn), nil, unix.MSG_NOSIGNAL)
		}()
	}
}

func dialLoopback(port uint16) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	for {
		err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(port), Addr: [4]byte{127, 0, 0, 1}})
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("connect", err)
	}
	return fd, nil
}
