package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/weighbridge/weighbridge/backends/backendtest"
	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
	"github.com/weighbridge/weighbridge/gateway/client"
	"github.com/weighbridge/weighbridge/gateway/identity"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

// patience is how long a test waits for what takes a moment on a busy machine.
const patience = time.Minute

// A gatewayProcess is `weighbridge serve` as its own process, over a signed world with one published release.
type gatewayProcess struct {
	*trusttest.World
	t       *testing.T
	config  string
	cmd     *exec.Cmd
	log     logBuffer
	listens func() map[string]any // the addresses, by API
}

// logBuffer collects JSON log lines and wakes whoever waits for one.
type logBuffer struct {
	mu      sync.Mutex
	data    bytes.Buffer
	changed chan struct{}
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.data.Write(p)
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
	return len(p), nil
}

// find returns the attributes of the last line with this message, or a channel that is closed when there is more.
func (l *logBuffer) find(msg string, with ...string) (map[string]any, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found map[string]any
	if all := l.all(msg, with...); len(all) > 0 {
		found = all[len(all)-1]
	}
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	return found, l.changed
}

// findAll returns the attributes of all lines with this message.
func (l *logBuffer) findAll(msg string, with ...string) []map[string]any {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all(msg, with...)
}

func (l *logBuffer) all(msg string, with ...string) (all []map[string]any) {
	for line := range bytes.Lines(l.data.Bytes()) {
		var attrs map[string]any
		matches := json.Unmarshal(line, &attrs) == nil && attrs["msg"] == msg
		for i := 0; i < len(with); i += 2 {
			matches = matches && attrs[with[i]] == with[i+1]
		}
		if matches {
			all = append(all, attrs)
		}
	}
	return all
}

func (l *logBuffer) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.data.Reset()
}

func newGateway(t *testing.T) *gatewayProcess {
	t.Helper()
	g := &gatewayProcess{World: trusttest.New(t), t: t}
	g.config = filepath.Join(g.Dir, "gateway.yaml")
	g.SignPolicy(nil)
	g.publish("a.gguf", tinygguf.A.Sentence, 1)
	g.writeConfig("spiffe://test.example/apps/*")
	return g
}

// publish writes a model, and signs, approves and publishes a release of it.
func (g *gatewayProcess) publish(name, sentence string, epoch int64) string {
	g.t.Helper()
	model := filepath.Join(g.Dir, "models", name)
	writeTiny(g.t, model, tinygguf.Config{Sentence: sentence, ChatTemplate: tinygguf.ChatTemplate})
	id := g.Release(model, func(d *trust.Descriptor) { d.Runtime.Args = map[string]string{"ctx-size": "256", "threads": "1"} })
	g.Approve(id, trusttest.Alice, trust.Approval{})
	g.Approve(id, trusttest.Bob, trust.Approval{})
	g.Publish(id, "chat", epoch)
	return string(id)
}

func (g *gatewayProcess) writeConfig(caller string) {
	g.t.Helper()
	config := fmt.Sprintf(`
listen: {grpc: 127.0.0.1:0, http: 127.0.0.1:0, control: "unix:./control.sock", metrics: 127.0.0.1:0}
identity: {development: {trustDomain: test.example, socket: ./spiffe.sock}}
trust:
  root: {keys: ["%s", "%s"], threshold: 2}
  policy: policy.jsonl
  statements: [./statements]
  state: ./state
weights: [./models]
runtimes: {llamacpp: {command: %s}}
channels: {chat: {}}
access: [{caller: "%s", channels: [chat], methods: [chat, models]}]
`, g.KeyID(trusttest.Alice), g.KeyID(trusttest.Bob), backendtest.LlamaServer(g.t), caller)
	if err := os.WriteFile(g.config, []byte(config), 0o600); err != nil {
		g.t.Fatal(err)
	}
}

