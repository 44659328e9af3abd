package marshal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// maxDepth bounds how deep values nest.
const maxDepth = 16

// ErrFormat is what every failed read wraps.
var ErrFormat = errors.New("malformed marshal data")

// Reader reads values one after another from a byte slice. The first failure sticks: later reads return zero values, so
// a caller may read a whole structure and check Err once. Nothing is allocated on account of a length that the data
// claims; byte slices that it returns are parts of the input.
type Reader struct {
	data []byte
	err  error
}

// NewReader reads from data, which must stay unchanged while what the Reader returned is in use.
func NewReader(data []byte) Reader { return Reader{data: data} }

// Err is the first failure, or nil.
func (r *Reader) Err() error { return r.err }

// End fails unless all the data has been read, and returns the first failure.
func (r *Reader) End() error {
	if r.err == nil && len(r.data) != 0 {
		r.fail("%d bytes too many", len(r.data))
	}
	return r.err
}

// Sequence reads the beginning of a tuple or list and returns how many items follow.
func (r *Reader) Sequence() int {
	switch code := r.code(); code {
	case tSmallTuple:
		return r.count(int(r.byte()))
	case tTuple, tList:
		return r.count(int(r.uint32()))
	default:
		r.fail("type %q where a tuple or list is due", code)
		return 0
	}
}

// Int reads an int that fits into 32 bits.
func (r *Reader) Int() int {
	if code := r.code(); code != tInt {
		r.fail("type %q where an int is due", code)
		return 0
	}
	return int(int32(r.uint32()))
}

// Text reads a bytes object or a str; of a str, its UTF-8 form. isStr tells which.
func (r *Reader) Text() (text []byte, isStr bool) {
	switch code := r.code(); code {
	case tBytes:
		return r.take(r.uint32()), false
	case tUnicode:
		return r.take(r.uint32()), true
	case tShortASCII, tShortInterned:
		return r.take(uint32(r.byte())), true
	default:
		r.fail("type %q where bytes or a str is due", code)
		return nil, false
	}
}

// Decode reads exactly one value: nil, bool, int64, float64, string (of a str), []byte, []any (of a tuple or list) or
// map[string]any.
func Decode(data []byte) (any, error) {
	r := NewReader(data)
	v := r.Value()
	return v, r.End()
}

// Value reads any value; see Decode for the types.
func (r *Reader) Value() any { return r.value(0) }

func (r *Reader) value(depth int) any {
	if depth > maxDepth {
		r.fail("nested deeper than %d", maxDepth)
		return nil
	}
	if r.err != nil || len(r.data) == 0 {
		r.fail("truncated")
		return nil
	}
	switch r.data[0] {
	case tNone:
		r.code()
		return nil
	case tTrue, tFalse:
		return r.code() == tTrue
	case tInt:
		return int64(r.Int())
	case tFloat:
		r.code()
		return r.float()
	case tBytes, tUnicode, tShortASCII, tShortInterned:
		text, isStr := r.Text()
		if isStr {
			return string(text)
		}
		return append([]byte{}, text...)
	case tSmallTuple, tTuple, tList:
		n := r.Sequence()
		items := make([]any, 0, min(n, 64))
		for range n {
			items = append(items, r.value(depth+1))
			if r.err != nil {
				return nil
			}
		}
		return items
	case tDict:
		r.code()
		return r.dict(depth)
	default:
		r.fail("type %q", r.data[0])
		return nil
	}
}

// dict reads keys and values after the dict's type code.
func (r *Reader) dict(depth int) map[string]any {
	d := map[string]any{}
	for r.err == nil {
		if len(r.data) > 0 && r.data[0] == tNull {
			r.code()
			return d
		}
		key, isStr := r.Text()
		if r.err == nil && !isStr {
			r.fail("a dict key that is no str")
		}
		d[string(key)] = r.value(depth + 1)
	}
	return nil
}

func (r *Reader) float() float64 {
	b := r.take(8)
	if r.err != nil {
		return 0
	}
	return math.Float64frombits(binary.LittleEndian.Uint64(b))
}

// count checks that n items, of a byte at least, can follow.
func (r *Reader) count(n int) int {
	if r.err != nil {
		return 0
	}
	if n > len(r.data) {
		r.fail("%d items in %d bytes", n, len(r.data))
		return 0
	}
	return n
}

func (r *Reader) code() byte { return r.byte() }

func (r *Reader) byte() byte {
	if r.err != nil || len(r.data) == 0 {
		r.fail("truncated")
		return 0
	}
	b := r.data[0]
	r.data = r.data[1:]
	return b
}

func (r *Reader) uint32() uint32 {
	if r.err != nil || len(r.data) < 4 {
		r.fail("truncated")
		return 0
	}
	n := binary.LittleEndian.Uint32(r.data)
	r.data = r.data[4:]
	return n
}

func (r *Reader) take(n uint32) []byte {
	if r.err != nil || uint64(n) > uint64(len(r.data)) {
		r.fail("truncated")
		return nil
	}
	b := r.data[:n:n]
	r.data = r.data[n:]
	return b
}

func (r *Reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: "+format, append([]any{ErrFormat}, args...)...)
	}
	r.data = nil
}
