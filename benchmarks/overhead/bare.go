package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"time"

	"github.com/weighbridge/weighbridge/benchmarks/site"
)

// bareCommand makes this program a proxy that does nothing but pass on: net/http's, behind mTLS.
const bareCommand = "bare-proxy"

// bareListener is the descriptor of the socket that it is started with.
const bareListener = 3

// startBare starts that proxy, as a process of its own.
func (w *world) startBare(ctx context.Context, t *trust) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for the bare proxy: %w", err)
	}
	defer listener.Close()
	file, err := listener.(*net.TCPListener).File()
	if err != nil {
		return fmt.Errorf("listen for the bare proxy: %w", err)
	}
	defer file.Close()
	cmd := exec.CommandContext(context.Background(), self, bareCommand, w.plain.Socket(), w.Path(t.dir))
	cmd.ExtraFiles, cmd.Stderr = []*os.File{file}, os.Stderr
	child, err := site.StartChild(bareProxy, cmd)
	if err != nil {
		return err
	}
	w.stops = append(w.stops, child.Stop)
	w.add(bareProxy, true, child.PID(), t.caller(listener.Addr()))
	return nil
}

// serveBare is that process: args are the socket of llama-server and the directory of a trust.
func serveBare(ctx context.Context, args []string, _ io.Writer) error {
	if len(args) != 2 {
		return errors.New(bareCommand + ": want a socket and a directory")
	}
	conf, err := serverTLS(args[1])
	if err != nil {
		return err
	}
	file := os.NewFile(bareListener, "listener")
	listener, err := net.FileListener(file)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	file.Close()
	server := &http.Server{TLSConfig: conf, Handler: barely(args[0]), ReadHeaderTimeout: time.Minute}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	if err := server.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// barely passes all requests on to a socket, on connections that stay open.
func barely(socket string) http.Handler {
	to := &url.URL{Scheme: "http", Host: "llama-server"}
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) },
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", socket)
			},
			MaxIdleConnsPerHost: connections, IdleConnTimeout: site.IdleLimit, DisableCompression: true,
		},
	}
}

// serverTLS asks every caller for a certificate, as the gateway does.
func serverTLS(dir string) (*tls.Config, error) {
	own, ca, err := readTrust(dir)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{own}, ClientCAs: ca,
		ClientAuth: tls.RequireAndVerifyClientCert, NextProtos: []string{"h2", "http/1.1"},
	}, nil
}
