package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"time"

	"github.com/weighbridge/weighbridge/benchmarks/bench"
	"github.com/weighbridge/weighbridge/benchmarks/site"
)

// nginxConfig is one worker that does what the bare proxy does, and writes an access log as the gateway does.
const nginxConfig = `daemon off;
master_process off;
pid nginx.pid;
error_log error.log crit;
events { worker_connections 1024; }
http {
  access_log access.log;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  keepalive_requests 1000000;
  upstream llama { server unix:%[1]s; keepalive %[2]d; keepalive_timeout 2s; }
  server {
    listen %[3]s ssl http2;
    ssl_protocols TLSv1.3;
    ssl_certificate %[4]s/` + certFile + `;
    ssl_certificate_key %[4]s/` + keyFile + `;
    ssl_client_certificate %[4]s/` + certFile + `;
    ssl_verify_client on;
    location / {
      proxy_pass http://llama;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }
  }
}
`

// nginxLimit is how long it may take to listen.
const nginxLimit = 10 * time.Second

// startNginx starts nginx, if there is one: a machine without it is measured without it.
func (w *world) startNginx(ctx context.Context, t *trust, stderr io.Writer) error {
	program, err := bench.FindPart(ctx, "nginx", stderr)
	if err != nil {
		fmt.Fprintf(stderr, "without nginx: %v\n", err)
		return nil
	}
	w.nginx = site.Version(ctx, program, "-v")
	const dir = "nginx"
	if err := os.Mkdir(w.Path(dir), 0o755); err != nil {
		return fmt.Errorf("make directory for nginx: %w", err)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0") // for a port that is free
	if err != nil {
		return fmt.Errorf("find a port for nginx: %w", err)
	}
	listener.Close()
	address := listener.Addr()
	config := w.Path(dir + "/nginx.conf")
	text := fmt.Sprintf(nginxConfig, w.plain.Socket(), connections, address, w.Path(t.dir))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return fmt.Errorf("configure nginx: %w", err)
	}
	cmd := exec.CommandContext(context.Background(), program, "-p", w.Path(dir), "-e", "error.log", "-c", config)
	cmd.Stderr = stderr
	child, err := site.StartChild(nginx, cmd)
	if err != nil {
		return err
	}
	w.stops = append(w.stops, child.Stop)
	w.add(nginx, true, child.PID(), t.caller(address))
	return awaitListening(ctx, address)
}

func awaitListening(ctx context.Context, address net.Addr) error {
	ctx, cancel := context.WithTimeout(ctx, nginxLimit)
	defer cancel()
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, address.Network(), address.String())
		if err == nil {
			return conn.Close()
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for nginx: %w", err)
		}
	}
}
