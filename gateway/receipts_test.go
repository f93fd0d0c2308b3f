package gateway_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/gateway"
	"github.com/weighbridge/weighbridge/gateway/receipt"
	"github.com/weighbridge/weighbridge/gateway/receipt/receipttest"
	"github.com/weighbridge/weighbridge/gateway/receipt/wire"
	pb "github.com/weighbridge/weighbridge/proto/weighbridge/inference/v1"
)

// openWithReceipts starts a gateway whose channels are served by the release of a signed site.
func openWithReceipts(t *testing.T, channels map[string]*channel) (*door, *receipttest.Site) {
	t.Helper()
	s := receipttest.New(t, nil)
	for _, ch := range channels {
		ch.site = s
	}
	return open(t, channels, func(c *gateway.Config) { c.Receipts = s.Issuer }), s
}

// postFor asks for a receipt, in these words.
func (d *door) postFor(c *http.Client, body string, asked ...string) (reply, string) {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), http.MethodPost, d.url("/v1/chat/completions"), strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	req.Header["Weighbridge-Receipt"] = asked
	return d.do(c, req)
}

func (d *door) get(c *http.Client, path string) (reply, string) {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), http.MethodGet, d.url(path), nil)
	if err != nil {
		d.t.Fatal(err)
	}
	return d.do(c, req)
}

func (d *door) do(c *http.Client, req *http.Request) (reply, string) {
	d.t.Helper()
	resp, err := c.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return reply{resp.Status, resp.StatusCode, resp.Proto, resp.Header}, string(text)
}

// checkReceipt verifies a receipt of the demo app against what went over the wire.
func checkReceipt(t *testing.T, s *receipttest.Site, document, request, response []byte) {
	t.Helper()
	report, err := receipt.Verify(document, receipt.Inputs{Policy: s.Policy, Request: request, Response: response})
	if err != nil {
		t.Fatalf("Verify = %v for the request %q and the response %q", err, request, response)
	}
	if report.Caller != receipttest.Caller || report.Channel != "chat" || report.Release != s.Release.ID || !report.RequestChecked || !report.ResponseChecked {
		t.Errorf("Verify = %+v", report)
	}
	for _, wrong := range []receipt.Inputs{
		{Policy: s.Policy, Request: append(bytes.Clone(request), ' '), Response: response},
		{Policy: s.Policy, Request: request, Response: response[1:]},
	} {
		if _, err := receipt.Verify(document, wrong); !errors.Is(err, receipt.ErrRefused) {
			t.Errorf("Verify = %v for other bytes", err)
		}
	}
}

func TestHTTPReceipt(t *testing.T) {
	for _, body := range []string{
		question,
		" \n" + question + "\n\t ", // what surrounds the JSON is of the request
		strings.TrimSuffix(question, "}") + `,"stream":true}`,
		strings.TrimSuffix(question, "}") + `,"stream":true,"stream_options":{"include_usage":true}}`,
	} {
		t.Run(body, func(t *testing.T) {
			d, s := openWithReceipts(t, map[string]*channel{"chat": hello()})
			c := d.client("/apps/demo")
			resp, answer := d.postFor(c, body, "1")
			id := resp.Header.Get("x-receipt-id")
			if resp.StatusCode != http.StatusOK || len(id) != 32 {
				t.Fatalf("POST = %s with receipt %q: %s", resp.Status, id, answer)
			}
			got, document := d.get(c, "/v1/receipts/"+id)
			if got.StatusCode != http.StatusOK || got.Header.Get("Content-Type") != "application/json" {
				t.Fatalf("GET = %s, %v: %s", got.Status, got.Header, document)
			}
			checkReceipt(t, s, []byte(document), []byte(body), []byte(answer))
			if got, _ := d.post(c, question); got.Header.Get("x-receipt-id") != "" {
				t.Error("a call that asked for none has a receipt")
			}
			over := &pb.GetReceiptRequest{Id: id}
			if same, err := pb.NewInferenceClient(d.conn("/apps/demo")).GetReceipt(t.Context(), over); err != nil || string(same.GetReceipt()) != document {
				t.Errorf("GetReceipt = %v, want the document that HTTP gives", err)
			}
			d.stop()
			if log := d.log.String(); strings.Contains(log, "secret") || strings.Count(log, `"receipt":"`+id) != 1 {
				t.Errorf("the log does not name the receipt once, or holds the conversation:\n%s", log)
			}
		})
	}
}

