package catalog

import (
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// A Snapshot is what a decision is made of, all of one moment.
type Snapshot struct {
	Policy     []byte // the policy that the floor accepted: its bundles as JSON Lines
	Floor      trust.Floor
	Statements []*statement.Signed // as they lie in the directories, in the order in which a decision offline reads them
	Time       time.Time
}

// snapshotTries is how often a snapshot is begun. The floor rises once a minute, and when a policy or a release is
// accepted: that it does so during every try happens only if something is wrong.
const snapshotTries = 16

// ErrUnsettled means that the floor rose again and again while a snapshot was made: ask again.
var ErrUnsettled = errors.New("what is accepted changes too fast to be shown")

// Snapshot reads what the catalog decides by, as it lies there now. A file that holds no statement is left out; the log
// tells of it.
func (c *Catalog) Snapshot() (Snapshot, error) {
	for range snapshotTries {
		s := Snapshot{Floor: c.cfg.State.Floor()}
		// After the floor: the directories that held what it accepted are shown by now.
		in := c.shown.Load()
		if in == nil {
			return Snapshot{}, ErrNotRunning
		}
		var err error
		if s.Policy, err = c.cfg.State.Policy(); err != nil {
			return Snapshot{}, fmt.Errorf("read the accepted policy: %w", err)
		}
		if s.Statements, _, err = store.ReadStatements(c.sources(*in)); err != nil {
			return Snapshot{}, err
		}
		s.Time = c.cfg.Now()
		// What a floor accepted was there before it: so if the floor is still the same, all of it fits together.
		if reflect.DeepEqual(s.Floor, c.cfg.State.Floor()) {
			return s, nil
		}
	}
	return Snapshot{}, ErrUnsettled
}
