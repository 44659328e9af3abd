// Package websocket is the server's end of a WebSocket (RFC 6455, RFC 7692) over any transport, with next to no memory
// while nothing comes. Frame headers, masks, close codes and extension parameters are the work of github.com/gobwas/ws;
// this package puts them together: messages in parts, control frames, limits, keep-alive, the closing handshake.
package websocket

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// MaxHeader is how long the header of a frame can be that Append makes, in bytes.
const MaxHeader = ws.MaxHeaderSize

// closeTimeout is how long the peer may take to answer a Close.
const closeTimeout = 5 * time.Second

// Codes that Caddy Snake itself sends or reports (RFC 6455, section 7.4.1, and the registry that it founds).
const (
	CodeNormal   = 1000
	CodeProtocol = 1002
	CodeNoStatus = 1005 // the peer gave none; never on the wire
	CodeLost     = 1006 // the connection ended without a Close; never on the wire
	CodeInvalid  = 1007
	CodeTooBig   = 1009
	CodeInternal = 1011
	CodeRestart  = 1012
)

// Transport is a connection on which the handshake is over. One goroutine reads at a time, and one writes. Close ends what
// is under way. Over HTTP/2, a read that a deadline has ended was the last one.
type Transport interface {
	io.ReadWriteCloser
	SetReadDeadline(t time.Time) error
}

// Options says how a Conn behaves.
type Options struct {
	PingInterval time.Duration // send a ping when nothing was heard for so long; 0: never
	PingTimeout  time.Duration // end the connection when nothing is heard for so long after a ping; 0: never
	MaxSize      int64         // the largest message to accept, in bytes, after decompression
	Compression  Compression   // what was negotiated
}

// CloseError says why a WebSocket has ended: with the peer's code and reason, or with those that the peer was told, or
// because the connection was lost.
type CloseError struct {
	Code   int
	Reason string
}

func (e *CloseError) Error() string { return fmt.Sprintf("websocket closed: %d %s", e.Code, e.Reason) }

// Conn is one WebSocket. One goroutine calls Next and Linger; one at a time calls Append and Write; any may call the rest.
type Conn struct {
	transport Transport
	options   Options
	input     input
	message   message   // the one that is being received
	inflater  *inflater // of the message whose part Next has returned last, if that is compressed
	answered  bool      // the peer has closed, and has got its answer
	output    output

	timer    *time.Timer // calls tick; nil when there is no PingInterval
	heard    atomic.Bool // something came since the last tick
	paused   atomic.Bool // nothing is read because nobody takes it
	slow     atomic.Bool // a write was under way at the last tick
	awaiting bool        // a ping has no answer yet; only tick looks at this and pinged
	pinged   time.Time   // when the last ping was sent
	late     atomic.Bool // no answer came to a ping

	shut atomic.Pointer[[]byte] // the body of the Close that Shut sends; nil: it has not been called

	// Held for reading by Shut, cut and tick, which any goroutine may run, while they use transport; guards over.
	use  sync.RWMutex
	over bool // Close has been called: transport may be gone

	reading   sync.Mutex // held while setting the deadline; guards lingering
	lingering bool       // Linger has been called: the deadline is its own

	mu     sync.Mutex // held while writing to transport; guards closed
	closed bool       // a Close has been sent: nothing may follow it
}

// New makes a Conn that owns transport, from which received has been read already.
func New(transport Transport, received []byte, options Options) *Conn {
	c := &Conn{transport: transport, options: options, input: newInput(transport, received)}
	c.output.compression = options.Compression
	if options.PingInterval > 0 {
		c.use.Lock() // until timer is set
		c.timer = time.AfterFunc(options.PingInterval, c.tick)
		c.use.Unlock()
	}
	return c
}

// Write sends frames that Append has made.
func (c *Conn) Write(frames []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil // nobody looks at it any more
	}
	_, err := c.transport.Write(frames)
	if c.slow.Load() {
		c.heard.Store(true) // it does take what it is sent
	}
	if err != nil {
		return fmt.Errorf("writing to the client: %w", err)
	}
	return nil
}

// Shut sends a Close, unless one has been sent, and interrupts Next. It waits for a write that is under way, but a peer
// that does not take that for closeTimeout loses the connection. A reason that is too long for a frame is shortened.
func (c *Conn) Shut(code int, reason string) {
	body := ws.NewCloseFrameBody(ws.StatusCode(code), shorten(reason))
	c.use.RLock()
	defer c.use.RUnlock()
	if c.over || !c.shut.CompareAndSwap(nil, &body) {
		return
	}
	c.interrupt() // first: a write that is stuck must not keep Next
	c.sendClose(body)
}

