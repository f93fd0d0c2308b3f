package audit

import (
	"fmt"

	"github.com/go-json-experiment/json"
	"golang.org/x/mod/sumdb/tlog"
)

// A Proof shows that a record is in a log of a certain size. It is written as JSON.
type Proof struct {
	Index      int64            `json:"index"`
	Size       int64            `json:"size"`
	Hashes     tlog.RecordProof `json:"hashes"`
	Checkpoint string           `json:"checkpoint"` // signed
}

// Prove shows that the record of that index is in the log, as of its last checkpoint.
func (l *Log) Prove(index int64) (Proof, error) {
	h := l.head.Load()
	if index < 0 || index >= h.tree.N {
		return Proof{}, fmt.Errorf("prove record %d: the audit log has %d", index, h.tree.N)
	}
	// The tiles that go are the ones that the head holds.
	reader := tlog.TileHashReader(h.tree, tileReader{l.config.Dir, h})
	hashes, err := tlog.ProveRecord(h.tree.N, index, reader)
	if err != nil {
		return Proof{}, fmt.Errorf("prove record %d: %w", index, err)
	}
	return Proof{index, h.tree.N, hashes, string(h.checkpoint)}, nil
}

// ParseProof reads a proof, which proves nothing before [Proof.Check].
func ParseProof(data []byte) (Proof, error) {
	var p Proof
	if len(data) > maxProof {
		return p, fmt.Errorf("read inclusion proof: more than %d bytes", maxProof)
	}
	if err := json.Unmarshal(data, &p, json.RejectUnknownMembers(true)); err != nil {
		return Proof{}, fmt.Errorf("read inclusion proof: %w", err)
	}
	return p, nil
}

// Check returns nil if the log has the entry, as [Record.Entry] writes it, at the proof's index.
func (p Proof) Check(entry []byte, who Verifier) error {
	tree, err := who.Checkpoint([]byte(p.Checkpoint))
	if err != nil {
		return fmt.Errorf("check inclusion proof: %w", err)
	}
	if p.Size != tree.N {
		return fmt.Errorf("check inclusion proof: it is for %d records, and its checkpoint has %d", p.Size, tree.N)
	}
	if err := tlog.CheckRecord(p.Hashes, tree.N, tree.Hash, p.Index, tlog.RecordHash(entry)); err != nil {
		return fmt.Errorf("check inclusion proof: record %d is not this one: %w", p.Index, err)
	}
	return nil
}