func (g *gatewayProcess) start(args ...string) {
	g.t.Helper()
	g.log.forget()
	g.listens = sync.OnceValue(func() map[string]any { return g.await("gateway listens") })
	g.launch(append([]string{"serve", "--config", g.config}, args...)...)
}

// launch starts a command whose log is awaited, as a caller of the world's gateway if it is one.
func (g *gatewayProcess) launch(args ...string) {
	g.t.Helper()
	g.cmd = exec.CommandContext(g.t.Context(), "weighbridge", args...)
	g.cmd.Env = append(os.Environ(), "SPIFFE_ENDPOINT_SOCKET=unix://"+filepath.Join(g.Dir, "spiffe.sock"))
	g.cmd.Stderr = &g.log
	if err := g.cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { g.cmd.Process.Kill(); g.cmd.Wait() })
}

// await waits for a log line and returns its attributes.
func (g *gatewayProcess) await(msg string, with ...string) map[string]any {
	g.t.Helper()
	return g.awaitFor(patience, msg, with...)
}

func (g *gatewayProcess) awaitFor(d time.Duration, msg string, with ...string) map[string]any {
	g.t.Helper()
	late := time.After(d)
	for {
		attrs, more := g.log.find(msg, with...)
		if attrs != nil {
			return attrs
		}
		select {
		case <-more:
		case <-late:
			g.t.Fatalf("no log line %q; the log:\n%s", msg, g.log.data.String())
		}
	}
}

// client returns an HTTP client with an SVID of the gateway's development trust domain.
func (g *gatewayProcess) client() *http.Client {
	g.t.Helper()
	id, err := identity.Open(g.t.Context(), identity.Config{WorkloadAPI: "unix://" + filepath.Join(g.Dir, "spiffe.sock")})
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { id.Close() })
	return &http.Client{Transport: client.NewTransport(id, client.Options{}.Authorize(id))}
}

func (g *gatewayProcess) url(path string) string {
	return "https://" + g.listens()["http"].(string) + path
}

// ask returns the status, the body and the release that answered.
func (g *gatewayProcess) ask(c *http.Client) (status int, body, release string) {
	g.t.Helper()
	res, err := c.Post(g.url("/v1/chat/completions"), "application/json",
		strings.NewReader(`{"model":"chat","messages":[{"role":"user","content":"Who are you?"}]}`))
	if err != nil {
		g.t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return res.StatusCode, string(data), res.Header.Get("weighbridge-release")
}

func (g *gatewayProcess) check(c *http.Client, release, sentence string) {
	g.t.Helper()
	status, body, by := g.ask(c)
	if status != http.StatusOK || by != release || !strings.Contains(body, sentence) {
		g.t.Errorf("answer = %d %s by %s, want %q by %s", status, body, by, sentence, release)
	}
}

func TestServe(t *testing.T) {
	g := newGateway(t)
	g.start("--init-state")
	first := g.await("release serves")["release"].(string)
	c := g.client()
	g.check(c, first, "I am version A.")

	if _, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}).Get(g.url("/v1/models")); err == nil {
		t.Error("GET without an SVID = nil, want the handshake to fail")
	}

	// A new publication is switched to without a restart, and the status says so.
	metricsAddress := g.listens()["metrics"].(string)
	g.log.forget()
	second := g.publish("b.gguf", tinygguf.B.Sentence, 2)
	if got := g.await("release serves")["release"]; got != second {
		t.Errorf("serves %v, want %s", got, second)
	}
	g.check(c, second, "I am version B.")
	out, err := exec.CommandContext(t.Context(), "weighbridge", "status", "--json", "--server", "unix:"+filepath.Join(g.Dir, "control.sock")).Output()
	if err != nil || !strings.Contains(string(out), second) || !strings.Contains(string(out), `"state": "ready"`) {
		t.Errorf("status = %s, %v, want %s ready", out, err, second)
	}
	for _, want := range []string{`"memory"`, `"inUse"`, `"kind": "policy"`, `"at": "2100-01-01T00:00:00Z"`, `"role": "serves"`, `"role": "warm"`, `"processes": 1`} {
		if !strings.Contains(string(out), want) {
			t.Errorf("status = %s, want %s", out, want)
		}
	}
	g.checkWatch(second)
	g.checkTrail("policy", "load", "switch")
	metrics, err := http.Get("http://" + metricsAddress + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer metrics.Body.Close()
	data, _ := io.ReadAll(metrics.Body)
	for _, want := range []string{"weighbridge_load_count", "weighbridge_load_bytes", `weighbridge_expiry_time_seconds{kind="svid"}`,
		`weighbridge_expiry_time_seconds{kind="policy"} 4.1024448e+09`, `weighbridge_channel_serving{channel="chat"} 1`, `weighbridge_load_phase_duration_seconds_count{phase="hash"}`,
		`weighbridge_swap_phase_duration_seconds_count{channel="chat",outcome="done",phase="record"} 2`, `weighbridge_runtime_memory_bytes{channel="chat",role="serves"}`} {
		if !strings.Contains(string(data), want) {
			t.Errorf("metrics hold no %s:\n%s", want, data)
		}
	}
	checkDashboards(t, string(data))
}

