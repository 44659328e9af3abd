package caddysnake

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"reflect"
	"syscall"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/mliezun/caddy-snake/internal/wire"
)

const (
	// pushSize is how much of a response is pushed at once, in bytes: a client that takes anything takes that much.
	pushSize = 4 << 10
	// pushAfter is how many pauses a response has had when more are to be expected.
	pushAfter = 4
)

// push is a response that comes in small parts with pauses between them: server-sent events, say. While its goroutine
// waits, the one that reads from the worker passes the parts on to the client, so that nobody has to be woken. That one
// must not wait: it writes only what the client's connection takes at once, through writers that wait for nothing else.
// All the rest is left to the response's own goroutine.
//
// Only whoever Stream.Await calls uses the fields below, and the response's goroutine when it has returned.
type push struct {
	stream   *wire.Stream
	w        http.ResponseWriter
	control  *http.ResponseController     // of w
	idle     *caddyhttp.IdleTimeoutWriter // what w is beneath; nil: w is the exchange's
	client   syscall.RawConn
	look     func(fd uintptr) // sets writable
	writable bool
	err      error // the client has gone
	panicked any   // what a writer has panicked with
}

// newPush returns nil if the response cannot be pushed.
func (e *exchange) newPush(stream *wire.Stream) *push {
	client := clientConn(e.request.Context())
	if client == nil || e.bounded || e.request.ProtoMajor != 1 || !writesAtOnce(e.w) {
		return nil
	}
	p := &push{stream: stream, w: e.w, client: client}
	// Caddy sets a deadline before each write and each flush. What the client takes at once needs none, and setting them
	// takes a sixth of an event's time.
	if idle, ok := e.w.(*caddyhttp.IdleTimeoutWriter); ok && idle.Deadline.MinRate == 0 {
		p.idle, p.w = idle, idle.ResponseWriter
	}
	p.control = http.NewResponseController(p.w)
	p.look = func(fd uintptr) { p.writable = isWritable(fd) }
	return p
}

// wait passes on what comes until Recv has something to return or done is closed. It fails when the client has gone.
func (p *push) wait(done <-chan struct{}) error {
	if p.idle != nil {
		_ = p.idle.Ctrl.SetWriteDeadline(p.idle.Deadline.HardDeadline)
	}
	p.stream.Await(done, p.pass)
	if p.panicked != nil {
		panic(p.panicked)
	}
	return p.err
}

// pass passes on what has come; false: there is something that it must leave to the response's goroutine.
func (p *push) pass() (whole bool) {
	defer func() {
		if p.panicked = recover(); p.panicked != nil { // for the goroutine whose response it is
			whole = false
		}
	}()
	if err := p.client.Control(p.look); err != nil || !p.writable {
		return false
	}
	for room := pushSize; ; {
		f, ok, more := p.stream.TryRecv(room)
		if !ok {
			if room < pushSize {
				p.err = p.control.Flush()
			}
			return !more && p.err == nil
		}
		if p.err = passBody(p.w, p.stream, f.Data); p.err != nil {
			return false
		}
		room -= len(f.Data)
	}
}

// passBody writes a part of the body.
func passBody(w io.Writer, stream *wire.Stream, data []byte) error {
	if _, err := w.Write(data); err != nil && !errors.Is(err, http.ErrBodyNotAllowed) {
		return err
	}
	stream.Consumed(len(data))
	return nil
}

// writesAtOnce tells whether w is known to wait for nothing but the client and to do no work worth mentioning.
func writesAtOnce(w http.ResponseWriter) bool {
	for {
		t := reflect.TypeOf(w)
		if t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		switch t.PkgPath() {
		case "net/http", "github.com/caddyserver/caddy/v2/modules/caddyhttp", "github.com/caddyserver/caddy/v2/modules/caddyhttp/headers":
		default:
			return false
		}
		wrapper, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return true
		}
		w = wrapper.Unwrap()
	}
}

// clientConnKey is the key of a client's connection in the contexts of its requests.
type clientConnKey struct{}

func withClientConn(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, clientConnKey{}, conn)
}

// clientConn returns the socket of the client's connection, under TLS and whatever else, or nil if it has none.
func clientConn(ctx context.Context) syscall.RawConn {
	conn, _ := ctx.Value(clientConnKey{}).(net.Conn)
	for {
		wrapper, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		conn = wrapper.NetConn()
	}
	system, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := system.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}
