package caddysnake

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/mliezun/caddy-snake/internal/wire"
)

const (
	// readAheadTime is how long an ASGI request waits for its body's first part before it goes without.
	readAheadTime = time.Millisecond
	// lingerTime is how long a connection stays open for a client that still sends a body nobody wants, so that it
	// can read its response.
	lingerTime = 500 * time.Millisecond
)

// upload reads a request's body and sends it as the worker asks for it. One goroutine at a time reads: first the one that
// reads ahead, then the pump.
type upload struct {
	body    io.ReadCloser
	control *http.ResponseController
	http1   bool

	buf     []byte
	pending []byte // read and not sent yet: a part of buf
	end     bool   // pending is all that is left
	err     error  // why the body broke off

	ended    chan struct{} // closed when the goroutine that reads has ended; nil when none was started
	reading  atomic.Bool   // that goroutine is inside Read
	finished atomic.Bool   // the body has been read to its end
	stopped  atomic.Bool   // nobody wants more of it
}

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
		buf: make([]byte, wire.MaxData),
	}
	if e.pool.settings.Interface == interfaceWSGI {
		u.fill()
	} else if r.Header.Get("Expect") == "" { // or the app decides whether the client is to go on
		u.readAhead()
	}
	if u.err != nil {
		return nil, false, u.failure()
	}
	if u.ended == nil {
		frame = append(frame, u.pending...)
		u.pending = nil
		if u.end {
			return frame, true, nil
		}
	}
	e.upload = u
	return frame, false, nil
}

// endUpload stops reading.
func (e *exchange) endUpload() {
	if e.upload != nil {
		e.upload.stop()
	}
}

// fill reads until the buffer is full or the body has ended.
func (u *upload) fill() {
	n, err := io.ReadFull(u.body, u.buf)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	u.took(n, err)
}

// readAhead reads once, in the background if that takes long.
func (u *upload) readAhead() {
	u.ended = make(chan struct{})
	go func() {
		defer close(u.ended)
		u.read(len(u.buf))
	}()
	timer := time.NewTimer(readAheadTime)
	defer timer.Stop()
	select {
	case <-u.ended:
		u.ended = nil
	case <-timer.C:
	}
}

// read reads at most n bytes into pending.
func (u *upload) read(n int) {
	u.reading.Store(true)
	got, err := u.body.Read(u.buf[:min(n, len(u.buf))])
	u.reading.Store(false)
	u.took(got, err)
}

func (u *upload) took(n int, err error) {
	u.pending = u.buf[:n]
	switch {
	case errors.Is(err, io.EOF):
		u.end = true
		u.finished.Store(true)
	case err != nil:
		u.err = err
	}
}

// start sends the rest of the body on stream, in a goroutine of its own: the pump.
func (u *upload) start(ctx context.Context, stream *wire.Stream) {
	before := u.ended
	u.ended = make(chan struct{})
	go func() {
		defer close(u.ended)
		if before != nil {
			<-before
		}
		u.pump(ctx, stream)
	}()
}

// pump sends the body as the worker gives credit, until its end, or until nobody wants it.
func (u *upload) pump(ctx context.Context, stream *wire.Stream) {
	for u.err == nil && !u.stopped.Load() {
		credit := stream.Credit(ctx)
		if credit == 0 {
			return
		}
		if len(u.pending) == 0 && !u.end {
			u.read(credit)
			continue
		}
		n := min(credit, len(u.pending))
		last := u.end && n == len(u.pending)
		stream.Send(u.pending[:n], last)
		u.pending = u.pending[n:]
		if last {
			return
		}
	}
	if u.err != nil && !u.stopped.Load() {
		stream.Reset() // the app will never get the rest
	}
}

// wait returns when the pump of a stream that the worker has declined has let go of it.
func (u *upload) wait() { <-u.ended }

// beforeResponse prepares the connection for a response that overtakes the body; whole: it is complete already.
func (u *upload) beforeResponse(header http.Header, whole bool) {
	if u.finished.Load() {
		return
	}
	if whole && !u.reading.Load() {
		// The app is through, and nothing reads: net/http drops the rest of the body, or the connection.
		u.stopped.Store(true)
		return
	}
	if u.http1 {
		// Or net/http would swallow the rest of the body before it answers. The connection cannot be used again: where
		// the body ends is not known yet, and might never be.
		_ = u.control.EnableFullDuplex()
		header.Set("Connection", "close")
	}
}

// stop ends the reading, whatever the client does. It returns when nothing reads any more.
func (u *upload) stop() {
	if u.ended == nil {
		return
	}
	u.stopped.Store(true)
	select {
	case <-u.ended:
		return
	default:
	}
	if !u.http1 {
		_ = u.body.Close()
		<-u.ended
		return
	}
	_ = u.control.SetReadDeadline(time.Unix(1, 0))
	<-u.ended
	_ = u.control.SetReadDeadline(time.Now().Add(lingerTime))
}

// failure is the client's answer when its body broke off.
func (u *upload) failure() error {
	if u.ended != nil {
		<-u.ended
	}
	var tooLarge *http.MaxBytesError
	if errors.As(u.err, &tooLarge) {
		return caddyhttp.Error(http.StatusRequestEntityTooLarge, u.err)
	}
	return caddyhttp.Error(http.StatusBadRequest, u.err)
}