func TestGRPCReceipt(t *testing.T) {
	for _, options := range [][]grpc.CallOption{nil, {grpc.UseCompressor(gzip.Name)}} {
		d, s := openWithReceipts(t, map[string]*channel{"chat": hello()})
		client := pb.NewInferenceClient(d.conn("/apps/demo"))
		var request, response bytes.Buffer
		ctx := metadata.AppendToOutgoingContext(t.Context(), "weighbridge-receipt", "true")
		stream, err := client.Chat(ctx, ask(), append(options, grpc.ForceCodecV2(wire.Recorder(&request, &response)))...)
		if err != nil {
			t.Fatal(err)
		}
		parts := 0
		for ; err == nil; parts++ {
			_, err = stream.Recv()
		}
		if !errors.Is(err, io.EOF) || parts != 4 {
			t.Fatalf("Recv = %v after %d parts", err, parts)
		}
		header, err := stream.Header()
		if err != nil || len(header.Get("x-receipt-id")) != 1 || fmt.Sprint(stream.Trailer().Get("x-receipt-id")) != fmt.Sprint(header.Get("x-receipt-id")) {
			t.Fatalf("header = %v, %v, trailer = %v", header, err, stream.Trailer())
		}
		got, err := client.GetReceipt(t.Context(), &pb.GetReceiptRequest{Id: header.Get("x-receipt-id")[0]})
		if err != nil {
			t.Fatal(err)
		}
		checkReceipt(t, s, got.GetReceipt(), request.Bytes(), response.Bytes())
	}
}

// TestReceiptRefused: what can't have a receipt is refused before it is answered.
func TestReceiptRefused(t *testing.T) {
	ch := hello()
	d, s := openWithReceipts(t, map[string]*channel{"chat": ch})
	c, client := d.client("/apps/demo"), pb.NewInferenceClient(d.conn("/apps/demo"))
	listed := s.Policy
	for _, tt := range []struct {
		name   string
		change func()
		asked  []string
		status int
		code   codes.Code
		want   string
	}{
		{"other word", func() {}, []string{"yes"}, http.StatusBadRequest, codes.InvalidArgument, "weighbridge-receipt: must be 1 or true"},
		{"no", func() {}, []string{"0"}, http.StatusBadRequest, codes.InvalidArgument, "weighbridge-receipt: must be 1 or true"},
		{"empty", func() {}, []string{""}, http.StatusBadRequest, codes.InvalidArgument, "weighbridge-receipt: must be 1 or true"},
		{"twice", func() {}, []string{"1", "1"}, http.StatusBadRequest, codes.InvalidArgument, "weighbridge-receipt: must be 1 or true"},
		{"no gateway of the policy", func() { s.Policy = s.SignPolicy(nil) }, []string{"1"}, http.StatusBadRequest, codes.FailedPrecondition, "this gateway gives no receipts"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.change()
			defer func() { s.Policy = listed }()
			resp, body := d.postFor(c, question, tt.asked...)
			if resp.StatusCode != tt.status || !strings.Contains(body, tt.want) || resp.Header.Get("x-receipt-id") != "" {
				t.Errorf("POST = %s %s, want %d %q", resp.Status, body, tt.status, tt.want)
			}
			ctx := t.Context()
			for _, word := range tt.asked {
				ctx = metadata.AppendToOutgoingContext(ctx, "weighbridge-receipt", word)
			}
			stream, err := client.Chat(ctx, ask())
			if err == nil {
				_, err = stream.Recv()
			}
			if status.Code(err) != tt.code || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Chat = %v, want %v %q", err, tt.code, tt.want)
			}
		})
	}
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if len(ch.got) > 0 {
		t.Error("a refused call reached the runtime")
	}
}

