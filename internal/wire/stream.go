package wire

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Stream is one request on one worker. Three goroutines meet in it: the one that relays the response (Recv, Consumed,
// Reset, Release), the one that sends the body (Credit, Send), and the connection's reader.
type Stream struct {
	conn *Conn
	id   uint32

	mu       sync.Mutex // guards the fields of this block
	frames   []received // what arrived and Recv has not taken yet
	buf      []byte     // the heads and data of frames, one after another
	files    []*os.File // the descriptors of the FILE frames in frames and taken, in their order
	window   int        // how many bytes of data the worker may still send
	credit   int        // how many bytes of the body may be sent
	sent     bool       // REQUEST is on its way: RESET cannot overtake it
	began    bool       // the worker has sent RESPONSE
	closed   bool       // the worker has closed the stream, or the connection has ended
	declined bool       // the worker has sent DECLINE
	accepted bool       // the worker has sent ACCEPT
	listener func()     // called when something has arrived; nil: Recv is waited for instead
	resetted bool       // Reset or SendClose was called: what arrives is dropped
	err      error      // why the connection has ended, or what Expire was given
	extended time.Time  // when Extend was called; zero: it was not
	expired  time.Time  // when Expire was called; zero: it was not
	note     any        // see Open

	arrived  chan struct{} // holds a token when Recv has something to look at
	credited chan struct{} // holds a token when Credit has something to look at

	// Only the relaying goroutine uses these.
	taken    []received
	takenBuf []byte
	next     int // index into taken
	offset   int // offset into takenBuf
	consumed int // bytes whose credit has not been given back yet

	attending sync.Mutex // held while Await's handle is called

	refs atomic.Int32 // the Conn's map and the user of the stream; the last one to let go recycles it
}

// received is a frame whose bytes are in a buffer beside it.
type received struct {
	t          Type
	end        bool
	head, data int // sizes
}

var streamPool = sync.Pool{New: func() any {
	return &Stream{arrived: make(chan struct{}, 1), credited: make(chan struct{}, 1)}
}}

const (
	// A recycled stream keeps its buffers up to this size.
	keepBuffer = 64 << 10
	// creditDue is how many bytes the client has taken when the worker is told so.
	creditDue = Window / 2
)

func newStream(c *Conn) *Stream {
	s := streamPool.Get().(*Stream)
	s.conn = c
	s.window = Window
	s.refs.Store(2)
	return s
}

// Recv returns the next frame: ACCEPT, RESPONSE, DATA, CLOSE, ERROR, DECLINE, RESET, TRAILERS, HINT or FILE, whose
// descriptor is then the caller's to close. Frames of data that came together are joined, so one may carry up to Window
// bytes. Its bytes stay valid until the next call. It fails with ctx's error, with ErrReset after Reset, with what Expire
// was given, or with ErrClosed when the worker has gone.
func (s *Stream) Recv(ctx context.Context) (Frame, error) {
	for s.next == len(s.taken) {
		if more, err := s.take(); more {
			break
		} else if err != nil {
			return Frame{}, err
		}
		select {
		case <-s.arrived:
		case <-s.conn.lead:
			if s.More() || s.over() {
				// The last leader has brought it since take looked: reading on might wait for ever.
				s.conn.lead <- struct{}{}
				continue
			}
			s.conn.follow(ctx, func(bool) bool { return s.More() || s.over() })
		case <-ctx.Done():
			return Frame{}, ctx.Err()
		}
	}
	return s.pop(), nil
}

// joined returns the next frame that Recv returns. Parts of the body that have come together are handed on as one: they
// lie one behind the other.
func (s *Stream) joined() (r received, count int) {
	r = s.taken[s.next]
	count = 1
	for rest := s.taken[s.next+1:]; !r.end && (r.t == Data || r.t == Response) && len(rest) > 0 && rest[0].t == Data; rest = rest[1:] {
		r.end = rest[0].end
		r.data += rest[0].data
		count++
	}
	return r, count
}

// pop takes the next frame, which is there.
func (s *Stream) pop() Frame {
	r, count := s.joined()
	s.next += count
	b := s.takenBuf[s.offset : s.offset+r.head+r.data]
	s.offset += len(b)
	f := Frame{Stream: s.id, Type: r.t, End: r.end, Head: b[:r.head:r.head], Data: b[r.head:]}
	if r.t == File {
		f.File = s.takeFile()
	}
	return f
}

func (s *Stream) takeFile() *os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	file := s.files[0]
	s.files = s.files[1:]
	return file
}

