package caddysnake

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/mliezun/caddy-snake/internal/wire"
)

const (
	// readAheadTime is how long an ASGI request waits for its body's first part before it goes without.
	readAheadTime = time.Millisecond
	// A connection stays open for a client that still sends a body nobody wants, so that it can read its response: a
	// closed one would answer with a reset, which may overtake the response. It stays for lingerTime after what the
	// client has sent last, but no longer than maxLinger, and for no more than lingerSize bytes.
	lingerTime = 500 * time.Millisecond
	maxLinger  = 10 * time.Second
	lingerSize = 64 << 20
)

// upload reads a request's body and sends it as the worker asks for it. One goroutine at a time reads: first the one that
// reads ahead, then the pump.
type upload struct {
	body    io.ReadCloser
	control *http.ResponseController
	http1   bool

	buf      *uploadBuffer
	from, to int   // what of buf was read and not sent yet
	end      bool  // that is all that is left
	err      error // why the body broke off

	ended chan struct{} // closed when the goroutine that reads has ended; nil when none was started

	mu       sync.Mutex // guards the fields below
	reading  bool       // that goroutine is inside Read
	finished bool       // the body has been read to its end
	stopped  bool       // nobody wants more of it
	givenUp  bool       // the client was too slow
	readAt   time.Time  // when the last part came
	part     int        // bytes that have come of a part of 64 KiB
	partBy   time.Time  // when the rest of that part must be there
}

// uploadBuffer holds the data of one frame, behind room for its header.
type uploadBuffer [wire.HeaderSize + wire.MaxData]byte

var uploadBuffers = sync.Pool{New: func() any { return new(uploadBuffer) }}

// beginUpload appends the first part of the body to the REQUEST frame, and says whether that is the whole body.
//
// A WSGI app gets the first part complete, or the whole body if that is shorter, because it will hold a thread while it
// waits for more: a client that sends slowly holds none. An ASGI app gets what is there.
func (e *exchange) beginUpload(frame []byte) (withBody []byte, whole bool, err error) {
	r := e.request
	if !r.hasBody() {
		return frame, true, nil
	}
	u := &upload{
		body: r.Body, control: http.NewResponseController(e.w), http1: r.ProtoMajor == 1,
		buf: uploadBuffers.Get().(*uploadBuffer),
	}
	e.upload = u
	e.enrol()
	if e.pool.settings.Interface == interfaceWSGI {
		u.fill()
	} else if r.Header.Get("Expect") == "" { // or the app decides whether the client is to go on
		u.readAhead()
	}
	if u.ended != nil { // it still reads
		return frame, false, nil
	}
	if u.err != nil {
		err := u.failure()
		if e.pool.closed.Load() {
			err = e.refusal(errPoolClosed)
		}
		e.endUpload()
		return nil, false, err
	}
	e.empty = u.end && u.from == u.to
	frame = append(frame, u.buf[u.from:u.to]...)
	u.from = u.to
	if u.end {
		e.endUpload()
		return frame, true, nil
	}
	return frame, false, nil
}

// endUpload stops reading and gives the buffer back. The exchange stays enrolled, until run ends: a pool that drains would
// close before the request has a place.
func (e *exchange) endUpload() {
	if u := e.upload; u != nil {
		u.stop()
		e.pool.mu.Lock() // those who look at the enrolled ones hold it
		e.upload = nil
		e.pool.mu.Unlock()
		uploadBuffers.Put(u.buf)
	}
}

// fill reads until the buffer is full or the body has ended.
func (u *upload) fill() {
	u.began()
	n, err := io.ReadFull(u.body, u.buf[wire.HeaderSize:])
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	u.took(n, err)
}

// readAhead reads once, in the background if that takes long.
func (u *upload) readAhead() {
	ended := make(chan struct{})
	u.ended = ended
	go func() {
		defer close(ended)
		u.read(wire.MaxData)
	}()
	timer := time.NewTimer(readAheadTime)
	defer timer.Stop()
	select {
	case <-ended:
		u.ended = nil
	case <-timer.C:
	}
}

// read reads at most n bytes, unless nobody wants them.
func (u *upload) read(n int) {
	if !u.began() {
		return
	}
	got, err := u.body.Read(u.buf[wire.HeaderSize : wire.HeaderSize+min(n, wire.MaxData)])
	u.took(got, err)
}

// began notes that a Read begins. It returns false if nobody wants it.
func (u *upload) began() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.stopped {
		return false
	}
	u.reading = true
	if u.part == 0 {
		u.partBy = time.Now().Add(patience)
	}
	return true
}