// TestReceiptOfAnother: who did not make the call learns as much as of a receipt that never was.
func TestReceiptOfAnother(t *testing.T) {
	broken := hello()
	broken.fail = backends.ErrInterrupted
	d, _ := openWithReceipts(t, map[string]*channel{"chat": hello(), "quiet": broken})
	mine, theirs := d.client("/apps/demo"), d.client("/apps/other")
	resp, _ := d.postFor(mine, question, "1")
	id := resp.Header.Get("x-receipt-id")
	unknown, text := d.get(theirs, "/v1/receipts/"+strings.Repeat("0", 32))
	for _, path := range []string{id, strings.ToUpper(id), "x"} {
		got, body := d.get(theirs, "/v1/receipts/"+path)
		got.Header.Del("X-Request-Id")
		unknown.Header.Del("X-Request-Id")
		if got.StatusCode != http.StatusNotFound || body != text || fmt.Sprint(got.Header) != fmt.Sprint(unknown.Header) {
			t.Errorf("GET %s = %s %v %s, want %s %v %s", path, got.Status, got.Header, body, unknown.Status, unknown.Header, text)
		}
	}
	client := pb.NewInferenceClient(d.conn("/apps/other"))
	for _, path := range []string{id, "x", ""} {
		if _, err := client.GetReceipt(t.Context(), &pb.GetReceiptRequest{Id: path}); status.Code(err) != codes.NotFound || status.Convert(err).Message() != "no such receipt" {
			t.Errorf("GetReceipt(%q) = %v, want %v", path, err, codes.NotFound)
		}
	}
	if got, body := d.get(mine, "/v1/receipts/"+id); got.StatusCode != http.StatusOK {
		t.Errorf("GET = %s %s to its caller", got.Status, body)
	}
	if got, body := d.get(d.client("/batch/job"), "/v1/receipts/"+id); got.StatusCode != http.StatusForbidden {
		t.Errorf("GET = %s %s to who has no rights", got.Status, body)
	}
	if got, _ := d.postFor(mine, question, "1"); got.Header.Get("x-receipt-id") == id {
		t.Error("two calls have one receipt")
	}
	// A call that failed has none, and says so to its caller.
	for _, stream := range []string{"", `,"stream":true`} {
		resp, body := d.postFor(mine, strings.TrimSuffix(strings.Replace(question, "chat", "quiet", 1), "}")+stream+"}", "1")
		got, why := d.get(mine, "/v1/receipts/"+resp.Header.Get("x-receipt-id"))
		if got.StatusCode != http.StatusNotFound || !strings.Contains(why, "the call ended in an error") {
			t.Errorf("GET = %s %s after %s %s", got.Status, why, resp.Status, body)
		}
	}
}

// TestReceiptUnrecorded: when the log can't be written the answer arrives, and only the receipt does not.
func TestReceiptUnrecorded(t *testing.T) {
	d, s := openWithReceipts(t, map[string]*channel{"chat": hello()})
	if err := s.Log.Close(); err != nil {
		t.Fatal(err)
	}
	c := d.client("/apps/demo")
	resp, body := d.postFor(c, question, "1")
	if resp.StatusCode != http.StatusOK || !strings.Contains(body, "Hello, world.") {
		t.Errorf("POST = %s %s, want the answer", resp.Status, body)
	}
	id := resp.Header.Get("x-receipt-id")
	got, why := d.get(c, "/v1/receipts/"+id)
	if got.StatusCode != http.StatusServiceUnavailable || !strings.Contains(why, "the audit log could not be written") || strings.Contains(why, "closed") {
		t.Errorf("GET = %s %s, want 503 and why", got.Status, why)
	}
	if _, err := pb.NewInferenceClient(d.conn("/apps/demo")).GetReceipt(t.Context(), &pb.GetReceiptRequest{Id: id}); status.Code(err) != codes.Unavailable {
		t.Errorf("GetReceipt = %v, want %v", err, codes.Unavailable)
	}
}

// TestNoReceiptNoRecord: a call that asks for no receipt appends nothing to the log, and one that does one record.
func TestNoReceiptNoRecord(t *testing.T) {
	d, s := openWithReceipts(t, map[string]*channel{"chat": hello()})
	c := d.client("/apps/demo")
	before := s.Log.Status()
	for range 3 {
		if resp, body := d.post(c, question); resp.StatusCode != http.StatusOK {
			t.Fatalf("POST = %s %s", resp.Status, body)
		}
		if _, _, _, err := chat(t.Context(), d.conn("/apps/demo"), ask()); err != nil {
			t.Fatal(err)
		}
	}
	if after := s.Log.Status(); after != before {
		t.Errorf("the log is %+v after calls without a receipt, was %+v", after, before)
	}
	resp, _ := d.postFor(c, question, "1")
	if got, body := d.get(c, "/v1/receipts/"+resp.Header.Get("x-receipt-id")); got.StatusCode != http.StatusOK {
		t.Fatalf("GET = %s %s", got.Status, body)
	}
	if after := s.Log.Status(); after.Size != before.Size+1 {
		t.Errorf("the log has %d records after one receipt, had %d", after.Size, before.Size)
	}
}

// TestReceiptMethods: receipts are only read, and need an identity like everything else.
func TestReceiptMethods(t *testing.T) {
	d := open(t, map[string]*channel{"chat": hello()}) // without any
	c := d.client("/apps/demo")
	if got, body := d.postFor(c, question, "1"); got.StatusCode != http.StatusBadRequest || !strings.Contains(body, "gives no receipts") {
		t.Errorf("POST = %s %s", got.Status, body)
	}
	if got, body := d.get(c, "/v1/receipts/x"); got.StatusCode != http.StatusNotFound || !strings.Contains(body, "no such receipt") {
		t.Errorf("GET = %s %s", got.Status, body)
	}
	resp, err := c.Post(d.url("/v1/receipts/x"), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST = %s", resp.Status)
	}
}