// take moves what arrived to the relaying goroutine's side. more: there was something; err: nothing will come.
func (s *Stream) take() (more bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.expired.IsZero():
		return false, s.err
	case len(s.frames) > 0:
		s.taken, s.frames = s.frames, s.taken[:0]
		s.takenBuf, s.buf = s.buf, s.takenBuf[:0]
		s.next, s.offset = 0, 0
		return true, nil
	case s.resetted:
		return false, ErrReset
	default:
		return false, s.err
	}
}

// over tells whether Recv will fail when it has returned what arrived.
func (s *Stream) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.resetted || s.err != nil
}

// More tells whether Recv would return a frame at once.
func (s *Stream) More() bool {
	if s.next < len(s.taken) {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.frames) > 0
}

// Consumed says that the client has taken n bytes of data, so that the worker may send as many more.
func (s *Stream) Consumed(n int) {
	s.consumed += n
	if s.consumed < creditDue {
		return
	}
	s.mu.Lock()
	closed := s.closed
	s.window += s.consumed
	s.mu.Unlock()
	if !closed {
		s.send(Credit, false, binary.LittleEndian.AppendUint32(AppendHeader(nil), uint32(s.consumed)))
	}
	s.consumed = 0
}

// Credit waits until some of the body may be sent and returns how much. It returns 0 when no more is wanted: the worker
// has closed the stream or has gone, or ctx is done.
func (s *Stream) Credit(ctx context.Context) int {
	for {
		s.mu.Lock()
		credit, over := s.credit, s.closed || s.resetted
		s.mu.Unlock()
		if over {
			return 0
		}
		if credit > 0 {
			return credit
		}
		select {
		case <-s.credited:
		case <-ctx.Done():
			return 0
		}
	}
}

// Send sends a part of the body, at most MaxData bytes and never more than Credit returned; end: it is the last one. The
// data begins at HeaderSize in frame, which Send completes.
func (s *Stream) Send(frame []byte, end bool) {
	s.mu.Lock()
	s.credit -= len(frame) - HeaderSize
	over := s.closed || s.resetted
	s.mu.Unlock()
	if !over {
		s.send(Data, end, frame)
	}
}

// Reset tells the worker that nobody waits for the response any more. The worker closes the stream when it is through.
func (s *Stream) Reset() {
	told := s.giveUp()
	s.conn.interrupt() // the relaying goroutine may read itself; first, as a worker that takes nothing keeps who sends
	if told {
		s.send(Reset, false, AppendHeader(nil))
	}
}

// opened notes that REQUEST is on its way. It tells whether RESET has to follow, because giveUp was called before.
func (s *Stream) opened() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent = true
	return s.resetted && !s.closed
}

// giveUp has Recv and Credit return. It tells whether the worker has to be told, unless Open sees to it.
func (s *Stream) giveUp() bool {
	s.mu.Lock()
	over := s.closed || s.resetted || !s.sent
	s.resetted = true
	s.mu.Unlock()
	notify(s.arrived) // the relaying goroutine may wait for another that reads
	notify(s.credited)
	return !over
}

// Release gives the stream back. Its user must not touch it afterwards; a stream that the worker has not closed must have
// been Reset.
func (s *Stream) Release() { s.release() }

// send completes a frame without a head and sends it.
func (s *Stream) send(t Type, end bool, frame []byte) {
	s.complete(t, end, frame)
	s.conn.write(frame, false)
}

// complete fills in the header of a frame without a head, and returns it.
func (s *Stream) complete(t Type, end bool, frame []byte) []byte {
	if err := PutHeader(frame, t, end, 0); err != nil {
		panic(err) // the caller broke its promise
	}
	putStream(frame, s.id)
	return frame
}

