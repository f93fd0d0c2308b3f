package store

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// ErrOlder means that a backup would go back behind the state that is there.
var ErrOlder = errors.New("the backup is older than the state that is there")

// backup is the file of [Backup].
type backup struct {
	Format int            `json:"format"`
	Floor  jsontext.Value `json:"floor"`  // what its file holds
	Policy []byte         `json:"policy"` // bundles, as JSON Lines

	Withdrawals [][]byte `json:"withdrawals,omitempty"` // bundles
}

// Backup writes what a state directory remembers into one file, whole or not at all. The gateway may run meanwhile.
func Backup(dir, file string) error {
	// The policy of a version is never changed once a floor names it, so that these two fit together.
	floor, err := ReadFloor(filepath.Join(dir, FloorName))
	if err != nil {
		return fmt.Errorf("back up state: %w", err)
	}
	policy, err := AcceptedPolicy(dir, floor)
	if err != nil && (floor.PolicyVersion > 0 || !errors.Is(err, fs.ErrNotExist)) {
		return fmt.Errorf("back up state: %w", err)
	}
	// After the floor: what it counts was kept before.
	kept, err := KeptWithdrawals(dir)
	if err != nil {
		return fmt.Errorf("back up state: %w", err)
	}
	text, err := FormatFloor(floor)
	if err != nil {
		return fmt.Errorf("back up state: %w", err)
	}
	b := backup{Format: floorFormat, Floor: text, Policy: policy}
	for _, w := range kept {
		b.Withdrawals = append(b.Withdrawals, w.Bundle())
	}
	data, err := json.Marshal(b, json.Deterministic(true))
	if err != nil {
		return fmt.Errorf("back up state: %w", err)
	}
	if err := WriteFile(file, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("back up state: %w", err)
	}
	return nil
}

// Restore makes a state directory from a backup. A state that is there is replaced only by one that remembers no less,
// and never while a gateway runs on it.
func Restore(file, dir string) error {
	data, err := ReadFile(file, maxBackup)
	if err != nil {
		return fmt.Errorf("restore state: %w", err)
	}
	var b backup
	if err := json.Unmarshal(data, &b, json.RejectUnknownMembers(true)); err != nil {
		return fmt.Errorf("restore state: read %s: %w", file, err)
	}
	if b.Format > floorFormat {
		return fmt.Errorf("restore state: %s: %w", file, ErrLaterFormat)
	}
	floor, err := ParseFloor(b.Floor)
	if err != nil {
		return fmt.Errorf("restore state: %s: floor: %w", file, err)
	}
	if err := checkPolicy(floor, b.Policy); err != nil {
		return fmt.Errorf("restore state: %s: %w", file, err)
	}
	if err := makeDir(dir); err != nil {
		return fmt.Errorf("restore state: %w", err)
	}
	lock, err := lockState(dir)
	if err != nil {
		return fmt.Errorf("restore state: %w", err)
	}
	defer lock.Close()
	path := filepath.Join(dir, FloorName)
	if exists(path) {
		there, err := ReadFloor(path)
		if err != nil {
			return fmt.Errorf("restore state: %w", err)
		}
		if !floor.Covers(there) {
			return fmt.Errorf("restore state: %s: %w", dir, ErrOlder)
		}
	}
	// The floor last: it never names a policy, or counts a withdrawal, that is not there.
	for _, bundle := range b.Withdrawals {
		w, err := statement.Parse(bundle)
		if err == nil {
			err = errors.Join(makeDir(WithdrawnDir(dir)), keepWithdrawal(dir, w.ID(), w.Bundle()))
		}
		if err != nil {
			return fmt.Errorf("restore state: withdrawal: %w", err)
		}
	}
	if floor.PolicyVersion > 0 {
		if err := WriteFile(filepath.Join(dir, fmt.Sprintf(policyName, floor.PolicyVersion)), b.Policy, 0o600); err != nil {
			return fmt.Errorf("restore state: %w", err)
		}
	}
	if err := writeFloor(path, floor); err != nil {
		return fmt.Errorf("restore state: %w", err)
	}
	return nil
}

// checkPolicy makes sure that the policy is the one that the floor names.
func checkPolicy(floor trust.Floor, policy []byte) error {
	if floor.PolicyVersion == 0 {
		return nil
	}
	bundles, err := statement.ParseLines(policy)
	if err != nil {
		return err
	}
	if len(bundles) == 0 {
		return errors.New("holds no policy")
	}
	p, err := trust.ParsePolicy(bundles[0], nil)
	if err != nil {
		return err
	}
	if p.Digest() != floor.PolicyDigest {
		return fmt.Errorf("holds policy %s, but its floor accepted %s", p.Digest(), floor.PolicyDigest)
	}
	return nil
}
