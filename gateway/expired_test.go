package gateway_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/gateway"
	"github.com/weighbridge/weighbridge/gateway/identity/devworkload"
	pb "github.com/weighbridge/weighbridge/proto/weighbridge/inference/v1"
)

// clock is one that a test sets ahead.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

// set makes it t now.
func (c *clock) set(t time.Time) { c.ahead.Store(int64(time.Until(t))) }

// visitor is an app of a federated trust domain, whose SVIDs end long before the gateway's own.
func (d *door) visitor(protos ...string) (config *tls.Config, ends time.Time) {
	d.t.Helper()
	td := spiffeid.RequireTrustDomainFromString(partner)
	agent, err := devworkload.Open(devworkload.Config{TrustDomain: td, Lifetime: devworkload.DefaultLifetime / 2})
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { agent.Close() })
	if err := d.agent.Federate(agent); err != nil {
		d.t.Fatal(err)
	}
	svid, err := agent.Issue(devworkload.Identity{ID: spiffeid.RequireFromPath(td, "/apps/visitor")})
	if err != nil {
		d.t.Fatal(err)
	}
	config = tlsconfig.MTLSClientConfig(svid, d.agent.Bundle(), tlsconfig.AuthorizeAny())
	config.NextProtos = protos
	// The gateway hears of the bundle in a moment.
	eventually(d.t, "federation", func() bool {
		conn, err := tls.Dial("tcp", d.http, config)
		if err != nil {
			return false
		}
		defer conn.Close()
		_, err = conn.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
		if err == nil {
			_, err = conn.Read(make([]byte, 1))
		}
		return err == nil
	})
	return config, svid.Certificates[0].NotAfter
}

// counted counts the connections that a client makes from now on.
func counted(config *tls.Config) *atomic.Int32 {
	var n atomic.Int32
	verify := config.VerifyPeerCertificate
	config.VerifyPeerCertificate = func(raw [][]byte, chains [][]*x509.Certificate) error {
		n.Add(1)
		return verify(raw, chains)
	}
	return &n
}

// TestFederated answers callers of another trust domain by the rules, and keeps health and reflection from them.
func TestFederated(t *testing.T) {
	d := open(t, map[string]*channel{"chat": hello()})
	config, _ := d.visitor("h2")
	if resp, body := d.post(d.clientOf(config.Clone()), question); resp.StatusCode != http.StatusOK {
		t.Errorf("POST = %s: %s", resp.Status, body)
	}
	conn := d.dial(config.Clone())
	if _, _, _, err := chat(t.Context(), conn, ask()); err != nil {
		t.Errorf("Chat = %v", err)
	}
	if _, err := grpc_health_v1.NewHealthClient(conn).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("health Check = %v, want PERMISSION_DENIED", err)
	}
}

// TestExpired lets a caller's certificate end while its connections live.
func TestExpired(t *testing.T) {
	for _, protos := range [][]string{{"h2"}, {"http/1.1"}} {
		t.Run(protos[0], func(t *testing.T) {
			c := &clock{}
			d := open(t, map[string]*channel{"chat": hello()}, func(g *gateway.Config) { g.Now = c.now })
			config, ends := d.visitor(protos...)
			connections, client := counted(config), d.clientOf(config)
			steps := []struct {
				left        time.Duration // of the certificate's life
				status      int
				connections int32 // that were made in all
			}{
				{29 * time.Minute, 200, 1}, {29 * time.Minute, 200, 1}, {time.Minute, 200, 1}, {time.Minute, 200, 2}, {0, 401, 3},
			}
			for _, step := range steps {
				c.set(ends.Add(-step.left))
				resp, body := d.post(client, question)
				if resp.StatusCode != step.status || connections.Load() != step.connections {
					t.Errorf("POST %v before the end = %s over connection %d, want %d over %d", step.left, resp.Status, connections.Load(), step.status, step.connections)
				}
				if step.status == 401 && readError(t, body).Code != "expired" {
					t.Errorf("POST after the end: %s", body)
				}
			}
		})
	}
	c := &clock{}
	d := open(t, map[string]*channel{"chat": hello()}, func(g *gateway.Config) { g.Now = c.now })
	config, ends := d.visitor("h2")
	conn := d.dial(config)
	if _, _, _, err := chat(t.Context(), conn, ask()); err != nil {
		t.Fatal(err)
	}
	c.set(ends)
	if _, _, _, err := chat(t.Context(), conn, ask()); status.Code(err) != codes.Unauthenticated || !strings.Contains(err.Error(), "connect anew") {
		t.Errorf("Chat after the end = %v, want UNAUTHENTICATED", err)
	}
}