// deliver stores a frame for Recv. The reading goroutine calls it.
func (s *Stream) deliver(f Frame) error {
	s.mu.Lock()
	if err := s.check(f); err != nil {
		s.mu.Unlock()
		closeFile(f.File)
		return err
	}
	s.began = s.began || f.begins()
	if f.Type == Accept {
		s.accepted, s.credit = true, Window
	}
	s.window -= f.cost()
	s.closed, s.declined = s.closed || f.closes(), f.Type == Decline
	closed := s.closed
	first := len(s.frames) == 0
	if !s.resetted {
		s.frames = append(s.frames, received{t: f.Type, end: f.End, head: len(f.Head), data: len(f.Data)})
		s.buf = append(append(s.buf, f.Head...), f.Data...)
		if f.Type == File {
			s.files = append(s.files, f.File)
		}
	} else {
		closeFile(f.File)
	}
	listener := s.listener
	s.mu.Unlock()
	switch {
	case listener == nil:
		notify(s.arrived)
	case first: // or it has not looked yet at what came before
		s.conn.heard = append(s.conn.heard, listener)
	}
	if closed {
		notify(s.credited)
	}
	return nil
}

// check holds a frame against what has come before, so that what is stored stays bounded. It is called with mu held.
func (s *Stream) check(f Frame) error {
	switch {
	case f.isMessage():
		return s.checkMessage(f)
	case f.cost() > max(s.window, 0): // a message may have overdrawn it
		return fmt.Errorf("%w: %d bytes on stream %d with credit for %d", ErrProtocol, f.cost(), f.Stream, s.window)
	case (f.begins() || f.Type == Accept) && (s.began || s.accepted):
		return fmt.Errorf("%w: a second response on stream %d", ErrProtocol, f.Stream)
	case (f.Type == Data || f.Type == Trailers || f.Type == File && !f.begins()) && !s.began:
		return fmt.Errorf("%w: type %d before the response on stream %d", ErrProtocol, f.Type, f.Stream)
	case f.Type == Hint && (s.began || s.accepted):
		return fmt.Errorf("%w: a hint after the response on stream %d", ErrProtocol, f.Stream)
	case (f.Type == Data && !f.End || f.Type == Hint) && len(f.Data) == 0:
		return fmt.Errorf("%w: an empty frame of type %d on stream %d", ErrProtocol, f.Type, f.Stream)
	default:
		return nil
	}
}

func (s *Stream) addCredit(n uint32) error {
	s.mu.Lock()
	if int64(s.credit)+int64(n) > math.MaxInt32 {
		s.mu.Unlock()
		return fmt.Errorf("%w: credit beyond 2 GiB on stream %d", ErrProtocol, s.id)
	}
	s.credit += int(n)
	s.mu.Unlock()
	notify(s.credited)
	return nil
}

// fail ends the stream because the connection has ended.
func (s *Stream) fail(err error) {
	s.mu.Lock()
	s.closed = true
	if s.err == nil {
		s.err = err
	}
	listener := s.listener
	s.mu.Unlock()
	if listener != nil {
		listener()
	}
	notify(s.arrived)
	notify(s.credited)
}

// release drops one of the two references.
func (s *Stream) release() {
	if s.refs.Add(-1) > 0 {
		return
	}
	conn, declined := s.conn, s.declined
	s.discard()
	if declined {
		conn.handler.Closed(true, false)
	}
}

// discard recycles a stream that nobody refers to.
func (s *Stream) discard() {
	select {
	case <-s.arrived:
	default:
	}
	select {
	case <-s.credited:
	default:
	}
	for _, file := range s.files {
		closeFile(file)
	}
	s.files = nil
	if cap(s.buf) > keepBuffer || cap(s.takenBuf) > keepBuffer {
		s.buf, s.takenBuf, s.frames, s.taken = nil, nil, nil, nil
	}
	s.conn, s.id = nil, 0
	s.frames, s.buf, s.taken, s.takenBuf = s.frames[:0], s.buf[:0], s.taken[:0], s.takenBuf[:0]
	s.window, s.credit, s.sent, s.began, s.closed, s.declined, s.resetted, s.err = 0, 0, false, false, false, false, false, nil
	s.accepted, s.listener = false, nil
	s.extended, s.expired, s.note = time.Time{}, time.Time{}, nil
	s.next, s.offset, s.consumed = 0, 0, 0
	streamPool.Put(s)
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
