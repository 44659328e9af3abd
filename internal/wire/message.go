package wire

import (
	"context"
	"fmt"
)

// MessageCost is what a TEXT or BINARY frame takes of the credit on top of its data, in bytes: empty messages are not
// free. The last frame that credit allows may overdraw it by this.
const MessageCost = 64

// isMessage tells whether f is a part of a message.
func (f *Frame) isMessage() bool { return f.Type == Text || f.Type == Binary }

// checkMessage holds a part of a message against what has come before. It is called with mu held.
func (s *Stream) checkMessage(f Frame) error {
	switch {
	case !s.accepted:
		return fmt.Errorf("%w: a message on stream %d, which is no websocket", ErrProtocol, f.Stream)
	case s.window <= 0 || len(f.Data) > s.window:
		return fmt.Errorf("%w: a message of %d bytes on stream %d with credit for %d", ErrProtocol, len(f.Data), f.Stream, s.window)
	default:
		return nil
	}
}

// Next returns the next frame without waiting: TEXT, BINARY, CLOSE, ERROR or RESET. ok: there is one. It fails with
// ErrClosed when the worker has gone, and with ErrReset after SendClose. The frame's bytes stay valid until the next
// call.
func (s *Stream) Next() (f Frame, ok bool, err error) {
	if s.next == len(s.taken) {
		more, err := s.take()
		if !more {
			s.forget()
			return Frame{}, false, err
		}
	}
	r := s.taken[s.next]
	s.next++
	b := s.takenBuf[s.offset : s.offset+r.head+r.data]
	s.offset += len(b)
	return Frame{Stream: s.id, Type: r.t, End: r.end, Head: b[:r.head:r.head], Data: b[r.head:]}, true, nil
}

// forget lets go of the buffers: most WebSockets are idle most of the time.
func (s *Stream) forget() {
	s.taken, s.takenBuf, s.next, s.offset = nil, nil, 0, 0
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.frames) == 0 {
		s.frames, s.buf = nil, nil
	}
}

// MessageCredit waits until a part of a message may be sent and returns how long it may be, in bytes. 0: none is wanted
// any more. While it waits, waiting has been called with true.
func (s *Stream) MessageCredit(waiting func(bool)) int {
	s.mu.Lock()
	credit, over := s.credit, s.closed || s.resetted
	s.mu.Unlock()
	if credit <= 0 && !over {
		waiting(true)
		defer waiting(false)
	}
	return min(s.Credit(context.Background()), MaxData)
}

// SendMessage sends a part of a message, at most what MessageCredit returned; t is Text or Binary, end: it is the last
// one. The data begins at HeaderSize in frame, which SendMessage completes.
func (s *Stream) SendMessage(t Type, frame []byte, end bool) {
	s.mu.Lock()
	s.credit -= len(frame) - HeaderSize + MessageCost
	over := s.closed || s.resetted
	s.mu.Unlock()
	if !over {
		s.send(t, end, frame)
	}
}

// SendClose tells the worker that the WebSocket has ended; head is CLOSE's. Only the first counts, and none after the
// worker's own closing frame. What arrives from now on is dropped. It does not wait for a worker that takes nothing: many
// WebSockets are ended one after another, so that such a worker can be killed.
func (s *Stream) SendClose(head []byte) {
	frame := append(AppendHeader(nil), head...)
	if err := PutHeader(frame, Close, true, len(head)); err != nil {
		panic(err) // a head of some bytes
	}
	s.mu.Lock()
	over := s.closed || s.resetted
	s.resetted = true
	putStream(frame, s.id)
	s.mu.Unlock()
	if !over {
		go s.conn.write(frame, false)
	}
	notify(s.credited)
}

func (s *Stream) isAccepted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepted
}
