package websocket

import (
	"errors"
	"io"
	"sync"
	"syscall"

	"github.com/gobwas/ws"

	"github.com/mliezun/caddy-snake/internal/wire"
)

const (
	// Room is how many bytes in front of what Next returns are the caller's to overwrite: a wire frame's header.
	Room = wire.HeaderSize
	// chunkSize is how much one read takes at most, in bytes.
	chunkSize = wire.MaxData
	// smallSize is how much a read takes that has to hold its buffer while it waits, in bytes.
	smallSize = 4 << 10
)

type chunk [Room + chunkSize]byte

var chunks = sync.Pool{New: func() any { return new(chunk) }}

// input is what comes from a connection, in a buffer that is held only while something is in it.
type input struct {
	transport io.Reader
	raw       syscall.RawConn       // of transport; nil if it has none, then a buffer is held while waiting
	try       func(fd uintptr) bool // tryRead: a method value made once saves making it for each read
	chunk     *chunk                // the buffer, if it is a large one
	buf       []byte                // the buffer, whole
	from, to  int                   // what of buf has come and has not been taken
	kept      []byte                // what had been left when the buffer was given back, a part of a header or so
	received  bool                  // kept is what came before the first read
	small     []byte                // the buffer of reads without raw, unless the one before filled it
	n         int                   // what the read that is under way brought
	err       error                 // or why it did not
	scratch   [ws.MaxHeaderSize]byte
}

func newInput(transport io.Reader, received []byte) input {
	in := input{transport: transport}
	if conn, ok := transport.(syscall.Conn); ok && canTryRead {
		in.raw, _ = conn.SyscallConn()
	}
	if len(received) > 0 {
		in.kept = append([]byte(nil), received...)
		in.received = true
	}
	return in
}

// more waits for more bytes. They join those that are left, which are less than a control frame.
func (in *input) more() error {
	if in.from < in.to {
		in.kept = append([]byte(nil), in.buf[in.from:in.to]...)
	}
	filled := in.to == len(in.buf) && in.buf != nil
	in.release()
	switch {
	case in.received:
		in.hold()
		in.received, in.n, in.err = false, 0, nil
	case in.raw != nil:
		if in.try == nil {
			in.try = in.tryRead
		}
		if err := in.raw.Read(in.try); err != nil { // the deadline, or closed
			return err
		}
	default:
		in.holdSmall(filled)
		in.n, in.err = in.transport.Read(in.buf[in.to:])
	}
	if in.n <= 0 && in.err != nil {
		in.release()
		return in.err
	}
	in.to += in.n
	in.kept = nil
	return nil
}

// hold takes a large buffer and puts what was kept into it.
func (in *input) hold() {
	in.chunk = chunks.Get().(*chunk)
	in.use(in.chunk[:])
}

// holdSmall takes a buffer in which to wait.
func (in *input) holdSmall(filled bool) {
	if filled {
		in.hold()
		return
	}
	if in.small == nil {
		in.small = make([]byte, Room+smallSize)
	}
	in.use(in.small)
}

func (in *input) use(buf []byte) {
	in.buf, in.from = buf, Room
	in.to = Room + copy(buf[Room:], in.kept)
}

// release gives the buffer back.
func (in *input) release() {
	if in.chunk != nil {
		chunks.Put(in.chunk)
		in.chunk = nil
	}
	in.buf, in.from, in.to = nil, 0, 0
}

// Read takes from what is there; io.EOF: nothing is.
func (in *input) Read(p []byte) (int, error) {
	n := copy(p, in.buf[in.from:in.to])
	in.from += n
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// header takes a frame's header.
func (in *input) header() (ws.Header, error) {
	for {
		at := in.from
		h, err := ws.ReadHeaderBuffer(in, in.scratch[:])
		if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return h, err
		}
		in.from = at
		if err := in.more(); err != nil {
			return ws.Header{}, err
		}
	}
}

// take takes up to n bytes, at least one. The result begins with Room bytes that are free.
func (in *input) take(n int64) ([]byte, error) {
	for in.from == in.to {
		if err := in.more(); err != nil {
			return nil, err
		}
	}
	from := in.from
	in.from += int(min(n, int64(in.to-in.from)))
	return in.buf[from-Room : in.from : in.from], nil
}

// whole takes exactly n bytes, which are at most those of a control frame.
func (in *input) whole(n int) ([]byte, error) {
	for in.to-in.from < n {
		if err := in.more(); err != nil {
			return nil, err
		}
	}
	from := in.from
	in.from += n
	return in.buf[from:in.from], nil
}

// skip takes n bytes and forgets them.
func (in *input) skip(n int64) error {
	for n > 0 {
		b, err := in.take(n)
		if err != nil {
			return err
		}
		n -= int64(len(b) - Room)
	}
	return nil
}