// checkDashboards looks for each metric of the dashboards in what the gateway shows, but for those that are there only when
// something is wrong.
func checkDashboards(t *testing.T, metrics string) {
	t.Helper()
	troubles := []string{"weighbridge_channel_refused", "weighbridge_scrub_bad"}
	names := regexp.MustCompile(`\b(?:weighbridge|gen_ai_(?:client|server)|process)_[a-z_]+`)
	files, err := filepath.Glob("../../configs/dashboards/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("dashboards: %v, %v", files, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var dashboard struct {
			Panels []struct{ Targets []struct{ Expr string } }
		}
		if err := json.Unmarshal(data, &dashboard); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, panel := range dashboard.Panels {
			for _, target := range panel.Targets {
				found := names.FindAllString(target.Expr, -1)
				if len(found) == 0 {
					t.Errorf("%s: %q has no metric of the gateway", file, target.Expr)
				}
				for _, name := range found {
					if !slices.Contains(troubles, name) && !regexp.MustCompile(`(?m)^`+name+`[{ ]`).MatchString(metrics) {
						t.Errorf("%s: the gateway has no metric %s", file, name)
					}
				}
			}
		}
	}
}

// checkTrail verifies the gateway's log and wants records of these kinds in it.
func (g *gatewayProcess) checkTrail(kinds ...string) {
	g.t.Helper()
	state := filepath.Join(g.Dir, "state")
	if out, err := exec.CommandContext(g.t.Context(), "weighbridge", "audit", "verify", filepath.Join(state, "audit"), "--key", filepath.Join(state, "gateway.key.pub")).CombinedOutput(); err != nil {
		g.t.Errorf("audit verify: %v: %s", err, out)
	}
	for _, kind := range kinds {
		out, err := exec.CommandContext(g.t.Context(), "weighbridge", "audit", "show", filepath.Join(state, "audit"), "--kind", kind).CombinedOutput()
		if err != nil || len(bytes.TrimSpace(out)) == 0 {
			g.t.Errorf("audit show --kind %s: %v: %q, want a record", kind, err, out)
		}
	}
}

