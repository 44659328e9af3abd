// Package marshal writes and reads the part of Python's marshal format that travels between Caddy and a worker: dict,
// tuple, list, bytes, str, int, float, bool and None. Python's own marshal module is at the other end, so a worker needs
// neither a parser nor an extension module. The format is that of CPython's Python/marshal.c; it has been stable since
// version 4 (Python 3.4), and readers accept every older form.
package marshal

import (
	"encoding/binary"
	"math"
	"unicode/utf8"
)

// Type codes of the format.
const (
	tNull          = '0' // ends a dict
	tNone          = 'N'
	tFalse         = 'F'
	tTrue          = 'T'
	tInt           = 'i'
	tLong          = 'l'
	tFloat         = 'g'
	tBytes         = 's'
	tUnicode       = 'u'
	tShortASCII    = 'z'
	tShortInterned = 'Z'
	tTuple         = '('
	tSmallTuple    = ')'
	tList          = '['
	tDict          = '{'
)

// AppendNone appends None.
func AppendNone(b []byte) []byte { return append(b, tNone) }

// AppendBool appends True or False.
func AppendBool(b []byte, v bool) []byte {
	if v {
		return append(b, tTrue)
	}
	return append(b, tFalse)
}

// AppendInt appends an int.
func AppendInt(b []byte, v int64) []byte {
	if v == int64(int32(v)) {
		return binary.LittleEndian.AppendUint32(append(b, tInt), uint32(v))
	}
	// Larger ones are a signed count of base-2**15 digits, then the digits.
	u := uint64(v)
	if v < 0 {
		u = -u
	}
	digits := int32(0)
	for rest := u; rest != 0; rest >>= 15 {
		digits++
	}
	count := digits
	if v < 0 {
		count = -digits
	}
	b = binary.LittleEndian.AppendUint32(append(b, tLong), uint32(count))
	for ; u != 0; u >>= 15 {
		b = binary.LittleEndian.AppendUint16(b, uint16(u&0x7fff))
	}
	return b
}

// AppendFloat appends a float.
func AppendFloat(b []byte, v float64) []byte {
	return binary.LittleEndian.AppendUint64(append(b, tFloat), math.Float64bits(v))
}

// AppendBytes appends a bytes object.
func AppendBytes(b []byte, v string) []byte {
	b = binary.LittleEndian.AppendUint32(append(b, tBytes), uint32(len(v)))
	return append(b, v...)
}

// AppendKey appends a str that the reader interns: for the fixed names of this program only, because an interned
// string stays in the worker's memory. It must be ASCII and at most 255 bytes long.
func AppendKey(b []byte, v string) []byte {
	b = append(b, tShortInterned, byte(len(v)))
	return append(b, v...)
}

// AppendString appends a str. Bytes that are not UTF-8 become U+FFFD, because a reader would refuse them.
func AppendString(b []byte, v string) []byte {
	if isASCII(v) {
		return appendASCII(b, v)
	}
	start := len(b) + 5
	b = append(b, tUnicode, 0, 0, 0, 0)
	for i := 0; i < len(v); {
		r, size := utf8.DecodeRuneInString(v[i:])
		b = utf8.AppendRune(b, r)
		i += size
	}
	binary.LittleEndian.PutUint32(b[start-4:], uint32(len(b)-start))
	return b
}

// AppendLatin1 appends a str whose characters are the bytes of v: the "bytes-as-unicode" strings of PEP 3333.
func AppendLatin1(b []byte, v string) []byte {
	if isASCII(v) {
		return appendASCII(b, v)
	}
	start := len(b) + 5
	b = append(b, tUnicode, 0, 0, 0, 0)
	for i := range len(v) {
		b = utf8.AppendRune(b, rune(v[i]))
	}
	binary.LittleEndian.PutUint32(b[start-4:], uint32(len(b)-start))
	return b
}

// AppendTuple begins a tuple; n items follow.
func AppendTuple(b []byte, n int) []byte {
	if n < 256 {
		return append(b, tSmallTuple, byte(n))
	}
	return binary.LittleEndian.AppendUint32(append(b, tTuple), uint32(n))
}

// AppendList begins a list; n items follow.
func AppendList(b []byte, n int) []byte {
	return binary.LittleEndian.AppendUint32(append(b, tList), uint32(n))
}

// AppendDict begins a dict; keys and values follow in turn, then AppendDictEnd.
func AppendDict(b []byte) []byte { return append(b, tDict) }

// AppendDictEnd ends a dict.
func AppendDictEnd(b []byte) []byte { return append(b, tNull) }

func appendASCII(b []byte, v string) []byte {
	if len(v) < 256 {
		b = append(b, tShortASCII, byte(len(v)))
	} else {
		b = binary.LittleEndian.AppendUint32(append(b, tUnicode), uint32(len(v)))
	}
	return append(b, v...)
}

func isASCII(v string) bool {
	for i := range len(v) {
		if v[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