func (u *upload) took(n int, err error) {
	u.from, u.to = wire.HeaderSize, wire.HeaderSize+n
	u.end = errors.Is(err, io.EOF)
	if err != nil && !u.end {
		u.err = err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.reading = false
	u.readAt = time.Now()
	u.finished = u.end
	if u.part += n; u.part >= wire.MaxData {
		u.part = 0
	}
}

// start sends the rest of the body on stream, in a goroutine of its own: the pump.
func (u *upload) start(ctx context.Context, stream *wire.Stream) {
	before, ended := u.ended, make(chan struct{})
	u.ended = ended
	go func() {
		defer close(ended)
		if before != nil {
			<-before
		}
		u.pump(ctx, stream)
	}()
}

// pump sends the body as the worker gives credit, until its end, or until nobody wants it.
func (u *upload) pump(ctx context.Context, stream *wire.Stream) {
	for u.err == nil && !u.isStopped() {
		asked := time.Now()
		credit := stream.Credit(ctx)
		if credit == 0 {
			return
		}
		u.extend(time.Since(asked)) // while the app does not want more, the client is not late
		if u.from == u.to && !u.end {
			u.read(credit)
			continue
		}
		n := min(credit, u.to-u.from)
		last := u.end && n == u.to-u.from
		stream.Send(u.buf[u.from-wire.HeaderSize:u.from+n], last) // what is before has been sent
		u.from += n
		if last {
			return
		}
	}
	if u.err != nil && !u.isStopped() {
		stream.Reset() // the app will never get the rest
	}
}

func (u *upload) extend(d time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.partBy = u.partBy.Add(d)
}

// isFinished tells whether the body has been read to its end.
func (u *upload) isFinished() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.finished
}

// isLate tells whether a Read is under way that should have brought more by now.
func (u *upload) isLate(now time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.reading && now.After(u.partBy)
}

// giveUp ends the Read that is under way, because the client is too slow.
func (u *upload) giveUp() {
	u.mu.Lock()
	u.givenUp = true
	u.mu.Unlock()
	_ = u.control.SetReadDeadline(past)
}

func (u *upload) isGivenUp() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.givenUp
}

// isReading tells whether more is expected from the client, or has come since then.
func (u *upload) isReading(since time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.reading || u.readAt.After(since)
}

func (u *upload) isStopped() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.stopped
}

// wait returns when the pump of a stream that the worker has declined has let go of it.
func (u *upload) wait() { <-u.ended }

// beforeResponse prepares the connection for a response that overtakes the body.
func (u *upload) beforeResponse(header http.Header) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.finished || !u.http1 {
		return
	}
	// Or net/http would wait for the rest of the body before it answers.
	_ = u.control.EnableFullDuplex()
	// In full duplex it goes on with the connection even if the rest of the body is malformed: nobody knows then where
	// the body ends and another request begins. Nor does anybody when the reading has to be cut off.
	header.Set("Connection", "close")
}

// stop ends the reading, whatever the client does. It returns when nothing reads any more.
func (u *upload) stop() {
	if u.ended == nil {
		return
	}
	u.mu.Lock()
	u.stopped = true
	reading := u.reading
	u.mu.Unlock()
	switch {
	case !reading: // nor will it
		<-u.ended
	case u.http1:
		_ = u.control.SetReadDeadline(past)
		<-u.ended
		_ = u.control.SetReadDeadline(time.Now().Add(lingerTime))
	default:
		_ = u.body.Close()
		<-u.ended
	}
}

// linger takes what a client on HTTP/1 still sends, once its response is complete. Without a Content-Length it is not: the
// last chunk goes out when the handler has returned.
func (e *exchange) linger() {
	u := e.upload
	if u == nil || !u.http1 || u.isFinished() || e.w.Header().Get("Content-Length") == "" {
		return
	}
	e.dismiss() // a drain need not wait for this
	if err := u.control.Flush(); err != nil {
		return
	}
	// Not with what stop may have ended.
	control, body := http.NewResponseController(innermost(e.w)), innermostBody(e.request.Request)
	end := time.Now().Add(maxLinger)
	for size := 0; size < lingerSize && time.Now().Before(end); {
		_ = control.SetReadDeadline(time.Now().Add(lingerTime))
		n, err := body.Read(u.buf[:])
		if err != nil {
			return
		}
		size += n
	}
}

// failure is the client's answer when its body broke off.
func (u *upload) failure() error {
	if u.ended != nil {
		<-u.ended
	}
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(u.err, &tooLarge):
		return caddyhttp.Error(http.StatusRequestEntityTooLarge, u.err)
	case errors.Is(u.err, os.ErrDeadlineExceeded):
		return caddyhttp.Error(http.StatusRequestTimeout, u.err)
	}
	return caddyhttp.Error(http.StatusBadRequest, u.err)
}
