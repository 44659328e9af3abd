package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// readBuffer is how much one read takes at most, in bytes, unless a frame is larger.
	readBuffer = 256 << 10
	// largeWrite is the size from which a frame is written without being copied, in bytes.
	largeWrite = 16 << 10
	// crowd is how many streams are open when it pays to let others queue before a write. With fewer, stepping aside
	// costs a request more than it saves: it comes back on another thread.
	crowd = 4
	// spinTime is how long a lone request looks for its response before it sleeps, as long as such waits are shorter than
	// that on average; docs/adr/0006-spinning.md has figures.
	spinTime = 150 * time.Microsecond
	// watchInterval is how long frames may wait when no request reads.
	watchInterval = 5 * time.Millisecond
)

// ErrClosed is what Recv and Send return when the connection to the worker has ended. It wraps the cause if there is one.
var ErrClosed = errors.New("the worker's connection has ended")

// ErrReset is what Recv returns on a stream that was given up with Reset.
var ErrReset = errors.New("the stream was reset")

// Handler gets what concerns the connection as a whole. Its methods run on the goroutine that reads and must not block.
type Handler interface {
	// Control gets the frames of stream 0. The frame is valid until Control returns.
	Control(f Frame) error
	// Accepted is called when a stream has become a WebSocket.
	Accepted()
	// Closed is called once for each stream that the worker has closed; declined: it never began it; accepted: it had
	// become a WebSocket. One that was declined is closed when its user has released it too, on that goroutine: whoever
	// counts what is open can have booked by then that the request comes back.
	Closed(declined, accepted bool)
}

// Socket is what a Conn reads and writes. One goroutine reads, one writes, any may close it or set the deadline.
type Socket interface {
	io.ReadWriteCloser
	SetReadDeadline(t time.Time) error
}

// Spinner is a Socket that can look again and again before it sleeps.
type Spinner interface {
	// Spin has each Read look for up to d before it sleeps.
	Spin(d time.Duration)
}

// Conn is Caddy's end of the connection to one worker. One goroutine calls Run; all other methods may be called by any.
//
// Whoever waits for a frame also reads, one goroutine at a time: the leader. It takes every frame to its stream until it
// finds one of its own, and leaves the lead to another that waits. So a lone request is woken once, by the socket, and
// not a second time by a goroutine that reads for it. Run takes the lead when nobody else does.
type Conn struct {
	rw      Socket
	handler Handler

	lead    chan struct{} // holds a token while nobody reads; whoever took it owns the fields of this block
	buf     []byte        // what was read and not yet dispatched
	filled  int
	spinner Spinner       // rw, or nil if it is none
	files   fileTray      // the descriptors that FILE frames speak of
	heard   []func()      // the listeners of streams for which something has come, until tell
	wait    time.Duration // how long a lone request waits for its worker, smoothed

	writeMu sync.Mutex // guards out, spare, writing
	out     []byte     // frames that nobody has written yet
	spare   []byte     // the queue's other buffer, empty, while nobody writes it
	writing bool       // some goroutine is writing; it takes along what is queued meanwhile
	turn    sync.Cond  // signalled when nobody writes any more

	streamMu sync.Mutex // guards streams, last, err
	streams  map[uint32]*Stream
	last     uint32 // the newest stream's number
	err      error  // why no new stream can be opened
	cause    error  // what Run returns; set before ended is closed
	ended    chan struct{}

	listening atomic.Int32  // streams that listen: nobody waits for their frames
	listened  chan struct{} // holds a token when a stream begins to listen
}

// NewConn makes a Conn that owns rw and files, which is nil if the worker cannot send descriptors.
func NewConn(rw Socket, files FileSource, handler Handler) *Conn {
	c := &Conn{
		rw: rw, handler: handler, streams: map[uint32]*Stream{}, buf: make([]byte, readBuffer),
		lead: make(chan struct{}, 1), ended: make(chan struct{}), listened: make(chan struct{}, 1),
	}
	c.files.source = files
	c.lead <- struct{}{}
	c.turn.L = &c.writeMu
	if runtime.GOMAXPROCS(0) > 1 {
		c.spinner, _ = rw.(Spinner)
	}
	return c
}

