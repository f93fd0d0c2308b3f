package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/tap"

	"github.com/weighbridge/weighbridge/gateway/identity"
)

// A connection is what the requests of an HTTP connection share.
type connection struct {
	opened time.Time
	token  bool           // it is to the door for JWT-SVIDs
	shown  identity.Shown // by its certificate
}

// connectionKey is that of a *connection, in the contexts of its requests.
type connectionKey struct{}

func withConnection(ctx context.Context, token bool) context.Context {
	return context.WithValue(ctx, connectionKey{}, &connection{opened: time.Now(), token: token})
}

// tokenInfo marks the same for gRPC. What it does not mark is a connection that must bring a certificate.
type tokenInfo struct{ credentials.TLSInfo }

// identifyHTTP finds out who calls, and tells the client what to do about a connection whose certificate is about to end.
func (g *Gateway) identifyHTTP(w http.ResponseWriter, r *http.Request, c *call) error {
	now := g.now()
	conn, ok := r.Context().Value(connectionKey{}).(*connection)
	if !ok {
		return identity.ErrNoPeer // our server makes one for each
	}
	err := g.identify(c, identity.Request{
		Connection: r.TLS, Shown: &conn.shown, Token: conn.token, Now: now,
		Header: func(name string) []string { return r.Header.Values(name) },
	})
	if time.Since(conn.opened) > maxConnectionAge || !conn.token && !now.Before(c.shown.Renew) {
		w.Header().Set("Connection", "close") // over HTTP/2 this asks the client to connect anew
	}
	if conn.token && (errors.Is(err, identity.ErrNoToken) || errors.Is(err, identity.ErrExpired)) {
		challenge := "Bearer"
		if r.Header.Get("Authorization") != "" {
			challenge = `Bearer error="invalid_token"`
		}
		w.Header().Set("WWW-Authenticate", challenge)
	}
	return err
}

// identifyGRPC finds out who calls.
func (g *Gateway) identifyGRPC(ctx context.Context, c *call, ours bool) error {
	r := identity.Request{Now: g.now(), Itself: !ours}
	md, _ := metadata.FromIncomingContext(ctx)
	r.Header = md.Get
	if p, ok := peer.FromContext(ctx); ok {
		switch info := p.AuthInfo.(type) {
		case credentials.TLSInfo:
			r.Connection = &info.State
		case tokenInfo:
			r.Token = true
		}
	}
	return g.identify(c, r)
}

func (g *Gateway) identify(c *call, r identity.Request) (err error) {
	c.shown, err = g.identity.Identify(r)
	c.caller = c.shown.ID
	return err
}

// known is how long it is until what shows a caller has ended, and the time to finish an answer is over too.
func (g *Gateway) known(c call) time.Duration { return c.shown.Until.Add(g.grace).Sub(g.now()) }

// identityOutcomes are how callers see errors about identities. An error is one of them at most.
var identityOutcomes = outcomes{
	{identity.ErrNoPeer, outcome{http.StatusUnauthorized, codes.Unauthenticated, "authentication_error", "unauthenticated", "", "a SPIFFE identity is required"}},
	{identity.ErrNoToken, outcome{http.StatusUnauthorized, codes.Unauthenticated, "authentication_error", "unauthenticated", "", "a JWT-SVID for this gateway is required, as a bearer token"}},
	{identity.ErrTwoIdentities, outcome{http.StatusUnauthorized, codes.Unauthenticated, "authentication_error", "unauthenticated", "", "the bearer token is of another identity than the connection: send one of them"}},
	{identity.ErrExpired, outcome{http.StatusUnauthorized, codes.Unauthenticated, "authentication_error", "expired", "", "the caller's SVID has expired: connect anew with a newer one"}},
	{identity.ErrEnded, outcome{http.StatusServiceUnavailable, codes.Unavailable, "server_error", "no_identity", "", "the gateway has no valid identity now, retry later"}},
}

// doorTLS is the TLS of a gRPC door. It tells operators about connections that fail before there is a request, as the HTTP
// server does by itself.
type doorTLS struct {
	credentials.TransportCredentials
	g     *Gateway
	token bool
}

// grpcDoor makes a gRPC server the door for JWT-SVIDs, or the other.
func (g *Gateway) grpcDoor(token bool) []grpc.ServerOption {
	options := []grpc.ServerOption{grpc.Creds(&doorTLS{credentials.NewTLS(g.tls(token, "h2")), g, token})}
	if token {
		options = append(options, grpc.InTapHandle(g.tap))
	}
	return options
}

// tap refuses a call without a valid JWT-SVID before anything of its message is read: whoever connects here is nobody yet.
func (g *Gateway) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	c := call{protocol: protocolGRPC, id: requestID(carrier(info.Header).Get(headerRequestID))}
	if err := g.identifyGRPC(metadata.NewIncomingContext(ctx, info.Header), &c, true); err != nil {
		g.logOther(ctx, c, "", err)
		return ctx, toGRPC(err)
	}
	return ctx, nil
}

func (g *Gateway) tls(token bool, protos ...string) *tls.Config {
	if token {
		return g.identity.TokenTLS(g.certificate, protos...)
	}
	return g.identity.ServerTLS(protos...)
}

// ServerHandshake implements credentials.TransportCredentials.
func (c *doorTLS) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		c.g.log.Info("TLS handshake failed", "protocol", protocolGRPC, "remote", raw.RemoteAddr().String(), "err", err)
		return conn, info, err
	}
	state, ok := info.(credentials.TLSInfo)
	if !ok {
		return conn, nil, identity.ErrNoPeer
	}
	if c.token {
		return conn, tokenInfo{state}, nil
	}
	caller, err := identity.Peer(&state.State)
	if err != nil {
		return conn, info, err
	}
	return leaveAfter(conn, caller.Renew.Sub(c.g.now())), info, nil
}

// Clone implements credentials.TransportCredentials.
func (c *doorTLS) Clone() credentials.TransportCredentials {
	return &doorTLS{c.TransportCredentials.Clone(), c.g, c.token}
}