// TestExpiredInStream lets a caller's certificate end, and the grace after it, while it is being answered.
func TestExpiredInStream(t *testing.T) {
	const soon = 200 * time.Millisecond
	for _, protocol := range []string{"grpc", "http"} {
		t.Run(protocol, func(t *testing.T) {
			c := &clock{}
			endless := &channel{chunks: []backends.Chunk{{Text: "Hello, "}}, block: true}
			d := open(t, map[string]*channel{"chat": endless}, func(g *gateway.Config) { g.Now, g.Grace = c.now, soon })
			config, ends := d.visitor("h2")
			c.set(ends.Add(-5 * soon))
			if protocol == "grpc" {
				parts, _, _, err := chat(t.Context(), d.dial(config), ask())
				if len(parts) != 1 || status.Code(err) != codes.Unauthenticated {
					t.Errorf("Chat = %v, %v, want a part and UNAUTHENTICATED", parts, err)
				}
			} else {
				resp, body := d.post(d.clientOf(config), strings.TrimSuffix(question, "}")+`,"stream":true}`)
				events := strings.Split(strings.TrimSpace(body), "\n\n")
				if last := strings.TrimPrefix(events[len(events)-1], "data: "); resp.StatusCode != http.StatusOK || readError(t, last).Code != "expired" {
					t.Errorf("POST = %s: %s, want it to end with an error", resp.Status, body)
				}
			}
			if now := c.now(); now.Before(ends.Add(soon)) {
				t.Errorf("the answer was cut %v before the grace was over", ends.Add(soon).Sub(now))
			}
			d.stop()
		})
	}
	// What is not ours to answer ends too.
	c := &clock{}
	d := open(t, map[string]*channel{"chat": hello()}, func(g *gateway.Config) { g.Now, g.Grace = c.now, soon })
	watcher := d.source(d.agent, "/batch/job")
	ends, err := watcher.Expires()
	if err != nil {
		t.Fatal(err)
	}
	own, err := d.source(d.agent, "/gateway").Expires()
	if err != nil {
		t.Fatal(err)
	}
	if own.Before(ends) {
		ends = own
	}
	c.set(ends.Add(-5 * soon))
	watch, err := grpc_health_v1.NewHealthClient(d.conn("/batch/job")).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	for err == nil {
		_, err = watch.Recv()
	}
	if status.Code(err) != codes.Unauthenticated {
		t.Errorf("health Watch ended with %v, want UNAUTHENTICATED", err)
	}
	list := &reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}
	c.set(ends.Add(-5 * soon))
	reflection, err := reflectionpb.NewServerReflectionClient(d.conn("/batch/job")).ServerReflectionInfo(t.Context())
	for err == nil {
		if err = reflection.Send(list); err == nil || errors.Is(err, io.EOF) {
			_, err = reflection.Recv()
		}
	}
	if status.Code(err) != codes.Unauthenticated {
		t.Errorf("reflection ended with %v, want UNAUTHENTICATED", err)
	}
}

// TestExpiredBefore lets a caller's certificate end, and the grace after it, between the begin of a request and its message.
func TestExpiredBefore(t *testing.T) {
	const soon = 200 * time.Millisecond
	late := func(t *testing.T, protocol string) (d *door, config *tls.Config, over func()) {
		c := &clock{}
		d = open(t, map[string]*channel{"chat": hello()}, func(g *gateway.Config) { g.Now, g.Grace = c.now, soon })
		config, ends := d.visitor(protocol)
		c.set(ends.Add(-3 * soon))
		return d, config, func() {
			eventually(t, "the end of the grace", func() bool { return c.now().After(ends.Add(2 * soon)) })
		}
	}
	for method, message := range map[string]proto.Message{"ListModels": &pb.ListModelsRequest{}, "Chat": ask(), "GetReceipt": &pb.GetReceiptRequest{Id: "a"}} {
		t.Run(method, func(t *testing.T) {
			d, config, over := late(t, "h2")
			stream, err := d.dial(config).NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/weighbridge.inference.v1.Inference/"+method)
			if err != nil {
				t.Fatal(err)
			}
			over()
			if err := errors.Join(stream.SendMsg(message), stream.CloseSend()); err != nil {
				t.Fatal(err)
			}
			if err := stream.RecvMsg(&pb.ChatResponse{}); status.Code(err) != codes.Unauthenticated {
				t.Errorf("%s = %v, want UNAUTHENTICATED", method, err)
			}
		})
	}
	t.Run("HTTP", func(t *testing.T) {
		d, config, over := late(t, "http/1.1")
		conn, err := tls.Dial("tcp", d.http, config)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(question), question[:10])
		over()
		fmt.Fprint(conn, question[10:])
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusUnauthorized || readError(t, string(body)).Code != "expired" {
			t.Errorf("POST = %s, %v: %s, want 401", resp.Status, err, body)
		}
	})
}

// TestLeave expects a client to connect anew before its certificate ends, without being refused in between.
func TestLeave(t *testing.T) {
	c := &clock{}
	d := open(t, map[string]*channel{"chat": hello()}, func(g *gateway.Config) { g.Now = c.now })
	config, ends := d.visitor("h2")
	connections := counted(config)
	c.set(ends.Add(-devworkload.DefaultLifetime / 6).Add(-time.Second)) // a second before a third of its life is left
	conn := d.dial(config)
	deadline := time.Now().Add(waitLimit)
	for connections.Load() < 2 && time.Now().Before(deadline) {
		if _, err := pb.NewInferenceClient(conn).ListModels(t.Context(), &pb.ListModelsRequest{}); err != nil {
			t.Fatalf("ListModels = %v", err)
		}
	}
	if connections.Load() < 2 {
		t.Error("the client did not connect anew")
	}
}