// Run reads what comes while no request waits for a frame, and whenever a stream listens. It returns when the connection
// has ended, and why; nil means that the worker closed it. Every open stream has failed by then.
func (c *Conn) Run() error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-c.ended:
			return c.cause
		case <-timer.C:
		case <-c.listened:
		}
		if c.listening.Load() > 0 {
			select {
			case <-c.lead:
			case <-c.ended:
				return c.cause
			}
			c.follow(context.Background(), func(busy bool) bool { return busy && c.listening.Load() == 0 })
		}
		select {
		case <-c.lead:
			// Once there are requests again, it is for them to read.
			c.follow(context.Background(), func(busy bool) bool { return busy || c.listening.Load() > 0 })
		default:
		}
		timer.Reset(watchInterval)
	}
}

// follow reads and dispatches as the leader until done says so, ctx is done, or the connection ends; then it passes the
// lead on. done is told whether a frame has come for any stream.
func (c *Conn) follow(ctx context.Context, done func(busy bool) bool) {
	stop := context.AfterFunc(ctx, c.interrupt)
	defer stop()
	for {
		busy, err := c.readOnce()
		c.tell() // of what came before an error, too
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			// It may have been meant for an earlier leader: read on if nothing has changed for this one.
			_ = c.rw.SetReadDeadline(time.Time{})
		case err != nil:
			c.end(err)
			return // with the lead: nobody can read any more
		}
		if ctx.Err() != nil || done(busy) {
			c.lead <- struct{}{}
			return
		}
	}
}

// interrupt has the leader, whoever it is, look at whether it is done.
func (c *Conn) interrupt() { _ = c.rw.SetReadDeadline(time.Unix(1, 0)) }

// end closes the connection and fails every stream.
func (c *Conn) end(err error) {
	c.files.close()
	_ = c.rw.Close()
	c.streamMu.Lock()
	c.err = ErrClosed
	if errors.Is(err, io.EOF) {
		err = nil
	} else {
		c.err = fmt.Errorf("%w: %w", ErrClosed, err)
	}
	streams := c.streams
	c.streams = nil
	c.streamMu.Unlock()
	for _, s := range streams {
		s.fail(c.err)
		s.release()
	}
	c.cause = err
	close(c.ended)
}

// Close ends the connection. Run returns soon.
func (c *Conn) Close() { _ = c.rw.Close() }

// Open begins a stream with a complete REQUEST frame but for the stream's number, which Open fills in. The frame's bytes
// are copied. note says what the stream is, for who finds it overdue, maybe before Open returns: it may wait for the worker. A
// stream that is given up meanwhile is returned all the same.
func (c *Conn) Open(request []byte, note any) (*Stream, error) {
	s := newStream(c)
	s.note = note
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
	crowded := len(c.streams) >= crowd
	c.streamMu.Unlock()
	putStream(request, s.id)
	c.write(request, crowded)
	if s.opened() {
		s.send(Reset, false, AppendHeader(nil))
	}
	return s, nil
}

// ResetAll gives up every open stream, as Stream.Reset does. It may wait for the worker, those who wait for frames do not.
func (c *Conn) ResetAll() {
	c.streamMu.Lock()
	streams := make([]*Stream, 0, len(c.streams))
	for _, s := range c.streams {
		s.refs.Add(1) // or it might be another one's before it is reset
		streams = append(streams, s)
	}
	c.streamMu.Unlock()
	// First everybody learns of it, then the worker, which may take nothing any more: that lasts until Close.
	var frames []byte
	for _, s := range streams {
		if s.giveUp() {
			frames = append(frames, s.complete(Reset, false, AppendHeader(nil))...)
		}
	}
	c.interrupt()
	if len(frames) > 0 {
		c.write(frames, false)
	}
	for _, s := range streams {
		s.release()
	}
}

// Control sends a frame of stream 0.
func (c *Conn) Control(t Type, head []byte) error {
	b, err := Append(nil, Frame{Type: t, Head: head})
	if err != nil {
		return err
	}
	c.write(b, false)
	return nil
}

