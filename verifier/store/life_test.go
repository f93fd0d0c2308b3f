package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store"
	"github.com/weighbridge/weighbridge/verifier/trust"
	"github.com/weighbridge/weighbridge/verifier/trust/trusttest"
)

// A life is what a gateway, and whoever backs its state up, do in one directory, step by step. Each step can be done
// again.
type life struct {
	dir   string
	state *store.State // once it is open
	steps []step
}

// A step of a life, and what must be remembered once it was done, given what must be before.
type step struct {
	name string
	do   func() error
	then func(memory) memory
}

// A memory is what must be remembered. It is nothing at first.
type memory struct {
	state, backup, restored *trust.Floor
}

// parts returns each as text, "null" if there is none.
func (m memory) parts() map[string]string {
	parts := map[string]string{}
	for name, floor := range map[string]*trust.Floor{"state": m.state, "backup": m.backup, "restored state": m.restored} {
		text, err := json.Marshal(floor, json.Deterministic(true))
		if err != nil {
			panic(err)
		}
		parts[name] = string(text)
	}
	return parts
}

// Where a life has its things.
func (l *life) stateDir() string    { return filepath.Join(l.dir, "var", "state") } // neither is there at first
func (l *life) backupFile() string  { return filepath.Join(l.dir, "backup.json") }
func (l *life) restoredDir() string { return filepath.Join(l.dir, "restored") }

// policies are those that a life accepts: versions 1 and 2.
type policies [2]struct {
	*trust.Policy
	bundles []byte
}

// newPolicies signs policies and writes them into a directory.
func newPolicies(t *testing.T, dir string) policies {
	t.Helper()
	w := trusttest.New(t)
	for i := range (policies{}) {
		w.SignPolicy(func(d *trust.Document) { d.Version = int64(i + 1) })
		if err := os.Rename(w.PolicyFile, policyFile(dir, i)); err != nil {
			t.Fatal(err)
		}
	}
	return readPolicies(t, dir)
}

// readPolicies reads what newPolicies wrote.
func readPolicies(t *testing.T, dir string) (all policies) {
	t.Helper()
	for i := range all {
		data, err := os.ReadFile(policyFile(dir, i))
		if err != nil {
			t.Fatal(err)
		}
		bundles, err := statement.ParseLines(data)
		if err != nil {
			t.Fatal(err)
		}
		if all[i].Policy, err = trust.ParsePolicy(bundles[0], nil); err != nil {
			t.Fatal(err)
		}
		all[i].bundles = data
	}
	return all
}

func policyFile(dir string, i int) string { return filepath.Join(dir, fmt.Sprintf("%d.jsonl", i)) }

func newLife(dir string, p policies) *life {
	l := &life{dir: dir}
	first, second := p[0], p[1]
	release := func(digit string) statement.ID { return statement.ID("sha256:" + strings.Repeat(digit, 64)) }
	at := func(minute int) time.Time { return time.Date(2026, 1, 1, 0, minute, 0, 0, time.UTC) }
	publish := func(epoch int64, p *trust.Policy) func(trust.Floor) trust.Floor {
		id := release(string('0' + rune(epoch)))
		return func(f trust.Floor) trust.Floor {
			return f.Accept("chat", trust.Channel{Serve: id, Epoch: epoch, Publication: id}, p, at(int(epoch)))
		}
	}
	withdraw := func(f trust.Floor) trust.Floor {
		f, _ = f.Withdraw(trust.Channel{Withdrawn: []trust.Withdrawn{{Release: release("1")}}}, first.Policy, at(2))
		return f
	}
	l.steps = []step{
		{"create", l.create, func(m memory) memory { m.state = &trust.Floor{}; return m }},
		l.keep(1, first.bundles),
		l.raise("accept policy 1", func(f trust.Floor) trust.Floor { return f.AcceptPolicy(first.Policy, at(0)) }),
		l.raise("accept epoch 1", publish(1, first.Policy)),
		l.backup(),
		l.restore(), // where there is nothing
		l.keepWithdrawal(first.bundles),
		l.raise("withdraw", withdraw),
		l.keep(2, second.bundles),
		l.raise("accept policy 2", func(f trust.Floor) trust.Floor { return f.AcceptPolicy(second.Policy, at(3)) }),
		l.raise("accept epoch 4", publish(4, second.Policy)),
		l.backup(),
		l.restore(), // over what is older
	}
	return l
}

