package caddysnake

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/mliezun/caddy-snake/internal/marshal"
	"github.com/mliezun/caddy-snake/internal/websocket"
	"github.com/mliezun/caddy-snake/internal/wire"
)

// webSocket relays one WebSocket between its client and its worker. An idle one is a goroutine that waits in a read, a
// stream and a timer: nothing here may hold on to the request or to a buffer.
type webSocket struct {
	client *websocket.Conn
	worker *worker
	origin origin
	logger *zap.Logger
	done   chan struct{} // closed when nothing uses the client's connection any more; nil if nobody waits for that

	// How often there was something to send since send has looked. Whoever makes it 1 starts send; it stays above 0 when
	// send has let go of the stream.
	pending atomic.Int64
	ended   atomic.Bool // nothing more comes from the client

	mu     sync.Mutex // held by shut and for letting go of stream
	stream *wire.Stream
	gone   bool // stream is somebody else's
}

// relay passes messages on, both ways, until the WebSocket has ended.
func (s *webSocket) relay() {
	if !s.worker.pool.addWebSocket(s) {
		s.shut(websocket.CodeRestart, "")
	}
	s.stream.Listen(s.wake)
	cause := s.receive()
	s.endStream(cause.Code, cause.Reason)
	s.client.Linger()
	s.client.Close()
	s.ended.Store(true)
	s.wake()
}

// receive passes the client's messages on. It returns why there are no more, which does not matter when the worker has
// closed the stream: then they are read for nobody until the client has been sent the Close, so that it is still known
// to be there.
func (s *webSocket) receive() *websocket.CloseError {
	taken := true
	for {
		part, err := s.client.Next()
		if err != nil {
			var cause *websocket.CloseError
			if !errors.As(err, &cause) {
				cause = &websocket.CloseError{Code: websocket.CodeLost}
			}
			return cause
		}
		taken = taken && s.pass(part)
	}
}

// pass sends a part of a message to the worker, as it gives credit; false: it has closed the stream.
func (s *webSocket) pass(part websocket.Part) bool {
	t := wire.Text
	if part.Binary {
		t = wire.Binary
	}
	frame := part.Frame
	for {
		credit := s.stream.MessageCredit(s.client.Pause)
		if credit == 0 {
			return false
		}
		n := min(credit, len(frame)-wire.HeaderSize)
		last := n == len(frame)-wire.HeaderSize
		s.stream.SendMessage(t, frame[:wire.HeaderSize+n], part.End && last)
		if last {
			return true
		}
		frame = frame[n:] // what is before has been sent
	}
}

// wake has what came from the worker sent.
func (s *webSocket) wake() {
	if s.pending.Add(1) == 1 {
		go s.send()
	}
}

// send passes the worker's messages on, until there are none, and lets go of the stream when the client's side is over.
func (s *webSocket) send() {
	for {
		seen := s.pending.Load()
		if s.ended.Load() {
			s.release()
			return
		}
		s.sendAll()
		if s.pending.CompareAndSwap(seen, 0) {
			return
		}
	}
}

// sendAll passes on what has come, many messages in one write.
func (s *webSocket) sendAll() {
	buffer := uploadBuffers.Get().(*uploadBuffer)
	defer uploadBuffers.Put(buffer)
	out := outgoing{socket: s, frames: buffer[:0]}
	for {
		f, ok, err := s.stream.Next()
		if !ok {
			out.flush()
			if errors.Is(err, wire.ErrClosed) {
				s.client.Shut(websocket.CodeInternal, "")
			}
			return
		}
		switch f.Type {
		case wire.Text, wire.Binary:
			out.add(f)
		case wire.Close:
			out.flush()
			s.client.Shut(s.decodeClose(f.Head))
		default:
			out.flush()
			message, traceback := decodeAppError(f.Head)
			logAppError(s.logger, s.worker, s.origin, message, traceback)
			s.client.Shut(websocket.CodeInternal, "")
		}
	}
}

// outgoing collects frames for the client.
type outgoing struct {
	socket *webSocket
	frames []byte
	credit int // what has been taken from the stream for frames
}

func (o *outgoing) add(f wire.Frame) {
	if len(o.frames) > 0 && len(o.frames)+len(f.Data)+websocket.MaxHeader > cap(o.frames) {
		o.flush()
	}
	o.frames = o.socket.client.Append(o.frames, f.Type == wire.Binary, f.End, f.Data)
	o.credit += len(f.Data) + wire.MessageCost
}

// flush sends what was collected. An error ends the WebSocket for both sides: nobody may be reading from the client, while
// the app does not take what has come.
func (o *outgoing) flush() {
	if len(o.frames) > 0 {
		if err := o.socket.client.Write(o.frames); err != nil {
			o.socket.client.Close()
			cause := o.socket.client.Lost()
			o.socket.endStream(cause.Code, cause.Reason)
		}
		o.frames = o.frames[:0]
	}
	if o.credit > 0 {
		o.socket.stream.Consumed(o.credit)
		o.credit = 0
	}
}

// decodeClose reads the head of a worker's CLOSE.
func (s *webSocket) decodeClose(head []byte) (code int, reason string) {
	r := marshal.NewReader(head)
	if n := r.Sequence(); n != 2 && r.Err() == nil {
		return websocket.CodeInternal, ""
	}
	code = r.Int()
	text, _ := r.Text()
	if err := r.End(); err != nil {
		s.logger.Error("malformed close from the worker", zap.Error(err))
		return websocket.CodeInternal, ""
	}
	return code, string(text)
}

// shut ends the WebSocket for both sides. It does not wait for a client that takes nothing.
func (s *webSocket) shut(code int, reason string) {
	s.endStream(code, reason)
	go s.client.Shut(code, reason)
}

// endStream tells the worker that the WebSocket is over, unless it knows.
func (s *webSocket) endStream(code int, reason string) {
	head := marshal.AppendInt(marshal.AppendTuple(nil, 2), int64(code))
	head = marshal.AppendString(head, reason)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.gone {
		s.stream.SendClose(head)
	}
}

// release lets go of the stream.
func (s *webSocket) release() {
	s.worker.pool.removeWebSocket(s)
	s.mu.Lock()
	s.gone = true
	s.stream.Unlisten()
	s.stream.Release()
	s.mu.Unlock()
	if s.done != nil {
		close(s.done)
	}
}

// accepted moves a stream on w from the requests to the WebSockets, which take no place: they are idle most of the time.
func (p *pool) accepted(w *worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.state == stateStopping {
		return
	}
	w.sockets++
	p.sockets++
	w.open--
	p.open--
	p.serveQueue()
}

// releaseSocket forgets a stream on w that was a WebSocket, when the worker has closed it.
func (p *pool) releaseSocket(w *worker) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.state == stateStopping {
		return // remove has counted it
	}
	w.sockets--
	p.sockets--
	w.checkIdle()
	p.checkDrained()
}

// addWebSocket notes a WebSocket whose client is there, so that shutWebSockets finds it; false: that is over.
func (p *pool) addWebSocket(s *webSocket) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.webSockets[s] = struct{}{}
	return !p.shut && !s.worker.cut
}

func (p *pool) removeWebSocket(s *webSocket) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.webSockets, s)
	p.checkDrained()
}

// shutWebSockets ends all WebSockets, and those still to come, with 1012, service restart.
func (p *pool) shutWebSockets() {
	p.mu.Lock()
	p.shut = true
	open := slices.Collect(maps.Keys(p.webSockets))
	p.mu.Unlock()
	for _, s := range open {
		s.shut(websocket.CodeRestart, "")
	}
}
