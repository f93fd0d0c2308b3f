package seal

import (
	"os"
	"time"

	"github.com/weighbridge/weighbridge/verifier/hostmem"
)

// Reopen lets tests hand it memory that was not sealed, which nothing else can.
var Reopen = reopenSealed

// SetAvailable lets tests say what the machine has.
func (p *Pool) SetAvailable(f func() (hostmem.Room, error)) { p.available = f }

// Pin makes the pool keep memory from swap, as it does where there is some.
func (p *Pool) Pin() { p.pins = true }

// WithHugeTime sets what an extent of huge pages may cost, until the returned function is called.
func WithHugeTime(d time.Duration) (restore func()) {
	was := maxHugeTime
	maxHugeTime = d
	return func() { maxHugeTime = was }
}

// Memory is what weights land in.
type Memory struct{ *memory }

// NewMemory returns memory for so many bytes, which the test closes.
func NewMemory(size int64) (Memory, error) {
	m, err := newMemory("test", size, func(int64) error { return nil })
	return Memory{m}, err
}

// File returns the memory file.
func (m Memory) File() *os.File { return m.f }