// run does the steps from one on, and tells of each that is done.
func (l *life) run(from int, done func(step)) error {
	for _, s := range l.steps[from:] {
		if err := s.do(); err != nil {
			return err
		}
		done(s)
	}
	return l.close()
}

func (l *life) close() error {
	if l.state == nil {
		return nil
	}
	err := l.state.Close()
	l.state = nil
	return err
}

// open opens the state unless it is open.
func (l *life) open() (err error) {
	if l.state == nil {
		l.state, err = store.OpenState(l.stateDir())
	}
	return err
}

func (l *life) create() error {
	if err := store.CreateState(l.stateDir()); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return l.open()
}

func (l *life) keep(version int64, bundles []byte) step {
	return step{"keep policy", func() error {
		if err := l.open(); err != nil {
			return err
		}
		return l.state.KeepPolicy(version, bundles)
	}, func(m memory) memory { return m }}
}

func (l *life) raise(name string, raise func(trust.Floor) trust.Floor) step {
	return step{name, func() error {
		if err := l.open(); err != nil {
			return err
		}
		return l.state.Raise(raise)
	}, func(m memory) memory {
		next := raise(*m.state)
		m.state = &next
		return m
	}}
}

// keepWithdrawal keeps a statement; any will do, since the state does not ask what it says.
func (l *life) keepWithdrawal(bundles []byte) step {
	return step{"keep the withdrawal", func() error {
		all, err := statement.ParseLines(bundles)
		if err := errors.Join(err, l.open()); err != nil {
			return err
		}
		return l.state.KeepWithdrawal(all[0])
	}, func(m memory) memory { return m }}
}

func (l *life) backup() step {
	return step{"back up", func() error { return store.Backup(l.stateDir(), l.backupFile()) },
		func(m memory) memory { m.backup = m.state; return m }}
}

func (l *life) restore() step {
	return step{"restore", func() error { return store.Restore(l.backupFile(), l.restoredDir()) },
		func(m memory) memory { m.restored = m.backup; return m }}
}

// memories are what must be remembered after no step, after one, and so on.
func (l *life) memories() []memory {
	all := []memory{{}}
	for _, s := range l.steps {
		all = append(all, s.then(all[len(all)-1]))
	}
	return all
}

// look reads what is remembered the way a gateway does that starts. What must not be is an error: a state that is there
// in part, a policy that is missing or another, a file that nobody knows.
func (l *life) look(p policies) (m memory, err error) {
	var errs [3]error
	m.state, errs[0] = lookState(l.stateDir(), p)
	m.restored, errs[1] = lookState(l.restoredDir(), p)
	if _, err := os.Stat(l.backupFile()); err == nil {
		dir := filepath.Join(l.dir, "look")
		if errs[2] = store.Restore(l.backupFile(), dir); errs[2] == nil {
			m.backup, errs[2] = lookState(dir, p)
		}
		os.RemoveAll(dir)
	}
	return m, errors.Join(errs[:]...)
}

// lookState returns the floor of a state, nil if there is none.
func lookState(dir string, p policies) (*trust.Floor, error) {
	s, err := store.OpenState(dir)
	if errors.Is(err, store.ErrNoState) {
		return nil, nil //nolint:nilnil // no state is no error here
	}
	if err != nil {
		return nil, err
	}
	defer s.Close()
	floor := s.Floor()
	policy, err := s.Policy()
	switch {
	case floor.PolicyVersion == 0 && errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case !bytes.Equal(policy, p[floor.PolicyVersion-1].bundles) || floor.PolicyDigest != p[floor.PolicyVersion-1].Digest():
		return nil, errors.New("the policy is not the one that the floor names")
	}
	switch kept, err := store.KeptWithdrawals(dir); {
	case err != nil:
		return nil, err
	case len(floor.Withdrawn) > len(kept):
		return nil, errors.New("a withdrawal counts that is not kept")
	}
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		known := []string{"floor.json", "lock", "policy-1.jsonl", "policy-2.jsonl", "withdrawn"}
		if !slices.Contains(known, e.Name()) && !strings.HasPrefix(e.Name(), ".") {
			return nil, errors.New("nobody knows " + e.Name())
		}
	}
	return &floor, err
}
