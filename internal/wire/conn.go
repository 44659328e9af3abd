package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

const readBuffer = 128 << 10

// ErrClosed is what Recv and Send return when the connection to the worker has ended. It wraps the cause if there is one.
var ErrClosed = errors.New("the worker's connection has ended")

// ErrReset is what Recv returns on a stream that was given up with Reset.
var ErrReset = errors.New("the stream was reset")

// Handler gets what concerns the connection as a whole. Its methods run on the reading goroutine and must not block.
type Handler interface {
	// Control gets the frames of stream 0. The frame is valid until Control returns.
	Control(f Frame) error
	// Closed is called once for each stream that the worker has closed; declined: it never began it.
	Closed(declined bool)
}

// Conn is Caddy's end of the connection to one worker. One goroutine calls Run; all other methods may be called by any.
type Conn struct {
	rw      net.Conn
	handler Handler

	writeMu sync.Mutex // guards out, spare, writing
	out     []byte     // frames that nobody has written yet
	spare   []byte     // the buffer that out was before, while nobody writes it
	writing bool       // some goroutine is writing; it takes along what is queued meanwhile

	streamMu sync.Mutex // guards streams, last, err
	streams  map[uint32]*Stream
	last     uint32 // the newest stream's number
	err      error  // why no new stream can be opened
}

// NewConn makes a Conn that owns rw.
func NewConn(rw net.Conn, handler Handler) *Conn {
	return &Conn{rw: rw, handler: handler, streams: map[uint32]*Stream{}}
}

// Run reads frames until the connection ends and returns why; nil means that the worker closed it. Every open stream
// fails then.
func (c *Conn) Run() error {
	err := c.read()
	_ = c.rw.Close()
	c.streamMu.Lock()
	c.err = ErrClosed
	if err != nil {
		c.err = fmt.Errorf("%w: %w", ErrClosed, err)
	}
	streams := c.streams
	c.streams = nil
	c.streamMu.Unlock()
	for _, s := range streams {
		s.fail(c.err)
		s.release()
	}
	return err
}

// Close ends the connection. Run returns soon.
func (c *Conn) Close() { _ = c.rw.Close() }

// Open begins a stream with a complete REQUEST frame but for the stream's number, which Open fills in. The frame's bytes
// are copied.
func (c *Conn) Open(request []byte) (*Stream, error) {
	s := newStream(c)
	c.streamMu.Lock()
	if c.err != nil {
		err := c.err
		c.streamMu.Unlock()
		s.discard()
		return nil, err
	}
	// Numbers grow, and one that is still open is skipped once they have wrapped around: a late frame never meets a new
	// request.
	for {
		c.last++
		if c.last != 0 && c.streams[c.last] == nil {
			break
		}
	}
	s.id = c.last
	c.streams[s.id] = s
	c.streamMu.Unlock()
	putStream(request, s.id)
	c.write(request)
	return s, nil
}

// Control sends a frame of stream 0.
func (c *Conn) Control(t Type, head []byte) error {
	b, err := Append(nil, Frame{Type: t, Head: head})
	if err != nil {
		return err
	}
	c.write(b)
	return nil
}

// write queues whole frames. Whoever finds no write in progress writes for all; a write error closes the connection,
// which the reading goroutine sees.
func (c *Conn) write(frames []byte) {
	c.writeMu.Lock()
	c.out = append(c.out, frames...)
	if c.writing {
		c.writeMu.Unlock()
		return
	}
	c.writing = true
	c.flushLocked()
}

// flushLocked writes what is queued. It is called with writeMu held and writing set, and returns with neither.
func (c *Conn) flushLocked() {
	for {
		b := c.out
		c.out = c.spare[:0]
		c.spare = nil
		c.writeMu.Unlock()
		_, err := c.rw.Write(b)
		if err != nil {
			_ = c.rw.Close()
		}
		c.writeMu.Lock()
		if cap(b) <= 4*MaxData {
			c.spare = b
		}
		if len(c.out) == 0 || err != nil {
			c.writing = err != nil // after an error nothing is written any more
			c.writeMu.Unlock()
			return
		}
	}
}

func (c *Conn) read() error {
	buf := make([]byte, readBuffer)
	filled := 0
	for {
		n, err := c.rw.Read(buf[filled:])
		if err != nil {
			if errors.Is(err, io.EOF) && filled == 0 {
				return nil
			}
			return fmt.Errorf("reading from the worker: %w", err)
		}
		filled += n
		done := 0
		for {
			f, size, need, err := Parse(buf[done:filled])
			if err != nil {
				return err
			}
			if size == 0 {
				rest := copy(buf, buf[done:filled])
				filled = rest
				if need > len(buf) {
					buf = append(make([]byte, 0, need), buf[:rest]...)[:need]
				}
				break
			}
			if err := c.dispatch(f); err != nil {
				return err
			}
			done += size
		}
	}
}

// dispatch takes one frame to its stream.
func (c *Conn) dispatch(f Frame) error {
	if f.Stream == 0 {
		return c.handler.Control(f)
	}
	closing := f.closes()
	c.streamMu.Lock()
	s, last := c.streams[f.Stream], c.last
	if closing {
		delete(c.streams, f.Stream)
	}
	c.streamMu.Unlock()
	if s == nil {
		return fmt.Errorf("%w: type %d for stream %d, which is not open (the newest is %d)", ErrProtocol, f.Type, f.Stream, last)
	}
	switch f.Type {
	case Response, Data, Error, Decline, Reset:
		if err := s.deliver(f); err != nil {
			return err
		}
	case Credit:
		if len(f.Data) != 4 {
			return fmt.Errorf("%w: credit of %d bytes", ErrProtocol, len(f.Data))
		}
		return s.addCredit(binary.LittleEndian.Uint32(f.Data))
	default:
		return fmt.Errorf("%w: type %d on stream %d", ErrProtocol, f.Type, f.Stream)
	}
	if closing {
		s.release()
		c.handler.Closed(f.Type == Decline)
	}
	return nil
}

// closes tells whether the worker closes the stream with f.
func (f Frame) closes() bool {
	switch f.Type {
	case Response, Data:
		return f.End
	case Error, Decline, Reset:
		return true
	default:
		return false
	}
}
