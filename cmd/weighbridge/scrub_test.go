package main

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
)

// slowly is patience with what gives way to all else that the machine does.
const slowly = 4 * patience

// TestServeScrubs: one flipped bit in the stored weights of the release that served before is in the status, the metrics and
// the audit log, and what serves is not touched by it; good weights in their place end that.
func TestServeScrubs(t *testing.T) {
	g := newGateway(t)
	g.start("--init-state")
	first := g.await("release serves")["release"].(string)
	g.log.forget()
	second := g.publish("b.gguf", tinygguf.B.Sentence, 2)
	g.awaitRelease(second)
	stored := filepath.Join(g.Dir, "models", "a.gguf")
	good, err := os.ReadFile(stored)
	if err != nil {
		t.Fatal(err)
	}
	broken := append([]byte{}, good...)
	broken[len(broken)/2] ^= 1
	if err := os.WriteFile(stored, broken, 0o644); err != nil {
		t.Fatal(err)
	}

	config, err := os.ReadFile(g.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(g.config, append(config, "scrub: {every: 10s}\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	g.stop()
	g.start()
	metrics := "http://" + g.listens()["metrics"].(string) + "/metrics"
	found := g.awaitFor(slowly, "stored weights are bad")
	if found["channel"] != "chat" || found["release"] != first {
		t.Errorf("found %v, want the previous release %s", found, first)
	}
	s := g.status()
	if len(s.Problems) != 1 {
		t.Fatalf("problems = %q, want one", s.Problems)
	}
	for _, want := range []string{"chat (previous release " + first + ")", stored, "a.gguf: was altered: bytes 0 to ", "expected sha256:", "actual sha256:", "fetch it again"} {
		if !strings.Contains(s.Problems[0], want) {
			t.Errorf("problem is %q, want %q in it", s.Problems[0], want)
		}
	}
	if ch := s.Channels["chat"]; ch.Release != second || ch.State != "ready" {
		t.Errorf("chat = %+v, want %s ready", ch, second)
	}
	out, err := exec.CommandContext(t.Context(), "weighbridge", "status", "--server", "unix:"+filepath.Join(g.Dir, "control.sock")).Output()
	if err != nil || !strings.Contains(string(out), "\nproblem: "+s.Problems[0]+"\n") {
		t.Errorf("status = %v:\n%s\nwant the problem", err, out)
	}
	if got := g.fetch(metrics); !strings.Contains(got, `weighbridge_scrub_bad{channel="chat"} 1`) {
		t.Errorf("metrics hold no bad copy:\n%s", got)
	}

	if err := os.WriteFile(stored, good, 0o644); err != nil {
		t.Fatal(err)
	}
	g.awaitFor(slowly, "stored weights are bad no longer")
	if s := g.status(); len(s.Problems) != 0 {
		t.Errorf("problems = %q, want none", s.Problems)
	}
	g.stop() // which writes the log to its end
	g.checkTrail("scrub")
	out, err = exec.CommandContext(t.Context(), "weighbridge", "audit", "show", filepath.Join(g.Dir, "state", "audit"), "--kind", "scrub").Output()
	if lines := strings.Split(strings.TrimSpace(string(out)), "\n"); err != nil || len(lines) != 2 ||
		!strings.HasSuffix(lines[1], "scrub channel chat release "+first+": the copy at "+stored+" is as signed again") {
		t.Errorf("audit show = %v:\n%s\nwant that it was bad and is good", err, out)
	}
}

// awaitRelease waits until a release serves.
func (g *gatewayProcess) awaitRelease(id string) {
	g.t.Helper()
	if got := g.await("release serves")["release"]; got != id {
		g.t.Fatalf("serves %v, want %s", got, id)
	}
}

// stop ends the gateway as an operator does.
func (g *gatewayProcess) stop() {
	g.t.Helper()
	if err := g.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		g.t.Fatal(err)
	}
	if err := g.cmd.Wait(); err != nil {
		g.t.Errorf("exit after SIGTERM = %v, want 0", err)
	}
}

// status asks the gateway.
func (g *gatewayProcess) status() (s gatewayStatus) {
	g.t.Helper()
	out, err := exec.CommandContext(g.t.Context(), "weighbridge", "status", "--json", "--server", "unix:"+filepath.Join(g.Dir, "control.sock")).Output()
	if err == nil {
		err = json.Unmarshal(out, &s)
	}
	if err != nil {
		g.t.Fatal(err)
	}
	return s
}

// fetch returns what is at a URL of this machine.
func (g *gatewayProcess) fetch(url string) string {
	g.t.Helper()
	res, err := http.Get(url)
	if err != nil {
		g.t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return string(data)
}
