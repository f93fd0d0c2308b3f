package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/backends/backendtest"
	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

// enterIsland puts the goroutine of a test, and every process it starts from then on, into a network namespace that has a
// loopback interface and no route.
func enterIsland(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // and never unlocked: the thread ends with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); errors.Is(err, unix.EPERM) {
		t.Skipf("this user may not make network namespaces: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	lo.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		t.Fatal(err)
	}
	routes, err := os.ReadFile("/proc/thread-self/net/route")
	if err != nil || strings.Count(string(routes), "\n") != 1 { // its head line
		t.Fatalf("the island has routes: %s%v", routes, err)
	}
}

// An island is a site without a network. Everything that happens there is a process of its own.
type island struct {
	*gatewayProcess
	signers *trusttest.World // elsewhere
}

func (i *island) writeConfig(lease string) {
	i.t.Helper()
	config := fmt.Sprintf(`
listen: {grpc: 127.0.0.1:0, control: "unix:./control.sock"}
identity: {development: {trustDomain: test.example, socket: ./spiffe.sock}}
trust: {root: {keys: ["%s", "%s"], threshold: 2}, policy: policy.jsonl, statements: [./statements], state: ./state}
offline: true
lease: {maxStaleness: %s, then: deny}
weights: [./models]
runtimes: {llamacpp: {command: %s}}
channels: {chat: {}}
access: [{caller: "spiffe://test.example/apps/*", channels: [chat], methods: [chat]}]
`, i.signers.KeyID(trusttest.Alice), i.signers.KeyID(trusttest.Bob), lease, backendtest.LlamaServer(i.t))
	writeTestFile(i.t, i.config, config)
}

// do runs a command there and returns its exit status and what it wrote.
func (i *island) do(args ...string) (status int, out string) {
	i.t.Helper()
	cmd := exec.CommandContext(i.t.Context(), "weighbridge", args...)
	cmd.Env = append(os.Environ(), "SPIFFE_ENDPOINT_SOCKET=unix://"+filepath.Join(i.Dir, "spiffe.sock"))
	text, err := cmd.CombinedOutput()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		i.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(text)
}

func (i *island) bring(want int, file, says string) {
	i.t.Helper()
	if status, out := i.do("bundle", "import", file, "--config", i.config, "--init-state"); status != want || !strings.Contains(out, says) {
		i.t.Errorf("import: status %d, want %d with %q: %s", status, want, says, out)
	}
}

// checkAnswer wants a sentence from the channel by gRPC and mTLS.
func (i *island) checkAnswer(sentence string) {
	i.t.Helper()
	if status, out := i.do("chat", "chat", "Who are you?", "--server", i.listens()["grpc"].(string)); status != exitDone || !strings.Contains(out, sentence) {
		i.t.Errorf("chat: status %d, want %q: %s", status, sentence, out)
	}
}

// TestAirGap carries releases to a site in a network namespace without routes: they serve and answer there; an older
// bundle is refused, what was withdrawn stops, and a lease that has run out stops all until something new is heard.
func TestAirGap(t *testing.T) {
	far := newGateway(t) // whose gateway never runs: it is where people sign
	far.SignPolicy(withdrawable)
	first := filepath.Join(far.Dir, "first.tar")
	export := func(file string) {
		t.Helper()
		if status, _, stderr := runModel(t, "bundle", "export", "--config", far.config, "--out", file); status != exitDone {
			t.Fatalf("export: status %d: %s", status, stderr)
		}
	}
	export(first)

	enterIsland(t)
	i := &island{&gatewayProcess{World: trusttest.New(t), t: t}, far.World}
	i.config = filepath.Join(i.Dir, "gateway.yaml")
	if err := os.Mkdir(filepath.Join(i.Dir, "models"), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	i.writeConfig("90d")
	i.bring(exitDone, first, "will serve")
	i.start()
	i.await("release serves")
	i.checkAnswer("I am version A.")

	// The next release, to a gateway that runs; then the older bundle again.
	second := far.publish("b.gguf", tinygguf.B.Sentence, 2)
	later := filepath.Join(far.Dir, "later.tar")
	export(later)
	i.log.forget()
	i.bring(exitDone, later, "will serve "+second)
	if got := i.await("release serves")["release"]; got != second {
		t.Errorf("serves %v, want %s", got, second)
	}
	i.checkAnswer("I am version B.")
	i.bring(exitRefused, first, "older than this site")

	// It is withdrawn. Nothing serves at the other side either, so the third release is on its way with that.
	far.Withdraw(trusttest.Carol, statement.ID(second))
	third := far.publish("c.gguf", tinygguf.A.Sentence, 3)
	export(later)
	i.bring(exitDone, later, "will serve "+third)
	i.await("release stopped: it is no longer approved")

	// A lease that has run out, and its renewal: the same release at the next epoch.
	i.cmd.Process.Signal(os.Interrupt)
	i.cmd.Wait()
	i.writeConfig("1ms")
	i.start()
	i.await("channel may serve nothing")
	if status, out := i.do("status", "--server", "unix:"+filepath.Join(i.Dir, "control.sock")); status != exitDone || !strings.Contains(out, "the site's lease of 1ms") {
		t.Errorf("status: %d: %s", status, out)
	}
	i.cmd.Process.Signal(os.Interrupt)
	i.cmd.Wait()
	i.writeConfig("90d")
	payload, err := trust.NewPublication(statement.ID(third), trust.Publication{Channel: "chat", Epoch: 4})
	if err != nil {
		t.Fatal(err)
	}
	far.Add(far.Sign(trusttest.Shipper, payload))
	export(later)
	i.bring(exitDone, later, "goes on to serve "+third)
	i.start()
	if got := i.await("release serves")["epoch"]; fmt.Sprint(got) != "4" {
		t.Errorf("serves at epoch %v, want 4", got)
	}
	i.checkAnswer("I am version A.")
}