// write sends whole frames; b is free again when it returns. A small b is queued while another goroutine writes, which
// takes it along; a large one waits for its turn and is not copied, so the queue stays small. crowded: other requests are
// about to be sent; they may queue first, so that one write carries many. A write error closes the connection, which the
// goroutine that reads sees.
func (c *Conn) write(b []byte, crowded bool) {
	large := len(b) >= largeWrite
	c.writeMu.Lock()
	for large && c.writing {
		c.turn.Wait()
	}
	if !large {
		c.out = append(c.out, b...)
		b = nil
		if c.writing {
			c.writeMu.Unlock()
			return
		}
	}
	c.writing = true
	c.writeMu.Unlock()
	if crowded && !large {
		runtime.Gosched()
	}
	queued := false // b is a buffer of the queue's
	for {
		if len(b) > 0 {
			if _, err := c.rw.Write(b); err != nil {
				_ = c.rw.Close()
			}
		}
		c.writeMu.Lock()
		if queued && cap(b) <= 4*MaxData {
			c.spare = b[:0]
		}
		if len(c.out) == 0 {
			c.writing = false
			c.turn.Signal()
			c.writeMu.Unlock()
			return
		}
		b, c.out, c.spare, queued = c.out, c.spare, nil, true
		c.writeMu.Unlock()
	}
}

// readOnce reads what is there and dispatches the frames that are complete. busy tells whether one was for a stream. At
// the end of the connection the error is io.EOF, and io.ErrUnexpectedEOF within a frame.
func (c *Conn) readOnce() (busy bool, err error) {
	n, err := c.readSome(c.buf[c.filled:])
	if err != nil {
		if errors.Is(err, io.EOF) && c.filled > 0 {
			err = io.ErrUnexpectedEOF
		}
		return false, fmt.Errorf("reading from the worker: %w", err)
	}
	c.filled += n
	done := 0
	for {
		f, size, need, err := Parse(c.buf[done:c.filled])
		if err != nil {
			return false, err
		}
		if size == 0 {
			c.filled = copy(c.buf, c.buf[done:c.filled])
			if need > len(c.buf) {
				c.buf = append(make([]byte, 0, need), c.buf[:c.filled]...)[:need]
			}
			return busy, nil
		}
		if err := c.dispatch(f); err != nil {
			return false, err
		}
		busy = busy || f.Stream != 0
		done += size
	}
}

// readSome reads. While a lone request waits for a fast app, it looks again and again before it sleeps: to fall asleep and
// be woken takes longer than such an app does.
func (c *Conn) readSome(b []byte) (int, error) {
	c.streamMu.Lock()
	open := len(c.streams)
	c.streamMu.Unlock()
	if c.spinner == nil || open == 0 || open >= crowd {
		return c.rw.Read(b)
	}
	if c.wait < spinTime {
		c.spinner.Spin(spinTime)
		defer c.spinner.Spin(0)
	}
	began := time.Now()
	n, err := c.rw.Read(b)
	c.wait += (time.Since(began) - c.wait) / 8
	return n, err
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
	case Response, Data, Error, Decline, Reset, Trailers, Hint, File, Text, Binary, Close:
		var err error
		if f.Type == File {
			f.File, err = c.files.take(f.Stream, c.isOpen)
		}
		if err == nil {
			err = s.deliver(f)
		}
		if err != nil {
			c.putBack(s)
			return err
		}
	case Accept:
		if err := s.deliver(f); err != nil {
			return err
		}
		c.handler.Accepted()
	case Credit:
		if len(f.Data) != 4 {
			return fmt.Errorf("%w: credit of %d bytes", ErrProtocol, len(f.Data))
		}
		return s.addCredit(binary.LittleEndian.Uint32(f.Data))
	default:
		return fmt.Errorf("%w: type %d on stream %d", ErrProtocol, f.Type, f.Stream)
	}
	if closing {
		c.files.drop(f.Stream)
		accepted := s.isAccepted()
		s.release()
		if f.Type != Decline {
			c.handler.Closed(false, accepted)
		}
	}
	return nil
}

// putBack leaves it to end to fail s, whose closing frame cannot be delivered.
func (c *Conn) putBack(s *Stream) {
	c.streamMu.Lock()
	defer c.streamMu.Unlock()
	c.streams[s.id] = s
}

func (c *Conn) isOpen(stream uint32) bool {
	c.streamMu.Lock()
	defer c.streamMu.Unlock()
	return c.streams[stream] != nil
}

// closes tells whether the worker closes the stream with f.
func (f Frame) closes() bool {
	switch f.Type {
	case Response, Data, File:
		return f.End
	case Error, Decline, Reset, Trailers, Close:
		return true
	default:
		return false
	}
}
