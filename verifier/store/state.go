package store

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/go-json-experiment/json"
	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// FloorName is the name of the floor in a state directory.
const FloorName = "floor.json"

// Other names in it.
const (
	policyName = "policy-%d.jsonl" // by version, so that none is lost before the floor names the next
	withdrawn  = "withdrawn"       // a directory of statements
	lockName   = "lock"
)

// ErrNoState means that the state directory was never made. Making one forgets every epoch that was accepted before,
// so only a person may ask for it.
var ErrNoState = errors.New("state directory does not exist")

// State is the durable memory that makes going back impossible: the floor and the policy accepted with it. One
// process holds it at a time. Its methods may be called concurrently.
type State struct {
	dir  string
	lock *os.File

	raising sync.Mutex                  // held while the floor is written
	floor   atomic.Pointer[trust.Floor] // as last saved: a disk that does not answer keeps nobody from reading it
}

// CreateState makes an empty state directory. Where there is a state already it changes nothing and returns an error
// that is [fs.ErrExist].
func CreateState(dir string) error {
	if err := makeDir(dir); err != nil {
		return fmt.Errorf("create state: %w", err)
	}
	// Who looks without the lock may put an empty floor over one that another process has made and raised since.
	lock, err := lockState(dir)
	if err != nil {
		return fmt.Errorf("create state: %w", err)
	}
	defer lock.Close()
	path := filepath.Join(dir, FloorName)
	if exists(path) {
		return fmt.Errorf("create state: %s: %w", path, fs.ErrExist)
	}
	if err := writeFloor(path, trust.Floor{}); err != nil {
		return fmt.Errorf("create state: %w", err)
	}
	return nil
}

// OpenState takes an existing state directory for this process alone, until Close.
func OpenState(dir string) (*State, error) {
	if !exists(filepath.Join(dir, FloorName)) {
		return nil, fmt.Errorf("open state: %s: %w", dir, ErrNoState)
	}
	lock, err := lockState(dir)
	if err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	floor, err := ReadFloor(filepath.Join(dir, FloorName))
	if err == nil {
		err = makeDir(WithdrawnDir(dir))
	}
	if err == nil {
		err = SyncDir(os.Open(dir)) // who wrote it may have been killed before that: what is believed now must not be lost later
	}
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("open state: %w", err)
	}
	s := &State{dir: dir, lock: lock}
	s.floor.Store(&floor)
	return s, nil
}

// lockState takes a directory for this process alone, until what it returns is closed.
func lockState(dir string) (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("%s is in use by another gateway: stop it first: %w", dir, err)
	}
	return lock, nil
}

// Close lets another process take the directory.
func (s *State) Close() error { return s.lock.Close() }

// Floor returns the floor as last saved.
func (s *State) Floor() trust.Floor {
	return *s.floor.Load()
}

// Raise replaces the floor by what raise makes of it. When it returns nil the new floor is durable. On an error nothing
// may be done that needs it; the old one stands, on disk and in memory, unless the failure came so late that the disk
// shows the new one: then that one stands in both, and is durable once a Raise returns nil, even one that changes
// nothing. raise must not change what it is given.
func (s *State) Raise(raise func(trust.Floor) trust.Floor) error {
	s.raising.Lock()
	defer s.raising.Unlock()
	path := filepath.Join(s.dir, FloorName)
	next := raise(s.Floor())
	if err := writeFloor(path, next); err != nil {
		switch there, rerr := ReadFloor(path); {
		case rerr == nil && s.Floor().Covers(there), errors.Is(rerr, fs.ErrNotExist): // the old one stands
		default: // what is written next must not go back behind what a restart would find, or might
			s.floor.Store(&next)
		}
		return fmt.Errorf("save floor: %w", err)
	}
	s.floor.Store(&next)
	return nil
}

// KeepPolicy keeps the bundles of a policy beside the floor, so that it no longer depends on its source. It is to be
// kept before the floor accepts it.
func (s *State) KeepPolicy(version int64, bundles []byte) error {
	return WriteFile(filepath.Join(s.dir, fmt.Sprintf(policyName, version)), bundles, 0o600)
}

// Policy returns the bundles of the policy that the floor accepted, or an error that is [fs.ErrNotExist] if it accepted
// none.
func (s *State) Policy() ([]byte, error) { return AcceptedPolicy(s.dir, s.Floor()) }