// checkWatch wants the first event that a watcher gets to be of what serves.
func (g *gatewayProcess) checkWatch(release string) {
	g.t.Helper()
	cmd := exec.CommandContext(g.t.Context(), "weighbridge", "watch", "chat", "--json", "--server", "unix:"+filepath.Join(g.Dir, "control.sock"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		g.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	var event watchEvent
	if err := json.NewDecoder(out).Decode(&event); err != nil || event.Name != "chat" || event.Channel.Release != release {
		g.t.Errorf("watch says %+v, %v, want chat with release %s", event, err, release)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		g.t.Error(err)
	}
	cmd.Wait()
}

func TestServeReloads(t *testing.T) {
	g := newGateway(t)
	g.start("--init-state")
	release := g.await("release serves")["release"].(string)
	c := g.client()
	g.check(c, release, "I am version A.")

	// Three mistakes: each is named, and nothing changes.
	good, err := os.ReadFile(g.config)
	if err != nil {
		t.Fatal(err)
	}
	bad := strings.NewReplacer("weights:", "wheights:", "threshold: 2", "threshold: 3", "[chat, models]", "[chat, rule]").Replace(string(good))
	if err := os.WriteFile(g.config, []byte(bad), 0o600); err != nil {
		t.Fatal(err)
	}
	g.cmd.Process.Signal(syscall.SIGHUP)
	why := g.await("configuration was not reloaded; the old one stays")["err"].(string)
	for _, want := range []string{"wheights", "trust.root.threshold", "access[0]"} {
		if !strings.Contains(why, want) {
			t.Errorf("reload error %q does not name %s", why, want)
		}
	}
	g.check(c, release, "I am version A.")

	// A change that a running gateway can't take over is refused with all that came with it.
	g.log.forget()
	other := strings.NewReplacer("apps/*", "others/*", "metrics: 127.0.0.1:0", "metrics: 127.0.0.2:0").Replace(string(good))
	if err := os.WriteFile(g.config, []byte(other), 0o600); err != nil {
		t.Fatal(err)
	}
	g.cmd.Process.Signal(syscall.SIGHUP)
	if why := g.await("configuration was not reloaded; the old one stays")["err"]; why != "listen: a change needs a restart" {
		t.Errorf("reload error = %q, want it to name listen", why)
	}
	g.check(c, release, "I am version A.")

	// The policy accepted last stands even when its file is gone.
	g.log.forget()
	if err := os.Remove(g.PolicyFile); err != nil {
		t.Fatal(err)
	}

	// A rule that goes takes effect at once.
	g.writeConfig("spiffe://test.example/others/*")
	g.cmd.Process.Signal(syscall.SIGHUP)
	g.await("configuration reloaded")
	if status, body, _ := g.ask(c); status != http.StatusForbidden {
		t.Errorf("answer = %d %s, want 403 once no rule names the caller", status, body)
	}
}

// bites says how long a new policy took to bite. It should be a second on a machine that does nothing else; five are still
// far below the interval at which everything is looked at anyhow.
func bites(t *testing.T, since time.Time) {
	t.Helper()
	took := time.Since(since)
	if t.Logf("the policy bit after %s", took); took > 5*time.Second {
		t.Errorf("the policy took %s to bite", took)
	}
}

// TestServeTakesSubmissions brings statements to a running gateway, one by one, and asks first what they would change.
func TestServeTakesSubmissions(t *testing.T) {
	g := newGateway(t)
	first := g.SignPolicy(nil)
	g.start("--init-state")
	g.await("release serves")
	server := "unix:" + filepath.Join(g.Dir, "control.sock")
	submit := func(want int, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "weighbridge", append([]string{"submit", "--server", server}, args...)...)
		out, err := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != want {
			t.Errorf("submit %q = %d %v, want %d:\n%s", args, code, err, want, out)
		}
		return string(out)
	}
	write := func(name string, bundles ...*statement.Signed) string {
		t.Helper()
		var data []byte
		for _, b := range bundles {
			data = append(data, b.Bundle()...)
		}
		path := filepath.Join(g.Dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}

	// All that the second release needs arrives at once.
	statements := g.Statements
	g.Statements = t.TempDir()
	second := g.publish("b.gguf", tinygguf.B.Sentence, 2)
	files, err := filepath.Glob(filepath.Join(g.Statements, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	g.Statements = statements
	if out := submit(0, append(files, "--dry-run")...); !strings.Contains(out, "chat: would serve "+second) {
		t.Errorf("dry run says\n%s\nwant that chat would serve %s", out, second)
	}
	if kept, _ := filepath.Glob(filepath.Join(statements, "submitted-*")); len(kept) != 0 {
		t.Errorf("the dry run kept %q", kept)
	}
	g.log.forget()
	submit(0, files...)
	if got := g.await("release serves")["release"]; got != second {
		t.Errorf("serves %v, want %s", got, second)
	}
	broken := filepath.Join(g.Dir, "broken.json")
	if err := os.WriteFile(broken, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := submit(1, broken); !strings.Contains(out, "malformed") {
		t.Errorf("a statement that is none: %s", out)
	}

	// A policy comes alone, and only if its root says so.
	edit := func(d *trust.Document) {
		d.Version, d.Previous = 2, first.Digest()
		d.Roles["approver"] = trust.Role{Members: []string{trusttest.Alice, trusttest.Carol}}
	}
	doc := g.Document()
	edit(&doc)
	payload, err := trust.NewPolicy(doc)
	if err != nil {
		t.Fatal(err)
	}
	alice, bob := g.Sign(trusttest.Alice, payload), g.Sign(trusttest.Bob, payload)
	if out := submit(1, write("half.jsonl", alice)); !strings.Contains(out, "1 of the 2 root members") {
		t.Errorf("a policy that one has signed: %s", out)
	}
	if out := submit(1, write("mixed.jsonl", alice, bob), files[0]); !strings.Contains(out, "submitted alone") {
		t.Errorf("a policy among others: %s", out)
	}
	whole := write("whole.jsonl", alice, bob)
	if out := submit(0, whole, "--dry-run"); !strings.Contains(out, "chat: would serve nothing (epoch 2 is pending: 1 of 2 required approvals)") {
		t.Errorf("dry run of the policy says\n%s", out)
	}
	g.log.forget()
	begun := time.Now()
	submit(0, whole)
	g.await("release stopped: it is no longer approved")
	bites(t, begun)
}

// TestServeFollowsPolicy replaces the policy file of a running gateway: a policy that may not is refused, one that may
// bites, and stays when the gateway starts anew with another file.
func TestServeFollowsPolicy(t *testing.T) {
	g := newGateway(t)
	first := g.SignPolicy(nil)
	old, err := os.ReadFile(g.PolicyFile)
	if err != nil {
		t.Fatal(err)
	}
	g.start("--init-state")
	release := g.await("release serves")["release"].(string)
	c := g.client()
	g.check(c, release, "I am version A.")

	g.log.forget()
	g.SignPolicy(func(d *trust.Document) { d.Version = 2 })
	if why := g.await("the policy file was not taken over; the policy accepted last stays")["err"].(string); !strings.Contains(why, "predecessor") {
		t.Errorf("refused because %q, want its missing predecessor", why)
	}
	g.check(c, release, "I am version A.")

	g.log.forget()
	begun := time.Now()
	g.SignPolicy(func(d *trust.Document) {
		d.Version, d.Previous = 2, first.Digest()
		alice := d.Identities[trusttest.Alice]
		alice.State = trust.State{Compromised: time.Now().Add(-time.Hour)}
		d.Identities[trusttest.Alice] = alice
		d.Roles["root"] = trust.Role{Members: []string{trusttest.Bob}}
	})
	g.await("release stopped: it is no longer approved")
	bites(t, begun)
	if status, body, _ := g.ask(c); status != http.StatusServiceUnavailable {
		t.Errorf("answer = %d %s, want 503", status, body)
	}

	g.log.forget()
	if err := os.WriteFile(g.PolicyFile, old, 0o644); err != nil {
		t.Fatal(err)
	}
	if why := g.await("the policy file was not taken over; the policy accepted last stays")["err"].(string); !strings.Contains(why, "below the accepted version 2") {
		t.Errorf("refused because %q, want the older version", why)
	}
}

// TestServeLeavesNoRuntimeBehind kills the gateway without warning and starts it again over what it left.
func TestServeLeavesNoRuntimeBehind(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	g := newGateway(t)
	g.start("--init-state")
	release := g.await("release serves")["release"].(string)
	runtimes := children(t, g.cmd.Process.Pid)
	if len(runtimes) == 0 {
		t.Fatal("the gateway has no child process, want a runtime")
	}
	g.cmd.Process.Kill()
	g.cmd.Wait()
	for _, pid := range runtimes {
		awaitGone(t, pid)
	}
	g.start() // the state is there now; so is the dead control socket
	if got := g.await("release serves")["release"]; got != release {
		t.Errorf("serves %v after a restart, want %s", got, release)
	}
	if dirs, err := os.ReadDir(filepath.Join(g.Dir, "state", "runtimes")); err != nil || len(dirs) != 1 {
		t.Errorf("directories of runtimes = %v, %v, want that of the one that runs", dirs, err)
	}
	g.check(g.client(), release, "I am version A.")
	g.cmd.Process.Signal(syscall.SIGTERM)
	if err := g.cmd.Wait(); err != nil {
		t.Errorf("exit after SIGTERM = %v, want 0", err)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) != 0 {
		t.Errorf("temporary directory = %v, %v, want nothing in it", left, err)
	}
}

func children(t *testing.T, pid int) []int {
	t.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	var all []int
	for _, list := range lists {
		data, _ := os.ReadFile(list)
		for _, field := range strings.Fields(string(data)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, child)
		}
	}
	return all
}

// awaitGone waits until a process that is not our child has ended; a zombie that nobody reaps yet has ended too.
func awaitGone(t *testing.T, pid int) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(data), ") Z ") {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("process %d still runs: %s", pid, data)
		}
	}
}

func TestServeRefusesToStart(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(g *gatewayProcess)
		args  []string
		want  []string
	}{
		{"state directory missing", func(*gatewayProcess) {}, nil, []string{"state directory does not exist", "hint:", "--init-state"}},
		{"policy by too few", func(g *gatewayProcess) {
			data, _ := os.ReadFile(g.PolicyFile)
			one, _, _ := bytes.Cut(data, []byte("\n"))
			os.WriteFile(g.PolicyFile, append(one, '\n'), 0o600)
		}, []string{"--init-state"}, []string{"trust.policy", "1 of 2 required root keys"}},
		{"policy altered", func(g *gatewayProcess) {
			data, _ := os.ReadFile(g.PolicyFile)
			os.WriteFile(g.PolicyFile, bytes.Replace(data, []byte(`"payload":"ey`), []byte(`"payload":"eX`), 1), 0o600)
		}, []string{"--init-state"}, []string{"trust.policy"}},
		{"statements directory missing", func(g *gatewayProcess) { os.RemoveAll(g.Statements) }, []string{"--init-state"}, []string{"statements"}},
		{"runtime missing", func(g *gatewayProcess) {
			data, _ := os.ReadFile(g.config)
			os.WriteFile(g.config, bytes.Replace(data, []byte(backendtest.LlamaServer(g.t)), []byte("/nowhere/llama-server"), 1), 0o600)
		}, []string{"--init-state"}, []string{"runtimes.llamacpp", "/nowhere/llama-server"}},
		{"a user that is not there", func(g *gatewayProcess) {
			data, _ := os.ReadFile(g.config)
			os.WriteFile(g.config, bytes.Replace(data, []byte("{command: "), []byte("{user: nobody-here, command: "), 1), 0o600)
		}, []string{"--init-state"}, []string{"runtimes.llamacpp.user", "hint: "}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			g := newGateway(t)
			tt.spoil(g)
			cmd := exec.CommandContext(t.Context(), "weighbridge", append([]string{"serve", "--config", g.config}, tt.args...)...)
			out, err := cmd.CombinedOutput()
			if cmd.ProcessState.ExitCode() != exitFailed {
				t.Errorf("exit = %v, want %d; %s", err, exitFailed, out)
			}
			for _, want := range tt.want {
				if !strings.Contains(string(out), want) {
					t.Errorf("output lacks %q: %s", want, out)
				}
			}
		})
	}
}
