package tinygguf

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"math"
)

// Types of tensors and of metadata values in GGUF version 3.
const (
	kindF32 = 0
	kindF16 = 1

	valueUint16  = 2
	valueUint32  = 4
	valueInt32   = 5
	valueFloat32 = 6
	valueBool    = 7
	valueString  = 8
	valueArray   = 9
)

const (
	magic     = "GGUF"
	version   = 3
	alignment = 32 // of each tensor's data, when general.alignment is absent
)

// A tensor is written row by row: data fills one row at a time.
type tensor struct {
	name string
	dims []int // the row's length first
	kind uint32
	data func() rowFunc
}

// A rowFunc fills the next row, in the encoding of the tensor's kind.
type rowFunc func(row []byte)

func (t tensor) rowSize() int {
	if t.kind == kindF32 {
		return 4 * t.dims[0]
	}
	return 2 * t.dims[0]
}

func (t tensor) rows() int {
	if len(t.dims) == 1 {
		return 1
	}
	return t.dims[1]
}

// A file is one GGUF file that is being written: first the metadata, in memory, then everything.
type file struct {
	w     *bufio.Writer
	head  []byte
	count uint64
}

func newFile(w io.Writer) *file { return &file{w: bufio.NewWriterSize(w, 1<<20)} }

func (f *file) meta(key string, value any) {
	f.count++
	f.text(key)
	switch v := value.(type) {
	case string:
		f.u32(valueString)
		f.text(v)
	case bool:
		f.u32(valueBool)
		f.head = append(f.head, map[bool]byte{true: 1}[v])
	case uint16:
		f.u32(valueUint16)
		f.head = binary.LittleEndian.AppendUint16(f.head, v)
	case uint32:
		f.u32(valueUint32)
		f.u32(v)
	case int32:
		f.u32(valueInt32)
		f.u32(uint32(v))
	case float32:
		f.u32(valueFloat32)
		f.u32(math.Float32bits(v))
	case []string:
		f.array(valueString, len(v))
		for _, s := range v {
			f.text(s)
		}
	case []float32:
		f.array(valueFloat32, len(v))
		for _, x := range v {
			f.u32(math.Float32bits(x))
		}
	case []int32:
		f.array(valueInt32, len(v))
		for _, x := range v {
			f.u32(uint32(x))
		}
	default:
		panic(fmt.Sprintf("tinygguf: internal error: metadata of type %T", value))
	}
}

func (f *file) u32(v uint32) { f.head = binary.LittleEndian.AppendUint32(f.head, v) }
func (f *file) u64(v uint64) { f.head = binary.LittleEndian.AppendUint64(f.head, v) }

func (f *file) text(s string) {
	f.u64(uint64(len(s)))
	f.head = append(f.head, s...)
}

func (f *file) array(kind uint32, n int) {
	f.u32(valueArray)
	f.u32(kind)
	f.u64(uint64(n))
}

// write writes the header, the metadata, the list of tensors and their data.
func (f *file) write(tensors []tensor) error {
	meta, count := f.head, f.count
	f.head = []byte(magic)
	f.u32(version)
	f.u64(uint64(len(tensors)))
	f.u64(count)
	f.head = append(f.head, meta...)
	offset := 0
	for _, t := range tensors {
		f.text(t.name)
		f.u32(uint32(len(t.dims)))
		for _, d := range t.dims {
			f.u64(uint64(d))
		}
		f.u32(t.kind)
		f.u64(uint64(offset))
		offset += aligned(t.rowSize() * t.rows())
	}
	f.head = append(f.head, make([]byte, aligned(len(f.head))-len(f.head))...)
	f.w.Write(f.head)
	for _, t := range tensors {
		fill, row := t.data(), make([]byte, t.rowSize())
		for range t.rows() {
			fill(row)
			if _, err := f.w.Write(row); err != nil {
				return fmt.Errorf("write tensor %s: %w", t.name, err)
			}
		}
		size := t.rowSize() * t.rows()
		f.w.Write(make([]byte, aligned(size)-size))
	}
	// A bufio.Writer keeps its first error, so this one check covers the writes above.
	if err := f.w.Flush(); err != nil {
		return fmt.Errorf("write model: %w", err)
	}
	return nil
}

func aligned(n int) int { return (n + alignment - 1) / alignment * alignment }

// axisRows gives each token a row that is value on one axis and zero elsewhere; all zero where axis is negative.
func axisRows(axis func(token int) int, value float64) func() rowFunc {
	return func() rowFunc {
		token := 0
		return func(row []byte) {
			clear(row)
			if a := axis(token); a >= 0 {
				binary.LittleEndian.PutUint16(row[2*a:], half(value))
			}
			token++
		}
	}
}

func constant(value float32) func() rowFunc {
	return func() rowFunc {
		return func(row []byte) {
			for i := 0; i < len(row); i += 4 {
				binary.LittleEndian.PutUint32(row[i:], math.Float32bits(value))
			}
		}
	}
}

// randomRows fills rows with values of either sign whose magnitude lies within a factor of two below scale. They are
// made of random bits, four at a time, under one exponent: gigabytes a second, and never a denormal.
func randomRows(seed uint64, name string, scale float64) func() rowFunc {
	return func() rowFunc {
		h := fnv.New64a()
		h.Write([]byte(name)) // so that no two tensors are alike
		state := seed ^ h.Sum64()
		_, exponent := math.Frexp(scale)
		bits := uint64(max(1, exponent-2+15)) << 10
		bits |= bits<<16 | bits<<32 | bits<<48
		return func(row []byte) {
			for i := 0; i < len(row); i += 8 {
				r := splitmix(&state)&0x83ff_83ff_83ff_83ff | bits
				if len(row)-i < 8 {
					var last [8]byte
					binary.LittleEndian.PutUint64(last[:], r)
					copy(row[i:], last[:])
					break
				}
				binary.LittleEndian.PutUint64(row[i:], r)
			}
		}
	}
}

// splitmix is the SplitMix64 generator: written out, because its sequence is part of the files' identity.
func splitmix(state *uint64) uint64 {
	*state += 0x9e3779b97f4a7c15
	z := *state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// half returns the largest half-precision number that is not above v, for v within its normal range.
func half(v float64) uint16 {
	fraction, exponent := math.Frexp(v)
	return uint16(exponent-1+15)<<10 | uint16((2*fraction-1)*1024)
}
