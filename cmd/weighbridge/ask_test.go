package main

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
	controlv1 "github.com/weighbridge/weighbridge/proto/weighbridge/control/v1"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

// roots are the flags that pin the root keys of a world.
func (g *gatewayProcess) roots() []string {
	return []string{"--root", string(g.KeyID(trusttest.Alice)), "--root", string(g.KeyID(trusttest.Bob))}
}

func (g *gatewayProcess) server() string { return "unix:" + filepath.Join(g.Dir, "control.sock") }

// An answer is what a command printed, and its exit status.
type answer struct {
	stdout, stderr string
	exit           int
}

// tell runs a command line.
func tell(t *testing.T, args ...string) answer {
	t.Helper()
	var out, errs bytes.Buffer
	exit := run(args, streams{strings.NewReader(""), &out, &errs})
	return answer{out.String(), errs.String(), exit}
}

// checkQuestions asks each question twice: of the gateway, and of its files. A time ahead of the floor's high-water
// mark makes one moment of it.
func (g *gatewayProcess) checkQuestions() {
	g.t.Helper()
	at := []string{"--at", time.Now().Add(time.Hour).UTC().Format(time.RFC3339)}
	asked := slices.Concat(at, g.roots(), []string{"--server", g.server()})
	files := slices.Concat(at, g.roots(), []string{
		"--policy", g.PolicyFile, "--statements", g.Statements, "--floor", filepath.Join(g.Dir, "state", "floor.json"),
	})
	for _, question := range [][]string{
		{"decide"},
		{"decide", "--json"},
		{"decide", "--json", "--channel", "nope"},
		{"explain", "chat"},
		{"explain", "chat", "--json"},
		{"who-can", "chat"},
		{"who-can", "chat", "--json"},
		{"impact", trusttest.Alice},
		{"impact", trusttest.Alice, "--json"},
	} {
		online, offline := tell(g.t, slices.Concat(question, asked)...), tell(g.t, slices.Concat(question, files)...)
		if online != offline || online.stdout+online.stderr == "" {
			g.t.Errorf("%q of the gateway = %+v\nof its files %+v", question, online, offline)
		}
		word := tell(g.t, slices.Concat(question, at, []string{"--server", g.server()})...)
		note, rest, _ := strings.Cut(word.stderr, "\n")
		if word.stderr = rest; word != offline || !strings.Contains(note, "without --root the policy is the gateway's word") {
			g.t.Errorf("%q without --root = %q, %+v\nof its files %+v", question, note, word, offline)
		}
	}
}

// TestServeIsAsked asks a running gateway what it serves and why, before and after its policy has changed.
func TestServeIsAsked(t *testing.T) {
	g := newGateway(t)
	first := g.SignPolicy(nil)
	g.start("--init-state")
	g.await("release serves")
	g.log.forget()
	release := g.publish("b.gguf", tinygguf.B.Sentence, 2) // so that the floor has something to say of the first
	if got := g.await("release serves")["release"]; got != release {
		t.Fatalf("serves %v, want %s", got, release)
	}
	g.checkQuestions()
	if got := tell(t, slices.Concat([]string{"decide", "--server", g.server()}, g.roots())...); got.exit != exitDone || !strings.Contains(got.stdout, release) {
		t.Errorf("decide now = %+v, want %s", got, release)
	}
	if got := tell(t, slices.Concat([]string{"decide", "--at", "2100-01-01T00:00:00Z", "--server", g.server()}, g.roots())...); got.exit != exitRefused || !strings.Contains(got.stderr, "expired") {
		t.Errorf("decide in 2100 = %+v, want an expired policy", got)
	}

	// Whatever the gateway has accepted: without the pinned keys' signatures its policy is none.
	wrong := []string{"--root", filepath.Join(g.Keys, trusttest.Shipper+".pub"), "--server", g.server()}
	for _, question := range [][]string{{"decide"}, {"explain", "chat"}, {"who-can", "chat"}, {"impact", trusttest.Alice}} {
		got := tell(t, slices.Concat(question, wrong)...)
		if got.exit != exitRefused || got.stdout != "" || !strings.Contains(got.stderr, "policy refused: 0 of 1 required root keys signed it") {
			t.Errorf("%q with another root = %+v, want a refusal", question, got)
		}
	}
	var shown struct{ Error string }
	got := tell(t, slices.Concat([]string{"decide", "--json"}, wrong)...)
	if err := json.Unmarshal([]byte(got.stdout), &shown); err != nil || !strings.Contains(shown.Error, "policy refused") {
		t.Errorf("decide --json with another root = %s, %v, want the refusal in it", got.stdout, err)
	}

	// The next policy: the release loses its quorum, and the gateway serves nothing.
	g.SignPolicy(func(d *trust.Document) {
		d.Version, d.Previous = 2, first.Digest()
		d.Roles["approver"] = trust.Role{Members: []string{trusttest.Alice, trusttest.Carol}}
	})
	g.await("release stopped: it is no longer approved")
	g.checkQuestions()
	if got := tell(t, "decide", "--server", g.server()); got.exit != exitRefused {
		t.Errorf("decide of a channel that lost its quorum = %+v, want a refusal", got)
	}
}

