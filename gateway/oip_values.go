package gateway

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"

	oip "github.com/weighbridge/weighbridge/proto/inference"
)

// Types of tensors.
const (
	typeBytes = "BYTES"
	typeInt32 = "INT32"
	typeInt64 = "INT64"
	typeFP32  = "FP32"
	typeFP64  = "FP64"
)

var errElements = errors.New("must have as many elements as its shape says, in the field of its type")

// An oipValue is a parameter or a tensor of a request. Its errors say what it must be, and repeat nothing of it.
type oipValue struct {
	parameter *oip.InferParameter // nil: it is a tensor
	tensor    *oip.ModelInferRequest_InferInputTensor
	raw       []byte // of the tensor, if isRaw
	isRaw     bool
}

// texts returns at least one text.
func (v oipValue) texts() (out []string, err error) {
	if v.parameter != nil {
		text, ok := v.parameter.GetParameterChoice().(*oip.InferParameter_StringParam)
		if !ok {
			return nil, errors.New("must be a text")
		}
		return []string{text.StringParam}, nil
	}
	if v.tensor.GetDatatype() != typeBytes {
		return nil, errors.New("must be of type BYTES")
	}
	elements := v.tensor.GetContents().GetBytesContents()
	if v.isRaw {
		if elements, err = rawTexts(v.raw); err != nil {
			return nil, err
		}
	}
	if err := v.check(len(elements)); err != nil {
		return nil, err
	}
	for _, element := range elements {
		if !utf8.Valid(element) {
			return nil, errors.New("must be UTF-8")
		}
		out = append(out, string(element))
	}
	if len(out) == 0 {
		return nil, errors.New("must hold at least one text")
	}
	return out, nil
}

// integer returns the one whole number.
func (v oipValue) integer() (*int64, error) {
	var n int64
	if v.parameter != nil {
		switch p := v.parameter.GetParameterChoice().(type) {
		case *oip.InferParameter_Int64Param:
			n = p.Int64Param
		case *oip.InferParameter_Uint64Param:
			n = int64(min(p.Uint64Param, math.MaxInt64))
		default:
			return nil, errors.New("must be a whole number")
		}
		return &n, nil
	}
	c := v.tensor.GetContents()
	switch v.tensor.GetDatatype() {
	case typeInt32:
		x, err := element(v, c.GetIntContents(), 4, func(b []byte) int32 { return int32(binary.LittleEndian.Uint32(b)) })
		n = int64(x)
		return &n, err
	case typeInt64:
		n, err := element(v, c.GetInt64Contents(), 8, func(b []byte) int64 { return int64(binary.LittleEndian.Uint64(b)) })
		return &n, err
	case "UINT32":
		x, err := element(v, c.GetUintContents(), 4, binary.LittleEndian.Uint32)
		n = int64(x)
		return &n, err
	case "UINT64":
		x, err := element(v, c.GetUint64Contents(), 8, binary.LittleEndian.Uint64)
		n = int64(min(x, math.MaxInt64))
		return &n, err
	}
	return nil, errors.New("must be of type INT32, INT64, UINT32 or UINT64")
}

// number returns the one number.
func (v oipValue) number() (*float64, error) {
	var n float64
	if v.parameter != nil {
		switch p := v.parameter.GetParameterChoice().(type) {
		case *oip.InferParameter_DoubleParam:
			n = p.DoubleParam
		case *oip.InferParameter_Int64Param:
			n = float64(p.Int64Param)
		default:
			return nil, errors.New("must be a number")
		}
		return &n, nil
	}
	c := v.tensor.GetContents()
	switch v.tensor.GetDatatype() {
	case typeFP32:
		x, err := element(v, c.GetFp32Contents(), 4, func(b []byte) float32 { return math.Float32frombits(binary.LittleEndian.Uint32(b)) })
		n = float64(x)
		return &n, err
	case typeFP64:
		n, err := element(v, c.GetFp64Contents(), 8, func(b []byte) float64 { return math.Float64frombits(binary.LittleEndian.Uint64(b)) })
		return &n, err
	}
	return nil, errors.New("must be of type FP32 or FP64")
}

// element returns the one element of a tensor, of a size in bytes where it is raw.
func element[T any](v oipValue, contents []T, size int, read func([]byte) T) (one T, err error) {
	if v.isRaw {
		if len(v.raw) != size {
			return one, fmt.Errorf("must have one element, of %d bytes", size)
		}
		contents = []T{read(v.raw)}
	}
	if len(contents) != 1 {
		return one, errors.New("must have one element")
	}
	return contents[0], v.check(1)
}

// check holds a tensor to its shape, and its contents to the field of their type.
func (v oipValue) check(elements int) error {
	want := int64(1)
	for _, size := range v.tensor.GetShape() {
		if size < 0 || size > maxBody || want > maxBody {
			return errors.New("has no such shape")
		}
		want *= size
	}
	c := v.tensor.GetContents()
	held := len(c.GetBoolContents()) + len(c.GetIntContents()) + len(c.GetInt64Contents()) + len(c.GetUintContents()) +
		len(c.GetUint64Contents()) + len(c.GetFp32Contents()) + len(c.GetFp64Contents()) + len(c.GetBytesContents())
	if want != int64(elements) || !v.isRaw && held != elements {
		return errElements
	}
	return nil
}

// rawTexts reads texts, each after its length in four bytes.
func rawTexts(raw []byte) (texts [][]byte, err error) {
	for len(raw) > 0 {
		if len(raw) < 4 || uint64(binary.LittleEndian.Uint32(raw)) > uint64(len(raw)-4) {
			return nil, errors.New("must be texts, each after its length in four bytes")
		}
		end := 4 + int(binary.LittleEndian.Uint32(raw))
		texts, raw = append(texts, raw[4:end]), raw[end:]
	}
	return texts, nil
}