// AcceptedPolicy returns the bundles of the policy that a floor accepted, from the state directory that the floor lies
// in, or an error that is [fs.ErrNotExist].
func AcceptedPolicy(dir string, floor trust.Floor) ([]byte, error) {
	return ReadFile(filepath.Join(dir, fmt.Sprintf(policyName, floor.PolicyVersion)), statement.MaxBundle)
}

// WithdrawnDir is where a state directory keeps the withdrawals that ever counted, as statements: they hold on channels
// that come later, too, and whatever becomes of where they came from. It may not be there yet.
func WithdrawnDir(state string) string { return filepath.Join(state, withdrawn) }

// WithdrawnDir is [WithdrawnDir] of this state, and is there.
func (s *State) WithdrawnDir() string { return WithdrawnDir(s.dir) }

// KeepWithdrawal keeps a withdrawal. It is to be kept before the floor counts it.
func (s *State) KeepWithdrawal(w *statement.Signed) error {
	return keepWithdrawal(s.dir, w.ID(), w.Bundle())
}

func keepWithdrawal(state string, id statement.ID, bundle []byte) error {
	sum := sha256.Sum256(bundle)
	path := filepath.Join(WithdrawnDir(state), fmt.Sprintf("withdrawal-%.16s-%.8s.json", id.Hex(), hex.EncodeToString(sum[:])))
	return WriteFile(path, bundle, 0o600) // also over itself: what is there may not be durable yet
}

// KeptWithdrawals returns the withdrawals that a state directory keeps.
func KeptWithdrawals(state string) ([]*statement.Signed, error) {
	set, bad, err := ReadStatements([]string{WithdrawnDir(state)})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil // none was ever kept
	case err != nil:
		return nil, err
	case len(bad) > 0:
		return nil, fmt.Errorf("%s: %w", bad[0].File, bad[0].Err)
	}
	return set, nil
}

// ReadFloor reads a floor file strictly: a floor that can't be read whole protects nothing.
func ReadFloor(path string) (trust.Floor, error) {
	data, err := ReadFile(path, maxFloorFile)
	if err != nil {
		return trust.Floor{}, fmt.Errorf("read floor: %w", err)
	}
	floor, err := ParseFloor(data)
	if err != nil {
		return trust.Floor{}, fmt.Errorf("read floor %s: %w", path, err)
	}
	return floor, nil
}

// ParseFloor is [ReadFloor] of what the file holds.
func ParseFloor(data []byte) (trust.Floor, error) {
	var file floorFile
	if err := json.Unmarshal(data, &file, json.RejectUnknownMembers(true)); err != nil {
		// What can't be read whole may be of a later version, which says so.
		later := struct {
			Format int `json:"format"`
		}{}
		if json.Unmarshal(data, &later) == nil && later.Format > floorFormat {
			return trust.Floor{}, fmt.Errorf("it has format %d, and this version reads %d: %w", later.Format, floorFormat, ErrLaterFormat)
		}
		return trust.Floor{}, err
	}
	if file.Format > floorFormat {
		return trust.Floor{}, fmt.Errorf("it has format %d, and this version reads %d: %w", file.Format, floorFormat, ErrLaterFormat)
	}
	if err := file.Check(); err != nil {
		return trust.Floor{}, err
	}
	if file.Format < heardFormat {
		file.Heard = file.TimeHighWater // nothing older is known: a lease begins now
	}
	return file.Floor, nil
}

const (
	// floorFormat is the version of the floor file. It goes up with whatever an older version must not overlook.
	floorFormat = 2
	// heardFormat is the first that says when something new was heard.
	heardFormat = 2
)

// ErrLaterFormat means that a later version of this program has written the state: this one would forget what that
// remembers, so it is not used.
var ErrLaterFormat = errors.New("the state was written by a later version of weighbridge")

// floorFile is floor.json.
type floorFile struct {
	Format      int `json:"format,omitzero"` // absent in the first states
	trust.Floor `json:",inline"`
}

// FormatFloor returns what a floor file holds.
func FormatFloor(floor trust.Floor) ([]byte, error) {
	data, err := json.Marshal(floorFile{floorFormat, floor}, json.Deterministic(true))
	return append(data, '\n'), err
}

func writeFloor(path string, floor trust.Floor) error {
	data, err := FormatFloor(floor)
	if err != nil {
		return err
	}
	return WriteFile(path, data, 0o600)
}
