package control_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/process"
	"github.com/weighbridge/weighbridge/gateway/catalog"
	"github.com/weighbridge/weighbridge/gateway/control"
	controlv1 "github.com/weighbridge/weighbridge/proto/weighbridge/control/v1"
	"github.com/weighbridge/weighbridge/verifier/seal"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

type fixed struct{ policy *trust.Policy }

func (fixed) Status() map[string]catalog.Status {
	return map[string]catalog.Status{
		"chat": {Release: "sha256:r", Weights: "sha256:w", Level: "sealed", Epoch: 7, State: catalog.StateReady, Since: time.Unix(1, 0), Load: &catalog.Load{Phase: "read", Bytes: 5, Total: 9},
			Ends: []trust.End{{Kind: "approval", At: time.Unix(2, 0), Identity: "bob"}}},
		"old": {State: catalog.StateFailed, Error: "weights not found"},
	}
}

func (fixed) Runtimes() map[string][]catalog.Runtime {
	return map[string][]catalog.Runtime{"chat": {{
		Release: "sha256:r", Role: "serves", Kind: "llamacpp",
		Status:    backends.Status{State: backends.Ready, PID: 7, Restarts: 2, Sandbox: backends.Sandbox{Missing: []string{"no filter"}}},
		Resources: process.Resources{Processes: 1, CPU: 1500 * time.Millisecond, Memory: 9},
	}}}
}

func (fixed) Snapshot() (catalog.Snapshot, error) { return catalog.Snapshot{}, catalog.ErrNotRunning }

func (fixed) Problems() []string { return []string{"a directory is away"} }

func (fixed) Memory() seal.Usage { return seal.Usage{Limit: 8, InUse: 4, Warm: 2} }

// nobody refuses what is submitted, and says what it was.
type nobody struct{}

func (nobody) Submit(_ context.Context, bundles []*statement.Signed, dryRun bool) (before, after trust.Decision, err error) {
	if !dryRun {
		return before, after, errors.New("nobody takes it")
	}
	after.Channels = map[string]trust.Channel{"chat": {Serve: bundles[0].ID()}}
	return before, after, nil
}

func (f fixed) Policy() *trust.Policy { return f.policy }

func approvalPayload(t *testing.T) []byte {
	t.Helper()
	payload, err := trust.NewApproval(statement.ID("sha256:"+strings.Repeat("0", 64)), trust.Approval{})
	if err != nil {
		t.Fatal(err)
	}
	return payload
}

func TestStatus(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.sock")
	l, err := control.Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket mode = %v, %v, want 0600", info.Mode(), err)
	}
	policy := trusttest.New(t).SignPolicy(nil)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- control.Serve(ctx, l, fixed{policy}, nobody{}) }()

	conn, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := controlv1.NewControlClient(conn)
	all, err := client.Status(ctx, &controlv1.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	chat := all.GetChannels()["chat"]
	if len(all.GetChannels()) != 2 || chat.GetState() != controlv1.State_STATE_READY || chat.GetEpoch() != 7 || chat.GetLevel() != "sealed" {
		t.Errorf("Status = %v, want both channels and chat ready", all)
	}
	if e := chat.GetEnds(); len(e) != 1 || e[0].GetKind() != "approval" || e[0].GetTime().GetSeconds() != 2 || e[0].GetIdentity() != "bob" {
		t.Errorf("ends = %v, want the approval by bob at 2", e)
	}
	if r := chat.GetRuntimes(); len(r) != 1 || r[0].GetRole() != "serves" || r[0].GetPid() != 7 || r[0].GetRestarts() != 2 || r[0].GetState() != "ready" ||
		r[0].GetCpuSeconds() != 1.5 || r[0].GetMemory() != 9 || !slices.Equal(r[0].GetMissing(), []string{"no filter"}) {
		t.Errorf("runtimes = %v, want the one of the catalog", r)
	}
	if old := all.GetChannels()["old"]; old.GetState() != controlv1.State_STATE_FAILED || old.GetError() != "weights not found" {
		t.Errorf("Status of old = %v, want failed and why", old)
	}
	if got := all.GetPolicy(); got.GetDigest() != string(policy.Digest()) || got.GetVersion() != 1 {
		t.Errorf("policy = %v, want version 1 of %s", got, policy.Digest())
	}
	if p := all.GetProblems(); len(p) != 1 || p[0] != "a directory is away" {
		t.Errorf("problems = %q, want the catalog's", p)
	}
	if m := all.GetMemory(); m.GetLimit() != 8 || m.GetInUse() != 4 || m.GetWarm() != 2 || m.GetHugePages() != seal.HugePages() {
		t.Errorf("memory = %v, want what the catalog and the kernel say", m)
	}
	watch, err := client.Watch(ctx, &controlv1.WatchRequest{Channels: []string{"chat"}})
	if err != nil {
		t.Fatal(err)
	}
	if event, err := watch.Recv(); err != nil || event.GetName() != "chat" || event.GetChannel().GetLoad().GetBytes() != 5 {
		t.Errorf("Watch = %v, %v, want chat and what is being loaded", event, err)
	}
	one, err := client.Status(ctx, &controlv1.StatusRequest{Channels: []string{"chat"}})
	if err != nil || len(one.GetChannels()) != 1 {
		t.Errorf("Status(chat) = %v, %v, want it alone", one, err)
	}

	bundle := trusttest.New(t).Sign(trusttest.Alice, approvalPayload(t)).Bundle()
	for _, tt := range []struct {
		req  *controlv1.SubmitRequest
		want codes.Code
	}{
		{&controlv1.SubmitRequest{}, codes.InvalidArgument},
		{&controlv1.SubmitRequest{Bundles: make([][]byte, 1001)}, codes.InvalidArgument},
		{&controlv1.SubmitRequest{Bundles: [][]byte{bundle, []byte("{}")}}, codes.InvalidArgument},
		{&controlv1.SubmitRequest{Bundles: [][]byte{bundle}}, codes.Internal},
		{&controlv1.SubmitRequest{Bundles: [][]byte{bundle}, DryRun: true}, codes.OK},
	} {
		res, err := client.Submit(ctx, tt.req)
		if status.Code(err) != tt.want {
			t.Errorf("Submit of %d statements = %v, want %v", len(tt.req.GetBundles()), err, tt.want)
		}
		if err == nil && (len(res.GetStatements()) != 1 || res.GetChannels()["chat"].GetAfter() != res.GetStatements()[0]) {
			t.Errorf("Submit = %v, want the statement, and what it changes", res)
		}
	}

	if _, err := control.Listen(t.Context(), path); err == nil {
		t.Error("Listen on a socket in use = nil, want an error")
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve = %v, want nil after its context ended", err)
	}
}

func TestListenReplacesADeadSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.sock")
	dead, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	dead.(*net.UnixListener).SetUnlinkOnClose(false)
	dead.Close()
	l, err := control.Listen(t.Context(), path)
	if err != nil {
		t.Fatalf("Listen over a dead socket = %v, want nil", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("socket after Close: %v, want it gone", err)
	}

	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err := control.Listen(t.Context(), file); err == nil {
		l.Close()
		t.Error("Listen over a regular file = nil, want an error: it is not ours to remove")
	}
}