// TestServeIsAskedForNothing asks a gateway that was never given a statement, and one that this user may not ask.
func TestServeIsAskedForNothing(t *testing.T) {
	g := newGateway(t)
	files, err := filepath.Glob(filepath.Join(g.Statements, "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("statements = %q, %v, want some", files, err)
	}
	for _, f := range files {
		if err := os.Remove(f); err != nil {
			t.Fatal(err)
		}
	}
	g.start("--init-state")
	g.await("channel may serve nothing")
	g.checkQuestions()

	if err := os.Chmod(filepath.Join(g.Dir, "control.sock"), 0); err != nil {
		t.Fatal(err)
	}
	shown := g.unprivileged("status", "--server", g.server())
	if shown.exit != exitFailed || !strings.Contains(shown.stderr, "permission denied") {
		t.Fatalf("status without the right = %+v, want it refused", shown)
	}
	for _, question := range [][]string{{"decide"}, {"explain", "chat"}, {"who-can", "chat"}, {"impact", trusttest.Alice}} {
		got := g.unprivileged(append(question, "--server", g.server())...)
		if got.stderr = strings.Replace(got.stderr, question[0]+":", "status:", 1); got != shown {
			t.Errorf("%q without the right = %+v, want %+v", question, got, shown)
		}
	}
}

// unprivileged runs a command line for which files are closed whose mode says so, even if this user is root.
func (g *gatewayProcess) unprivileged(args ...string) answer {
	g.t.Helper()
	cmd := exec.CommandContext(g.t.Context(), "weighbridge", args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	done := make(chan error)
	go func() {
		// The thread's bounds are those of the process that it starts; it ends with this goroutine, for it stays locked.
		runtime.LockOSThread()
		if os.Geteuid() == 0 {
			if err := unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_DAC_OVERRIDE, 0, 0, 0); err != nil {
				done <- err
				return
			}
		}
		err := cmd.Start()
		done <- err
	}()
	if err := <-done; err != nil {
		g.t.Fatal(err)
	}
	cmd.Wait() // its status is in the answer
	return answer{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// A teller is the gateway's end of Inputs, which may send anything.
type teller struct {
	controlv1.UnimplementedControlServer
	basis      *controlv1.Basis
	statements [][]byte
	end        error
}

func (f *teller) Inputs(_ *controlv1.InputsRequest, stream grpc.ServerStreamingServer[controlv1.InputsResponse]) error {
	if err := stream.Send(&controlv1.InputsResponse{Part: &controlv1.InputsResponse_Basis{Basis: f.basis}}); err != nil {
		return err
	}
	for _, one := range f.statements {
		if err := stream.Send(&controlv1.InputsResponse{Part: &controlv1.InputsResponse_Statement{Statement: one}}); err != nil {
			return err
		}
	}
	return f.end
}

// serve answers until the test ends.
func (f *teller) serve(t *testing.T) (server string) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	controlv1.RegisterControlServer(s, f)
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return "unix:" + socket
}

// TestGatewayIsNotBelieved asks gateways that send one thing wrong.
func TestGatewayIsNotBelieved(t *testing.T) {
	w := trusttest.New(t)
	policy := w.SignPolicy(nil)
	lines, err := os.ReadFile(w.PolicyFile)
	if err != nil {
		t.Fatal(err)
	}
	w.SignPolicy(func(d *trust.Document) { d.Version = 2 })
	others, err := os.ReadFile(w.PolicyFile)
	if err != nil {
		t.Fatal(err)
	}
	floor, err := store.FormatFloor(trust.Floor{}.AcceptPolicy(policy, time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	payload, err := trust.NewApproval(statement.ID("sha256:"+strings.Repeat("0", 64)), trust.Approval{})
	if err != nil {
		t.Fatal(err)
	}
	shards, err := statement.New("urn:test", "", strings.Repeat("0", 64), map[string]string{"shards": strings.Repeat("s", 6<<20)})
	if err != nil {
		t.Fatal(err)
	}
	large := w.Sign(trusttest.Trainer, shards).Bundle() // than what gRPC takes by itself
	one, _, _ := bytes.Cut(lines, []byte("\n"))
	tests := []struct {
		name  string
		spoil func(f *teller)
		exit  int
		want  string
	}{
		{"honest", func(*teller) {}, exitRefused, "chat: 0 of 1 required publications"},
		{"large statement", func(f *teller) { f.statements = append(f.statements, large) }, exitRefused, "chat: 0 of 1 required publications"},
		{"no basis", func(f *teller) { f.basis = nil }, exitFailed, "read its time"},
		{"no time", func(f *teller) { f.basis.Time = nil }, exitFailed, "read its time"},
		{"no floor", func(f *teller) { f.basis.Floor = nil }, exitFailed, "read its floor"},
		{"floor of a later version", func(f *teller) { f.basis.Floor = []byte(`{"format":99}`) }, exitFailed, store.ErrLaterFormat.Error()},
		{"floor that accepted nothing", func(f *teller) { f.basis.Floor = []byte(`{}`) }, exitRefused, "its floor accepted"},
		{"policy that the floor did not accept", func(f *teller) { f.basis.Policy = others }, exitRefused, "its floor accepted"},
		{"no policy", func(f *teller) { f.basis.Policy = nil }, exitRefused, "no bundle in it"},
		{"two policies", func(f *teller) { f.basis.Policy = slices.Concat(lines, others) }, exitRefused, "different policies"},
		{"policy by too few", func(f *teller) { f.basis.Policy = one }, exitRefused, "1 of 2 required root keys"},
		{"another statement as policy", func(f *teller) { f.basis.Policy = w.Sign(trusttest.Alice, payload).Bundle() }, exitRefused, "predicate"},
		{"statement that is none", func(f *teller) { f.statements = append(f.statements, []byte("{}")) }, exitFailed, "statement 2: malformed"},
		{"statements that break off", func(f *teller) { f.end = status.Error(codes.Aborted, "the disk is gone") }, exitFailed, "the disk is gone"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := &teller{
				basis:      &controlv1.Basis{Policy: lines, Floor: floor, Time: timestamppb.Now()},
				statements: [][]byte{w.Sign(trusttest.Alice, payload).Bundle()},
			}
			tt.spoil(f)
			got := tell(t, "decide", "--server", f.serve(t), "--root", string(w.KeyID(trusttest.Alice)), "--root", string(w.KeyID(trusttest.Bob)))
			if got.exit != tt.exit || !strings.Contains(got.stderr, tt.want) || got.stdout != "" {
				t.Errorf("decide = %+v, want exit %d and %q", got, tt.exit, tt.want)
			}
		})
	}
}

func TestReceiveIsBounded(t *testing.T) {
	w := trusttest.New(t)
	payload, err := trust.NewApproval(statement.ID("sha256:"+strings.Repeat("0", 64)), trust.Approval{})
	if err != nil {
		t.Fatal(err)
	}
	bundle := w.Sign(trusttest.Alice, payload).Bundle()
	size := int64(len(bundle))
	for _, tt := range []struct {
		name  string
		most  int
		bytes int64
		ok    bool
	}{
		{"as many as may be", 3, 3 * size, true},
		{"one too many", 2, 3 * size, false},
		{"one byte too many", 3, 3*size - 1, false},
	} {
		conn, err := dialControl((&teller{basis: &controlv1.Basis{}, statements: [][]byte{bundle, bundle, bundle}}).serve(t))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		stream, err := controlv1.NewControlClient(conn).Inputs(t.Context(), &controlv1.InputsRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		if err != nil {
			t.Fatal(err)
		}
		if set, err := receive(stream, tt.most, tt.bytes); (err == nil) != tt.ok || tt.ok && len(set) != 3 {
			t.Errorf("%s: receive = %d statements, %v, want all 3: %t", tt.name, len(set), err, tt.ok)
		}
	}
}
