// Package wire carries many requests at once over one connection between Caddy and a Python worker. A frame is a header
// of 12 bytes, a head (one object in Python's marshal format) and data (raw bytes); docs/internals.md describes each
// type. The Python side of the same protocol is python/caddysnake/wire.py.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
)

// Type says what a frame means.
type Type uint8

// The types of frames. docs/internals.md tells who sends which, and what they carry.
const (
	Request  Type = 1
	Data     Type = 2
	Response Type = 3
	Credit   Type = 4
	Reset    Type = 5
	Error    Type = 6
	Decline  Type = 7
	Start    Type = 8
	Ready    Type = 9
	Failed   Type = 10
	Stop     Type = 11
	Log      Type = 12
	Accept   Type = 13
	Text     Type = 14
	Binary   Type = 15
	Close    Type = 16
	Trailers Type = 17
	Hint     Type = 18
	File     Type = 19
	Drained  Type = 20
	Held     Type = 21
)

const (
	// HeaderSize is the size of a frame's header in bytes.
	HeaderSize = 12
	// MaxFrame is the largest head and data of one frame, in bytes.
	MaxFrame = 4 << 20
	// MaxData is the most data that a sender puts into one frame, in bytes.
	MaxData = 64 << 10
	// Window is the credit with which the response half of a stream begins, in bytes.
	Window = 256 << 10
	// FileCost is the credit that a FILE frame takes unless it is the last frame, in bytes: it bounds how many
	// descriptors a stream can have waiting.
	FileCost = 64 << 10

	typeMask = 0x7f
	endBit   = 0x80
	maxHead  = 1<<24 - 1
)

// ErrProtocol is what every violation of the protocol wraps. The connection is closed then.
var ErrProtocol = errors.New("malformed frame from the worker")

// Frame is one frame. Head and Data belong to whoever made the frame.
type Frame struct {
	Stream uint32
	Type   Type
	End    bool // the last one of its direction
	Head   []byte
	Data   []byte
	File   *os.File // of FILE, from Stream.Recv; nil: the descriptor did not arrive
}

// begins tells whether f begins the response.
func (f *Frame) begins() bool { return f.Type == Response || f.Type == File && len(f.Head) > 0 }

// cost is how much credit f takes.
func (f *Frame) cost() int {
	switch {
	case f.isMessage():
		return len(f.Data) + MessageCost
	case f.Type != File:
		return len(f.Data)
	case f.End:
		return 0
	default:
		return FileCost
	}
}

// AppendHeader reserves room for a header; PutHeader fills it in when the frame is complete.
func AppendHeader(b []byte) []byte {
	return append(b, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
}

// PutHeader completes the frame that fills b, whose head is the first head bytes behind the header. A head over 16 MiB
// or a frame over MaxFrame is an error.
func PutHeader(b []byte, t Type, end bool, head int) error {
	length := len(b) - HeaderSize
	if head > maxHead || length > MaxFrame {
		return fmt.Errorf("frame of %d bytes, at most %d are allowed", length, MaxFrame)
	}
	word := uint32(head)<<8 | uint32(t)
	if end {
		word |= endBit
	}
	binary.LittleEndian.PutUint32(b, uint32(length))
	binary.LittleEndian.PutUint32(b[8:], word)
	return nil
}

func putStream(b []byte, stream uint32) { binary.LittleEndian.PutUint32(b[4:], stream) }

// Append appends f whole.
func Append(b []byte, f Frame) ([]byte, error) {
	start := len(b)
	b = AppendHeader(b)
	b = append(b, f.Head...)
	b = append(b, f.Data...)
	if err := PutHeader(b[start:], f.Type, f.End, len(f.Head)); err != nil {
		return b[:start], err
	}
	putStream(b[start:], f.Stream)
	return b, nil
}

// Parse reads the first frame in b and how many bytes it takes, or 0 if it is not complete yet; need is then how many
// bytes it takes as far as b tells. Head and Data are parts of b.
func Parse(b []byte) (f Frame, size, need int, err error) {
	if len(b) < HeaderSize {
		return Frame{}, 0, HeaderSize, nil
	}
	length := binary.LittleEndian.Uint32(b)
	word := binary.LittleEndian.Uint32(b[8:])
	head := word >> 8
	t := Type(word & typeMask)
	switch {
	case length > MaxFrame:
		return Frame{}, 0, 0, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrProtocol, length, MaxFrame)
	case head > length:
		return Frame{}, 0, 0, fmt.Errorf("%w: a head of %d bytes in %d", ErrProtocol, head, length)
	case t < Request || t > Held:
		return Frame{}, 0, 0, fmt.Errorf("%w: unknown type %d", ErrProtocol, t)
	}
	need = HeaderSize + int(length)
	if len(b) < need {
		return Frame{}, 0, need, nil
	}
	split := HeaderSize + int(head)
	return Frame{
		Stream: binary.LittleEndian.Uint32(b[4:]),
		Type:   t,
		End:    word&endBit != 0,
		Head:   b[HeaderSize:split:split],
		Data:   b[split:need:need],
	}, need, need, nil
}
