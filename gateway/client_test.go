package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/gateway/client"
	"github.com/weighbridge/weighbridge/gateway/identity"
	"github.com/weighbridge/weighbridge/gateway/receipt"
	"github.com/weighbridge/weighbridge/gateway/receipt/receipttest"
	pb "github.com/weighbridge/weighbridge/proto/weighbridge/inference/v1"
)

func (d *door) asks(path string, o client.Options) *client.Client {
	d.t.Helper()
	o.Source = d.source(d.agent, path)
	c, err := client.Dial(d.t.Context(), d.grpc, o)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { c.Close() })
	return c
}

// TestClient asks in each way, by a client that finds its own identity.
func TestClient(t *testing.T) {
	d := open(t, map[string]*channel{"chat": hello()})
	d.source(d.agent, "/apps/demo") // serves the socket
	c, err := client.Dial(t.Context(), d.grpc, client.Options{Identity: identity.Config{WorkloadAPI: "unix://" + filepath.Join(d.dir, domain+"-apps-demo")}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	said := func(text string, err error) {
		t.Helper()
		if err != nil || text != "Hello, world." {
			t.Errorf("answer = %q, %v", text, err)
		}
	}
	talk, err := c.Chat(t.Context(), ask())
	if err != nil {
		t.Fatal(err)
	}
	said(joined(client.Texts(talk)))
	text, err := c.Generate(t.Context(), &pb.GenerateRequest{Model: "chat", Prompt: "Once"})
	if err != nil {
		t.Fatal(err)
	}
	said(joined(client.Texts(text)))
	if e, err := c.Embed(t.Context(), &pb.EmbedRequest{Model: "chat", Inputs: []string{"one"}}); err != nil || len(e.GetEmbeddings()) != 1 {
		t.Errorf("Embed = %v, %v", e, err)
	}
	if _, err := grpc_health_v1.NewHealthClient(c.Conn()).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: "chat"}); err != nil {
		t.Errorf("Check = %v", err)
	}
}

func joined(pieces func(func(string, error) bool)) (text string, err error) {
	for piece, e := range pieces {
		text, err = text+piece, e
	}
	return text, err
}

// TestClientTextsEnd: an answer that was cut short ends with an error, and who has heard enough may leave.
func TestClientTextsEnd(t *testing.T) {
	d := open(t, map[string]*channel{"chat": {chunks: []backends.Chunk{{Text: "Hello, "}, {Text: "wor"}}, fail: errors.New("segmentation fault")}})
	c := d.asks("/apps/demo", client.Options{})
	for _, stop := range []bool{false, true} {
		ctx, cancel := context.WithCancel(t.Context())
		stream, err := c.Chat(ctx, ask())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for piece, e := range client.Texts(stream) {
			if got, err = append(got, piece), e; stop {
				break
			}
		}
		want := "[Hello,  wor ]"
		if stop {
			want = "[Hello, ]"
		}
		if fmt.Sprint(got) != want || stop != (err == nil) || !stop && status.Code(err) != codes.Unavailable {
			t.Errorf("Texts = %v, %v, want %s", got, err, want)
		}
		cancel()
	}
}

// TestClientServerID: nothing is said to another server than the expected one.
func TestClientServerID(t *testing.T) {
	ch := hello()
	d := open(t, map[string]*channel{"chat": ch})
	for id, ok := range map[string]bool{"spiffe://bank.example/gateway": true, "spiffe://bank.example/other": false} {
		_, err := d.asks("/apps/demo", client.Options{ServerID: spiffeid.RequireFromString(id)}).ListModels(t.Context(), &pb.ListModelsRequest{})
		if ok != (err == nil) || err != nil && !strings.Contains(err.Error(), "unexpected ID") {
			t.Errorf("ListModels at %s = %v, want ok %v", id, err, ok)
		}
	}
}

// TestClientReceipt: the receipt verifies with what is in it.
func TestClientReceipt(t *testing.T) {
	d, s := openWithReceipts(t, map[string]*channel{"chat": hello()})
	c := d.asks("/apps/demo", client.Options{})
	calls := map[string]func(*client.Exchange) error{
		"Chat": func(e *client.Exchange) error {
			stream, err := c.Chat(e.Ask(t.Context()), ask(), e.Options()...)
			if err == nil {
				_, err = joined(client.Texts(stream))
			}
			return err
		},
		"Embed": func(e *client.Exchange) error {
			_, err := c.Embed(e.Ask(t.Context()), &pb.EmbedRequest{Model: "chat", Inputs: []string{"one"}}, e.Options()...)
			return err
		},
	}
	for name, call := range calls {
		e := c.Exchange()
		if err := call(e); err != nil {
			t.Fatalf("%s = %v", name, err)
		}
		document, err := e.Receipt(t.Context())
		if err != nil {
			t.Fatalf("Receipt of %s = %v", name, err)
		}
		report, err := receipt.Verify(document, receipt.Inputs{Policy: s.Policy})
		if err != nil || report.Caller != receipttest.Caller || !report.RequestChecked || !report.ResponseChecked {
			t.Errorf("Verify of %s = %+v, %v", name, report, err)
		}
	}
	e := c.Exchange()
	if _, err := c.ListModels(t.Context(), &pb.ListModelsRequest{}, e.Options()...); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Receipt(t.Context()); err == nil || !strings.Contains(err.Error(), "names none") {
		t.Errorf("Receipt of a call that asked for none = %v", err)
	}
}

// TestTransportSaysNothingInTheClear asks by an address that a typing error leaves without TLS.
func TestTransportSaysNothingInTheClear(t *testing.T) {
	d := open(t, map[string]*channel{"chat": hello()})
	asked := false
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	defer server.Close()
	c := &http.Client{Transport: client.NewTransport(d.source(d.agent, "/apps/demo"), tlsconfig.AuthorizeMemberOf(spiffeid.RequireTrustDomainFromString(domain)))}
	resp, err := c.Post(server.URL, "application/json", strings.NewReader(question))
	if err == nil {
		resp.Body.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "only https") || asked {
		t.Errorf("POST without TLS = %v, and the server was asked: %v; want an error", err, asked)
	}
}
