// Command gen writes the assembly of package lanes:
//
//	go run . -out ../block_amd64.s -stubs ../block_amd64.go -pkg lanes
//
// It stands in a module of its own, so that avo is no dependency of whoever builds the gateway.
package main

import (
	"fmt"
	"strings"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func main() {
	ConstraintExpr("amd64")
	k, flip := constants()
	compress("block", 1, k, flip,
		"block adds n 64-byte blocks at p0 to the state h0 (FIPS 180-4 section 6.2.2).")
	compress("blockPair", 2, k, flip,
		"blockPair adds n 64-byte blocks at p0 to h0 and n at p1 to h1. One computation waits most of the time for its own",
		"last instruction; two that are interleaved fill each other's gaps.")
	Generate()
}

// constants writes the round constants (FIPS 180-4 section 4.2.2) and the mask that turns four big-endian words.
func constants() (k, flip Mem) {
	k = GLOBL("roundConstants", RODATA|NOPTR)
	for i, v := range []U32{
		0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
		0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
		0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
		0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
		0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
		0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
		0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
		0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
	} {
		DATA(4*i, v)
	}
	flip = GLOBL("flipWords", RODATA|NOPTR)
	DATA(0, U64(0x0405060700010203))
	DATA(8, U64(0x0c0d0e0f08090a0b))
	return k, flip
}

// roundsPerGroup is how many rounds one register of words lasts for.
const roundsPerGroup = 4

var (
	wk  = reg.X0 // SHA256RNDS2 takes the words and constants of its two rounds from here, whatever it is told
	tmp = reg.X1
)

// A lane is the registers of one computation. The instructions keep the state as two registers, ABEF and CDGH.
type lane struct {
	state, data reg.Register
	abef, cdgh  reg.VecPhysical
	w           [4]reg.VecPhysical // the last sixteen words of the message schedule
	saved       Mem                // the state before the block
}

// compress writes a function that runs as many lanes side by side. Two take 14 of the 16 registers, so more would
// have to keep their schedule in memory, which cost more than it gained where it was tried.
func compress(name string, lanes int, k, flip Mem, doc ...string) {
	TEXT(name, NOSPLIT, signature(lanes))
	Pragma("noescape")
	Doc(doc...)
	all := allocate(lanes)
	n := Load(Param("n"), GP64())
	for _, l := range all {
		l.load()
	}

	Label("loop")
	for _, l := range all {
		MOVOU(l.abef, l.saved)
		MOVOU(l.cdgh, l.saved.Offset(16))
	}
	for group := range 64 / roundsPerGroup {
		for _, l := range all {
			l.rounds(group, k, flip)
		}
	}
	for _, l := range all {
		MOVOU(l.saved, tmp)
		PADDD(tmp, l.abef)
		MOVOU(l.saved.Offset(16), tmp)
		PADDD(tmp, l.cdgh)
		ADDQ(U32(64), l.data)
	}
	DECQ(n)
	JNZ(LabelRef("loop"))

	for _, l := range all {
		l.store()
	}
	RET()
}

func signature(lanes int) string {
	var states, data []string
	for i := range lanes {
		states = append(states, fmt.Sprintf("h%d *[8]uint32", i))
		data = append(data, fmt.Sprintf("p%d *byte", i))
	}
	return "func(" + strings.Join(append(append(states, data...), "n int"), ", ") + ")"
}

func allocate(lanes int) []lane {
	free := []reg.VecPhysical{
		reg.X2, reg.X3, reg.X4, reg.X5, reg.X6, reg.X7, reg.X8, reg.X9, reg.X10, reg.X11, reg.X12, reg.X13, reg.X14, reg.X15,
	}
	frame := AllocLocal(32 * lanes)
	all := make([]lane, lanes)
	for i := range all {
		all[i] = lane{
			state: Load(Param(fmt.Sprintf("h%d", i)), GP64()), data: Load(Param(fmt.Sprintf("p%d", i)), GP64()),
			abef: free[0], cdgh: free[1], w: [4]reg.VecPhysical(free[2:6]), saved: frame.Offset(32 * i),
		}
		free = free[6:]
	}
	return all
}

// load turns the eight words a…h in memory into ABEF and CDGH.
func (l lane) load() {
	MOVOU(Mem{Base: l.state}, l.abef)
	MOVOU(Mem{Base: l.state, Disp: 16}, l.cdgh)
	PSHUFD(U8(0xB1), l.abef, l.abef)
	PSHUFD(U8(0x1B), l.cdgh, l.cdgh)
	MOVO(l.abef, tmp)
	PALIGNR(U8(8), l.cdgh, l.abef)
	PBLENDW(U8(0xF0), tmp, l.cdgh)
}

// store is load, backwards.
func (l lane) store() {
	PSHUFD(U8(0x1B), l.abef, l.abef)
	PSHUFD(U8(0xB1), l.cdgh, l.cdgh)
	MOVO(l.abef, tmp)
	PBLENDW(U8(0xF0), l.cdgh, l.abef)
	PALIGNR(U8(8), tmp, l.cdgh)
	MOVOU(l.abef, Mem{Base: l.state})
	MOVOU(l.cdgh, Mem{Base: l.state, Disp: 16})
}

// rounds does four rounds. Between them it carries the message schedule on: the next group's words are finished by
// SHA256MSG2, which needs this group's, and those of the group that will take prev's place are begun by SHA256MSG1.
func (l lane) rounds(group int, k, flip Mem) {
	cur, next, prev := l.w[group%4], l.w[(group+1)%4], l.w[(group+3)%4]
	if group < 4 {
		MOVOU(Mem{Base: l.data, Disp: 16 * group}, cur)
		PSHUFB(flip, cur)
	}
	MOVO(cur, wk)
	PADDD(k.Offset(16*group), wk)
	SHA256RNDS2(wk, l.abef, l.cdgh)
	if group >= 3 && group < 15 {
		MOVO(cur, tmp)
		PALIGNR(U8(4), prev, tmp)
		PADDD(tmp, next)
		SHA256MSG2(cur, next)
	}
	PSHUFD(U8(0x0E), wk, wk)
	SHA256RNDS2(wk, l.cdgh, l.abef)
	if group >= 1 && group < 13 {
		SHA256MSG1(cur, prev)
	}
}