// cut ends what is under way.
func (c *Conn) cut() {
	c.use.RLock()
	defer c.use.RUnlock()
	if !c.over {
		_ = c.transport.Close()
	}
}

// interrupt ends Next, and leaves Linger alone.
func (c *Conn) interrupt() {
	c.reading.Lock()
	defer c.reading.Unlock()
	if !c.lingering {
		_ = c.transport.SetReadDeadline(time.Unix(1, 0))
	}
}

// Linger waits for the peer to answer a Close, or to go, but not for ever: a connection that ends with input unread takes
// back what was sent last. Next must have returned an error.
func (c *Conn) Linger() {
	defer c.input.release()
	c.dropInflater()
	c.reading.Lock()
	c.lingering = true
	_ = c.transport.SetReadDeadline(time.Now().Add(closeTimeout))
	c.reading.Unlock()
	err := c.input.skip(c.message.left)
	for err == nil && !c.answered {
		var h ws.Header
		if h, err = c.input.header(); h.OpCode == ws.OpClose {
			break
		}
		err = errors.Join(err, c.input.skip(h.Length))
	}
	if body := c.shut.Load(); body != nil {
		c.sendClose(*body) // Shut may still wait for a write
	}
}

// Close ends the connection at once. When it has returned, only Next, Linger and Write still use transport.
func (c *Conn) Close() {
	_ = c.transport.Close()
	c.use.Lock()
	defer c.use.Unlock()
	c.over = true
	if c.timer != nil {
		c.timer.Stop()
	}
}

// Pause says whether the caller of Next waits for somebody else, so that nobody would see the answer to a ping.
func (c *Conn) Pause(paused bool) { c.paused.Store(paused) }

// tick looks whether the peer is still there.
func (c *Conn) tick() {
	c.use.RLock()
	defer c.use.RUnlock()
	idle := c.mu.TryLock()
	if idle {
		defer c.mu.Unlock()
	}
	if c.over || idle && c.closed {
		return
	}
	c.slow.Store(!idle)
	interval, timeout := c.options.PingInterval, c.options.PingTimeout
	heard, waited := c.heard.Swap(false), time.Since(c.pinged)
	next, ping := interval, false
	switch {
	case heard || idle && c.paused.Load(): // a write that is stuck has no such excuse
		if c.awaiting && waited < interval {
			next -= waited // a ping was answered: the next one is due as if it had been at once
		}
		c.awaiting = false
	case !c.awaiting || timeout == 0:
		c.awaiting, c.pinged = true, time.Now()
		if timeout > 0 {
			next = min(interval, timeout)
		}
		ping = idle // else the write that is under way is as good as one
	case waited < timeout:
		next = timeout - waited
	default:
		c.late.Store(true)
		_ = c.transport.Close()
		return
	}
	c.timer.Reset(next)
	if ping {
		c.sendControl(ws.OpPing, nil) // last: the next tick sees that the peer does not take it
	}
}

// sendClose sends a Close, if none has been sent. A peer that takes nothing for closeTimeout loses the connection.
func (c *Conn) sendClose(body []byte) {
	limit := time.AfterFunc(closeTimeout, c.cut)
	defer limit.Stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.closed = true
		c.sendControl(ws.OpClose, body)
	}
}

func (c *Conn) sendPong(payload []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.sendControl(ws.OpPong, payload)
	}
}

// sendControl is called with mu held. Whoever reads next learns of an error.
func (c *Conn) sendControl(op ws.OpCode, payload []byte) {
	h := ws.Header{Fin: true, OpCode: op, Length: int64(len(payload))}
	frame := new(output).appendHeader(nil, h)
	_, _ = c.transport.Write(append(frame, payload...))
}

// violation ends the WebSocket because of what the peer did.
func (c *Conn) violation(code int, reason string) error {
	c.sendClose(ws.NewCloseFrameBody(ws.StatusCode(code), reason))
	return &CloseError{code, reason}
}

// ended makes a CloseError of what a read returned.
func (c *Conn) ended(err error) error {
	var closed *CloseError
	switch {
	case errors.As(err, &closed):
		return closed
	case errors.Is(err, ws.ErrHeaderLengthMSB):
		return c.violation(CodeProtocol, ws.ErrHeaderLengthMSB.Error())
	default:
		return c.Lost()
	}
}

// Lost says why the connection has ended without a Close.
func (c *Conn) Lost() *CloseError {
	if c.late.Load() {
		return &CloseError{CodeLost, "ping timeout"}
	}
	return &CloseError{CodeLost, ""}
}

// shorten cuts a reason so that it fits into a Close.
func shorten(reason string) string {
	const most = ws.MaxControlFramePayloadSize - 2
	if len(reason) <= most {
		return reason
	}
	end := most
	for !utf8.RuneStart(reason[end]) {
		end--
	}
	return reason[:end]
}
